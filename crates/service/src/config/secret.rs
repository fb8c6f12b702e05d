//! A value that never prints.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Visitor};

/// The name under which a [`Secret`] announces itself to the configuration reader, which then keeps it out of errors.
pub(super) const SECRET_MARKER: &str = "$leadmill::Secret";

/// A secret: `Debug` and `Display` print `***`, and it can't be serialised. [`Secret::expose`] is the one way to its value,
/// so that a search for that word finds every use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; never log, print or format what this returns.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// Of a URL, what may be shown: host, port and path, without the user, the password, the query and the fragment.
    /// A text that isn't a URL gives an empty string, a list of them one.
    pub fn endpoint(&self) -> &str {
        let Some((_, rest)) = self.0.split_once("://") else { return "" };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let rest = &rest[..end];
        // An unescaped `/` in a password would end the authority too early; then nothing is shown up to the last `@`.
        rest.rsplit_once('@').map_or(rest, |(_, host)| host)
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inner<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Inner<T> {
            type Value = Secret<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                T::deserialize(deserializer).map(Secret)
            }
        }

        deserializer.deserialize_newtype_struct(SECRET_MARKER, Inner(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars_everywhere() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn the_endpoint_of_a_url_shows_neither_user_nor_password_nor_query() {
        let shown = |url: &str| Secret::new(url.to_owned()).endpoint().to_owned();
        assert_eq!(shown("postgres://u:p@db:5432/leads?password=p"), "db:5432/leads");
        assert_eq!(shown("postgres://u:p@ss@db/leads"), "db/leads");
        assert_eq!(shown("postgres://u:p/ss@db/leads"), "db/leads");
        assert_eq!(shown("amqp://127.0.0.1:5672/%2f"), "127.0.0.1:5672/%2f");
        assert_eq!(shown("amqp://u:p@a/x,amqp://u:p@b/x"), "b/x");
        assert_eq!(shown("amqp://u:p@a/x?p=1,amqp://u:p@b/x"), "a/x");
        assert_eq!(shown("host=db password=p"), "");
    }
}
