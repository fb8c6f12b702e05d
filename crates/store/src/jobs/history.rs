//! Records of runs.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Claimant, Ending};
use crate::{Connection, Db, StoreError};

/// For how many days records are kept, and how many of each job at most.
const KEPT_DAYS: i32 = 90;
const KEPT_RUNS: i64 = 1_000;

/// A run, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// The job.
    pub job: String,
    /// `schedule`, `manual` or `catch_up`: see [`Trigger`](super::Trigger).
    pub trigger: String,
    /// Who ran it.
    pub holder: Uuid,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended; `None` while it is under way.
    pub ended_at: Option<OffsetDateTime>,
    /// Rows that it has handled.
    pub rows: u64,
    /// `running`, `done`, `failed` or `interrupted`: see [`RunOutcome`](super::RunOutcome).
    pub outcome: String,
    /// How many failed runs in a row this record stands for; 1 for every other run.
    pub attempts: u32,
    /// More about it, without personal data.
    pub detail: Option<String>,
}

struct Row {
    id: Uuid,
    job: String,
    trigger: String,
    holder: Uuid,
    started_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
    rows: i64,
    outcome: String,
    attempts: i32,
    detail: Option<String>,
}

impl From<Row> for Run {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            job: row.job,
            trigger: row.trigger,
            holder: row.holder,
            started_at: row.started_at,
            ended_at: row.ended_at,
            rows: row.rows.unsigned_abs(),
            outcome: row.outcome,
            attempts: row.attempts.unsigned_abs(),
            detail: row.detail,
        }
    }
}

/// The last `limit` runs of a job, or of all, the newest first; those under way included.
pub async fn history(connection: &mut Connection, job: Option<&str>, limit: i64) -> Result<Vec<Run>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id!", job AS "job!", trigger AS "trigger!", holder AS "holder!", started_at AS "started_at!",
                  ended_at, rows AS "rows!", outcome AS "outcome!", attempts AS "attempts!", detail
           FROM (
               (SELECT run_id AS id, name AS job, run_trigger AS trigger, run_holder AS holder,
                       run_started_at AS started_at, NULL::timestamptz AS ended_at, run_rows AS rows,
                       'running' AS outcome, 1 AS attempts, NULL::text AS detail
                FROM jobs WHERE run_id IS NOT NULL AND ($1::text IS NULL OR name = $1))
               UNION ALL
               (SELECT id, job, trigger, holder, started_at, ended_at, rows, outcome, attempts, detail
                FROM job_runs WHERE $1::text IS NULL OR job = $1
                ORDER BY started_at DESC LIMIT $2)
           ) r
           ORDER BY started_at DESC, id DESC LIMIT $2"#,
        job,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The last run of a job that has a record.
pub async fn last_run(connection: &mut Connection, job: &str) -> Result<Option<Run>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, job, trigger, holder, started_at, ended_at, rows, outcome, attempts, detail
         FROM job_runs WHERE job = $1 ORDER BY started_at DESC, id DESC LIMIT 1",
        job,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Into::into))
}

/// The run that a person's request of this time has led to, if it has ended.
pub async fn manual_run_since(
    connection: &mut Connection,
    job: &str,
    requested_at: OffsetDateTime,
) -> Result<Option<Run>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, job, trigger, holder, started_at, ended_at, rows, outcome, attempts, detail
         FROM job_runs WHERE job = $1 AND trigger = 'manual' AND started_at >= $2
         ORDER BY started_at LIMIT 1",
        job,
        requested_at,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Into::into))
}

/// Deletes records that are older than 90 days, and those beyond the last 1,000 of their job; returns how many.
pub async fn prune(db: Db) -> Result<u64, StoreError> {
    db.transact("job.prune", |tx, _| {
        Box::pin(async move {
            let deleted = sqlx::query!(
                "DELETE FROM job_runs r
                 USING (SELECT id, row_number() OVER (PARTITION BY job ORDER BY started_at DESC) AS place
                        FROM job_runs) n
                 WHERE n.id = r.id AND (r.started_at < now() - make_interval(days => $1) OR n.place > $2)",
                KEPT_DAYS,
                KEPT_RUNS,
            )
            .execute(tx)
            .await?;
            Ok(deleted.rows_affected())
        })
    })
    .await
}

/// Records a run that has ended.
pub(super) async fn record(
    connection: &mut Connection,
    claimant: Claimant<'_>,
    ending: Ending<'_>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO job_runs (id, job, trigger, holder, started_at, ended_at, rows, outcome, detail)
         VALUES ($1, $2, $3, $4, $5, now(), $6, $7, $8)
         ON CONFLICT (id) DO NOTHING",
        claimant.run,
        claimant.job,
        ending.trigger.name(),
        claimant.holder,
        ending.started_at,
        i64::try_from(ending.rows).unwrap_or(i64::MAX),
        ending.outcome.name(),
        ending.detail,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts a failure into the record of the failures right before it; `false` when the last record isn't one.
pub(super) async fn record_another_failure(
    connection: &mut Connection,
    job: &str,
    detail: Option<&str>,
) -> Result<bool, StoreError> {
    let counted = sqlx::query!(
        "UPDATE job_runs SET attempts = attempts + 1, ended_at = now(), detail = $2
         WHERE id = (SELECT id FROM job_runs WHERE job = $1 ORDER BY started_at DESC, id DESC LIMIT 1)
           AND outcome = 'failed' AND trigger <> 'manual'",
        job,
        detail,
    )
    .execute(connection)
    .await?;
    Ok(counted.rows_affected() == 1)
}

/// Records the run that is named in the job's row as interrupted: its lease is somebody else's now.
pub(super) async fn record_abandoned(connection: &mut Connection, job: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO job_runs (id, job, trigger, holder, started_at, ended_at, rows, outcome, detail)
         SELECT run_id, name, run_trigger, run_holder, run_started_at, now(), run_rows, 'interrupted',
                'its process ended or lost the lease'
         FROM jobs WHERE name = $1 AND run_id IS NOT NULL
         ON CONFLICT (id) DO NOTHING",
        job,
    )
    .execute(connection)
    .await?;
    Ok(())
}
