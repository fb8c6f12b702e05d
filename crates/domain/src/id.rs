//! Typed identifiers.
//!
//! Ids are UUIDv7 (RFC 9562 §5.7) made by the application: they sort by the time they were made, which keeps index
//! pages warm and lets the reconciler walk a program in ranges of time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text was not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id; an id looks like 0190b5a0-1c3d-7def-8123-456789abcdef")]
pub struct InvalidId {
    /// What was found, cut to 64 characters.
    pub text: String,
}

macro_rules! typed_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new id from the current time and randomness.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Wraps an id that was read from the database or a message.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The bare UUID, for the database and for associated data.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| InvalidId { text: text.chars().take(64).collect() })
            }
        }
    };
}

typed_id!(
    /// A program: one affiliate program, the tenant that every row belongs to.
    ProgramId
);
typed_id!(
    /// An organisation: the controller, above programs.
    OrganisationId
);
typed_id!(
    /// One cause of a suppression.
    CauseId
);
typed_id!(
    /// The record of a cause that was lifted.
    LiftId
);
typed_id!(
    /// A lead: one creator, as one source knows them.
    LeadId
);
typed_id!(
    /// One enrichment of a lead.
    EnrichmentId
);
typed_id!(
    /// One intended mail.
    OutreachId
);
typed_id!(
    /// One event; it stays the same through retries, dead letters and replays.
    EventId
);
typed_id!(
    /// One refused row.
    RejectId
);
typed_id!(
    /// One collection run: an import, a simulation, or an HTTP batch.
    RunId
);
typed_id!(
    /// The token of a lease on an outreach row.
    LeaseToken
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let ids: Vec<_> = (0..100).map(|_| LeadId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn an_id_survives_text() {
        let id = ProgramId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("not-an-id".parse::<ProgramId>().is_err());
    }
}
