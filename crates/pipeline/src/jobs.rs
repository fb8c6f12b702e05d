//! Jobs: named work by the clock or on request, done by one replica at a time.
//!
//! ```text
//!   jobs.next_due_at passed, or a person asked
//!        │ claim: lease taken, run named in the job's row, one transaction
//!        ▼
//!   the body runs; its lease is renewed every third of its life
//!        │ ended, failed, or the lease was lost
//!        ▼
//!   finish: next due time, and a record if the run is worth one
//! ```
//!
//! PostgreSQL's clock decides what is due and when a lease ends. If a process dies, its lease ends, and the next one records
//! the run as interrupted and runs the job again: **a body must be safe to run again from the start**, and safe to be dropped
//! at any await, which is what a lost lease does to it. A failed run is tried again with backoff.
//!
//! A run is recorded if it handled rows, failed, was interrupted, or was asked for by a person. One that found nothing to do
//! leaves only the time of its end in the job's row.
//!
//! # To add a job
//!
//! Write the body into the crate that owns the work: `async fn(Db) -> Result<u64, StoreError>`, which returns how many rows it
//! handled. Then add three lines to `catalogue` in `bootstrap::jobs`:
//!
//! ```ignore
//! Job::of_rows("held-mail", "Plans mails that were held for a reason that has passed", store::outreach::reevaluate)
//!     .scheduled(Schedule::every(Duration::from_mins(5)))
//!     .catching_up(CatchUp::Skip), // the default is RunOnce
//! ```
//!
//! Work that takes longer than a minute takes a [`JobContext`] instead ([`Job::new`]): it looks at the cancellation token
//! between two steps, and reports how many rows it has handled so far.
//!
//! **Architecture invariant:** this module knows when a job runs, and nothing of what it does.

mod attempt;
mod on_request;
mod runner;
mod schedule;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use store::{Db, StoreError};
use tokio_util::sync::CancellationToken;

pub use self::{
    attempt::Ended,
    on_request::{RequestProgress, register, run_on_request},
    runner::run,
    schedule::{CatchUp, InvalidCron, Schedule},
};

/// The life of a lease unless a job says otherwise.
const LEASE_LIFE: Duration = Duration::from_mins(1);

/// What a body may fail with. Its text goes to the log and into the run's record, so it names ids and no personal data.
pub type JobError = Box<dyn std::error::Error + Send + Sync>;

/// What a body gives that stops early because its token was cancelled: the run counts as interrupted, and not as failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the run was told to stop")]
pub struct Stopped;

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completed {
    /// How many rows it handled; a scheduled run without any isn't recorded.
    pub rows: u64,
    /// More about it for operators, without personal data.
    pub detail: Option<String>,
}

impl Completed {
    /// So many rows, and nothing more to say.
    pub const fn rows(rows: u64) -> Self {
        Self { rows, detail: None }
    }
}

/// What a body gets.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// The database.
    pub db: Db,
    /// Cancelled when the process is about to end: finish the step under way within seconds, then return [`Stopped`].
    pub cancel: CancellationToken,
    /// Where long work tells how far it is.
    pub progress: Progress,
}

/// How many rows a run has handled so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// So many more.
    pub fn add(&self, rows: u64) {
        self.0.fetch_add(rows, Ordering::Relaxed);
    }

    /// All together.
    pub fn rows(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Body = dyn Fn(JobContext) -> BoxFuture<'static, Result<Completed, JobError>> + Send + Sync;

/// A job: what it is called, when it runs, and what it does. Cheap to clone.
#[derive(Clone)]
pub struct Job {
    name: &'static str,
    description: &'static str,
    schedule: Schedule,
    catch_up: CatchUp,
    lease: Lease,
    body: Arc<Body>,
}

/// The lease of a job's runs.
#[derive(Debug, Clone)]
struct Lease {
    name: String,
    life: Duration,
    /// Whether a process keeps it from one run to the next.
    kept: bool,
}

impl Job {
    /// A job that runs every hour until [`Job::scheduled`] says otherwise. The name is of lower-case letters, digits and
    /// hyphens, and never changes: its history hangs on it. The description is one line that says what a run does.
    pub fn new<F>(
        name: &'static str,
        description: &'static str,
        body: impl Fn(JobContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Completed, JobError>> + Send + 'static,
    {
        Self {
            name,
            description,
            schedule: Schedule::every(Duration::from_hours(1)),
            catch_up: CatchUp::RunOnce,
            lease: Lease { name: format!("job:{name}"), life: LEASE_LIFE, kept: false },
            body: Arc::new(move |context| Box::pin(body(context))),
        }
    }

    /// A job whose body needs the database only, and returns how many rows it handled.
    pub fn of_rows<F>(
        name: &'static str,
        description: &'static str,
        body: impl Fn(Db) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<u64, StoreError>> + Send + 'static,
    {
        Self::new(name, description, move |context| {
            let handling = body(context.db);
            async move { Ok(Completed::rows(handling.await?)) }
        })
    }

    /// When it runs.
    #[must_use]
    pub fn scheduled(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// What becomes of a run that was missed.
    #[must_use]
    pub const fn catching_up(mut self, policy: CatchUp) -> Self {
        self.catch_up = policy;
        self
    }

    /// How long its lease lives without being renewed, from a second: for so long a dead process holds the job up.
    #[must_use]
    pub fn lease_life(mut self, life: Duration) -> Self {
        self.lease.life = life.max(Duration::from_secs(1));
        self
    }

    /// A lease of another name than `job:NAME`, which a process keeps from one run to the next: for a body that remembers
    /// something. The time between two runs must be shorter than the lease's life.
    #[must_use]
    pub fn keeping_lease(mut self, name: &str) -> Self {
        name.clone_into(&mut self.lease.name);
        self.lease.kept = true;
        self
    }

    /// What it is called.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What a run does, in one line.
    pub const fn description(&self) -> &'static str {
        self.description
    }

    /// When it runs.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The name of its lease in the table `leases`.
    pub fn lease_name(&self) -> &str {
        &self.lease.name
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("schedule", &self.schedule).finish_non_exhaustive()
    }
}
