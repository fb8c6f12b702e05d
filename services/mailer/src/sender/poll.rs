//! Claims what is due: deferred and left-over mails, those of limited programs; and takes back leases that ran out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::{
    event::TraceContext,
    id::{LeadId, LeaseToken, ProgramId},
    qualification::Decision,
};
use store::{
    Connection, StoreError,
    enrichments::{self, FoundEnriched},
    outreach::{
        claim::{self, Claimed, Span},
        settle::{Outcome, Settlement},
    },
    programs::{self, OpenProgram},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Job, Sender, Slot, Transport, smtp};
use crate::plan;

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
            if !sender.inner.parts.gate.is_open() {
                slots.clear();
                tokio::time::sleep(sender.inner.parts.gate.remaining()).await;
            }
        };
        soft.run_until_cancelled(pause).await;
        if let Transport::Smtp(transport) = &sender.inner.parts.transport {
            if sender.inner.parts.gate.is_untried() {
                soft.run_until_cancelled(Box::pin(smtp::look_again(sender, transport))).await;
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
    let mut more = false;
    for program in &programs.ids {
        if soft.is_cancelled() {
            break;
        }
        more |= claim_and_start(sender, *program, &mut slots).await?;
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
    let budgets = budgets(sender, &open);
    let lease_seconds = sender.lease_seconds();
    let claimed = sender
        .inner
        .parts
        .db
        .transact("mailer.claim", |tx, _| {
            Box::pin(claim_within_budget(tx, program, wanted as i32, budgets, lease_seconds))
        })
        .await?;
    let more = claimed.len() == wanted;
    if !claimed.is_empty() {
        start(sender, &open, claimed, slots).await?;
    }
    Ok(more)
}

/// Gives back the tokens of a claimed mail of which nothing went out, through no fault of its own: an outage of the mail
/// server must not use up a day's mails.
pub(super) async fn return_tokens(sender: &Sender, program: &OpenProgram) {
    let (id, budgets) = (program.program.id, budgets(sender, program));
    if budgets.iter().all(Option::is_none) {
        return;
    }
    let returned = sender
        .inner
        .parts
        .db
        .transact("mailer.return_budget", |tx, _| {
            Box::pin(async move {
                for (span, _) in budgets.into_iter().flatten() {
                    claim::return_budget(tx, id, span, 1).await?;
                }
                Ok(())
            })
        })
        .await;
    if let Err(error) = returned {
        // A token too few errs on the safe side.
        tracing::debug!(program.id = %id, error = &error as &dyn std::error::Error, "a token could not be given back");
    }
}

/// The limits that hold for a program's mails, shared by all replicas.
fn budgets(sender: &Sender, program: &OpenProgram) -> [Option<(Span, i32)>; 2] {
    if !sender.is_limited(program) {
        return [None, None];
    }
    let per_minute = sender.inner.parts.config.smtp.per_minute;
    let minute = (per_minute > 0).then(|| (Span::Minute, i32::try_from(per_minute).unwrap_or(i32::MAX)));
    [program.program.settings.daily_cap.map(|cap| (Span::Day, cap)), minute]
}

async fn claim_within_budget(
    tx: &mut Connection,
    program: ProgramId,
    wanted: i32,
    budgets: [Option<(Span, i32)>; 2],
    lease_seconds: i32,
) -> Result<Vec<Claimed>, StoreError> {
    let mut granted = wanted;
    let mut taken = Vec::new();
    for (span, limit) in budgets.into_iter().flatten() {
        granted = claim::take_budget(tx, program, span, limit, granted).await?;
        taken.push((span, granted));
    }
    let claimed = if granted > 0 {
        claim::claim(tx, program, granted.into(), LeaseToken::generate(), lease_seconds).await?
    } else {
        Vec::new()
    };
    for (span, tokens) in taken {
        claim::return_budget(tx, program, span, tokens - claimed.len() as i32).await?;
    }
    Ok(claimed)
}

/// Decides once more, now that it is about to be sent, and starts what still qualifies.
async fn start(
    sender: &Sender,
    program: &Arc<OpenProgram>,
    claimed: Vec<Claimed>,
    slots: &mut Vec<Slot>,
) -> Result<(), StoreError> {
    let ids: Vec<(ProgramId, LeadId)> = claimed.iter().map(|row| (row.program_id, row.lead_id)).collect();
    let parts = &sender.inner.parts;
    let mut found: HashMap<_, _> = enrichments::open(&parts.db, parts.directory.vault(), &ids).await?;
    let mut jobs = Vec::with_capacity(claimed.len());
    let mut gone = Vec::new();
    for (row, slot) in claimed.into_iter().zip(slots.drain(..ids.len())) {
        let reason = match found.remove(&(row.program_id, row.lead_id)) {
            Some(FoundEnriched::Enriched(lead)) if !lead.suppressed => match plan::decide(&lead, &program.program) {
                Decision::Plan => {
                    let program = Arc::clone(program);
                    jobs.push(Job { claimed: row, lead, program, slot, trace: TraceContext::default() });
                    continue;
                }
                Decision::Hold(blockers) | Decision::Decline(blockers) => {
                    blockers.first().map(domain::qualification::Blocker::code).unwrap_or_default()
                }
            },
            Some(FoundEnriched::Unreadable(error)) => {
                let error = &*error as &(dyn std::error::Error + 'static);
                tracing::error!(outreach.id = %row.id, lead.id = %row.lead_id, error, "a mail is held: its lead can't be read");
                "unreadable".to_owned()
            }
            _ => {
                gone.push((row.program_id, row.id, row.token));
                continue;
            }
        };
        let settlement = Settlement {
            program_id: row.program_id,
            id: row.id,
            lead_id: row.lead_id,
            token: row.token,
            outcome: Outcome::Held { reason },
            reply_code: None,
            reply: None,
        };
        sender.settle_until_known(settlement, TraceContext::default()).await;
    }
    if !gone.is_empty() {
        let gone = &gone;
        parts.db.transact("mailer.abort", |tx, _| Box::pin(async move { claim::abort(tx, gone).await })).await?;
    }
    sender.start(jobs).await;
    Ok(())
}
