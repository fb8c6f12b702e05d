//! The body of a request: what is JSON of the right shape, before anybody asks what it says.

use std::fmt;

use axum::http::StatusCode;
use domain::reject::{Defect, RejectReason};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Problem;
use crate::source::{Field, RawProfile, kept};

/// The most leads of a request.
pub const MAX_ITEMS: usize = 1_000;

/// The most bytes of a field.
const FIELD_BYTES: usize = 64 * 1024;

/// One lead, as a client sends it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    source: Option<Text>,
    username: Option<Text>,
    name: Option<Text>,
    email: Option<Text>,
    profile_url: Option<Text>,
    follower_count: Option<Text>,
    bio: Option<Text>,
    verified: Option<Text>,
    location: Option<Text>,
    country: Option<Text>,
    consent_source: Option<Text>,
    consent_wording: Option<Text>,
    consent_at: Option<Text>,
    consent_expires_at: Option<Text>,
    address_source_url: Option<Text>,
    address_seen_at: Option<Text>,
}

impl Input {
    /// The item as a raw row, and a field that is too large, if there is one.
    pub(super) fn into_raw(self, line: u64) -> (RawProfile, Option<Defect>) {
        let raw = kept(&serde_json::to_vec(&self).expect("an input has string keys only"));
        let mut profile = RawProfile { line, raw, ..RawProfile::default() };
        let values = [
            (Field::Source, self.source),
            (Field::Username, self.username),
            (Field::Name, self.name),
            (Field::Email, self.email),
            (Field::ProfileUrl, self.profile_url),
            (Field::FollowerCount, self.follower_count),
            (Field::Bio, self.bio),
            (Field::Verified, self.verified),
            (Field::Location, self.location),
            (Field::Country, self.country),
            (Field::ConsentSource, self.consent_source),
            (Field::ConsentWording, self.consent_wording),
            (Field::ConsentAt, self.consent_at),
            (Field::ConsentExpiresAt, self.consent_expires_at),
            (Field::AddressSourceUrl, self.address_source_url),
            (Field::AddressSeenAt, self.address_seen_at),
        ];
        for (field, value) in values {
            let Some(Text(text)) = value else { continue };
            if text.len() > FIELD_BYTES {
                let detail = format!("it is larger than {} KiB", FIELD_BYTES / 1024);
                let defect = Defect { reason: RejectReason::TooLarge, field: field.name().to_owned(), detail };
                return (profile, Some(defect));
            }
            *profile.slot(field) = Some(text);
        }
        (profile, None)
    }
}

/// Reads a body: an object, a list of objects, or `{"leads": [objects]}`.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Input>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wrapped {
        leads: Vec<Input>,
    }
    // Only to find out whether there is such a key; what is wrong elsewhere is found by the real reading.
    #[derive(Deserialize)]
    struct Probe {
        leads: Option<de::IgnoredAny>,
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let items = match first {
        Some(b'[') => read::<Vec<Input>>(body)?,
        Some(b'{') if serde_json::from_slice::<Probe>(body).is_ok_and(|probe| probe.leads.is_some()) => {
            read::<Wrapped>(body)?.leads
        }
        _ => vec![read::<Input>(body)?],
    };
    match items.len() {
        0 => Err(Problem::new(StatusCode::BAD_REQUEST, "there are no leads in the request")),
        1..=MAX_ITEMS => Ok(items),
        found => {
            let detail = format!("there are {found} leads in the request, the most allowed are {MAX_ITEMS}");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
    }
}

fn read<T: de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        let place = format!("line {}, column {}", inner.line(), inner.column());
        let detail = match inner.classify() {
            serde_json::error::Category::Data => {
                format!("the body has the wrong shape at {place}: {}", expected(inner))
            }
            _ => format!("the body is not valid JSON at {place}"),
        };
        Problem::new(StatusCode::BAD_REQUEST, detail).at(path)
    })?;
    json.end().map_err(|error| {
        let detail = format!("something follows the JSON at line {}, column {}", error.line(), error.column());
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    Ok(value)
}

/// What was expected; without the value that was found, which may be personal.
fn expected(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if let Some(unknown) = text.strip_prefix("unknown field ") {
        let known = unknown.split_once(", ").map_or("", |(_, known)| known);
        let known = known.split(" at line").next().unwrap_or(known);
        return format!("there is a field that is none of the known ones ({known})");
    }
    match text.split_once(", expected ") {
        Some((_, expected)) => format!("expected {}", expected.split(" at line").next().unwrap_or(expected)),
        None => "it is not what was expected".to_owned(),
    }
}

/// A text; numbers and truth values are taken as they are written.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true, false or null")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Text, E> {
                Ok(Text(flag.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &str) -> Problem {
        parse(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn one_a_list_or_a_wrapped_list_are_taken() {
        for body in
            [r#"{"username":"a"}"#, r#" [{"username":"a"}]"#, r#"{"leads":[{"username":"a","follower_count":12}]}"#]
        {
            assert_eq!(parse(body.as_bytes()).unwrap().len(), 1, "{body}");
        }
    }

    #[test]
    fn a_wrong_shape_is_named_with_its_path() {
        let detail = |body: &str| format!("{:?}", problem(body));
        assert!(detail(r#"{"leads":[{"username":"a"},{"email":{}}]}"#).contains("leads[1].email"));
        assert!(detail(r#"[{"username":[]}]"#).contains("[0].username"));
        assert!(detail(r#"{"usrname":"secret"}"#).contains("none of the known ones"));
        for body in ["", "x", "{", "[1]", "null", "{} {}", "[]", r#"{"leads":7}"#] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_the_client_sent_is_not_repeated() {
        for body in [r#"{"verified":["ann@example.com"]}"#, r#"{"ann@example.com":1}"#, r#"["ann@example.com"]"#] {
            assert!(!format!("{:?}", problem(body).at(String::new())).contains("ann@"), "{body}");
        }
    }

    #[test]
    fn too_many_are_refused() {
        let body = format!("[{}]", vec!["{}"; MAX_ITEMS + 1].join(","));
        assert!(format!("{:?}", problem(&body)).contains("413"));
    }
}
