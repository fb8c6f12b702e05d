//! A lead as it comes in: the profile, where it stood, and what shows that it may be written to.

use std::fmt;

use crate::{law::evidence::Evidence, lead::Profile};

/// How the country of a lead was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CountrySource {
    /// The source says it, as a name or a code.
    Stated,
    /// It follows from what they say about where they are.
    Location,
}

impl CountrySource {
    /// The number, as stored; never changes.
    pub const fn code(self) -> i16 {
        match self {
            Self::Stated => 1,
            Self::Location => 2,
        }
    }
}

/// A lead as it comes in.
#[derive(Clone, PartialEq, Eq)]
pub struct Submission {
    /// What the source says.
    pub profile: Profile,
    /// The line where it stands, from 1; the item's position in sources without lines; 0 when it stands nowhere.
    pub line: u64,
    /// How the profile's country was found out, if it has one.
    pub country_source: Option<CountrySource>,
    /// What shows that it may be written to at the profile's address; of each kind one at most, and none without an address.
    pub evidence: Vec<Evidence>,
}

/// A profile of which nothing else is known.
impl From<Profile> for Submission {
    fn from(profile: Profile) -> Self {
        let country_source = profile.country.map(|_| CountrySource::Stated);
        Self { profile, line: 0, country_source, evidence: Vec::new() }
    }
}

/// Debug output shows no personal data.
impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("profile", &self.profile).field("line", &self.line).finish_non_exhaustive()
    }
}
