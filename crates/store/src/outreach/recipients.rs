//! Rows by whom they go to: who takes a recipient over that nobody holds any more, and what is cancelled for somebody who
//! must not be written to.

use domain::{
    hold,
    id::{OutreachId, ProgramId},
};
use uuid::Uuid;
use vault::BlindIndex;

use super::FIRST_LOOK_SECONDS;
use crate::{Connection, StoreError};

/// One mail to one recipient, of which there is at most one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) program: ProgramId,
    pub(crate) recipient: Vec<u8>,
    pub(crate) campaign: String,
    pub(crate) step: i16,
}

/// Lets the oldest duplicate that waits for each of these recipients take it over, unless somebody holds it. To be called in
/// the transaction that lets go of them, by a statement of its own: a key is free only after the statement that frees it.
///
/// # Errors
/// A unique violation when another transaction was faster, which counts as a lost race.
pub(crate) async fn inherit(connection: &mut Connection, places: &[Place]) -> Result<u64, StoreError> {
    if places.is_empty() {
        return Ok(0);
    }
    let mut places = places.to_vec();
    places.sort_unstable();
    places.dedup();
    let mut count = 0;
    // Program by program: a distributed PostgreSQL locks rows of one shard at a time.
    for places in places.chunk_by(|one, next| one.program == next.program) {
        count += inherit_in(connection, places[0].program, places).await?;
    }
    Ok(count)
}

async fn inherit_in(connection: &mut Connection, program: ProgramId, places: &[Place]) -> Result<u64, StoreError> {
    let recipients: Vec<Vec<u8>> = places.iter().map(|place| place.recipient.clone()).collect();
    let campaigns: Vec<String> = places.iter().map(|place| place.campaign.clone()).collect();
    let steps: Vec<i16> = places.iter().map(|place| place.step).collect();
    // Along the index of recipients, whatever else the planner thinks of: the caller may have sorting turned off, and a program
    // that is a parameter and unknown to the statistics is taken for an empty one. The row is checked again by the update, in
    // a CASE, which keeps the index of held rows out.
    // The duplicate's own decision says whether it may go, or has something else to wait for.
    let inherited = sqlx::query!(
        "UPDATE outreach o
         SET state = CASE h.decision WHEN 'planned' THEN 'queued'::outreach_state ELSE 'held'::outreach_state END,
             reason = CASE h.decision WHEN 'planned' THEN NULL ELSE h.reason END,
             due_at = CASE h.decision WHEN 'planned' THEN now() ELSE now() + $5 * interval '1 second' END,
             recipient_key = o.recipient_index, updated_at = now()
         FROM (
             SELECT n.program_id, c.id, c.decision, c.reason
             FROM UNNEST($6::uuid[], $2::bytea[], $3::text[], $4::smallint[]) AS n (program_id, recipient, campaign, step)
             CROSS JOIN LATERAL (
                 SELECT d.id, e.decision, e.decision_reasons[1] AS reason
                 FROM (SELECT id, lead_id, campaign, step, state, recipient_key FROM outreach
                       WHERE program_id = n.program_id AND recipient_index = n.recipient OFFSET 0) d
                 CROSS JOIN LATERAL (SELECT decision, decision_reasons FROM enriched_leads
                                     WHERE program_id = n.program_id AND lead_id = d.lead_id OFFSET 0) e
                 CROSS JOIN LATERAL (SELECT email_index FROM leads
                                     WHERE program_id = n.program_id AND id = d.lead_id OFFSET 0) l
                 CROSS JOIN LATERAL (SELECT lead_id FROM lead_keys
                                     WHERE program_id = n.program_id AND lead_id = d.lead_id OFFSET 0) k
                 WHERE d.campaign = n.campaign AND d.step = n.step AND d.state = 'held' AND d.recipient_key IS NULL
                   AND e.decision IN ('planned', 'held') AND l.email_index = n.recipient
                 ORDER BY d.id LIMIT 1
             ) c
             WHERE NOT EXISTS (SELECT FROM outreach holder
                               WHERE holder.program_id = n.program_id AND holder.recipient_key = n.recipient
                                 AND holder.campaign = n.campaign AND holder.step = n.step)
               AND NOT EXISTS (SELECT FROM suppressions s
                               WHERE s.program_id = n.program_id AND s.recipient_index = n.recipient)
             OFFSET 0
         ) h
         WHERE o.program_id = h.program_id AND o.id = h.id AND (h.program_id = $1) IS TRUE
           AND CASE o.state WHEN 'held' THEN o.recipient_key IS NULL ELSE false END",
        program.as_uuid(),
        &recipients,
        &campaigns,
        &steps,
        FIRST_LOOK_SECONDS,
        &vec![program.as_uuid(); places.len()],
    )
    .execute(connection)
    .await?;
    Ok(inherited.rows_affected())
}

