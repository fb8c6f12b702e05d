//! Taking leads in: one transaction per batch for the leads, their keys, their events, what was refused, the run's counts
//! and, for HTTP, the answer that a repeated request gets again.

mod columns;
mod idempotency;
mod plan;
mod write;

use std::collections::HashMap;

use domain::{
    event::TraceContext,
    id::{LeadId, RunId},
    submission::Submission,
};
use time::OffsetDateTime;
use vault::Vault;

pub use self::idempotency::IdempotencyKey;

use self::plan::Plan;
use crate::{Db, StoreError, outbox::Leased, programs::OpenProgram, rejects::Reject, runs::Counts};

/// The most profiles of one batch.
pub const MAX_BATCH: usize = 1_000;

/// How often a batch is planned anew after it lost a race.
const MAX_LOOKS: u32 = 20;

/// What to do with a lead that is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dedupe {
    /// Leave it as it is.
    Skip,
    /// Take over what is new or different; what the new profile doesn't say stays.
    Update,
}

/// A batch of validated profiles and refused rows.
#[derive(Debug, Clone)]
pub struct IntakeBatch {
    /// The run that it belongs to; see [`runs::start`](crate::runs::start).
    pub run_id: RunId,
    /// The profiles, at most [`MAX_BATCH`], with their origin and evidence.
    pub items: Vec<Submission>,
    /// The refused rows.
    pub rejects: Vec<Reject>,
    /// What to do with known leads.
    pub dedupe: Dedupe,
    /// Whether most likely none of the leads is known: they are written without a look before. Where one is known, looking
    /// and writing come after all, and only time was lost.
    pub likely_new: bool,
    /// The trace that the batch belongs to.
    pub trace: TraceContext,
    /// The time that counts as the leads' creation.
    pub now: OffsetDateTime,
    /// The request's key, when the answer has to be given again to a repeated request.
    pub idempotency: Option<IdempotencyKey>,
}

/// What became of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A new lead.
    New(LeadId),
    /// A known lead that changed.
    Updated(LeadId),
    /// A known lead that did not change.
    Duplicate(LeadId),
    /// The person was erased, and is refused.
    Erased,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct IntakeOutcome {
    /// Per profile, in order.
    pub items: Vec<Accepted>,
    /// All together.
    pub counts: Counts,
    /// Events to publish now, leased to this process.
    pub outbox: Vec<Leased>,
    /// The stored answer of an earlier, equal request; then nothing was done.
    pub repeated: Option<serde_json::Value>,
}

/// Takes a batch in. `answer` makes what a repeated request gets again; it is asked only when the batch carries an
/// [`IdempotencyKey`].
///
/// # Errors
/// [`StoreError::Conflict`] when the idempotency key was used for another request.
pub async fn accept(
    db: &Db,
    vault: &Vault,
    program: &OpenProgram,
    batch: &IntakeBatch,
    answer: impl Fn(&[Accepted]) -> serde_json::Value + Send + Sync,
) -> Result<IntakeOutcome, StoreError> {
    let plan = Plan::make(program, batch);
    // A lead that another process takes in or changes between the look and the write makes the plan stale: look again.
    let mut looks = 0;
    let mut known = if batch.likely_new { HashMap::new() } else { plan.look(db, vault).await? };
    loop {
        let sealed = plan.seal(vault, program, &known);
        let (plan, sealed, answer) = (&plan, &sealed, &answer);
        let written =
            db.transact("intake.accept", |tx, _| Box::pin(async move { plan.write(tx, sealed, answer).await })).await;
        match written {
            Err(error) if error.is_stale() && looks < MAX_LOOKS => looks += 1,
            written => return written,
        }
        known = plan.look(db, vault).await?;
    }
}
