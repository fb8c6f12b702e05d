//! Claims what is due: deferred and left-over mails, those of limited programs; and takes back leases that ran out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use domain::{
    event::TraceContext,
    hold,
    id::{LeadId, LeaseToken, ProgramId},
    qualification::Decision,
};
use store::{
    StoreError,
    enrichments::{self, FoundEnriched},
    outreach::{
        claim::{self, Claim, Claimed},
        data_phase::{self, Lease},
        plan::{self, Occasion, PlanItem},
        settle::{Outcome, Settlement},
    },
    programs::{self, OpenProgram},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Job, Sender, Slot, Tokens, Transport, smtp,
    tokens::{Limits, claim_within},
};
use crate::plan::decide;

/// The most rows of one claim.
const MAX_CLAIM: usize = 128;
/// How long a round may go on after the shutdown began, for when the database doesn't answer.
const LAST_ROUND: Duration = Duration::from_secs(5);

/// Polls until `soft` is cancelled. Errors of the database are waited out.
pub async fn run(sender: &Sender, soft: &CancellationToken) {
    let interval = sender.inner.parts.config.poll_interval;
    let mut programs = Programs::default();
    let mut slots = Vec::new();
    while !soft.is_cancelled() {
        // Not cut short: mails that were claimed and not started would have to wait for their lease to run out.
        let ended = tokio::select! {
            ended = round(sender, &mut programs, std::mem::take(&mut slots), soft) => ended,
            () = long_after(soft) => return,
        };
        let pause = async {
            match ended {
                Ok(true) => slots = sender.inner.slots.wait_for_portion().await,
                Ok(false) => {
                    tokio::select! {
                        () = tokio::time::sleep(interval) => {}
                        () = sender.inner.queued.notified() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "looking for due mails failed");
                    tokio::time::sleep(interval).await;
                }
            }
            if !sender.inner.parts.breaker.allows() {
                slots.clear();
                tokio::time::sleep(sender.inner.parts.breaker.remaining()).await;
            }
        };
        soft.run_until_cancelled(pause).await;
        if let Transport::Smtp(transport) = &sender.inner.parts.transport {
            if sender.inner.parts.breaker.is_half_open() {
                soft.run_until_cancelled(Box::pin(smtp::probe(sender, transport))).await;
            }
            transport.close_idle();
        }
    }
}

/// Once the last round has had its time.
async fn long_after(soft: &CancellationToken) {
    soft.cancelled().await;
    tokio::time::sleep(LAST_ROUND).await;
}

/// The programs, as of the last look.
#[derive(Default)]
struct Programs {
    ids: Vec<ProgramId>,
    /// Those whose mails can't be sent, and whose error was logged.
    broken: HashSet<ProgramId>,
    /// When to look again; rounds come more often than that while there is much to send.
    next_look: Option<Instant>,
}

impl Programs {
    /// Looks which programs there are, and takes back what leases ran out on, if it is time.
    async fn look(&mut self, sender: &Sender) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.next_look.is_some_and(|due| now < due) {
            return Ok(());
        }
        let db = &sender.inner.parts.db;
        self.ids = db.transact("mailer.programs", |tx, _| Box::pin(async move { programs::ids(tx).await })).await?;
        for program in self.ids.iter().copied() {
            let expired =
                db.transact("mailer.expire", |tx, _| Box::pin(async move { claim::expire(tx, program).await })).await?;
            if expired.requeued + expired.uncertain > 0 {
                tracing::warn!(
                    program.id = %program, requeued = expired.requeued, uncertain = expired.uncertain,
                    "leases of mails ran out"
                );
            }
        }
        self.next_look = Some(now + sender.inner.parts.config.poll_interval);
        Ok(())
    }
}

/// One round over all programs, each in its turn the first one, with the slots that were waited for and those that are free.
/// `true` when one may have more than there were slots.
async fn round(
    sender: &Sender,
    programs: &mut Programs,
    mut slots: Vec<Slot>,
    soft: &CancellationToken,
) -> Result<bool, StoreError> {
    programs.look(sender).await?;
    let (mut more, mut broken) = (false, Vec::new());
    for program in &programs.ids {
        if soft.is_cancelled() {
            break;
        }
        match claim_and_start(sender, *program, &mut slots).await {
            Ok(has_more) => more |= has_more,
            // A row of this program that can't be read must not stop the mails of the others.
            Err(error) if !error.is_transient() => broken.push((*program, error)),
            Err(error) => return Err(error),
        }
    }
    for (program, error) in broken {
        if programs.broken.insert(program) {
            tracing::error!(
                program.id = %program, error = &error as &dyn std::error::Error,
                "cannot send the mails of a program, going on with the others"
            );
        }
    }
    if !programs.ids.is_empty() {
        programs.ids.rotate_left(1);
    }
    Ok(more)
}

