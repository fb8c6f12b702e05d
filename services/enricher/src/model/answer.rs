//! Reads a model's answer: the one JSON object in it, wherever it stands, then strictly its fields, with the right types and
//! ranges. Unknown fields are ignored. What it offers for the mail is read here, and checked in [`crate::wording`].

use domain::{
    enrichment::{COMPLIANCE_NOTES_CHARS, Confidence, NICHE_CHARS, NOTES_CHARS, Score},
    text,
};
use serde_json::{Map, Value};

use super::{Failure, object::the_object};
use crate::wording::Offered;

/// What a model says about a lead, of the right form.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the creator is about, lower case.
    pub niche: String,
    /// How well they fit.
    pub score: Score,
    /// Why.
    pub notes: String,
    /// Whether writing to them is compliant.
    pub compliant: bool,
    /// Why.
    pub compliance_notes: String,
    /// How sure the model is.
    pub confidence: Confidence,
    /// What it offers for the mail; nothing of it is believed yet.
    pub offered: Offered,
}

const fn invalid(what: &'static str) -> Failure {
    Failure::InvalidAnswer { what }
}

/// Reads the text of a completion.
pub(super) fn parse(content: &str) -> Result<Answer, Failure> {
    let object = the_object(content)?;
    Ok(Answer {
        score: object.get("score").and_then(score).ok_or(Failure::InvalidScore)?,
        compliant: object.get("compliant").and_then(Value::as_bool).ok_or(invalid("compliant"))?,
        confidence: object
            .get("confidence")
            .and_then(Value::as_f64)
            .and_then(|confidence| Confidence::new(confidence).ok())
            .ok_or(invalid("confidence"))?,
        niche: niche(&object)?,
        notes: line(&object, "notes", NOTES_CHARS)?.unwrap_or_default(),
        compliance_notes: line(&object, "compliance_notes", COMPLIANCE_NOTES_CHARS)?.unwrap_or_default(),
        offered: Offered {
            slots: object.get("slots").filter(|slots| !slots.is_null()).cloned(),
            message: object.get("message").and_then(Value::as_str).map(str::to_owned),
        },
    })
}

/// A whole number, also as `91.0` or `"91"`.
fn score(value: &Value) -> Option<Score> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    let is_whole = number.fract() == 0.0 && (0.0..=100.0).contains(&number);
    Score::new(number as i64).ok().filter(|_| is_whole)
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
    fn a_good_answer_is_read_and_unknown_fields_are_ignored() {
        let bare = parse(&good_answer().to_string()).unwrap();
        assert_eq!((bare.niche.as_str(), bare.score.get(), bare.compliant), ("fitness", 88, true));
        assert!(bare.offered.slots.is_some());
        assert_eq!(with("something_else", json!([1])).unwrap(), bare);
    }

    #[test]
    fn an_answer_in_the_earlier_form_has_no_slots_and_is_read_all_the_same() {
        let mut answer = good_answer();
        answer.as_object_mut().unwrap().remove("slots");
        answer["message"] = json!("Your training posts are calm and clear.");
        let read = parse(&answer.to_string()).unwrap();
        assert_eq!(read.offered.slots, None);
        assert_eq!(read.offered.message.as_deref(), Some("Your training posts are calm and clear."));
    }

    #[test]
    fn a_score_is_a_whole_number_however_it_is_written() {
        for score in [json!(91), json!(91.0), json!("91"), json!(" 91.0 ")] {
            assert_eq!(with("score", score.clone()).unwrap().score.get(), 91, "{score}");
        }
    }

    #[test]
    fn wrong_types_and_ranges_are_refused_by_field() {
        for score in [json!(250), json!(-1), json!("high"), json!(88.5), json!(1e300), json!(null), json!(true)] {
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
