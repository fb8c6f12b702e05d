//! What an analyst says about a lead.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::event::UnknownName;

/// The most characters of a niche.
pub const NICHE_CHARS: usize = 60;
/// The most characters of the notes.
pub const NOTES_CHARS: usize = 2_000;
/// The most characters of the personal message.
pub const MESSAGE_CHARS: usize = 1_500;
/// The most characters of the compliance notes.
pub const COMPLIANCE_NOTES_CHARS: usize = 1_000;

/// How well a lead fits the program: 0 (not at all) to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Score(i16);

/// A number outside of its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{what} must be from {min} to {max}, found {found}")]
pub struct OutOfRange {
    /// What the number means.
    pub what: &'static str,
    /// The least allowed.
    pub min: f64,
    /// The most allowed.
    pub max: f64,
    /// What was found.
    pub found: f64,
}

impl Score {
    /// Takes a score from 0 to 100.
    pub fn new(score: i64) -> Result<Self, OutOfRange> {
        match i16::try_from(score) {
            Ok(score) if (0..=100).contains(&score) => Ok(Self(score)),
            _ => Err(OutOfRange { what: "a score", min: 0.0, max: 100.0, found: score as f64 }),
        }
    }

    /// The number.
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How sure the analyst is: 0 (guessed) to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Confidence(f32);

impl Confidence {
    /// Takes a confidence from 0 to 1.
    pub fn new(confidence: f64) -> Result<Self, OutOfRange> {
        if (0.0..=1.0).contains(&confidence) {
            Ok(Self(confidence as f32))
        } else {
            Err(OutOfRange { what: "a confidence", min: 0.0, max: 1.0, found: confidence })
        }
    }

    /// The number.
    pub const fn get(self) -> f32 {
        self.0
    }
}

/// Who made an enrichment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The built-in analyser, by choice.
    Local,
    /// A chat model behind an OpenAI-compatible API.
    Model,
    /// The built-in analyser, because the model failed.
    LocalFallback,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 3] = [Self::Local, Self::Model, Self::LocalFallback];

    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Model => "model",
            Self::LocalFallback => "local_fallback",
        }
    }
}

impl FromStr for Provider {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.name() == text)
            .ok_or_else(|| UnknownName { what: "provider", text: text.to_owned() })
    }
}

/// What an analyst says about a lead.
///
/// The texts went through [`crate::text`] and keep to the lengths of this module.
#[derive(Clone, PartialEq)]
pub struct Enrichment {
    /// What the creator is about, lower case.
    pub niche: String,
    /// How well they fit.
    pub score: Score,
    /// Why, for a person.
    pub notes: String,
    /// The personal part of the first mail.
    pub message: String,
    /// Whether writing to them is compliant, as far as the profile tells. It may veto, never approve: the law
    /// of their country has to agree.
    pub compliant: bool,
    /// Why.
    pub compliance_notes: String,
    /// How sure the analyst is.
    pub confidence: Confidence,
    /// Who made it.
    pub provider: Provider,
    /// Why the model was not believed, for [`Provider::LocalFallback`]: a short code such as `timeout`.
    pub fallback_reason: Option<String>,
}

/// Debug output shows no personal data.
impl fmt::Debug for Enrichment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrichment")
            .field("niche", &self.niche)
            .field("score", &self.score)
            .field("compliant", &self.compliant)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_and_confidences_keep_to_their_ranges() {
        assert_eq!(Score::new(100).unwrap().get(), 100);
        assert_eq!(Score::new(250).unwrap_err().to_string(), "a score must be from 0 to 100, found 250");
        assert!(Score::new(-1).is_err());
        assert!(Confidence::new(f64::NAN).is_err());
        assert!(Confidence::new(1.01).is_err());
        assert!(Confidence::new(1.0).is_ok());
    }
}
