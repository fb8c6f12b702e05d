//! Reads a node of the document into a type, through serde.
//!
//! Why not `toml`'s own deserializer: text from the environment has to take the type that is asked for, an empty text
//! means "not set" where an `Option` is asked for, and an error has to name the key, its origin and what is allowed,
//! without ever showing a secret.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::ConfigError;
use super::document::HIDDEN;
use super::secret::SECRET_MARKER;
use super::tree::{Node, Origin, Value, join, show};

/// Reads `node`, which stands at `key`. `is_secret` says for a key whether its value may be shown.
pub(super) fn read<T: DeserializeOwned>(
    node: &Node,
    key: &str,
    is_secret: &dyn Fn(&str) -> bool,
) -> Result<T, ConfigError> {
    let reader = Reader::of_node(key.to_owned(), node, false, is_secret);
    let context = reader.clone();
    T::deserialize(reader).map_err(|error| error.at(&context).into_config_error(key))
}

/// A value and where it stands.
#[derive(Clone)]
struct Reader<'a> {
    key: String,
    view: View<'a>,
    origin: Option<&'a Origin>,
    secret: bool,
    is_secret: &'a dyn Fn(&str) -> bool,
}

#[derive(Clone, Copy)]
enum View<'a> {
    Table(&'a super::tree::Table),
    Toml(&'a toml::Value),
    Text(&'a str),
}

impl<'a> Reader<'a> {
    fn of_node(key: String, node: &'a Node, secret: bool, is_secret: &'a dyn Fn(&str) -> bool) -> Self {
        let (view, origin) = match node {
            Node::Table(table) => (View::Table(table), None),
            Node::Leaf(leaf) => {
                let view = match &leaf.value {
                    Value::Toml(value) => View::Toml(value),
                    Value::Text(text) => View::Text(text),
                };
                (view, Some(&leaf.origin))
            }
        };
        let secret = secret || is_secret(&key);
        Self { key, view, origin, secret, is_secret }
    }

    /// A part of this value: an element of a list or an entry of an inline table.
    fn part(&self, key: String, view: View<'a>) -> Self {
        let secret = self.secret || (self.is_secret)(&key);
        Self { key, view, origin: self.origin, secret, is_secret: self.is_secret }
    }

    /// The text, if this value is one.
    fn text(&self) -> Option<&'a str> {
        match self.view {
            View::Text(text) => Some(text),
            View::Toml(toml::Value::String(text)) => Some(text),
            View::Toml(_) | View::Table(_) => None,
        }
    }

    fn entries(&self) -> Entries<'a> {
        let entries: Vec<_> = match self.view {
            View::Table(table) => table
                .entries
                .iter()
                .map(|(name, node)| {
                    (name.as_str(), Self::of_node(join(&self.key, name), node, self.secret, self.is_secret))
                })
                .collect(),
            View::Toml(toml::Value::Table(table)) => table
                .iter()
                .map(|(name, value)| (name.as_str(), self.part(join(&self.key, name), View::Toml(value))))
                .collect(),
            View::Toml(_) | View::Text(_) => Vec::new(),
        };
        Entries { rest: entries.into_iter(), next: None }
    }

    fn elements(&self) -> Option<Elements<'a>> {
        let views: Vec<View<'a>> = match self.view {
            View::Text(text) => {
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(View::Text).collect()
            }
            View::Toml(toml::Value::Array(values)) => values.iter().map(View::Toml).collect(),
            View::Toml(_) | View::Table(_) => return None,
        };
        let elements = views.into_iter().enumerate();
        let elements: Vec<_> = elements.map(|(i, view)| self.part(format!("{}[{i}]", self.key), view)).collect();
        Some(Elements(elements.into_iter()))
    }
}

