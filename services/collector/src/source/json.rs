//! A JSON object as a raw profile.

use domain::reject::{Defect, RejectReason};
use serde_json::{Map, Value};

use super::{
    Field, RawProfile,
    columns::{Mapping, meaning},
};

/// Takes the known keys of an object; unknown keys are passed over.
///
/// An object whose only key holds another object, such as `{"user": {…}}`, is taken as that one. A mapping may name a
/// nested key with dots, such as `stats.followers`.
pub fn profile(object: &Map<String, Value>, mappings: &[Mapping], field_limit: usize) -> Result<RawProfile, Defect> {
    let object = unwrapped(object);
    let mut profile = RawProfile::default();
    let mut ranks = [usize::MAX; Field::ALL.len()];
    for (key, value) in object {
        let Some((field, rank)) = meaning(key) else { continue };
        let asked_for = mappings.iter().any(|mapping| mapping.field == field);
        let position = field as usize;
        if asked_for || rank >= ranks[position] {
            continue;
        }
        if let Some(text) = scalar(value, field, field_limit)? {
            ranks[position] = rank;
            *profile.slot(field) = Some(text);
        }
    }
    for mapping in mappings {
        if let Some(value) = lookup(object, &mapping.column) {
            *profile.slot(mapping.field) = scalar(value, mapping.field, field_limit)?;
        }
    }
    Ok(profile)
}

/// The names of the keys that [`profile`] looks at.
pub fn keys(object: &Map<String, Value>) -> Vec<String> {
    unwrapped(object).keys().cloned().collect()
}

/// Whether a mapping finds its key.
pub fn has_key(object: &Map<String, Value>, key: &str) -> bool {
    lookup(unwrapped(object), key).is_some()
}

fn unwrapped(object: &Map<String, Value>) -> &Map<String, Value> {
    match object.values().next() {
        Some(Value::Object(inner)) if object.len() == 1 => inner,
        _ => object,
    }
}

fn lookup<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| {
        let (outer, rest) = key.split_once('.')?;
        lookup(object.get(outer)?.as_object()?, rest)
    })
}

fn scalar(value: &Value, field: Field, limit: usize) -> Result<Option<String>, Defect> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => match items.first() {
            // A list of addresses, as some scrapers give it: the first is as good as any.
            Some(Value::String(first)) => first.clone(),
            None => return Ok(None),
            Some(_) => return Err(shape(field)),
        },
        Value::Object(_) => return Err(shape(field)),
    };
    if text.len() > limit {
        let detail = format!("it is larger than {} KiB", limit / 1024);
        return Err(Defect { reason: RejectReason::TooLarge, field: field.name().to_owned(), detail });
    }
    Ok((!text.trim().is_empty()).then_some(text))
}

fn shape(field: Field) -> Defect {
    let detail = "it must be a text, a number, true, false or null".to_owned();
    Defect { reason: RejectReason::Invalid, field: field.name().to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, mappings: &[&str]) -> Result<RawProfile, Defect> {
        let mappings: Vec<Mapping> = mappings.iter().map(|text| text.parse().unwrap()).collect();
        profile(serde_json::from_str::<Value>(json).unwrap().as_object().unwrap(), &mappings, 100)
    }

    #[test]
    fn known_keys_are_taken_and_the_better_one_wins() {
        let json =
            r#"{"contact":"x","email":"a@example.com","followersCount":12,"isVerified":true,"x":{},"emails":[]}"#;
        let profile = read(json, &[]).unwrap();
        assert_eq!(profile.email.as_deref(), Some("a@example.com"));
        assert_eq!(profile.follower_count.as_deref(), Some("12"));
        assert_eq!(profile.verified.as_deref(), Some("true"));
    }

    #[test]
    fn wrapped_and_nested_objects_are_understood() {
        let profile =
            read(r#"{"user":{"username":"ann","stats":{"fans":"1K"}}}"#, &["stats.fans=follower_count"]).unwrap();
        assert_eq!(profile.username.as_deref(), Some("ann"));
        assert_eq!(profile.follower_count.as_deref(), Some("1K"));
    }

    #[test]
    fn a_wrong_shape_or_size_is_named() {
        assert_eq!(read(r#"{"email":{"a":1},"username":"x"}"#, &[]).unwrap_err().field, "email");
        let large = format!(r#"{{"bio":"{}","username":"x"}}"#, "b".repeat(101));
        assert_eq!(read(&large, &[]).unwrap_err().reason, RejectReason::TooLarge);
    }
}
