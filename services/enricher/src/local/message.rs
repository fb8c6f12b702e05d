//! The personal part of the first mail. It says only what the profile shows (network, niche, topics, size, name), in words
//! of this program and its lexicon: nothing is copied from the bio, so that no link, address or instruction can travel.
//! Only slots that a model filled carry words of the bio, and those were checked in [`crate::wording`].
//!
//! It has neither a greeting nor an offer; the mail's template adds these.

use domain::{enrichment::MESSAGE_CHARS, lead::Lead, person_name::PersonName, program::Program, text};

use super::{evidence::Evidence, features::grouped, lexicon::Lexicon};
use crate::wording::{Reason, Slots, Tone};

/// Topics that a message names at most.
const TOPICS: usize = 2;

/// Composes the message. Which of several wordings is taken depends on the lead's id, so that it stays the same.
pub(super) fn compose(lexicon: &Lexicon, lead: &Lead, program: &Program, evidence: &Evidence<'_>) -> String {
    let profile = &lead.profile;
    let place = profile.source.network().map_or_else(String::new, |network| format!(" on {network}"));
    let about = about(lexicon, evidence);
    let variant = usize::from(lead.id.as_uuid().as_bytes()[15]);
    let openings = [
        format!("I came across your profile{place} and liked your work{about}."),
        format!(
            "Your profile{place} caught my eye while I was looking for creators to work with; I like your work{about}."
        ),
        format!("I have been looking at creators{place}, and your work{about} stood out."),
    ];
    let mut sentences = vec![openings[variant % openings.len()].clone()];
    if let Some(followers) = profile.follower_count.filter(|followers| *followers >= 1_000) {
        sentences.push(format!(
            "You have built an audience of about {} people, and that takes dedication.",
            rounded(followers)
        ));
    }
    sentences.push(question(lead, program));
    text::single_line(&sentences.join(" "), MESSAGE_CHARS).unwrap_or_default()
}

/// Composes the message around slots that a model filled and that were checked against the profile.
pub(super) fn compose_with(lead: &Lead, program: &Program, slots: &Slots) -> String {
    let place = lead.profile.source.network().map_or_else(String::new, |network| format!(" on {network}"));
    let topic = &slots.topic;
    let mut sentences = vec![match slots.tone {
        Tone::Warm => format!("I came across your profile{place} and really enjoyed what you share about {topic}."),
        Tone::Plain => format!("I came across your profile{place} and liked your work on {topic}."),
        Tone::Playful => format!("Your profile{place} made me stop scrolling: {topic} is clearly your thing."),
    }];
    sentences.extend(slots.quote.as_ref().map(|quote| format!("\u{201C}{quote}\u{201D} says it well.")));
    let name = text::single_line(&program.settings.name, 100);
    let name = name.as_deref().unwrap_or("our program");
    sentences.push(match slots.reason {
        Reason::Topic => format!("I think that it goes well with {name}."),
        Reason::Audience => format!("I think that people who follow you for it may like {name}."),
        Reason::Style => format!("The way you share it goes well with {name}."),
        Reason::Regular => "You share it regularly, and that takes dedication.".to_owned(),
        Reason::Open => "You mention that you are open to working together.".to_owned(),
    });
    sentences.push(question(lead, program));
    text::single_line(&sentences.join(" "), MESSAGE_CHARS).unwrap_or_default()
}

/// Whether the program could be a match, with the first name if there is one.
fn question(lead: &Lead, program: &Program) -> String {
    let program = text::single_line(&program.settings.name, 100);
    let question = program.map_or_else(
        || "I think that our affiliate program could be a good match".to_owned(),
        |program| format!("I think that the affiliate program of {program} could be a good match"),
    );
    match lead.profile.name.as_deref().and_then(PersonName::of) {
        Some(name) => format!("{question} for you, {}.", name.first()),
        None => format!("{question} for you."),
    }
}

/// ` in fitness`, with the topics that stand in the bio.
fn about(lexicon: &Lexicon, evidence: &Evidence<'_>) -> String {
    let Some(niche) = evidence.niche else { return String::new() };
    let niche = lexicon.niche_name(niche);
    let niche = if niche == "diy" { "DIY" } else { niche };
    let topics: Vec<&str> = evidence
        .topics
        .iter()
        .copied()
        .filter(|topic| !niche.contains(topic) && !topic.contains(niche))
        .take(TOPICS)
        .collect();
    match topics[..] {
        [] => format!(" in {niche}"),
        [one] => format!(" in {niche}, especially around {one}"),
        [one, other, ..] => format!(" in {niche}, especially around {one} and {other}"),
    }
}

/// The number with its two leading digits kept: 24,351 is `24,000`.
fn rounded(number: u64) -> String {
    let step = 10_u64.pow(number.ilog10().saturating_sub(1));
    grouped(number / step * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_rounded_down_to_two_digits() {
        assert_eq!(rounded(24_999), "24,000");
        assert_eq!(rounded(1_000), "1,000");
        assert_eq!(rounded(1_250_000), "1,200,000");
    }
}