/// Cancels the mails to suppressed recipients that nobody has in hand and that were not captured, in key order; returns how
/// many. A mail that is in hand is stopped before its body goes out, and one that is planned meanwhile when it is claimed.
pub async fn cancel_suppressed(
    connection: &mut Connection,
    program: ProgramId,
    recipients: &[BlindIndex],
) -> Result<u64, StoreError> {
    let recipients: Vec<Vec<u8>> = recipients.iter().map(|recipient| recipient.to_vec()).collect();
    if recipients.is_empty() {
        return Ok(0);
    }
    // Recipient by recipient along their index, then row by row along the primary key. The program is a column where rows are
    // looked up: as a parameter, one that the statistics don't know is taken for an empty one, and all its mails are read.
    let cancelled = sqlx::query!(
        "WITH unsent AS MATERIALIZED (
             SELECT n.program_id, i.id, s.reason
             FROM UNNEST($2::uuid[], $3::bytea[]) AS n (program_id, recipient)
             CROSS JOIN LATERAL (SELECT id, state FROM outreach
                                 WHERE program_id = n.program_id AND recipient_index = n.recipient OFFSET 0) i
             CROSS JOIN LATERAL (SELECT CASE reason WHEN 'do_not_contact' THEN reason ELSE 'suppressed' END AS reason
                                 FROM suppressions
                                 WHERE program_id = n.program_id AND recipient_index = n.recipient OFFSET 0) s
             WHERE i.state IN ('queued', 'deferred', 'held')
             ORDER BY i.id
         ), locked AS MATERIALIZED (
             SELECT u.program_id, u.id, u.reason
             FROM unsent u
             CROSS JOIN LATERAL (SELECT id FROM outreach
                                 WHERE program_id = u.program_id AND id = u.id FOR NO KEY UPDATE) o
         )
         UPDATE outreach o
         SET state = 'cancelled', reason = l.reason, due_at = NULL, recipient_key = NULL, updated_at = now()
         FROM locked l
         WHERE o.program_id = l.program_id AND o.id = l.id AND (l.program_id = $1) IS TRUE
           AND CASE WHEN o.state IN ('queued', 'deferred', 'held') THEN true ELSE false END",
        program.as_uuid(),
        &vec![program.as_uuid(); recipients.len()],
        &recipients,
    )
    .execute(connection)
    .await?;
    Ok(cancelled.rows_affected())
}

/// Cancels duplicates whose recipient's own mail has gone out, or has failed; these would never be released. Returns the
/// rows that are still duplicates.
pub(crate) async fn end_duplicates(
    connection: &mut Connection,
    program: ProgramId,
    rows: &[OutreachId],
) -> Result<u64, StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(OutreachId::as_uuid).collect();
    let ended = sqlx::query!(
        "UPDATE outreach o
         SET state = 'cancelled', reason = $3, due_at = NULL, updated_at = now()
         FROM (
             SELECT d.program_id, d.id
             FROM UNNEST($2::uuid[]) AS n (id)
             CROSS JOIN LATERAL (SELECT program_id, id, recipient_index, campaign, step, state, recipient_key FROM outreach
                                 WHERE program_id = $1 AND id = n.id FOR NO KEY UPDATE) d
             CROSS JOIN LATERAL (SELECT state FROM outreach
                                 WHERE program_id = d.program_id AND recipient_key = d.recipient_index
                                   AND campaign = d.campaign AND step = d.step OFFSET 0) holder
             WHERE d.state = 'held' AND d.recipient_key IS NULL AND holder.state IN ('sent', 'failed', 'uncertain')
         ) d
         WHERE o.program_id = d.program_id AND o.id = d.id",
        program.as_uuid(),
        &ids,
        hold::DUPLICATE_RECIPIENT,
    )
    .execute(connection)
    .await?;
    Ok(ended.rows_affected())
}

/// Cancels those of these held rows whose lead was erased, and lets who waits for their recipients take these over.
pub(crate) async fn cancel_for_erased(
    connection: &mut Connection,
    program: ProgramId,
    rows: &[OutreachId],
) -> Result<u64, StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(OutreachId::as_uuid).collect();
    let cancelled = sqlx::query!(
        "UPDATE outreach o
         SET state = 'cancelled', reason = 'erased', due_at = NULL, recipient_key = NULL, updated_at = now()
         WHERE o.program_id = $1 AND o.id = ANY($2) AND CASE o.state WHEN 'held' THEN true ELSE false END
           AND coalesce((SELECT false FROM lead_keys k WHERE k.program_id = $1 AND k.lead_id = o.lead_id), true)
         RETURNING o.recipient_index, o.campaign, o.step",
        program.as_uuid(),
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let free: Vec<Place> = cancelled
        .into_iter()
        .map(|row| Place { program, recipient: row.recipient_index, campaign: row.campaign, step: row.step })
        .collect();
    inherit(connection, &free).await?;
    Ok(free.len() as u64)
}
