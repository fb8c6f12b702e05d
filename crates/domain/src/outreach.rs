//! One intended mail and the states that it goes through.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::UnknownName,
    id::{LeadId, ProgramId},
};

/// The state of an outreach row.
///
/// ```text
/// queued ──► connecting ──► transmitting ──► sent
///   ▲ │         │  │             ├──► deferred ──► connecting …
///   │ │         │  └► captured   ├──► failed
///   │ └► held ◄─┤                └──► uncertain ──► sent | failed | deferred (its own owner only)
///   └─── held   └► queued | deferred | failed
/// ```
///
/// Whatever a server has not accepted can be cancelled. A cancelled row is planned again when its lead qualifies again, and a
/// deferred one returns to the queue when its lead has another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutreachState {
    /// Waits for its due time and a claim.
    Queued,
    /// Claimed; no byte of the body has gone out (`sending`, phase `connect`).
    Connecting,
    /// The body may have gone out (`sending`, phase `data`); committed before its first byte does.
    Transmitting,
    /// A mail server took it.
    Sent,
    /// A mail server asked to come back later.
    Deferred,
    /// A mail server refused it for good.
    Failed,
    /// It is unknown whether a mail server took it; never sent again by itself.
    Uncertain,
    /// Kept, complete, instead of being sent.
    Captured,
    /// Waits for a person or for a fact, with a reason.
    Held,
    /// Will not be sent, with a reason.
    Cancelled,
}

impl OutreachState {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Connecting,
        Self::Transmitting,
        Self::Sent,
        Self::Deferred,
        Self::Failed,
        Self::Uncertain,
        Self::Captured,
        Self::Held,
        Self::Cancelled,
    ];

    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::Transmitting => "transmitting",
            Self::Sent => "sent",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Uncertain => "uncertain",
            Self::Captured => "captured",
            Self::Held => "held",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a row may go from this state to `next`.
    pub const fn allows(self, next: Self) -> bool {
        use OutreachState::{
            Cancelled, Captured, Connecting, Deferred, Failed, Held, Queued, Sent, Transmitting, Uncertain,
        };
        match self {
            Queued => matches!(next, Connecting | Held | Cancelled),
            Connecting => matches!(next, Transmitting | Queued | Deferred | Failed | Captured | Held | Cancelled),
            // A server's "not now" about somebody who has objected meanwhile ends the mail.
            Transmitting => matches!(next, Sent | Deferred | Failed | Uncertain | Cancelled),
            Uncertain => matches!(next, Sent | Deferred | Failed | Cancelled),
            Deferred => matches!(next, Connecting | Queued | Held | Cancelled | Failed),
            Held | Captured => matches!(next, Queued | Cancelled),
            Cancelled => matches!(next, Queued | Held),
            Sent | Failed => false,
        }
    }

    /// Whether the row counts as sent for limits and later steps: an unknown outcome does.
    pub const fn counts_as_sent(self) -> bool {
        matches!(self, Self::Transmitting | Self::Sent | Self::Uncertain)
    }

    /// Whether nothing of it has gone out, nobody has it in hand, and its plan may still change.
    pub const fn is_unsent(self) -> bool {
        matches!(self, Self::Queued | Self::Held | Self::Deferred)
    }

    /// Whether it keeps others from writing to its recipient for good: a server has had its say, or may have.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Sent | Self::Failed | Self::Uncertain)
    }
}

impl fmt::Display for OutreachState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OutreachState {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| UnknownName { what: "outreach state", text: text.to_owned() })
    }
}

/// Which mail of which campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CampaignStep {
    /// The campaign's name.
    pub campaign: String,
    /// The step within it, from 1.
    pub step: i16,
}

impl CampaignStep {
    /// The first mail of the campaign that every program starts with.
    pub fn first() -> Self {
        Self { campaign: "intro".to_owned(), step: 1 }
    }
}

/// The namespace of `Message-ID`s (RFC 9562 §5.5); never changes, or a mail could be made twice under two ids.
const MESSAGE_ID_NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_5c2e_8a51_4b6e_9f57_1e3d_2b8a_7c40);

/// The `Message-ID` of one mail: always the same for the same (program, lead, campaign, step) and sender's domain, so that
/// a mail server or a person can recognise a second copy.
pub fn message_id(program: ProgramId, lead: LeadId, step: &CampaignStep, domain: &str) -> String {
    let name = format!("{program}/{lead}/{}/{}", step.campaign, step.step);
    format!("<{}@{domain}>", Uuid::new_v5(&MESSAGE_ID_NAMESPACE, name.as_bytes()))
}

/// One intended mail, without the person it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outreach {
    /// The row.
    pub id: crate::id::OutreachId,
    /// The program.
    pub program_id: crate::id::ProgramId,
    /// Whom it is for.
    pub lead_id: crate::id::LeadId,
    /// Which mail.
    pub step: CampaignStep,
    /// Where it stands.
    pub state: OutreachState,
    /// Why it is held, cancelled, deferred, failed or uncertain: a short code, such as `duplicate_recipient`.
    pub reason: Option<String>,
    /// The `Message-ID`, with angle brackets; a function of program, lead, campaign and step.
    pub message_id: String,
    /// How often it was claimed.
    pub attempts: i32,
    /// The enrichment that it was planned from.
    pub enrichment_version: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutreachState::*;

    #[test]
    fn nothing_leaves_a_final_state() {
        for state in [Sent, Failed] {
            assert!(OutreachState::ALL.iter().all(|next| !state.allows(*next)));
        }
    }

    #[test]
    fn a_cancelled_mail_is_sent_only_after_it_was_planned_again() {
        assert_eq!(OutreachState::ALL.into_iter().filter(|next| Cancelled.allows(*next)).count(), 2);
        assert!(Cancelled.allows(Queued) && Cancelled.allows(Held));
    }

    #[test]
    fn the_body_goes_out_only_after_the_data_phase() {
        for state in OutreachState::ALL {
            if state.allows(Sent) {
                assert!(matches!(state, Transmitting | Uncertain));
            }
        }
    }

    #[test]
    fn what_may_have_been_sent_never_returns_to_the_queue_by_itself() {
        for state in OutreachState::ALL.into_iter().filter(|state| state.counts_as_sent()) {
            assert!(!state.allows(Queued) && !state.allows(Connecting), "{state}");
        }
    }

    #[test]
    fn a_message_id_depends_on_the_mail_alone() {
        let (program, lead) = (ProgramId::generate(), LeadId::generate());
        let first = message_id(program, lead, &CampaignStep::first(), "acme.example");
        assert_eq!(first, message_id(program, lead, &CampaignStep::first(), "acme.example"));
        let second = CampaignStep { step: 2, ..CampaignStep::first() };
        assert_ne!(first, message_id(program, lead, &second, "acme.example"));
        assert_ne!(first, message_id(program, LeadId::generate(), &CampaignStep::first(), "acme.example"));
        assert!(first.ends_with("@acme.example>"));
    }

    #[test]
    fn every_state_is_found_by_its_name() {
        for state in OutreachState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
    }
}
