//! The score: a sum of stated features. The weights add up to 100.
//!
//! | feature | points |
//! |---|---|
//! | audience: a sweet spot where creators are affordable and trusted | 0–30 |
//! | fit: the niche against the niches of the program | 0–30 |
//! | activity and openness, as the bio tells | 0–18 |
//! | contactability: an address, a page | 0–16 |
//! | identity: verified, or at least complete | 0–6 |

use domain::lead::Profile;

use super::{
    evidence::Evidence,
    lexicon::{Lexicon, Meaning, Signal},
    tokens::Tokens,
};

/// One stated reason of a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feature {
    /// What it is about.
    pub name: &'static str,
    /// What it gave.
    pub points: i64,
    /// The most it can give.
    pub of: i64,
    /// Why, as a sentence's rest.
    pub reason: String,
}

/// Rates a profile.
pub(super) fn rate(lexicon: &Lexicon, profile: &Profile, niches: &[String], evidence: &Evidence<'_>) -> [Feature; 5] {
    [
        audience(profile.follower_count),
        fit(lexicon, niches, evidence),
        activity(profile, evidence),
        contact(profile),
        identity(profile),
    ]
}

/// The features as sentences, with the total before them.
pub(super) fn notes(score: i64, features: &[Feature]) -> String {
    use std::fmt::Write as _;
    let mut notes = format!("Score {score} of 100.");
    for Feature { name, points, of, reason } in features {
        write!(notes, "\n{name}: {reason} (+{points} of {of}).").expect("writing to a string can't fail");
    }
    notes
}

/// Bands of followers: the least number, the points, and what to say.
const BANDS: [(u64, i64, &str); 10] = [
    (5_000_000, 6, "a celebrity, rarely won by an affiliate program"),
    (1_000_000, 12, "very large, usually works for fixed fees"),
    (500_000, 19, "large, usually works for fixed fees"),
    (100_000, 26, "a mid-sized creator"),
    (50_000, 30, "the sweet spot between reach and trust"),
    (10_000, 28, "a micro creator with a close audience"),
    (5_000, 21, "a small, growing audience"),
    (1_000, 13, "a nano creator"),
    (300, 6, "a very small audience"),
    (0, 1, "hardly any audience"),
];

fn audience(followers: Option<u64>) -> Feature {
    let (points, reason) = match followers {
        None => (8, "the number of followers is not known".to_owned()),
        Some(followers) => {
            let (_, points, what) =
                BANDS.iter().find(|(least, _, _)| followers >= *least).expect("the last band starts at 0");
            (*points, format!("{} followers, {what}", grouped(followers)))
        }
    };
    Feature { name: "Audience", points, of: 30, reason }
}

fn fit(lexicon: &Lexicon, niches: &[String], evidence: &Evidence<'_>) -> Feature {
    let feature = |points, reason| Feature { name: "Fit", points, of: 30, reason };
    let Some(niche) = evidence.niche else {
        let points = if niches.is_empty() { 8 } else { 4 };
        return feature(points, "the profile does not tell a niche".to_owned());
    };
    let name = lexicon.niche_name(niche);
    if niches.is_empty() {
        // Everything fits a program that names nothing, but nothing fits it well.
        return feature(16, format!("{name}; the program names no niches"));
    }
    let wanted: Vec<usize> = niches.iter().filter_map(|wanted| wanted_niche(lexicon, wanted)).collect();
    if wanted.contains(&niche) || niches.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name)) {
        feature(30, format!("{name} is a niche of the program"))
    } else if let Some(near) = wanted.iter().find(|wanted| lexicon.are_related(niche, **wanted)) {
        feature(17, format!("{name} is close to {}, a niche of the program", lexicon.niche_name(*near)))
    } else {
        feature(6, format!("{name} is not a niche of the program"))
    }
}

/// The niche that a program's own words mean: its name, or where most of its words belong.
fn wanted_niche(lexicon: &Lexicon, wanted: &str) -> Option<usize> {
    lexicon.niche_index(wanted.trim().to_ascii_lowercase().as_str()).or_else(|| {
        let mut points = vec![0; lexicon.niches().count()];
        lexicon.scan(&Tokens::of(wanted), |hit| {
            if let Meaning::Niche { niche, weight } = hit.meaning {
                points[niche] += weight;
            }
        });
        // `max_by_key` takes the last of equal ones; reversed, the first, as everywhere else.
        points
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(_, points)| **points)
            .filter(|(_, points)| **points > 0)
            .map(|(n, _)| n)
    })
}

fn activity(profile: &Profile, evidence: &Evidence<'_>) -> Feature {
    let words = evidence.bio.len();
    let mut reasons = Vec::new();
    let mut points = match (profile.bio.is_some(), words) {
        (false, _) => {
            reasons.push("there is no bio");
            0
        }
        (true, 0..=3) => {
            reasons.push("the bio says next to nothing");
            1
        }
        (true, 4..=7) => {
            reasons.push("the bio is short");
            4
        }
        (true, _) => {
            reasons.push("the bio is telling");
            6
        }
    };
    if evidence.shows(Signal::RefusesBusiness) {
        reasons.push("it refuses business contact");
    } else if evidence.shows(Signal::OpenToBusiness) {
        points += 7;
        reasons.push("it welcomes collaborations");
    }
    if evidence.shows(Signal::Active) {
        points += if evidence.count(Signal::Active) > 1 { 5 } else { 4 };
        reasons.push("it shows that new posts keep coming");
    }
    Feature { name: "Activity", points, of: 18, reason: reasons.join(", ") }
}

fn contact(profile: &Profile) -> Feature {
    let (points, reason) = match (&profile.email, &profile.profile_url) {
        (Some(_), Some(_)) => (16, "an e-mail address and a page are published"),
        (Some(_), None) => (13, "an e-mail address is published"),
        (None, Some(_)) => (4, "there is a page, but no e-mail address"),
        (None, None) => (0, "there is neither an e-mail address nor a page"),
    };
    Feature { name: "Contact", points, of: 16, reason: reason.to_owned() }
}

fn identity(profile: &Profile) -> Feature {
    let known = [profile.name.is_some(), profile.location.is_some() || profile.country.is_some()];
    let complete = known.iter().filter(|known| **known).count();
    let (points, reason) = match (profile.verified, complete) {
        (true, _) => (6, "the network has verified the account"),
        (false, 2) => (3, "not verified; name and place are given"),
        (false, 1) => (2, "not verified; name or place is missing"),
        (false, _) => (0, "not verified; neither name nor place is given"),
    };
    Feature { name: "Identity", points, of: 6, reason: reason.to_owned() }
}

/// A number with commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
