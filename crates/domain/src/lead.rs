//! Leads: creators, as one source knows them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    email::EmailAddress,
    handle::Handle,
    id::{LeadId, ProgramId},
    profile_url::ProfileUrl,
};

/// The most characters of a display name.
pub const NAME_CHARS: usize = 200;
/// The most characters of a bio.
pub const BIO_CHARS: usize = 4_000;
/// The most characters of a location.
pub const LOCATION_CHARS: usize = 200;

/// The network or list that a lead came from, such as `instagram`: 1 to 32 lower-case letters, digits, `_` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SourceName(String);

/// The text is no name of a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a source: it must have 1 to 32 letters, digits, `_` or `-`, such as `instagram`")]
pub struct InvalidSource;

impl SourceName {
    /// Parses a name; upper case is folded, and the usual other spellings of a network become its name.
    pub fn parse(text: &str) -> Result<Self, InvalidSource> {
        let text = text.trim();
        if text.is_empty() || text.len() > 32 {
            return Err(InvalidSource);
        }
        let name = text.to_ascii_lowercase();
        let name = match name.as_str() {
            "ig" | "insta" => "instagram",
            "yt" => "youtube",
            "tt" | "tik tok" => "tiktok",
            "twitter" | "x.com" => "x",
            "fb" => "facebook",
            other => other,
        };
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)) {
            return Err(InvalidSource);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The network in its own spelling, such as `YouTube`; `None` for a list or a source that isn't known.
    pub fn network(&self) -> Option<&'static str> {
        Some(match self.as_str() {
            "instagram" => "Instagram",
            "youtube" => "YouTube",
            "tiktok" => "TikTok",
            "x" => "X",
            "facebook" => "Facebook",
            "twitch" => "Twitch",
            "pinterest" => "Pinterest",
            "linkedin" => "LinkedIn",
            "reddit" => "Reddit",
            "threads" => "Threads",
            "bluesky" => "Bluesky",
            "snapchat" => "Snapchat",
            "telegram" => "Telegram",
            "patreon" => "Patreon",
            _ => return None,
        })
    }
}

impl FromStr for SourceName {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        Self::parse(text)
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A country: ISO 3166-1 alpha-2, upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

/// The text is no country code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a country: it must be a two-letter code of ISO 3166-1, such as `US`")]
pub struct InvalidCountry;

impl Country {
    /// Parses a two-letter code; `UK` is taken as `GB`.
    pub fn parse(text: &str) -> Result<Self, InvalidCountry> {
        match text.trim().as_bytes() {
            [first, second] if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => {
                let code = [first.to_ascii_uppercase(), second.to_ascii_uppercase()];
                Ok(Self(if &code == b"UK" { *b"GB" } else { code }))
            }
            _ => Err(InvalidCountry),
        }
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a country code is ASCII")
    }
}

impl FromStr for Country {
    type Err = InvalidCountry;

    fn from_str(text: &str) -> Result<Self, InvalidCountry> {
        Self::parse(text)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a source says about a creator, normalised and validated.
///
/// `name`, `bio` and `location` went through [`crate::text`] and keep to [`NAME_CHARS`], [`BIO_CHARS`] and
/// [`LOCATION_CHARS`].
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// Where it was found.
    pub source: SourceName,
    /// The user name there.
    pub username: Handle,
    /// The display name.
    pub name: Option<String>,
    /// A published address.
    pub email: Option<EmailAddress>,
    /// The public page.
    pub profile_url: Option<ProfileUrl>,
    /// Followers or subscribers.
    pub follower_count: Option<u64>,
    /// What they say about themselves.
    pub bio: Option<String>,
    /// Whether the network vouches for the identity.
    pub verified: bool,
    /// Where they say they are.
    pub location: Option<String>,
    /// Where that is, when it is known.
    pub country: Option<Country>,
}

/// Debug output shows no personal data.
impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("source", &self.source).field("country", &self.country).finish_non_exhaustive()
    }
}

/// A creator who was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// The lead.
    pub id: LeadId,
    /// The program it belongs to.
    pub program_id: ProgramId,
    /// Rises with each material change, from 1.
    pub revision: i32,
    /// What the source says.
    pub profile: Profile,
    /// When it was accepted.
    pub created_at: OffsetDateTime,
}

/// Where a lead stands on its way, as a person would say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeadStage {
    /// Accepted, waits for enrichment.
    Collected,
    /// Enriched, waits for a decision.
    Enriched,
    /// Decided against, with reasons.
    Declined,
    /// A mail is planned.
    Planned,
    /// A mail was taken by a mail server.
    Contacted,
    /// Erased on request; only a keyed hash is left.
    Erased,
}

impl LeadStage {
    /// Whether a lead may go from this stage to `next`.
    ///
    /// A changed lead goes back to [`LeadStage::Collected`] from wherever it stood, unless it was erased; every stage
    /// can end in [`LeadStage::Erased`].
    pub const fn allows(self, next: Self) -> bool {
        use LeadStage::{Collected, Contacted, Declined, Enriched, Erased, Planned};
        match (self, next) {
            (Erased, _) => false,
            (_, Erased | Collected)
            | (Collected | Declined | Planned | Contacted, Enriched)
            | (Enriched, Declined | Planned)
            | (Planned, Declined | Contacted) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_countries_have_one_spelling() {
        assert_eq!(SourceName::parse(" Insta ").unwrap().as_str(), "instagram");
        assert_eq!(SourceName::parse("Twitter").unwrap().as_str(), "x");
        assert!(SourceName::parse("a b").is_err());
        assert_eq!(SourceName::parse("yt").unwrap().network(), Some("YouTube"));
        assert_eq!(SourceName::parse("my-list").unwrap().network(), None);
        assert_eq!(Country::parse("uk").unwrap().as_str(), "GB");
        assert!(Country::parse("Germany").is_err());
        assert!(Country::parse("1x").is_err());
    }

    #[test]
    fn nothing_follows_an_erasure() {
        for next in [
            LeadStage::Collected,
            LeadStage::Enriched,
            LeadStage::Declined,
            LeadStage::Planned,
            LeadStage::Contacted,
            LeadStage::Erased,
        ] {
            assert!(!LeadStage::Erased.allows(next));
        }
    }

    #[test]
    fn no_lead_is_contacted_without_a_plan() {
        assert!(!LeadStage::Collected.allows(LeadStage::Contacted));
        assert!(!LeadStage::Enriched.allows(LeadStage::Contacted));
        assert!(!LeadStage::Declined.allows(LeadStage::Contacted));
        assert!(LeadStage::Planned.allows(LeadStage::Contacted));
    }
}
