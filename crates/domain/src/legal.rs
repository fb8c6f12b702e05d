//! Why a program may hold data about people (GDPR Art. 6).
//!
//! Whether somebody may be written to is another question, which the law of their country answers from what is known about that
//! lead: see [`crate::law`]. No basis of a program opens a country.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::UnknownName;

/// The lawful basis on which a program holds and analyses data (GDPR Art. 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The program's interest outweighs the creator's (Art. 6(1)(f)).
    LegitimateInterest,
    /// The creators agreed (Art. 6(1)(a)). A public address in a bio is not consent.
    Consent,
}

impl Basis {
    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LegitimateInterest => "legitimate_interest",
            Self::Consent => "consent",
        }
    }
}

impl FromStr for Basis {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::LegitimateInterest, Self::Consent]
            .into_iter()
            .find(|basis| basis.name() == text)
            .ok_or_else(|| UnknownName { what: "lawful basis", text: text.to_owned() })
    }
}
