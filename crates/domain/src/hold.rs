//! Why a mail is held, and what releases it. Every hold has a way out.
//!
//! The event that each reason waits for releases the mail at once. A job looks again later as well, in case the event
//! happened while the hold was being written down.

use crate::qualification::Blocker;

/// What a held mail waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WayOut {
    /// Another lead has the same address, and its mail goes first: released when that mail is cancelled or goes to another
    /// address, cancelled when it was sent or failed.
    RecipientReleased,
    /// The decision about the lead: made again when the lead, its enrichment or the program's settings change.
    DecidedAgain,
    /// The mail could not be made or addressed: tried again by itself, and by `leadmill mail release`.
    TriedAgain,
}

impl WayOut {
    /// What releases the mail, as a sentence for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::RecipientReleased => {
                "released when the other mail to this address is cancelled; cancelled once that mail was sent"
            }
            Self::DecidedAgain => "decided again when the lead or the program's settings change, and once a day",
            Self::TriedAgain => "tried again once a day, or by `leadmill mail release`",
        }
    }
}

/// The reason of a mail whose recipient another lead's mail has.
pub const DUPLICATE_RECIPIENT: &str = "duplicate_recipient";
/// The reason of a mail that can't be composed.
pub const COMPOSE_FAILED: &str = "compose_failed";
/// The reason of a mail whose addresses can't stand in an SMTP envelope.
pub const BAD_ENVELOPE: &str = "bad_envelope";
/// The reason of a mail whose lead can't be unsealed.
pub const UNREADABLE: &str = "unreadable";

/// What releases a mail that is held for `reason`, a code of this module or of [`Blocker::code`].
pub fn way_out(reason: &str) -> WayOut {
    match reason {
        DUPLICATE_RECIPIENT => WayOut::RecipientReleased,
        COMPOSE_FAILED | BAD_ENVELOPE | UNREADABLE => WayOut::TriedAgain,
        _ => WayOut::DecidedAgain,
    }
}

/// The reason of a mail that is held for what stands in the way of it.
pub fn reason_of(blockers: &[Blocker]) -> String {
    blockers.first().map(Blocker::code).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_way_out() {
        for (reason, expected) in [
            (DUPLICATE_RECIPIENT, WayOut::RecipientReleased),
            (COMPOSE_FAILED, WayOut::TriedAgain),
            (BAD_ENVELOPE, WayOut::TriedAgain),
            (UNREADABLE, WayOut::TriedAgain),
            ("incomplete_sender", WayOut::DecidedAgain),
            ("legal_unknown:v1/email/unknown-country", WayOut::DecidedAgain),
            // Written by older versions, in which a pause was a hold.
            ("program_paused", WayOut::DecidedAgain),
        ] {
            assert_eq!(way_out(reason), expected, "{reason}");
        }
    }
}
