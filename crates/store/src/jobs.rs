//! Jobs: when each is due, which run is under way, and the records of earlier runs.
//!
//! All times are PostgreSQL's. A run is guarded by a lease ([`crate::leases`]) and named in the job's row until it
//! ends. A run that is still named there when somebody else gets the lease has lost its process: [`claim`] records it as
//! interrupted. Records are written when a run ends and only if it is worth one, so a job that looks every few seconds and
//! finds nothing leaves no trace but the time of its last look.

mod history;

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

pub use self::history::{Run, history, last_run, manual_run_since, prune};

use crate::{
    Connection, StoreError,
    leases::{self, Held},
};

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It was due.
    Schedule,
    /// A person asked for it.
    Manual,
    /// It should have begun earlier, or the run before it was interrupted.
    CatchUp,
}

impl Trigger {
    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::CatchUp => "catch_up",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// It did its work.
    Done,
    /// It gave an error.
    Failed,
    /// Its process ended, or lost the lease, before it was done.
    Interrupted,
}

impl RunOutcome {
    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The outcome that is stored under this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Done, Self::Failed, Self::Interrupted].into_iter().find(|outcome| outcome.name() == name)
    }
}

/// A job and when to run it at first.
#[derive(Debug, Clone)]
pub struct Registration<'a> {
    /// Its name: lower-case letters, digits and hyphens, 63 at most.
    pub name: &'a str,
    /// When it is due if nobody has registered it before.
    pub first_due_at: OffsetDateTime,
    /// The latest time that its schedule allows: a later one, left from another schedule, is brought forward.
    pub due_by: OffsetDateTime,
}

/// PostgreSQL's time.
pub async fn now(connection: &mut Connection) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(connection).await?)
}