/// Text from the environment takes the type that is asked for, if it can.
macro_rules! from_text {
    ($($method:ident => $type:ty, $visit:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.view {
                View::Text(text) => match text.trim().parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(de::Error::invalid_type(de::Unexpected::Str(text), &visitor)),
                },
                View::Toml(_) | View::Table(_) => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.view {
            View::Text(text) => visitor.visit_borrowed_str(text),
            View::Table(_) | View::Toml(toml::Value::Table(_)) => visitor.visit_map(self.entries()),
            View::Toml(toml::Value::Array(_)) => self.deserialize_seq(visitor),
            View::Toml(toml::Value::String(text)) => visitor.visit_borrowed_str(text),
            View::Toml(toml::Value::Integer(value)) => visitor.visit_i64(*value),
            View::Toml(toml::Value::Float(value)) => visitor.visit_f64(*value),
            View::Toml(toml::Value::Boolean(value)) => visitor.visit_bool(*value),
            View::Toml(toml::Value::Datetime(value)) => visitor.visit_string(value.to_string()),
        }
    }

    from_text! {
        deserialize_bool => bool, visit_bool;
        deserialize_i8 => i64, visit_i64;
        deserialize_i16 => i64, visit_i64;
        deserialize_i32 => i64, visit_i64;
        deserialize_i64 => i64, visit_i64;
        deserialize_u8 => i64, visit_i64;
        deserialize_u16 => i64, visit_i64;
        deserialize_u32 => i64, visit_i64;
        deserialize_u64 => u64, visit_u64;
        deserialize_f32 => f64, visit_f64;
        deserialize_f64 => f64, visit_f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.text() == Some("") { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let read = visitor.visit_newtype_struct(self);
        if name == SECRET_MARKER { read.map_err(ReadError::hide) } else { read }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.elements() {
            Some(elements) => visitor.visit_seq(elements),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.text() {
            Some(text) => visitor.visit_enum(IntoDeserializer::<ReadError>::into_deserializer(text)),
            // One table whose only key names the variant, as serde writes such enums.
            None => visitor.visit_enum(de::value::MapAccessDeserializer::new(self.entries())),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct map struct identifier ignored_any
    }
}

struct Entries<'a> {
    rest: std::vec::IntoIter<(&'a str, Reader<'a>)>,
    next: Option<Reader<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        let name: StrDeserializer<'_, ReadError> = name.into_deserializer();
        let key = seed.deserialize(name).map_err(|error| error.at(&value))?;
        self.next = Some(value);
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let value = self.next.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        let context = value.clone();
        seed.deserialize(value).map_err(|error: ReadError| error.at(&context))
    }
}

struct Elements<'a>(std::vec::IntoIter<Reader<'a>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(element) = self.0.next() else { return Ok(None) };
        let context = element.clone();
        seed.deserialize(element).map(Some).map_err(|error| error.at(&context))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// An error on its way up; the innermost container that knows fills in where it happened.
#[derive(Debug)]
struct ReadError {
    place: Option<Place>,
    found: Option<String>,
    problem: String,
    /// Whether `problem` is free text of a type's own parser, which may repeat the value.
    free_text: bool,
}

#[derive(Debug)]
struct Place {
    key: String,
    origin: Option<Origin>,
}

impl ReadError {
    fn expected(found: String, expected: &str) -> Self {
        let problem = format!("expected {}", in_words(expected));
        Self { place: None, found: Some(found), problem, free_text: false }
    }

    fn at(mut self, reader: &Reader<'_>) -> Self {
        if self.place.is_some() {
            return self;
        }
        self.place = Some(Place { key: reader.key.clone(), origin: reader.origin.cloned() });
        if reader.secret {
            return self.hide();
        }
        if self.found.is_none() {
            self.found = match reader.view {
                View::Toml(value) => Some(show(&Value::Toml(value.clone()))),
                View::Text(text) => Some(show(&Value::Text(text.to_owned()))),
                View::Table(_) => None,
            };
        }
        self
    }

    /// Removes everything that could show the value.
    fn hide(mut self) -> Self {
        self.found = Some(HIDDEN.to_owned());
        if std::mem::take(&mut self.free_text) {
            "it does not have the form that is expected here".clone_into(&mut self.problem);
        }
        self
    }

    fn into_config_error(self, key: &str) -> ConfigError {
        let place = self.place.unwrap_or_else(|| Place { key: key.to_owned(), origin: None });
        match (place.origin, self.found) {
            (Some(origin), Some(found)) => ConfigError::Value { key: place.key, found, origin, problem: self.problem },
            // Only a table has no origin: the type and the defaults disagree about its keys.
            _ => ConfigError::Defaults { key: place.key, problem: self.problem },
        }
    }
}

impl Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: Display>(problem: T) -> Self {
        Self { place: None, found: None, problem: problem.to_string(), free_text: true }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::expected(found.to_string(), &expected.to_string())
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::expected(found.to_string(), &expected.to_string())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::expected(format!("{variant:?}"), &format!("one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let problem = format!("unknown key `{field}`, expected one of {}", expected.join(", "));
        Self { place: None, found: None, problem, free_text: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { place: None, found: None, problem: format!("the key `{field}` is missing"), free_text: false }
    }
}

/// serde names machine types; people want ranges.
fn in_words(expected: &str) -> String {
    let (min, max) = match expected {
        "u8" => (0, u64::from(u8::MAX)),
        "u16" => (0, u64::from(u16::MAX)),
        "u32" => (0, u64::from(u32::MAX)),
        "a nonzero u8" => (1, u64::from(u8::MAX)),
        "a nonzero u16" => (1, u64::from(u16::MAX)),
        "a nonzero u32" => (1, u64::from(u32::MAX)),
        "u64" | "usize" => return "a whole number, 0 or more".to_owned(),
        "a nonzero u64" | "a nonzero usize" => return "a whole number, 1 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => return "a whole number".to_owned(),
        "f32" | "f64" => return "a number".to_owned(),
        "a boolean" => return "true or false".to_owned(),
        "a sequence" => return "a list".to_owned(),
        "a string" => return "text in quotes".to_owned(),
        other => return other.to_owned(),
    };
    format!("a whole number from {min} to {max}")
}
