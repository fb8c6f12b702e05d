//! What shows that somebody may be written to at an address: their consent, or where the address is published for business.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// The most characters of a consent's source.
pub const SOURCE_CHARS: usize = 500;
/// The most characters of a consent's wording.
pub const WORDING_CHARS: usize = 4_000;
/// How far another system's clock may be ahead.
const CLOCK_SKEW: Duration = Duration::minutes(1);

/// What shows that somebody may be written to at an address. Its texts may be personal: it is stored sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// They agreed.
    Consent(ConsentEvidence),
    /// The address is published for business.
    PublishedAddress(PublishedAddress),
}

/// The kinds of evidence; of each there is one per lead and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EvidenceKind {
    /// See [`Evidence::Consent`].
    Consent,
    /// See [`Evidence::PublishedAddress`].
    PublishedAddress,
}

impl EvidenceKind {
    /// The number, as stored; never changes.
    pub const fn code(self) -> i16 {
        match self {
            Self::Consent => 1,
            Self::PublishedAddress => 2,
        }
    }
}

/// What somebody agreed to, where and when.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentEvidence {
    /// Where it was given: a form's address, an event, a document.
    pub source: String,
    /// The words that were agreed to.
    pub wording: String,
    /// When it was given.
    #[serde(with = "time::serde::rfc3339")]
    pub given_at: OffsetDateTime,
    /// From when on it doesn't hold any more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// Where an address is published for business.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedAddress {
    /// The page.
    pub url: String,
    /// When it was seen there.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
}

/// Why evidence shows nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvidence {
    /// It is about a time that hasn't come.
    #[error("it lies in the future")]
    FromTheFuture,
    /// It was given for a time that is over.
    #[error("the consent has expired")]
    Expired,
    /// It ends before it begins.
    #[error("the consent expires before it was given")]
    ExpiresBeforeGiven,
}

impl ConsentEvidence {
    /// Checks that it holds at `now`.
    ///
    /// # Errors
    /// When it was given later, or has expired.
    pub fn check(self, now: OffsetDateTime) -> Result<Self, InvalidEvidence> {
        match self.expires_at {
            _ if self.given_at > now + CLOCK_SKEW => Err(InvalidEvidence::FromTheFuture),
            Some(expires_at) if expires_at <= self.given_at => Err(InvalidEvidence::ExpiresBeforeGiven),
            Some(expires_at) if expires_at <= now => Err(InvalidEvidence::Expired),
            _ => Ok(self),
        }
    }
}

impl PublishedAddress {
    /// Checks that it was seen by `now`.
    ///
    /// # Errors
    /// When it was seen later.
    pub fn check(self, now: OffsetDateTime) -> Result<Self, InvalidEvidence> {
        if self.seen_at > now + CLOCK_SKEW { Err(InvalidEvidence::FromTheFuture) } else { Ok(self) }
    }
}

impl Evidence {
    /// Its kind.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::Consent(_) => EvidenceKind::Consent,
            Self::PublishedAddress(_) => EvidenceKind::PublishedAddress,
        }
    }

    /// The time that it is about.
    pub const fn captured_at(&self) -> OffsetDateTime {
        match self {
            Self::Consent(consent) => consent.given_at,
            Self::PublishedAddress(published) => published.seen_at,
        }
    }

    /// From when on it shows nothing any more.
    pub const fn expires_at(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Consent(consent) => consent.expires_at,
            Self::PublishedAddress(_) => None,
        }
    }
}

/// Debug output shows no personal data.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("kind", &self.kind())
            .field("captured_at", &self.captured_at())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    fn consent(given_at: OffsetDateTime, expires_at: Option<OffsetDateTime>) -> ConsentEvidence {
        ConsentEvidence { source: "a form".to_owned(), wording: "You may write to me".to_owned(), given_at, expires_at }
    }

    #[test]
    fn consent_from_the_future_or_over_shows_nothing() {
        let day = Duration::DAY;
        let check = |given, expires| consent(given, expires).check(NOW).map(drop);
        assert_eq!(check(NOW - day, None), Ok(()));
        assert_eq!(check(NOW - day, Some(NOW + day)), Ok(()));
        assert_eq!(check(NOW + CLOCK_SKEW, None), Ok(()));
        assert_eq!(check(NOW + day, None), Err(InvalidEvidence::FromTheFuture));
        assert_eq!(check(NOW - day, Some(NOW)), Err(InvalidEvidence::Expired));
        assert_eq!(check(NOW - day, Some(NOW - day)), Err(InvalidEvidence::ExpiresBeforeGiven));
        let seen = |seen_at| PublishedAddress { url: "https://ann.example/contact".to_owned(), seen_at }.check(NOW);
        assert!(seen(NOW).is_ok() && seen(NOW + day).is_err());
    }

    #[test]
    fn evidence_is_kept_word_for_word_and_not_shown_by_debug() {
        let evidence = Evidence::Consent(consent(NOW, Some(NOW + Duration::DAY)));
        let text = serde_json::to_string(&evidence).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
        assert!(text.contains("You may write to me") && !format!("{evidence:?}").contains("write"));
    }
}