/// Makes jobs known; those that are known keep their state.
pub async fn register(connection: &mut Connection, jobs: &[Registration<'_>]) -> Result<(), StoreError> {
    // In the order of their names, so that processes that start together don't wait for one another in a circle.
    let mut jobs: Vec<&Registration<'_>> = jobs.iter().collect();
    jobs.sort_unstable_by_key(|job| job.name);
    let names: Vec<String> = jobs.iter().map(|job| job.name.to_owned()).collect();
    let first: Vec<OffsetDateTime> = jobs.iter().map(|job| job.first_due_at).collect();
    let latest: Vec<OffsetDateTime> = jobs.iter().map(|job| job.due_by).collect();
    sqlx::query!(
        "INSERT INTO jobs (name, next_due_at)
         SELECT name, first_due_at FROM UNNEST($1::text[], $2::timestamptz[]) AS n (name, first_due_at)
         ON CONFLICT (name) DO NOTHING",
        &names,
        &first,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE jobs SET next_due_at = n.due_by
         FROM UNNEST($1::text[], $2::timestamptz[]) AS n (name, due_by)
         WHERE jobs.name = n.name AND jobs.next_due_at > n.due_by",
        &names,
        &latest,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The state of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// Its name.
    pub name: String,
    /// When it is due.
    pub next_due_at: OffsetDateTime,
    /// When a person asked for a run that has not begun yet.
    pub requested_at: Option<OffsetDateTime>,
    /// Failed runs in a row.
    pub failures: u32,
    /// The end of its last run, also of one without a record.
    pub last_ended_at: Option<OffsetDateTime>,
    /// The run under way, or one whose process has died: see `lease`.
    pub run: Option<CurrentRun>,
    /// Its lease, if somebody has it.
    pub lease: Option<Held>,
    /// PostgreSQL's time.
    pub now: OffsetDateTime,
}

/// A run that hasn't ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentRun {
    /// Its id.
    pub id: Uuid,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// Rows that it has handled so far, as of the last renewal of its lease.
    pub rows: u64,
}

/// The states of jobs, each given with the name of its lease, in the order of their names. Jobs that nobody has registered
/// are left out.
pub async fn states(connection: &mut Connection, jobs: &[(&str, &str)]) -> Result<Vec<JobState>, StoreError> {
    let (names, leases): (Vec<String>, Vec<String>) =
        jobs.iter().map(|(name, lease)| ((*name).to_owned(), (*lease).to_owned())).unzip();
    let rows = sqlx::query!(
        r#"SELECT j.name, j.next_due_at, j.requested_at, j.failures, j.last_ended_at, j.run_id, j.run_started_at,
                  j.run_rows, l.holder AS "holder?", l.expires_at AS "expires_at?", now() AS "now!"
           FROM UNNEST($1::text[], $2::text[]) AS w (name, lease)
           JOIN jobs j ON j.name = w.name
           LEFT JOIN leases l ON l.name = w.lease AND l.expires_at > now()
           ORDER BY j.name"#,
        &names,
        &leases,
    )
    .fetch_all(connection)
    .await?;
    let states = rows.into_iter().map(|row| JobState {
        name: row.name,
        next_due_at: row.next_due_at,
        requested_at: row.requested_at,
        failures: row.failures.unsigned_abs(),
        last_ended_at: row.last_ended_at,
        run: row.run_id.zip(row.run_started_at).map(|(id, started_at)| CurrentRun {
            id,
            started_at,
            rows: row.run_rows.unsigned_abs(),
        }),
        lease: row.holder.zip(row.expires_at).map(|(holder, expires_at)| Held { holder, expires_at }),
        now: row.now,
    });
    Ok(states.collect())
}

/// Asks for a run; returns since when one has been asked for.
pub async fn request(connection: &mut Connection, job: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let requested_at = sqlx::query_scalar!(
        r#"UPDATE jobs SET requested_at = coalesce(requested_at, now()) WHERE name = $1
           RETURNING requested_at AS "requested_at!""#,
        job,
    )
    .fetch_optional(connection)
    .await?;
    Ok(requested_at)
}

/// Takes the request of this time back, unless its run has begun.
pub async fn withdraw_request(
    connection: &mut Connection,
    job: &str,
    requested_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!("UPDATE jobs SET requested_at = NULL WHERE name = $1 AND requested_at = $2", job, requested_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Leaves out a run that is late, as the job's policy has it: moves the due time from `missed` to `next`.
pub async fn skip(
    connection: &mut Connection,
    job: &str,
    missed: OffsetDateTime,
    next: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!("UPDATE jobs SET next_due_at = $3 WHERE name = $1 AND next_due_at = $2", job, missed, next)
        .execute(connection)
        .await?;
    Ok(())
}

/// Who wants to run a job, and under which lease.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The job.
    pub job: &'a str,
    /// The name of its lease.
    pub lease: &'a str,
    /// The life of its lease.
    pub life: Duration,
    /// Who holds the lease.
    pub holder: Uuid,
    /// The id of the run.
    pub run: Uuid,
}

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// The run is this holder's, under its lease.
    Run {
        /// Why it begins.
        trigger: Trigger,
        /// When, by PostgreSQL's clock.
        started_at: OffsetDateTime,
        /// Failed runs in a row before it.
        failures: u32,
    },
    /// Somebody else has the lease.
    Held,
    /// Nobody asks for a run, and it isn't due.
    NotDue,
}

/// Takes the lease and begins a run, if the job is due, a person asked for it, or its last run lost its process. A run that
/// is `late` counts as catching up.
pub async fn claim(connection: &mut Connection, claimant: Claimant<'_>, late: Duration) -> Result<Claimed, StoreError> {
    let Claimant { job, lease, life, holder, run } = claimant;
    if !leases::take(connection, lease, holder, life).await? {
        return Ok(Claimed::Held);
    }
    let state = sqlx::query!(
        r#"SELECT next_due_at <= now() AS "due!", next_due_at < now() - $2 * interval '1 second' AS "late!",
                  requested_at IS NOT NULL AS "requested!", run_id IS NOT NULL AS "abandoned!", failures
           FROM jobs WHERE name = $1 FOR UPDATE"#,
        job,
        late.as_secs_f64(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(state) = state.filter(|state| state.due || state.requested || state.abandoned) else {
        leases::release(connection, lease, holder).await?;
        return Ok(Claimed::NotDue);
    };
    if state.abandoned {
        history::record_abandoned(connection, job).await?;
    }
    let trigger = match (state.requested, state.abandoned || state.late) {
        (true, _) => Trigger::Manual,
        (false, true) => Trigger::CatchUp,
        (false, false) => Trigger::Schedule,
    };
    // Not the time at which this transaction began: a request that it answers may have been made since.
    let started_at = sqlx::query_scalar!(
        r#"UPDATE jobs SET requested_at = NULL, run_id = $2, run_trigger = $3, run_holder = $4,
                           run_started_at = clock_timestamp(), run_rows = 0
           WHERE name = $1
           RETURNING run_started_at AS "started_at!""#,
        job,
        run,
        trigger.name(),
        holder,
    )
    .fetch_one(connection)
    .await?;
    Ok(Claimed::Run { trigger, started_at, failures: state.failures.unsigned_abs() })
}

/// Renews a run's lease and notes how many rows it has handled; `false` when the lease or the run isn't the holder's any
/// more.
pub async fn renew(connection: &mut Connection, claimant: Claimant<'_>, rows: u64) -> Result<bool, StoreError> {
    let Claimant { job, lease, life, holder, run } = claimant;
    if !leases::renew(connection, lease, holder, life).await? {
        return Ok(false);
    }
    let renewed = sqlx::query!(
        "UPDATE jobs SET run_rows = $3 WHERE name = $1 AND run_id = $2",
        job,
        run,
        i64::try_from(rows).unwrap_or(i64::MAX),
    )
    .execute(connection)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// How a run ended, and what follows.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// How.
    pub outcome: RunOutcome,
    /// Why it had begun.
    pub trigger: Trigger,
    /// When it had begun.
    pub started_at: OffsetDateTime,
    /// Rows that it has handled.
    pub rows: u64,
    /// For operators, without personal data.
    pub detail: Option<&'a str>,
    /// When the job is due next; `None` leaves it as it is.
    pub next_due_at: Option<OffsetDateTime>,
    /// Whether the run is worth a record.
    pub record: bool,
    /// Whether the holder gives the lease up.
    pub release: bool,
}

/// Ends a run; `false` when it isn't the holder's any more, and somebody else has recorded it as interrupted.
pub async fn finish(
    connection: &mut Connection,
    claimant: Claimant<'_>,
    ending: Ending<'_>,
) -> Result<bool, StoreError> {
    let Claimant { job, lease, holder, run, .. } = claimant;
    if ending.release {
        // Before the job's row, as a claim does.
        leases::release(connection, lease, holder).await?;
    }
    let failed = ending.outcome == RunOutcome::Failed;
    let finished = sqlx::query_scalar!(
        r#"UPDATE jobs
           SET run_id = NULL, run_trigger = NULL, run_holder = NULL, run_started_at = NULL, run_rows = 0,
               last_ended_at = now(), next_due_at = coalesce($3, next_due_at),
               failures = CASE $4 WHEN 'failed' THEN failures + 1 WHEN 'done' THEN 0 ELSE failures END
           WHERE name = $1 AND run_id = $2
           RETURNING failures"#,
        job,
        run,
        ending.next_due_at,
        ending.outcome.name(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(failures) = finished else { return Ok(false) };
    if ending.record {
        let again = failed && failures > 1 && ending.trigger != Trigger::Manual;
        if !(again && history::record_another_failure(connection, job, ending.detail).await?) {
            history::record(connection, claimant, ending).await?;
        }
    }
    Ok(true)
}
