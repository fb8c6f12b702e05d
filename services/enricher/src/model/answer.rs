//! Reads a model's answer, strictly: one JSON object with the right types and ranges. Unknown fields are ignored.

use domain::{
    enrichment::{COMPLIANCE_NOTES_CHARS, Confidence, MESSAGE_CHARS, NICHE_CHARS, NOTES_CHARS, Score},
    text,
};
use serde_json::{Map, Value, error::Category};

use super::Failure;

/// An answer of the right form. Whether it is true is for [`super::facts`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub niche: String,
    pub score: Score,
    pub notes: String,
    pub message: String,
    pub compliant: bool,
    pub compliance_notes: String,
    pub confidence: Confidence,
}

const fn invalid(what: &'static str) -> Failure {
    Failure::InvalidAnswer { what }
}

/// Reads the text of a completion; one Markdown fence around the object is tolerated, since many models can't help it.
pub(super) fn parse(content: &str) -> Result<Answer, Failure> {
    let object: Map<String, Value> =
        serde_json::from_str(unfenced(content)).map_err(|error| match error.classify() {
            // An empty text also ends early, but nothing was cut off.
            Category::Eof if content.contains('{') => Failure::Truncated,
            _ => Failure::NotJson,
        })?;
    let score = object.get("score").and_then(Value::as_i64).and_then(|score| Score::new(score).ok());
    Ok(Answer {
        score: score.ok_or(Failure::InvalidScore)?,
        compliant: object.get("compliant").and_then(Value::as_bool).ok_or(invalid("compliant"))?,
        confidence: object
            .get("confidence")
            .and_then(Value::as_f64)
            .and_then(|confidence| Confidence::new(confidence).ok())
            .ok_or(invalid("confidence"))?,
        niche: niche(&object)?,
        notes: line(&object, "notes", NOTES_CHARS)?.unwrap_or_default(),
        message: message(&object)?,
        compliance_notes: line(&object, "compliance_notes", COMPLIANCE_NOTES_CHARS)?.unwrap_or_default(),
    })
}

fn unfenced(content: &str) -> &str {
    let trimmed = content.trim();
    let inner = trimmed.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(trimmed, |inner| inner.strip_prefix("json").unwrap_or(inner).trim())
}

/// A text of at most `limit` characters, cleaned; an overlong one is refused instead of cut.
fn line(object: &Map<String, Value>, field: &'static str, limit: usize) -> Result<Option<String>, Failure> {
    let raw = object.get(field).and_then(Value::as_str).ok_or(invalid(field))?;
    if raw.chars().count() > limit {
        return Err(invalid(field));
    }
    Ok(text::single_line(raw, limit))
}

fn niche(object: &Map<String, Value>) -> Result<String, Failure> {
    let niche = line(object, "niche", NICHE_CHARS)?.ok_or(invalid("niche"))?.to_lowercase();
    let allowed = |c: char| c.is_alphanumeric() || " &-/'".contains(c);
    let is_name = niche.chars().all(allowed) && niche.chars().any(char::is_alphabetic);
    if is_name && niche.split_whitespace().count() <= 6 { Ok(niche) } else { Err(invalid("niche")) }
}

/// The message keeps its paragraphs.
fn message(object: &Map<String, Value>) -> Result<String, Failure> {
    let raw = object.get("message").and_then(Value::as_str).ok_or(invalid("message"))?;
    if raw.chars().count() > MESSAGE_CHARS {
        return Err(invalid("message"));
    }
    // A lone carriage return would be read as a line break by some mail programs.
    text::multi_line(&raw.replace("\r\n", "\n").replace('\r', "\n"), MESSAGE_CHARS).ok_or(invalid("message"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use test_support::llm::good_answer;

    use super::*;

    fn with(field: &str, value: Value) -> Result<Answer, Failure> {
        let mut answer = good_answer();
        answer[field] = value;
        parse(&answer.to_string())
    }

    #[test]
    fn a_good_answer_is_read_bare_and_fenced() {
        let bare = parse(&good_answer().to_string()).unwrap();
        assert_eq!((bare.niche.as_str(), bare.score.get(), bare.compliant), ("fitness", 88, true));
        for fenced in [format!("```json\n{}\n```", good_answer()), format!(" ```\n{}```\n", good_answer())] {
            assert_eq!(parse(&fenced).unwrap(), bare);
        }
        assert_eq!(with("something_else", json!([1])).unwrap(), bare, "unknown fields are ignored");
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        for (content, failure) in [
            ("Sure! Here you go: {}", Failure::NotJson),
            ("", Failure::NotJson),
            ("[1]", Failure::NotJson),
            ("\"text\"", Failure::NotJson),
            ("{} {}", Failure::NotJson),
            ("{\"niche\": \"fit", Failure::Truncated),
            ("```json\n{\"niche\": \"fit", Failure::NotJson),
        ] {
            assert_eq!(parse(content).unwrap_err(), failure, "{content}");
        }
    }

    #[test]
    fn wrong_types_and_ranges_are_refused_by_field() {
        for score in [json!(250), json!(-1), json!("88"), json!(88.5), json!(null), json!(true)] {
            assert_eq!(with("score", score).unwrap_err(), Failure::InvalidScore);
        }
        for (field, value) in [
            ("compliant", json!("maybe")),
            ("compliant", json!(1)),
            ("confidence", json!(1.2)),
            ("confidence", json!("high")),
            ("niche", json!("")),
            ("niche", json!("x".repeat(61))),
            ("niche", json!("<b>fitness</b>")),
            ("niche", json!(["fitness"])),
            ("notes", json!("x".repeat(2_001))),
            ("message", json!("")),
            ("message", json!("\u{200b} \n")),
            ("message", json!("x".repeat(1_501))),
            ("compliance_notes", json!(null)),
        ] {
            assert_eq!(with(field, value).unwrap_err(), Failure::InvalidAnswer { what: field });
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_fail_otherwise(content in "\\PC{0,300}") {
            let _ = parse(&content);
        }

        #[test]
        fn every_prefix_of_an_answer_is_refused(cut in 0_usize..200) {
            let answer = good_answer().to_string();
            prop_assert!(parse(&answer[..cut.min(answer.len() - 1)]).is_err());
        }
    }
}
