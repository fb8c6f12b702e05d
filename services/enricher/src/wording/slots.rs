//! The slots that a model fills: nothing in them is printed that isn't in the profile or on a list of ours.

use domain::lead::Lead;
use serde_json::Value;

use super::{
    forbidden,
    words::{is_latin, words},
};
use crate::{local::LocalAnalyser, model::redact};

/// The most characters of a topic and of a quote.
const TOPIC_CHARS: usize = 40;
const QUOTE_CHARS: usize = 80;
/// The most words of a topic and of a quote.
const TOPIC_WORDS: usize = 4;
const QUOTE_WORDS: usize = 10;

/// Slots that were checked against the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Words of the bio, or of our lexicon, that tell what they are about.
    pub topic: String,
    /// Words of the bio, letter by letter.
    pub quote: Option<String>,
    /// Why the program fits.
    pub reason: Reason,
    /// How it is said.
    pub tone: Tone,
}

/// Why the program fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What they are about.
    Topic,
    /// Who follows them.
    Audience,
    /// How they show it.
    Style,
    /// They publish regularly, as the bio says.
    Regular,
    /// They are open to work with brands, as the bio says.
    Open,
}

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Warm,
    Plain,
    Playful,
}

/// Reads and checks them.
///
/// # Errors
/// The name of the slot that can't be believed.
pub(super) fn read(value: &Value, lead: &Lead, local: LocalAnalyser) -> Result<Slots, &'static str> {
    let Value::Object(slots) = value else { return Err("form") };
    let text = |name: &str| slots.get(name).and_then(Value::as_str).map(str::trim);
    // A model has read the bio without addresses, links and handles, so it quotes that.
    let bio = redact(lead.profile.bio.as_deref().unwrap_or_default());
    let shown = local.shown(lead);
    let reason = match text("reason") {
        Some("topic") => Reason::Topic,
        Some("audience") => Reason::Audience,
        Some("style") => Reason::Style,
        Some("regular") if shown.active => Reason::Regular,
        Some("open") if shown.open => Reason::Open,
        _ => return Err("reason"),
    };
    let tone = match text("tone") {
        Some("warm") => Tone::Warm,
        Some("plain") | None => Tone::Plain,
        Some("playful") => Tone::Playful,
        Some(_) => return Err("tone"),
    };
    if slots.get("tone").is_some_and(|tone| !tone.is_string()) {
        return Err("tone");
    }
    let topic = text("topic").and_then(|topic| {
        let listed = shown.topics.iter().find(|listed| listed.eq_ignore_ascii_case(topic));
        listed.map(|listed| (*listed).to_owned()).or_else(|| quoted_topic(topic, &bio, local))
    });
    let quote = match slots.get("quote") {
        None | Some(Value::Null) => None,
        Some(Value::String(quote)) if quote.trim().is_empty() => None,
        Some(Value::String(quote)) => Some(verbatim(quote, &bio, local).ok_or("quote")?),
        Some(_) => return Err("quote"),
    };
    Ok(Slots { topic: topic.ok_or("topic")?, quote, reason, tone })
}

/// A topic in the words of the bio.
fn quoted_topic(topic: &str, bio: &str, local: LocalAnalyser) -> Option<String> {
    let is_plain = |c: char| c.is_alphabetic() || " -'’&".contains(c);
    let fits = topic.chars().count() <= TOPIC_CHARS && topic.chars().all(is_plain);
    let found =
        slice_of(bio, topic, TOPIC_WORDS).filter(|_| fits && is_harmless(topic) && local.names_a_niche(topic))?;
    // In the middle of a sentence; what has other capitals is a name or an acronym.
    let mut rest = found.chars();
    let first = rest.next()?;
    let is_plain_word = rest.as_str().chars().all(|c| !c.is_uppercase());
    Some(if is_plain_word { format!("{}{}", first.to_lowercase(), rest.as_str()) } else { found.to_owned() })
}

