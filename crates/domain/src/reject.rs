//! Why a row was refused.

use std::fmt;

/// Why a row was refused; its name is stored and stands in the exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// A field that must be there is missing or empty.
    Missing,
    /// A field does not have the form it must have.
    Invalid,
    /// A field is larger than allowed.
    TooLarge,
    /// The row's bytes are no text in the file's encoding.
    Encoding,
    /// The row can't be read as a row of its format.
    Malformed,
    /// The person asked never to be stored again.
    Erased,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Invalid, Self::TooLarge, Self::Encoding, Self::Malformed, Self::Erased];

    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Encoding => "encoding",
            Self::Malformed => "malformed",
            Self::Erased => "erased",
        }
    }
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// The kind of defect.
    pub reason: RejectReason,
    /// The field, such as `email`, or `row`.
    pub field: String,
    /// A sentence for a person, without the value itself.
    pub detail: String,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}
