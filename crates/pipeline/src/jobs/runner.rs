//! A process's part in the jobs of the installation.

use std::{collections::HashMap, time::Duration};

use retry::{News, Policy, Waits};
use store::{
    Db, StoreError,
    jobs::{self, JobState, RunOutcome},
    leases,
};
use tokio::{
    task::{Id, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CatchUp, Job, Progress,
    attempt::{Attempt, Ended, LAST_WORD_TIMEOUT, LATE, attempt},
    on_request::register,
};
use crate::error::chain;

/// How often to look for requests, and for leases that have ended, while nothing is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Runs these jobs, each when it is due and no other process has its lease, until `cancel` is cancelled; then tells the runs
/// under way to stop, gives them some seconds, and releases all leases. Outages of PostgreSQL are waited out.
pub async fn run(db: Db, jobs: Vec<Job>, cancel: CancellationToken) {
    let holder = Uuid::now_v7();
    let workers = jobs.into_iter().map(Worker::new).collect();
    let mut runner =
        Runner { db, workers, holder, cancel: cancel.clone(), runs: JoinSet::new(), begun: HashMap::new() };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = runner.work() => {}
    }
    runner.stop().await;
}

struct Runner {
    db: Db,
    workers: Vec<Worker>,
    holder: Uuid,
    cancel: CancellationToken,
    runs: JoinSet<Result<Attempt, StoreError>>,
    /// Which worker a task belongs to.
    begun: HashMap<Id, usize>,
}

/// A job in this process.
struct Worker {
    job: Job,
    is_running: bool,
    /// Not before this time, after PostgreSQL refused a run.
    rest_until: Instant,
    refused: Waits,
    failed: News,
}

impl Worker {
    fn new(job: Job) -> Self {
        Self {
            job,
            is_running: false,
            rest_until: Instant::now(),
            refused: Policy::OUTAGE.start(),
            failed: News::default(),
        }
    }
}

/// What to do about a job now.
enum Next {
    Run,
    Wait(Duration),
    Skip,
}

impl Runner {
    async fn work(&mut self) {
        let mut outage = Policy::OUTAGE.start();
        let mut is_registered = false;
        loop {
            let looked = if is_registered { self.look().await } else { self.register_all().await };
            let pause = match looked {
                Ok(pause) => {
                    is_registered = true;
                    outage.reset();
                    pause
                }
                Err(error) => {
                    if outage.is_news() {
                        tracing::warn!(error = %chain(&error), "cannot look for due jobs, retrying");
                    }
                    outage.next_wait()
                }
            };
            let resting = sleep(pause);
            tokio::pin!(resting);
            // Whoever ends sooner: a run that has ended may be due again.
            tokio::select! {
                () = &mut resting => {}
                Some(ended) = self.runs.join_next_with_id(), if !self.runs.is_empty() => self.take_note(ended),
            }
        }
    }

    async fn register_all(&self) -> Result<Duration, StoreError> {
        register(&self.db, self.workers.iter().map(|worker| &worker.job)).await?;
        Ok(Duration::ZERO)
    }

    /// Begins what is due; returns how long to wait for what is not.
    async fn look(&mut self) -> Result<Duration, StoreError> {
        let idle: Vec<(&str, &str)> = self
            .workers
            .iter()
            .filter(|worker| !worker.is_running)
            .map(|worker| (worker.job.name, worker.job.lease.name.as_str()))
            .collect();
        let mut pause = retry::jittered(POLL_INTERVAL);
        if idle.is_empty() {
            return Ok(pause);
        }
        let states = {
            let idle = idle.as_slice();
            self.db.transact("job.look", |tx, _| Box::pin(async move { jobs::states(tx, idle).await })).await?
        };
        for state in states {
            let Some(index) = self.workers.iter().position(|worker| worker.job.name == state.name) else { continue };
            let worker = &mut self.workers[index];
            let rest = worker.rest_until.saturating_duration_since(Instant::now());
            match next(&worker.job, &state, self.holder) {
                _ if !rest.is_zero() => pause = pause.min(rest),
                Next::Wait(wait) => pause = pause.min(wait),
                Next::Run => {
                    worker.is_running = true;
                    let (db, job, holder, cancel) =
                        (self.db.clone(), worker.job.clone(), self.holder, self.cancel.clone());
                    let task =
                        self.runs.spawn(async move { attempt(&db, &job, holder, &cancel, &Progress::default()).await });
                    self.begun.insert(task.id(), index);
                }
                Next::Skip => {
                    let (job, missed, due) = (worker.job.name, state.next_due_at, worker.job.schedule.next(state.now));
                    tracing::info!(job, missed = %missed, "a missed job run was left out");
                    self.db
                        .transact("job.skip", |tx, _| Box::pin(async move { jobs::skip(tx, job, missed, due).await }))
                        .await?;
                    pause = Duration::ZERO;
                }
            }
        }
        Ok(pause)
    }

