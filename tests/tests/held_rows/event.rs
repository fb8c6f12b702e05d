//! What can happen to a lead, to its recipient, to its mail and to its program.

use std::time::Duration;

use leadmill_tests::stack;
use store::{
    captured,
    outreach::{release::Filter, settle::Outcome},
    programs::Change,
    suppressions::SuppressionReason,
};

use crate::walk::{self, Walk};

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The event about the enrichment comes once more.
    PlannedAgain,
    /// A new enrichment speaks against the lead.
    Declined,
    /// A new enrichment speaks for it.
    Requalified,
    /// It is to be written to at an address that nobody has had.
    AddressChanged,
    /// Another lead, with a mail of its own, takes its address.
    AddressTaken,
    /// It takes the address of another lead, whose mail waits, too.
    AddressTakenOver,
    /// Its recipient objects.
    Suppressed,
    /// It is erased.
    Erased,
    /// The lead that waits for the same recipient is erased.
    DuplicateErased,
    /// The lead that waits for the same recipient is to be written to elsewhere.
    DuplicateMoved,
    /// What is due is sent.
    Sent,
    /// What is due is refused for good.
    Failed,
    /// What is due is refused: there is no such address.
    HardBounced,
    /// What is due is put off by the server.
    Deferred,
    /// What is due waits for our own account, after its data phase has begun.
    Postponed,
    /// What is due is of unknown fate.
    Uncertain,
    /// What is due is captured.
    Captured,
    /// What is captured is released.
    Released,
    /// What is held is released by hand.
    HeldReleased,
    /// What is due is claimed, and its owner dies.
    LeaseExpired,
    /// What is due is claimed, begun, and its owner dies.
    LeaseExpiredInData,
    /// No mail can be made of what is due.
    ComposeFailed,
    /// The program is paused.
    Paused,
    /// The program sends again.
    Resumed,
    /// Less than all leads reach the threshold.
    ThresholdRaised,
    /// All leads do.
    ThresholdLowered,
    /// The program has no sender.
    SenderRemoved,
    /// The program has one.
    SenderAdded,
    /// The consent expires of the lead whose country wants one.
    ConsentExpired,
    /// It gives a new one.
    ConsentRenewed,
    /// The law's rules get a new version.
    LawChanged,
    /// The country of the lead of an unknown country becomes known.
    CountryKnown,
    /// The jobs run.
    JobsRan,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::PlannedAgain,
        Self::Declined,
        Self::Requalified,
        Self::AddressChanged,
        Self::AddressTaken,
        Self::AddressTakenOver,
        Self::Suppressed,
        Self::Erased,
        Self::DuplicateErased,
        Self::DuplicateMoved,
        Self::Sent,
        Self::Failed,
        Self::HardBounced,
        Self::Deferred,
        Self::Postponed,
        Self::Uncertain,
        Self::Captured,
        Self::Released,
        Self::HeldReleased,
        Self::LeaseExpired,
        Self::LeaseExpiredInData,
        Self::ComposeFailed,
        Self::Paused,
        Self::Resumed,
        Self::ThresholdRaised,
        Self::ThresholdLowered,
        Self::SenderRemoved,
        Self::SenderAdded,
        Self::ConsentExpired,
        Self::ConsentRenewed,
        Self::LawChanged,
        Self::CountryKnown,
        Self::JobsRan,
    ];

    /// Lets it happen, as far as it can: what nobody has can't be sent.
    pub async fn happen(self, walk: &Walk) {
        let reason = |text: &str| text.to_owned();
        match self {
            Self::PlannedAgain => walk.decide().await,
            Self::Declined => walk.enrich_anew(walk.first, 10).await,
            Self::Requalified => walk.enrich_anew(walk.first, walk::SCORE).await,
            Self::AddressChanged => walk.move_to(walk.first, "fresh").await,
            Self::AddressTaken => walk.move_to(walk.other, "shared").await,
            Self::AddressTakenOver => walk.move_to(walk.first, "other").await,
            Self::Suppressed => walk.suppress("shared", SuppressionReason::Unsubscribed).await,
            Self::Erased => walk.erase(walk.first).await,
            Self::DuplicateErased => walk.erase(walk.duplicate).await,
            Self::DuplicateMoved => walk.move_to(walk.duplicate, "elsewhere").await,
            Self::Sent => walk.send_due(|_, _| Outcome::Sent).await,
            Self::Failed => {
                let refused = || Outcome::Failed { reason: reason("refused"), hard_bounce: false };
                walk.send_due(|_, _| refused()).await;
            }
            Self::HardBounced => {
                let bounced = || Outcome::Failed { reason: reason("no_such_mailbox"), hard_bounce: true };
                walk.send_due(|_, _| bounced()).await;
            }
            Self::Deferred => {
                let later = || Outcome::Deferred { reason: reason("busy"), after: Duration::ZERO };
                walk.send_due(|_, _| later()).await;
            }
            Self::Postponed => {
                let postponed = || Outcome::Postponed { reason: reason("account_limited"), after: Duration::ZERO };
                walk.send_due(|_, _| postponed()).await;
            }
            Self::Uncertain => walk.send_due(|_, _| Outcome::Uncertain { reason: reason("connection_lost") }).await,
            Self::Captured => {
                walk.settle_due(|mail, key| Outcome::Captured(captured::seal(key, mail.id, b"Subject: a\r\n\r\nb")))
                    .await;
            }
            Self::Released => walk.release(&Filter::Captured).await,
            Self::HeldReleased => walk.release(&Filter::Held(None)).await,
            Self::LeaseExpired => walk.lose_leases(false).await,
            Self::LeaseExpiredInData => walk.lose_leases(true).await,
            Self::ComposeFailed => walk.settle_due(|_, _| Outcome::Held { reason: reason("compose_failed") }).await,
            Self::Paused => walk.set(&Change { paused: Some(true), ..Change::default() }).await,
            Self::Resumed => walk.set(&Change { paused: Some(false), ..Change::default() }).await,
            Self::ThresholdRaised => walk.set(&Change { threshold: Some(95), ..Change::default() }).await,
            Self::ThresholdLowered => walk.set(&Change { threshold: Some(0), ..Change::default() }).await,
            Self::SenderRemoved => walk.set(&Change { sender_email: Some(None), ..Change::default() }).await,
            Self::SenderAdded => {
                walk.set(&Change { sender_email: Some(stack::settings().sender_email), ..Change::default() }).await;
            }
            Self::ConsentExpired => walk.let_consent_expire().await,
            Self::ConsentRenewed => walk.renew_consent().await,
            Self::LawChanged => walk.change_law().await,
            Self::CountryKnown => walk.find_country_out().await,
            Self::JobsRan => walk.run_jobs().await,
        }
    }
}
