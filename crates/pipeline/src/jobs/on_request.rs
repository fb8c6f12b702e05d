//! Running a job because a person asks for it.

use std::time::Duration;

use store::{
    Db, StoreError,
    jobs::{self, JobState, Registration, RunOutcome},
};
use time::OffsetDateTime;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CatchUp, Job, Progress,
    attempt::{Attempt, Ended, LAST_WORD_TIMEOUT, attempt},
};

/// How often to look what has become of a request.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestProgress {
    /// This process runs the job.
    Running {
        /// Rows handled so far.
        rows: u64,
    },
    /// Another process runs it, or has its lease and will run it.
    Elsewhere {
        /// Who.
        holder: Option<Uuid>,
        /// Rows handled so far, as of the last renewal of the lease.
        rows: u64,
    },
}

/// Makes jobs known to the database; those that are known keep their state.
///
/// # Errors
/// When PostgreSQL can't be asked.
pub async fn register(db: &Db, jobs: impl IntoIterator<Item = &Job>) -> Result<(), StoreError> {
    let jobs: Vec<Job> = jobs.into_iter().cloned().collect();
    let jobs = jobs.as_slice();
    db.transact("job.register", |tx, _| {
        Box::pin(async move {
            let now = jobs::now(tx).await?;
            let registrations: Vec<Registration<'_>> = jobs
                .iter()
                .map(|job| Registration {
                    name: job.name,
                    // What never ran was missed, as far as anybody can tell.
                    first_due_at: if job.catch_up == CatchUp::RunOnce { now } else { job.schedule.next(now) },
                    due_by: job.schedule.latest(now),
                })
                .collect();
            jobs::register(tx, &registrations).await
        })
    })
    .await
}

/// Asks for a run and waits for its end. This process runs the job unless another one has the lease; then that one does.
/// A cancelled wait takes the request back if its run hasn't begun.
///
/// # Errors
/// When PostgreSQL can't be asked. A body's error is part of what is returned.
pub async fn run_on_request(
    db: &Db,
    job: &Job,
    cancel: &CancellationToken,
    mut report: impl FnMut(RequestProgress),
) -> Result<Ended, StoreError> {
    register(db, [job]).await?;
    let name = job.name;
    let requested_at = db
        .transact("job.request", |tx, _| Box::pin(jobs::request(tx, name)))
        .await?
        .ok_or_else(|| StoreError::Conflict(format!("the job `{name}` was deleted")))?;
    let holder = Uuid::now_v7();
    let mut has_vanished = false;
    loop {
        if let Some(ended) = ended_run(db, name, requested_at).await? {
            return Ok(ended);
        }
        let Some(state) = state(db, job).await? else { continue };
        match state.lease {
            // A run without a lease has lost its process: whoever comes next records that, and runs the job again.
            None if state.requested_at.is_some() || state.run.is_some() => {
                if let Attempt::Ended(ended) = attempt_here(db, job, holder, cancel, &mut report).await? {
                    return Ok(ended);
                }
            }
            // Another look tells whether it has just ended.
            None if !has_vanished => has_vanished = true,
            None => return Ok(taken_back()),
            lease => report(RequestProgress::Elsewhere {
                holder: lease.map(|lease| lease.holder),
                rows: state.run.map_or(0, |run| run.rows),
            }),
        }
        if cancel.run_until_cancelled(sleep(POLL_INTERVAL)).await.is_none() {
            let withdrawing =
                db.transact("job.withdraw", |tx, _| Box::pin(jobs::withdraw_request(tx, name, requested_at)));
            // If it fails, the run will be done for nobody.
            let _ = timeout(LAST_WORD_TIMEOUT, withdrawing).await;
            return Ok(taken_back());
        }
    }
}

fn taken_back() -> Ended {
    let detail = Some("the request was taken back".to_owned());
    Ended { id: Uuid::nil(), outcome: RunOutcome::Interrupted, rows: 0, detail, took: Duration::ZERO }
}

async fn attempt_here(
    db: &Db,
    job: &Job,
    holder: Uuid,
    cancel: &CancellationToken,
    report: &mut impl FnMut(RequestProgress),
) -> Result<Attempt, StoreError> {
    let progress = Progress::default();
    let running = attempt(db, job, holder, cancel, &progress);
    tokio::pin!(running);
    let mut ticks = interval(POLL_INTERVAL);
    let attempt = loop {
        tokio::select! {
            attempt = &mut running => break attempt?,
            _ = ticks.tick() => report(RequestProgress::Running { rows: progress.rows() }),
        }
    };
    if job.lease.kept && matches!(attempt, Attempt::Ended(_)) {
        // This process won't run it again.
        let lease = job.lease.name.as_str();
        db.transact("job.release", |tx, _| Box::pin(store::leases::release(tx, lease, holder))).await?;
    }
    Ok(attempt)
}

/// How the run ended that this request has led to, in whichever process.
async fn ended_run(db: &Db, job: &str, requested_at: OffsetDateTime) -> Result<Option<Ended>, StoreError> {
    let run = db
        .transact("job.result", |tx, _| Box::pin(async move { jobs::manual_run_since(tx, job, requested_at).await }))
        .await?;
    Ok(run.map(|run| Ended {
        id: run.id,
        // A name that only a newer version knows is no success that this one could vouch for.
        outcome: RunOutcome::from_name(&run.outcome).unwrap_or(RunOutcome::Failed),
        rows: run.rows,
        took: run.ended_at.and_then(|ended_at| Duration::try_from(ended_at - run.started_at).ok()).unwrap_or_default(),
        detail: run.detail,
    }))
}

async fn state(db: &Db, job: &Job) -> Result<Option<JobState>, StoreError> {
    let asked = [(job.name, job.lease.name.as_str())];
    let asked = asked.as_slice();
    let states = db.transact("job.look", |tx, _| Box::pin(async move { jobs::states(tx, asked).await })).await?;
    Ok(states.into_iter().next())
}
