//! What the reconciler asks: which leads have lost their message?
//!
//! Unfinished leads are found by partial indexes: those that wait for an enrichment by `lead_keys.awaited_revision`, those
//! without a decision by the versions in `enriched_leads`. What is finished is never read.

use std::collections::HashSet;

use domain::{
    event::{Envelope, Event, Outgoing, Queue, Route, TraceContext},
    id::{LeadId, ProgramId},
};
use time::OffsetDateTime;

use crate::{Connection, StoreError, leads};

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

/// A page of a program's unfinished leads after `after`: those that wait for an enrichment, changed before `before`. Reads the
/// index over waiting leads, and nothing of the others.
///
/// A lead that is enriched and counts as waiting all the same was enriched by a version that doesn't know of waiting: it is
/// set right.
pub async fn unenriched(
    connection: &mut Connection,
    program: ProgramId,
    after: LeadId,
    before: OffsetDateTime,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Page, StoreError> {
    // OFFSET 0 keeps each look one row by its whole key: a program that the statistics don't know yet is taken for an empty
    // one, of which any index that begins with it would do.
    let rows = sqlx::query!(
        r#"SELECT p.lead_id, l.revision, e.lead_revision AS "lead_revision?", l.updated_at < $3 AS "is_older!"
           FROM (SELECT program_id, lead_id FROM lead_keys
                 WHERE program_id = $1 AND lead_id > $2 AND awaited_revision IS NOT NULL
                 ORDER BY lead_id LIMIT $4) p
           CROSS JOIN LATERAL (SELECT revision, updated_at FROM leads
                               WHERE program_id = p.program_id AND id = p.lead_id OFFSET 0) l
           LEFT JOIN LATERAL (SELECT lead_revision FROM enriched_leads
                              WHERE program_id = p.program_id AND lead_id = p.lead_id OFFSET 0) e ON true
           ORDER BY p.lead_id"#,
        program.as_uuid(),
        after.as_uuid(),
        before,
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let next = (rows.len() as i64 == limit).then(|| rows.last().map(|row| LeadId::from_uuid(row.lead_id))).flatten();
    let mut lost = Vec::new();
    let mut enriched = Vec::new();
    for row in rows {
        let lead = LeadId::from_uuid(row.lead_id);
        match row.lead_revision {
            Some(revision) if revision >= row.revision => enriched.push((program, lead, revision)),
            _ if row.is_older => {
                lost.push(again(Queue::LeadCreated, program, lead, row.revision, now, Event::LeadCreated {}));
            }
            _ => {}
        }
    }
    if !enriched.is_empty() {
        let ids: Vec<_> = enriched.iter().map(|(program, lead, _)| (*program, *lead)).collect();
        leads::lock_keys_for_update(connection, &ids).await?;
        leads::enriched(connection, &enriched).await?;
    }
    Ok(Page { lost, next })
}

/// A page of a program's enriched leads after `after`: those whose enrichment nobody decided about, made before `before`.
/// Reads the index over undecided leads, and nothing of the others.
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
                  (p.updated_at < $3 AND k.lead_id IS NOT NULL) AS "lost!"
           FROM (SELECT program_id, lead_id, lead_revision, enrichment_version, score, updated_at FROM enriched_leads
                 WHERE program_id = $1 AND lead_id > $2
                   AND (decided_version IS NULL OR decided_version < enrichment_version)
                 ORDER BY lead_id LIMIT $4) p
           LEFT JOIN LATERAL (SELECT lead_id FROM lead_keys
                              WHERE program_id = p.program_id AND lead_id = p.lead_id OFFSET 0) k ON true
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

/// What was found on a page of all leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// How many leads were looked at.
    pub leads: u64,
    /// Leads whose revision isn't enriched and that didn't count as waiting; they do now.
    pub marked: u64,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<LeadId>,
}

/// Looks at a page of all leads of a program after `after`, and lets those wait for an enrichment whose revision isn't
/// enriched: versions that don't know of waiting have changed them.
pub async fn check_waiting(
    connection: &mut Connection,
    program: ProgramId,
    after: LeadId,
    limit: i64,
) -> Result<Checked, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT p.id, p.revision,
                  (k.lead_id IS NOT NULL AND coalesce(k.awaited_revision, 0) < p.revision
                      AND coalesce(e.lead_revision, 0) < p.revision) AS "forgotten!"
           FROM (SELECT id, program_id, revision FROM leads
                 WHERE program_id = $1 AND id > $2 ORDER BY id LIMIT $3) p
           LEFT JOIN lead_keys k ON k.program_id = p.program_id AND k.lead_id = p.id
           LEFT JOIN enriched_leads e ON e.program_id = p.program_id AND e.lead_id = p.id
           ORDER BY p.id"#,
        program.as_uuid(),
        after.as_uuid(),
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let leads = rows.len() as u64;
    let next = (leads as i64 == limit).then(|| rows.last().map(|row| LeadId::from_uuid(row.id))).flatten();
    let forgotten: Vec<_> = rows
        .into_iter()
        .filter(|row| row.forgotten)
        .map(|row| (program, LeadId::from_uuid(row.id), row.revision))
        .collect();
    if !forgotten.is_empty() {
        let ids: Vec<_> = forgotten.iter().map(|(program, lead, _)| (*program, *lead)).collect();
        leads::lock_keys_for_update(connection, &ids).await?;
        leads::await_enrichment(connection, &forgotten).await?;
    }
    Ok(Checked { leads, marked: forgotten.len() as u64, next })
}

/// Which of these leads have an event in the outbox, due or scheduled: nothing of theirs is lost.
///
/// The ids are cut out of the envelopes as text. Reading envelopes as JSON would fail for all of them where one can't be read.
pub async fn still_in_outbox(connection: &mut Connection, leads: &[LeadId]) -> Result<HashSet<LeadId>, StoreError> {
    let ids: Vec<String> = leads.iter().map(LeadId::to_string).collect();
    let waiting = sqlx::query_scalar!(
        r#"SELECT DISTINCT e.lead_id AS "lead_id!"
           FROM (SELECT substring(encode(envelope, 'escape') FROM '"lead_id" *: *"([0-9a-f-]{36})"') AS lead_id
                 FROM outbox) e
           WHERE e.lead_id = ANY($1)"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(waiting.iter().filter_map(|lead| lead.parse().ok()).collect())
}

fn again(queue: Queue, program: ProgramId, lead: LeadId, revision: i32, now: OffsetDateTime, event: Event) -> Outgoing {
    Outgoing {
        envelope: Envelope::new(program, lead, revision, now, event),
        route: Route::Queue(queue),
        trace: TraceContext::default(),
    }
}
