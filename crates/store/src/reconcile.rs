//! What the reconciler asks: which leads have lost their message?

use std::collections::HashSet;

use domain::{
    event::{Envelope, Event, Outgoing, Queue, Route, TraceContext},
    id::{LeadId, ProgramId},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Connection, StoreError};

/// Remembers that a queue was seen empty now, by PostgreSQL's clock.
pub async fn saw_empty(connection: &mut Connection, queue: Queue) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO queue_observations (queue, empty_at) VALUES ($1, now())
         ON CONFLICT (queue) DO UPDATE SET empty_at = excluded.empty_at",
        queue.name(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// When a queue was last seen empty.
pub async fn empty_at(connection: &mut Connection, queue: Queue) -> Result<Option<OffsetDateTime>, StoreError> {
    let instant = sqlx::query_scalar!("SELECT empty_at FROM queue_observations WHERE queue = $1", queue.name())
        .fetch_optional(connection)
        .await?;
    Ok(instant)
}

/// Events of one page that have to be told again.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What to emit, to the work queue alone.
    pub lost: Vec<Outgoing>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<LeadId>,
}

/// A page of a program's leads after `after`: those whose revision isn't enriched, changed before `before`.
pub async fn unenriched(
    connection: &mut Connection,
    program: ProgramId,
    after: LeadId,
    before: OffsetDateTime,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Page, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT p.id, p.revision,
                  (p.updated_at < $3 AND k.lead_id IS NOT NULL
                      AND (e.lead_revision IS NULL OR e.lead_revision < p.revision)) AS "lost!"
           FROM (SELECT id, program_id, revision, updated_at FROM leads
                 WHERE program_id = $1 AND id > $2 ORDER BY id LIMIT $4) p
           LEFT JOIN lead_keys k ON k.program_id = p.program_id AND k.lead_id = p.id
           LEFT JOIN enriched_leads e ON e.program_id = p.program_id AND e.lead_id = p.id
           ORDER BY p.id"#,
        program.as_uuid(),
        after.as_uuid(),
        before,
        limit,
    )
    .fetch_all(connection)
    .await?;
    let next = (rows.len() as i64 == limit).then(|| rows.last().map(|row| LeadId::from_uuid(row.id))).flatten();
    let lost = rows
        .into_iter()
        .filter(|row| row.lost)
        .map(|row| {
            again(Queue::LeadCreated, program, LeadId::from_uuid(row.id), row.revision, now, Event::LeadCreated {})
        })
        .collect();
    Ok(Page { lost, next })
}

/// A page of a program's enriched leads after `after`: those whose enrichment nobody decided about, made before `before`.
pub async fn undecided(
    connection: &mut Connection,
    program: ProgramId,
    after: LeadId,
    before: OffsetDateTime,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Page, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT p.lead_id, p.lead_revision, p.enrichment_version, p.score,
                  (p.updated_at < $3 AND k.lead_id IS NOT NULL
                      AND (p.decided_version IS NULL OR p.decided_version < p.enrichment_version)) AS "lost!"
           FROM (SELECT program_id, lead_id, lead_revision, enrichment_version, score, decided_version, updated_at
                 FROM enriched_leads WHERE program_id = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $4) p
           LEFT JOIN lead_keys k ON k.program_id = p.program_id AND k.lead_id = p.lead_id
           ORDER BY p.lead_id"#,
        program.as_uuid(),
        after.as_uuid(),
        before,
        limit,
    )
    .fetch_all(connection)
    .await?;
    let next = (rows.len() as i64 == limit).then(|| rows.last().map(|row| LeadId::from_uuid(row.lead_id))).flatten();
    let lost = rows
        .into_iter()
        .filter(|row| row.lost)
        .map(|row| {
            let event = Event::LeadEnriched { enrichment_version: row.enrichment_version, score: row.score };
            again(Queue::LeadEnriched, program, LeadId::from_uuid(row.lead_id), row.lead_revision, now, event)
        })
        .collect();
    Ok(Page { lost, next })
}

/// Which of these leads have an event in the outbox, due or put off: nothing of theirs is lost.
pub async fn still_in_outbox(connection: &mut Connection, leads: &[LeadId]) -> Result<HashSet<LeadId>, StoreError> {
    let ids: Vec<Uuid> = leads.iter().map(LeadId::as_uuid).collect();
    let waiting = sqlx::query_scalar!(
        r#"SELECT DISTINCT e.lead_id AS "lead_id!"
           FROM (SELECT (convert_from(envelope, 'UTF8')::jsonb ->> 'lead_id')::uuid AS lead_id FROM outbox) e
           WHERE e.lead_id = ANY($1)"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(waiting.into_iter().map(LeadId::from_uuid).collect())
}

fn again(queue: Queue, program: ProgramId, lead: LeadId, revision: i32, now: OffsetDateTime, event: Event) -> Outgoing {
    Outgoing {
        envelope: Envelope::new(program, lead, revision, now, event),
        route: Route::Queue(queue),
        trace: TraceContext::default(),
    }
}