    fn take_note(&mut self, ended: Result<(Id, Result<Attempt, StoreError>), tokio::task::JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => (error.id(), None),
        };
        let Some(worker) = self.begun.remove(&id).and_then(|index| self.workers.get_mut(index)) else { return };
        worker.is_running = false;
        let job = worker.job.name;
        match result {
            Some(Ok(Attempt::Ended(ended))) => {
                worker.refused.reset();
                report(job, &ended, &mut worker.failed);
            }
            Some(Ok(Attempt::Elsewhere)) => _ = worker.refused.reset(),
            Some(Err(error)) => {
                worker.rest_until = Instant::now() + worker.refused.next_wait();
                if worker.refused.is_news() {
                    tracing::warn!(job, error = %chain(&error), "cannot begin a job run, retrying");
                }
            }
            // A body's panic is caught earlier, so this is one of the runner itself.
            None => {
                worker.rest_until = Instant::now() + POLL_INTERVAL;
                tracing::error!(job, "a job run broke off");
            }
        }
    }

    /// Waits for the runs that were told to stop, and gives up all leases.
    async fn stop(mut self) {
        while let Some(ended) = self.runs.join_next_with_id().await {
            self.take_note(ended);
        }
        let holder = self.holder;
        let releasing = self.db.transact("job.release", |tx, _| Box::pin(leases::release_all(tx, holder)));
        // If it fails, the leases end by themselves.
        let _ = timeout(LAST_WORD_TIMEOUT, releasing).await;
    }
}

/// What to do about a job that isn't running in this process.
fn next(job: &Job, state: &JobState, holder: Uuid) -> Next {
    let lease = state.lease.filter(|lease| lease.holder != holder);
    let until = |instant| Duration::try_from(instant - state.now).unwrap_or(Duration::ZERO);
    // A run that is named but not running here has lost its process, or couldn't be written down as ended.
    let is_wanted = state.requested_at.is_some() || state.run.is_some();
    let is_due = state.next_due_at <= state.now;
    match lease {
        Some(lease) if is_wanted || is_due => {
            let often = job.schedule.interval().map_or(POLL_INTERVAL, retry::jittered);
            Next::Wait(until(lease.expires_at).min(often.max(MINIMUM_WAIT)))
        }
        _ if is_wanted => Next::Run,
        _ if !is_due => Next::Wait(until(state.next_due_at)),
        _ if job.catch_up == CatchUp::Skip && state.failures == 0 && state.now - state.next_due_at > LATE => Next::Skip,
        _ => Next::Run,
    }
}

/// The shortest time between two looks at a lease that somebody else has.
const MINIMUM_WAIT: Duration = Duration::from_millis(50);

fn report(job: &str, ended: &Ended, failed: &mut News) {
    let Ended { id, outcome, rows, detail, took } = ended;
    let (seconds, detail) = (took.as_secs_f64(), detail.as_deref().unwrap_or_default());
    match outcome {
        RunOutcome::Done if failed.reset() => tracing::info!(job, run_id = %id, rows, seconds, "job works again"),
        RunOutcome::Done if *rows > 0 => tracing::info!(job, run_id = %id, rows, seconds, detail, "job run done"),
        RunOutcome::Done => tracing::debug!(job, run_id = %id, seconds, "job run found nothing to do"),
        RunOutcome::Failed if failed.is_due() => {
            tracing::warn!(job, run_id = %id, rows, seconds, error = detail, "job run failed, retrying");
        }
        RunOutcome::Failed => tracing::debug!(job, run_id = %id, rows, seconds, error = detail, "job run failed again"),
        RunOutcome::Interrupted => {
            tracing::debug!(job, run_id = %id, rows, seconds, reason = detail, "job run was interrupted");
        }
    }
}
