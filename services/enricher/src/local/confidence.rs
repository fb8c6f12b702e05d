//! How much there was to go by, from 0 to 1. It says nothing about how good a lead is.

use domain::{enrichment::Confidence, lead::Profile};

use super::evidence::Evidence;

/// Words in a bio beyond which more words add nothing.
const TELLING_WORDS: f64 = 20.0;
/// Points of a niche beyond which more points add nothing: about four telling words.
const CERTAIN_POINTS: f64 = 24.0;

/// Estimates the confidence:
/// up to 0.25 for the length of the bio, up to 0.25 for the evidence of the niche, up to 0.25 for how far the niche is
/// ahead of the next one, 0.05 for each known field. Never more than 0.95: words are not meaning.
pub(super) fn estimate(profile: &Profile, evidence: &Evidence<'_>) -> Confidence {
    let (first, second) = (f64::from(evidence.points.0), f64::from(evidence.points.1));
    let bio = (evidence.bio.len() as f64 / TELLING_WORDS).min(1.0);
    let (weight, margin) = match evidence.niche {
        Some(_) => ((first / CERTAIN_POINTS).min(1.0), (first - second) / first),
        None => (0.0, 0.0),
    };
    let fields = [
        profile.name.is_some(),
        profile.email.is_some(),
        profile.profile_url.is_some(),
        profile.follower_count.is_some(),
        profile.location.is_some() || profile.country.is_some(),
    ];
    let known = fields.iter().filter(|known| **known).count() as f64;
    let sum = 0.25 * bio + 0.25 * weight + 0.25 * margin + 0.05 * known;
    // Two decimals: more would pretend to a precision that isn't there.
    let rounded = (sum.clamp(0.0, 0.95) * 100.0).round() / 100.0;
    Confidence::new(rounded).expect("the sum was clamped to 0 to 0.95")
}
