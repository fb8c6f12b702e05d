//! One run of a job, from the claim of its lease to its record.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use retry::Policy;
use store::{
    Db, StoreError,
    jobs::{self, Claimant, Claimed, Ending, RunOutcome, Trigger},
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Completed, Job, JobContext, JobError, Progress, Stopped};
use crate::error::chain;

/// How late a run may be and still count as on time. A process looks for due jobs far more often.
pub(super) const LATE: Duration = Duration::from_mins(1);
/// How long a body may go on after its token was cancelled.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process that is told to end tries to write down how a run ended.
pub(super) const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(2);
/// A scheduled run that was interrupted earlier than this isn't worth a record.
const WORTH_A_RECORD: Duration = Duration::from_secs(10);
/// The most characters of a detail that are kept.
const DETAIL_LENGTH: usize = 500;

/// What came of an attempt to run a job.
#[derive(Debug)]
pub(super) enum Attempt {
    /// It ran.
    Ended(Ended),
    /// Somebody else has its lease, or it isn't due any more.
    Elsewhere,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its id, as in the job's history.
    pub id: Uuid,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Rows that it has handled.
    pub rows: u64,
    /// More about it; for a failed run, the error.
    pub detail: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs a job under its lease, if it is due or asked for, until it ends, the lease is lost, or `cancel` is cancelled and the
/// body doesn't stop in time.
///
/// # Errors
/// When PostgreSQL can't be asked for the run. A body's error is part of what is returned.
pub(super) async fn attempt(
    db: &Db,
    job: &Job,
    holder: Uuid,
    cancel: &CancellationToken,
    progress: &Progress,
) -> Result<Attempt, StoreError> {
    let run = Uuid::now_v7();
    let claimant = Claimant { job: job.name, lease: &job.lease.name, life: job.lease.life, holder, run };
    // Counted from before PostgreSQL counts it, so that this process never believes in its lease for longer.
    let leased_at = Instant::now();
    let claimed =
        db.transact("job.claim", |tx, _| Box::pin(async move { jobs::claim(tx, claimant, LATE).await })).await?;
    let Claimed::Run { trigger, started_at, failures } = claimed else { return Ok(Attempt::Elsewhere) };

    let context = JobContext { db: db.clone(), cancel: cancel.child_token(), progress: progress.clone() };
    let body = AssertUnwindSafe(async { (job.body)(context).await }).catch_unwind();
    let overdue = async {
        cancel.cancelled().await;
        sleep(STOP_TIMEOUT).await;
    };
    let result = tokio::select! {
        result = body => result.unwrap_or_else(|_| Err("the job panicked".into())),
        () = until_lost(db, claimant, leased_at, progress) => Err(LeaseLost.into()),
        () = overdue => Err(Stopped.into()),
    };

    let took = leased_at.elapsed();
    let ended = describe(run, result, cancel, progress, took);
    let now = started_at + took;
    let next_due_at = next_due_at(job, trigger, &ended, failures, now);
    let ending = Ending {
        outcome: ended.outcome,
        trigger,
        started_at,
        rows: ended.rows,
        detail: ended.detail.as_deref(),
        next_due_at,
        record: is_worth_a_record(trigger, &ended),
        release: !job.lease.kept,
    };
    let limit = if cancel.is_cancelled() { LAST_WORD_TIMEOUT } else { job.lease.life };
    if timeout(limit, finish(db, claimant, ending)).await.is_err() {
        tracing::warn!(job = job.name, run_id = %run, "cannot record how a job run ended; it will count as interrupted");
    }
    Ok(Attempt::Ended(ended))
}

#[derive(Debug, thiserror::Error)]
#[error("the lease was lost")]
struct LeaseLost;

fn describe(
    id: Uuid,
    result: Result<Completed, JobError>,
    cancel: &CancellationToken,
    progress: &Progress,
    took: Duration,
) -> Ended {
    let cut = |text: String| text.chars().take(DETAIL_LENGTH).collect::<String>();
    match result {
        Ok(Completed { rows, detail }) => Ended { id, outcome: RunOutcome::Done, rows, detail: detail.map(cut), took },
        Err(error) => {
            let is_interrupted = error.is::<LeaseLost>() || error.is::<Stopped>() || cancel.is_cancelled();
            let outcome = if is_interrupted { RunOutcome::Interrupted } else { RunOutcome::Failed };
            Ended { id, outcome, rows: progress.rows(), detail: Some(cut(chain(&*error))), took }
        }
    }
}

/// When the job is due after this run; `None` leaves it due as it was.
fn next_due_at(
    job: &Job,
    trigger: Trigger,
    ended: &Ended,
    failures: u32,
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    match (ended.outcome, trigger) {
        (RunOutcome::Done, _) => Some(job.schedule.next(now)),
        // Who asked sees the error and asks again; the schedule goes on as if nothing had been asked.
        (RunOutcome::Failed, Trigger::Manual) | (RunOutcome::Interrupted, _) => None,
        (RunOutcome::Failed, _) => Some(now + job.schedule.retry_wait(failures + 1)),
    }
}

fn is_worth_a_record(trigger: Trigger, ended: &Ended) -> bool {
    trigger == Trigger::Manual
        || match ended.outcome {
            RunOutcome::Done => ended.rows > 0 || ended.detail.is_some(),
            RunOutcome::Failed => true,
            RunOutcome::Interrupted => ended.rows > 0 || ended.took >= WORTH_A_RECORD,
        }
}

/// Renews the lease until that fails: PostgreSQL says that it is somebody else's, or can't be asked before it ends.
async fn until_lost(db: &Db, claimant: Claimant<'_>, leased_at: Instant, progress: &Progress) {
    let mut ends_at = leased_at + claimant.life;
    let mut waits = Policy::OUTAGE.start();
    let mut pause = claimant.life / 3;
    loop {
        sleep(pause).await;
        let asked_at = Instant::now();
        let rows = progress.rows();
        let renewing = db.transact("job.renew", |tx, _| Box::pin(async move { jobs::renew(tx, claimant, rows).await }));
        match timeout_at(ends_at, renewing).await {
            Ok(Ok(true)) => {
                ends_at = asked_at + claimant.life;
                waits.reset();
                pause = claimant.life / 3;
            }
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(_)) => pause = waits.next_wait(),
        }
        if Instant::now() >= ends_at {
            return;
        }
    }
}

/// Writes down how a run ended, however long PostgreSQL is away.
async fn finish(db: &Db, claimant: Claimant<'_>, ending: Ending<'_>) {
    let mut waits = Policy::OUTAGE.start();
    loop {
        let finishing =
            db.transact("job.finish", |tx, _| Box::pin(async move { jobs::finish(tx, claimant, ending).await }));
        match finishing.await {
            Ok(_) => return,
            Err(error) if error.is_transient() => waits.pause().await,
            Err(error) => {
                return tracing::error!(
                    job = claimant.job, run_id = %claimant.run, error = %chain(&error),
                    "cannot record how a job run ended"
                );
            }
        }
    }
}