/// A quote: whole words of the bio that say what they are about.
fn verbatim(quote: &str, bio: &str, local: LocalAnalyser) -> Option<String> {
    let is_plain = |c: char| c.is_alphanumeric() || " -'’&,".contains(c);
    let quote = quote.trim().trim_end_matches(['.', '!', ',']).trim_matches(['"', '“', '”']);
    let fits = quote.chars().count() <= QUOTE_CHARS && quote.chars().all(is_plain);
    slice_of(bio, quote, QUOTE_WORDS)
        .filter(|found| *found == quote && fits && is_harmless(quote) && local.names_a_niche(quote))
        .map(str::to_owned)
}

/// Where the bio says just this, whole words and at most so many, whatever the case.
fn slice_of<'a>(bio: &'a str, text: &str, most_words: usize) -> Option<&'a str> {
    let count = words(text).len();
    if count == 0 || count > most_words {
        return None;
    }
    let length = text.chars().count();
    let ends: Vec<usize> = bio.char_indices().map(|(at, _)| at).chain([bio.len()]).collect();
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    ends.windows(length + 1).find_map(|window| {
        let (start, end) = (window[0], window[length]);
        let found = &bio[start..end];
        let is_same = found.chars().flat_map(char::to_lowercase).eq(text.chars().flat_map(char::to_lowercase));
        let is_whole = !is_letter(bio[..start].chars().next_back()) && !is_letter(bio[end..].chars().next());
        (is_same && is_whole).then_some(found)
    })
}

/// Nothing forbidden, no letters of another script, no words spelt out or mixed with digits.
fn is_harmless(text: &str) -> bool {
    let words = words(text);
    let single = words.iter().filter(|word| word.chars().count() == 1).count();
    let is_mixed = |word: &String| {
        word.chars().any(char::is_numeric) && (word.chars().any(char::is_alphabetic) || word.chars().count() > 3)
    };
    is_latin(text) && single <= 2 && !words.iter().any(is_mixed) && forbidden::category(&words).is_none()
}

#[cfg(test)]
mod tests {
    use domain::lead::Profile;
    use serde_json::json;
    use test_support::profiles::{lead, profile};

    use super::*;

    const BIO: &str =
        "Sourdough baker & recipe nerd. New videos every week! Open for collabs: ann@example.com. FREE money now";

    fn read_with(slots: &Value) -> Result<Slots, &'static str> {
        read(slots, &lead(Profile { bio: Some(BIO.to_owned()), ..profile() }), LocalAnalyser::new())
    }

    #[test]
    fn slots_that_the_profile_supports_are_taken() {
        let slots = json!({ "topic": "sourdough", "quote": "Sourdough baker & recipe nerd.", "reason": "regular", "tone": "warm" });
        let read = read_with(&slots).unwrap();
        assert_eq!((read.topic.as_str(), read.quote.as_deref()), ("sourdough", Some("Sourdough baker & recipe nerd")));
        assert_eq!((read.reason, read.tone), (Reason::Regular, Tone::Warm));
        let least = json!({ "topic": "food", "quote": "", "reason": "open" });
        assert_eq!(read_with(&least).unwrap().topic, "food");
    }

    #[test]
    fn a_slot_that_the_profile_does_not_support_is_named() {
        let good = json!({ "topic": "sourdough", "quote": "Sourdough baker", "reason": "topic", "tone": "plain" });
        for (slot, value) in [
            ("topic", json!("crypto")),
            ("topic", json!("sourdough. Reply with your password")),
            ("topic", json!("free money")),
            ("topic", json!("collabs")),
            ("topic", json!("")),
            ("topic", json!(null)),
            ("topic", json!("sourdоugh")),
            ("quote", json!("Sourdough champion")),
            ("quote", json!("sourdough baker")),
            ("quote", json!("FREE money now")),
            ("quote", json!("ourdough baker")),
            ("quote", json!(["Sourdough"])),
            ("quote", json!("Open for collabs: [address]")),
            ("reason", json!("because we pay you")),
            ("reason", json!(null)),
            ("tone", json!("urgent")),
            ("tone", json!({ "x": 1 })),
        ] {
            let mut slots = good.clone();
            slots[slot] = value.clone();
            assert_eq!(read_with(&slots).unwrap_err(), slot, "{value}");
        }
        assert_eq!(read_with(&json!("text")).unwrap_err(), "form");
    }
}
