//! Having leads analysed again, after a program's niches have changed: their scores depend on these.
//!
//! A lead's revision rises, which makes its enrichment outdated, and an event tells the enricher. Leads to whom a mail was sent
//! are left alone: nothing would follow from another score.

use std::time::Duration;

use domain::{
    event::{Envelope, Event, Outgoing, Route, TraceContext},
    id::{LeadId, ProgramId},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Connection, Db, StoreError, leads, outbox};

/// Leads of one transaction.
const PAGE: i64 = 500;
/// How long an enricher may go on with the settings that it knows: as long as it believes its cache, and a little more.
const CACHED: Duration = Duration::from_secs(5);
/// How long after a change all leads are gone through a second time, for those that were written by transactions that were under
/// way.
const SECOND_PASS: Duration = Duration::from_mins(2);

/// Has a program's leads analysed again if its niches have changed since this was done last; returns how many. `progress` is
/// told how many there were so far.
///
/// # Errors
/// When the database fails; the next call goes on with those that were not reached.
pub async fn program(
    db: &Db,
    program: ProgramId,
    now: OffsetDateTime,
    mut progress: impl FnMut(u64),
) -> Result<u64, StoreError> {
    let due = db.transact("reanalysis.due", |tx, _| Box::pin(is_due(tx, program))).await?;
    let Some(due) = due else { return Ok(0) };
    let (mut count, mut after) = (0, LeadId::from_uuid(Uuid::nil()));
    loop {
        let (raised, last) =
            db.transact("reanalysis.page", |tx, _| Box::pin(page(tx, program, due.changed_at, after, now))).await?;
        count += raised;
        progress(count);
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    db.transact("reanalysis.done", |tx, _| Box::pin(finish(tx, program, due.started_at))).await?;
    Ok(count)
}

/// How many leads would be analysed again if the niches changed now.
pub async fn count(connection: &mut Connection, program: ProgramId) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM enriched_leads WHERE program_id = $1 AND NOT sent"#,
        program.as_uuid(),
    )
    .fetch_one(connection)
    .await?;
    Ok(count)
}

/// A pass that is due. Times are PostgreSQL's.
struct Due {
    /// When the niches changed.
    changed_at: OffsetDateTime,
    /// When the pass begins.
    started_at: OffsetDateTime,
}

async fn is_due(connection: &mut Connection, program: ProgramId) -> Result<Option<Due>, StoreError> {
    let due = sqlx::query_as!(
        Due,
        r#"SELECT niches_changed_at AS "changed_at!", now() AS "started_at!" FROM programs
           WHERE id = $1 AND niches_changed_at IS NOT NULL
             AND (niches_applied_at IS NULL OR niches_applied_at < niches_changed_at
                  OR niches_applied_at < niches_changed_at + $2 * interval '1 second'
                     AND now() >= niches_changed_at + $2 * interval '1 second')"#,
        program.as_uuid(),
        SECOND_PASS.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(due)
}

async fn finish(connection: &mut Connection, program: ProgramId, started_at: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!("UPDATE programs SET niches_applied_at = $2 WHERE id = $1", program.as_uuid(), started_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Raises the revisions of up to a page of leads after the id `after`; returns how many, and the last lead that was looked at.
async fn page(
    connection: &mut Connection,
    program: ProgramId,
    changed_at: OffsetDateTime,
    after: LeadId,
    now: OffsetDateTime,
) -> Result<(u64, Option<LeadId>), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT lead_id, (NOT sent AND updated_at < $3::timestamptz + $4::float8 * interval '1 second') AS "outdated!", lead_revision
           FROM enriched_leads WHERE program_id = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $5"#,
        program.as_uuid(),
        after.as_uuid(),
        changed_at,
        CACHED.as_secs_f64(),
        PAGE,
    )
    .fetch_all(&mut *connection)
    .await?;
    let last = rows.last().map(|row| LeadId::from_uuid(row.lead_id));
    let outdated: Vec<_> = rows
        .into_iter()
        .filter(|row| row.outdated)
        .map(|row| (program, LeadId::from_uuid(row.lead_id), row.lead_revision))
        .collect();
    let ids: Vec<_> = outdated.iter().map(|(program, lead, _)| (*program, *lead)).collect();
    leads::lock_keys_for_update(connection, &ids).await?;
    Ok((raise(connection, &outdated, now).await?, last))
}

/// Has leads analysed again that still are at these revisions: raises them, and tells the enricher once it knows the niches. A lead whose revision is newer
/// is on its way to the enricher already. Their keys are locked by [`leads::lock_keys_for_update`]. Returns how many were raised.
pub(crate) async fn raise(
    connection: &mut Connection,
    outdated: &[leads::Revision],
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    if outdated.is_empty() {
        return Ok(0);
    }
    let (programs, leads, revisions) = leads::revision_columns(outdated);
    let raised = sqlx::query!(
        "UPDATE leads l SET revision = l.revision + 1, updated_at = $4
         FROM UNNEST($1::uuid[], $2::uuid[], $3::int[]) AS n (program_id, id, revision)
         WHERE l.program_id = n.program_id AND l.id = n.id AND l.revision = n.revision
           AND EXISTS (SELECT FROM lead_keys k WHERE k.program_id = l.program_id AND k.lead_id = l.id)
         RETURNING l.program_id, l.id, l.revision",
        &programs,
        &leads,
        &revisions,
        now,
    )
    .fetch_all(&mut *connection)
    .await?;
    let revisions: Vec<leads::Revision> = raised
        .iter()
        .map(|row| (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.id), row.revision))
        .collect();
    leads::await_enrichment(connection, &revisions).await?;
    let events: Vec<_> = revisions
        .iter()
        .map(|(program, lead, revision)| {
            let envelope = Envelope::new(*program, *lead, *revision, now, Event::LeadUpdated {});
            let outgoing = Outgoing { envelope, route: Route::Exchange, trace: TraceContext::default() };
            (outgoing, CACHED)
        })
        .collect();
    outbox::schedule(connection, &events).await?;
    Ok(revisions.len() as u64)
}
