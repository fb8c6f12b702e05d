//! Handles: the name by which a network knows a creator.

use std::{fmt, str::FromStr};

use crate::text::nfkc;

/// A creator's user name on a network: 1 to 64 letters, digits, `.`, `_` or `-`, without the leading `@`, as spelt by the
/// network. Two handles that differ only in case are one ([`Handle::canonical`]): no network tells them apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Handle(String);

/// The text is no handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a user name: {reason}")]
pub struct InvalidHandle {
    /// Why, without the text itself (it may be personal).
    pub reason: &'static str,
}

impl Handle {
    /// Parses a handle; surrounding white space and leading `@` are dropped, compatibility characters folded (NFKC).
    pub fn parse(text: &str) -> Result<Self, InvalidHandle> {
        if text.len() > 1_000 {
            return Err(InvalidHandle { reason: "longer than 64 characters" });
        }
        let folded = nfkc(text.trim());
        let handle = folded.trim_start_matches('@');
        match handle.chars().count() {
            0 => return Err(InvalidHandle { reason: "empty" }),
            1..=64 => {}
            _ => return Err(InvalidHandle { reason: "longer than 64 characters" }),
        }
        if !handle.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)) {
            return Err(InvalidHandle { reason: "has a character other than letters, digits, `.`, `_` and `-`" });
        }
        if !handle.chars().any(char::is_alphanumeric) {
            return Err(InvalidHandle { reason: "has no letter and no digit" });
        }
        Ok(Self(handle.to_owned()))
    }

    /// The handle as the network spells it, without `@`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which two spellings of one handle are equal (normalisation 1): lower case.
    pub fn canonical(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for Handle {
    type Err = InvalidHandle;

    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        Self::parse(text)
    }
}

/// Debug output shows no personal data.
impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_handle_are_one() {
        let one = Handle::parse(" @Ann_Bakes ").unwrap();
        assert_eq!(one.as_str(), "Ann_Bakes");
        assert_eq!(one.canonical(), Handle::parse("ann_bakes").unwrap().canonical());
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        for text in ["", "@", "a b", "a\nb", "<b>", "...", &"x".repeat(65), "a/b"] {
            assert!(Handle::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
