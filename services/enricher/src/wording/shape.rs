//! Checks the shape of a text: no link, no markup, no header, no placeholder, and no number that isn't known.

use std::sync::LazyLock;

use domain::{lead::Lead, program::Program};
use regex::Regex;

/// Anything that a mail program could turn into a link (so a full stop without a space after it, too), and any `@`.
static LINK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)://|@|\bwww\.|\bmailto:|\]\(|[\w-]\.\p{L}{2}").expect("the pattern is valid"));
/// Tags and entities.
static MARKUP: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)[<>]|&#|&[a-z]{2,8};|```|\*\*").expect("the pattern is valid"));
/// `Bcc:` at the start of a line.
static HEADER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^\s*[A-Za-z][A-Za-z-]{1,30}:").expect("the pattern is valid"));
/// `{{ name }}`, `[Name]`, `%NAME%`.
static PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[{}]|\[[^\]\n]{1,40}\]|%[A-Za-z_]+%").expect("the pattern is valid"));
/// A number with its unit.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)(\d[\d.,'\u{a0}\u{202f}]*\d|\d)\s?(k\b|m\b|b\b|thousand\b|million\b|mio\b)?")
        .expect("the pattern is valid")
});

/// How far a stated number of followers may be from the known one: people round.
const TOLERANCE: f64 = 0.1;

/// Refuses a text that could do harm or states a number that isn't known.
///
/// # Errors
/// A short word for what is wrong.
pub(super) fn check(message: &str, lead: &Lead, program: &Program) -> Result<(), &'static str> {
    if LINK.is_match(message) {
        return Err("link");
    }
    if MARKUP.is_match(message) {
        return Err("markup");
    }
    if HEADER.is_match(message) {
        return Err("header");
    }
    if PLACEHOLDER.is_match(message) {
        return Err("placeholder");
    }
    if !message.chars().any(char::is_alphabetic) {
        return Err("empty");
    }
    let known = KnownNumbers::of(lead, program);
    if NUMBER.captures_iter(message).any(|found| !known.allow(&found[1], found.get(2).map(|unit| unit.as_str()))) {
        return Err("number");
    }
    Ok(())
}

/// The numbers that a message may repeat: what stands in the profile and in the program's own texts.
struct KnownNumbers {
    written: Vec<String>,
    followers: Option<u64>,
}

impl KnownNumbers {
    fn of(lead: &Lead, program: &Program) -> Self {
        let profile = &lead.profile;
        let settings = &program.settings;
        let texts = [
            profile.bio.as_deref(),
            profile.name.as_deref(),
            profile.location.as_deref(),
            Some(settings.name.as_str()),
            Some(settings.product.as_str()),
        ];
        let written = texts
            .into_iter()
            .flatten()
            .flat_map(|text| NUMBER.captures_iter(text))
            .map(|found| digits(&found[1]))
            .collect();
        Self { written, followers: profile.follower_count }
    }

    fn allow(&self, number: &str, unit: Option<&str>) -> bool {
        self.written.contains(&digits(number))
            || self.followers.is_some_and(|followers| is_about(number, unit, followers))
    }
}

fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// Whether `24k`, `24,300` or `1.2 million` says about as much as `followers`.
fn is_about(number: &str, unit: Option<&str>, followers: u64) -> bool {
    let factor = match unit.map(str::to_ascii_lowercase).as_deref() {
        None => 1.0,
        Some("k" | "thousand") => 1e3,
        Some("b") => 1e9,
        Some(_) => 1e6,
    };
    // With a unit a point is a decimal one, without it separates thousands.
    let stated = if unit.is_some() { number.replace(',', ".").parse::<f64>() } else { digits(number).parse::<f64>() };
    let followers = followers as f64;
    stated.is_ok_and(|stated| (stated * factor - followers).abs() <= followers * TOLERANCE)
}

#[cfg(test)]
mod tests {
    use domain::lead::Profile;
    use proptest::prelude::*;
    use test_support::profiles::{lead, profile, program};

    use super::*;

    fn what(message: &str) -> Option<&'static str> {
        let lead = lead(Profile { bio: Some("Ran 12 marathons, 365 days of running".to_owned()), ..profile() });
        check(message, &lead, &program(&[])).err()
    }

    #[test]
    fn plain_sentences_about_the_profile_pass() {
        for message in [
            "Your running posts are a joy. I think we fit.",
            "Twelve marathons, wow! 12 of them, and 365 days of running.",
            "With about 24k people following you, your word counts.",
            "Your 24,351 followers; around 24,000 of them new.",
            "Two paragraphs.\n\nAnd a second: nice, isn't it?",
        ] {
            assert_eq!(what(message), None, "{message}");
        }
    }

    #[test]
    fn what_could_do_harm_or_claims_too_much_is_refused() {
        for (message, expected) in [
            ("See https://evil.example/x", "link"),
            ("See evil.example for more", "link"),
            ("See www.evil", "link"),
            ("Write to me@evil.example", "link"),
            ("Ask @somebody", "link"),
            ("[Click](here)", "link"),
            ("<b>Hello</b>", "markup"),
            ("Hello &lt;there&gt;", "markup"),
            ("Hello\nBcc: everybody", "header"),
            ("Subject: hello", "header"),
            ("Hello {{ name }}", "placeholder"),
            ("Hello [Your Name]", "placeholder"),
            ("Hello {name}", "placeholder"),
            ("Your 90,000 followers", "number"),
            ("Your 2.4 million followers", "number"),
            ("Earn 500 dollars", "number"),
            ("!!!", "empty"),
        ] {
            assert_eq!(what(message), Some(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_accepted_message_has_a_link_an_address_or_markup(
            message in "(\\PC|\n|https?://|[a-z]{1,6}\\.com|<b>|[a-z]@[a-z]\\.io|Bcc: |\\{\\{|[0-9]{1,6}){0,12}"
        ) {
            if what(&message).is_none() {
                let is_inert = !message.contains("://") && !message.contains(['@', '<', '>', '{', '}']) && !message.contains(".com");
                prop_assert!(is_inert, "{message:?}");
            }
        }
    }
}