/// Claims as many mails of a program as can start now, and starts them; `true` when there may be more.
async fn claim_and_start(sender: &Sender, program: ProgramId, slots: &mut Vec<Slot>) -> Result<bool, StoreError> {
    let Some(open) = sender.inner.parts.directory.get(program).await? else { return Ok(false) };
    while slots.len() < MAX_CLAIM
        && let Some(slot) = sender.try_slot()
    {
        slots.push(slot);
    }
    if slots.is_empty() {
        return Ok(true);
    }
    let wanted = slots.len().min(MAX_CLAIM);
    let limits = limits(sender);
    let lease_seconds = sender.lease_seconds();
    let (claim, tokens) = sender
        .inner
        .parts
        .db
        .transact("mailer.claim", |tx, _| {
            Box::pin(claim_within(tx, program, wanted as i32, limits, (LeaseToken::generate(), lease_seconds)))
        })
        .await?;
    let more = claim.seen() == wanted as u64;
    let Claim { claimed, cancelled, moved } = claim;
    if cancelled > 0 || !moved.is_empty() {
        tracing::info!(
            program.id = %program, cancelled, replanned = moved.len(),
            "due mails were cancelled or planned again instead of sent"
        );
    }
    if !claimed.is_empty() {
        start(sender, &open, claimed, &tokens, slots).await?;
    }
    // Last: what is claimed is under lease, and need not wait for this.
    if !moved.is_empty() {
        let moved = &moved;
        sender.inner.parts.db.transact("mailer.plan_again", |tx, _| Box::pin(plan::plan(tx, moved))).await?;
    }
    Ok(more)
}

/// The limits that hold for mails, shared by all replicas.
fn limits(sender: &Sender) -> Limits {
    if sender.captures() {
        return Limits::NONE;
    }
    let per_minute = sender.inner.parts.config.smtp.per_minute;
    let per_minute = (per_minute > 0).then(|| i32::try_from(per_minute).unwrap_or(i32::MAX));
    Limits { per_minute, daily: true }
}

/// Decides once more, now that they are about to be sent, and starts those that still qualify. The others are given back with
/// their decision, and their tokens with them.
async fn start(
    sender: &Sender,
    program: &Arc<OpenProgram>,
    claimed: Vec<Claimed>,
    tokens: &Tokens,
    slots: &mut Vec<Slot>,
) -> Result<(), StoreError> {
    let ids: Vec<(ProgramId, LeadId)> = claimed.iter().map(|row| (row.program_id, row.lead_id)).collect();
    let parts = &sender.inner.parts;
    let mut found: HashMap<_, _> = enrichments::open(&parts.db, parts.directory.vault(), &ids).await?;
    let mut jobs = Vec::with_capacity(claimed.len());
    let (mut declined, mut gone, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for (row, slot) in claimed.into_iter().zip(slots.drain(..ids.len())) {
        match found.remove(&(row.program_id, row.lead_id)) {
            Some(FoundEnriched::Enriched(lead)) if decide(&lead, &program.program) == Decision::Plan => {
                let (program, tokens) = (Arc::clone(program), tokens.clone());
                jobs.push(Job { claimed: row, lead, program, slot, tokens, trace: TraceContext::default() });
            }
            Some(FoundEnriched::Enriched(_)) => declined.push(row),
            Some(FoundEnriched::Unreadable(error)) => {
                let error = &*error as &(dyn std::error::Error + 'static);
                tracing::error!(outreach.id = %row.id, lead.id = %row.lead_id, error, "a mail is held: its lead can't be read");
                unreadable.push(row);
            }
            _ => gone.push(lease(&row)),
        }
    }
    let unsent = declined.len() + gone.len() + unreadable.len();
    if !declined.is_empty() || !gone.is_empty() {
        let items = &declined.iter().map(again).collect::<Vec<_>>();
        // Those too about which a newer enrichment is yet to be decided: nothing is planned for them here.
        let given_up = &gone.into_iter().chain(declined.iter().map(lease)).collect::<Vec<_>>();
        parts
            .db
            .transact("mailer.decline", |tx, _| {
                Box::pin(async move {
                    plan::plan(tx, items).await?;
                    data_phase::abort(tx, given_up).await
                })
            })
            .await?;
    }
    for row in unreadable {
        sender.settle_until_known(held(&row, hold::UNREADABLE), TraceContext::default()).await;
    }
    tokens.give_back(&parts.db, program.program.id, unsent as i32).await;
    sender.start(jobs).await;
    Ok(())
}

const fn lease(row: &Claimed) -> Lease {
    (row.program_id, row.id, row.token)
}

/// A new decision about a mail that we have in hand.
fn again(row: &Claimed) -> PlanItem {
    PlanItem {
        step: row.step.clone(),
        occasion: Occasion::Again { lease: Some(row.token) },
        ..PlanItem::again(row.program_id, row.lead_id)
    }
}

fn held(row: &Claimed, reason: &str) -> Settlement {
    Settlement {
        program_id: row.program_id,
        id: row.id,
        lead_id: row.lead_id,
        token: row.token,
        outcome: Outcome::Held { reason: reason.to_owned() },
        reply_code: None,
        reply: None,
    }
}
