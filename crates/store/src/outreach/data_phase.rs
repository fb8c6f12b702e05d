//! The move to the data phase, and giving a row up that may not make it.

use std::collections::HashSet;

use domain::id::{LeaseToken, OutreachId, ProgramId};
use uuid::Uuid;

use super::recipients::{self, Place};
use crate::{Connection, StoreError};

/// A row under lease, by name.
pub type Lease = (ProgramId, OutreachId, LeaseToken);

fn columns(leases: &[Lease]) -> (Vec<Uuid>, Vec<Uuid>, Vec<Uuid>) {
    let mut sorted = leases.to_vec();
    sorted.sort_unstable_by_key(|(program, id, _)| (*program, *id));
    (
        sorted.iter().map(|(program, _, _)| program.as_uuid()).collect(),
        sorted.iter().map(|(_, id, _)| id.as_uuid()).collect(),
        sorted.iter().map(|(_, _, token)| token.as_uuid()).collect(),
    )
}

/// Moves rows to the data phase, after which their bodies may go out, once this is committed. Checks once more that the lease
/// holds, by PostgreSQL's clock, that the lead was not erased, is still to be written to, and has the address that the mail was
/// planned for, that the recipient is not suppressed, that the consent which the plan rests on has not expired, and that the program
/// is not paused and doesn't rest. Rows that aren't returned must not be sent: [`abort`] them, in a transaction of its own.
///
/// It waits for nobody who has a row locked, but leaves that row out: after a wait, all this would have been looked up before it.
/// For the same reason it is the last statement of its transaction.
pub async fn begin_data(
    connection: &mut Connection,
    leases: &[Lease],
    lease_seconds: i32,
) -> Result<HashSet<OutreachId>, StoreError> {
    let mut begun = HashSet::with_capacity(leases.len());
    let mut sorted = leases.to_vec();
    sorted.sort_unstable_by_key(|(program, id, _)| (*program, *id));
    // Program by program: a distributed PostgreSQL locks rows of one shard at a time.
    for leases in sorted.chunk_by(|(one, _, _), (next, _, _)| one == next) {
        begun.extend(begin_of_program(connection, leases[0].0, leases, lease_seconds).await?);
    }
    Ok(begun)
}

async fn begin_of_program(
    connection: &mut Connection,
    program: ProgramId,
    leases: &[Lease],
    lease_seconds: i32,
) -> Result<Vec<OutreachId>, StoreError> {
    let (programs, ids, tokens) = columns(leases);
    // Row by row along the primary key, as in settling: see there. CASE keeps the index of leases out, of which the planner
    // thinks as well as of the primary key.
    let begun = sqlx::query_scalar!(
        "UPDATE outreach o
         SET state = 'transmitting', due_at = now() + $4 * interval '1 second', updated_at = now()
         FROM (
             SELECT n.program_id, n.id, n.token
             FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS n (program_id, id, token)
             CROSS JOIN LATERAL (SELECT lead_id, recipient_index, permitted_until FROM outreach
                                 WHERE program_id = n.program_id AND id = n.id
                                 FOR NO KEY UPDATE SKIP LOCKED) i
             WHERE (n.program_id = $5) IS TRUE AND NOT (SELECT p.paused OR coalesce(p.rest_until > now(), false)
                                                      FROM programs p WHERE p.id = n.program_id)
               AND coalesce((SELECT false FROM suppressions s
                             WHERE s.program_id = n.program_id AND s.recipient_index = i.recipient_index), true)
               AND coalesce((SELECT true FROM lead_keys k
                             WHERE k.program_id = n.program_id AND k.lead_id = i.lead_id), false)
               AND coalesce((SELECT l.email_index = i.recipient_index FROM leads l
                             WHERE l.program_id = n.program_id AND l.id = i.lead_id), false)
               AND coalesce((SELECT e.decision = 'planned' FROM enriched_leads e
                             WHERE e.program_id = n.program_id AND e.lead_id = i.lead_id), false)
               AND coalesce(i.permitted_until > now(), true)
             OFFSET 0
         ) n
         WHERE o.program_id = n.program_id AND o.id = n.id AND o.lease_token = n.token
           AND CASE o.state WHEN 'connecting' THEN o.due_at > now() ELSE false END
         RETURNING o.id",
        &programs,
        &ids,
        &tokens,
        f64::from(lease_seconds),
        program.as_uuid(),
    )
    .fetch_all(connection)
    .await?;
    Ok(begun.into_iter().map(OutreachId::from_uuid).collect())
}

/// Gives up rows that [`begin_data`] did not return: what must not be sent any more is cancelled; the rest goes back to the
/// queue, where the next claim finds whatever else stands in the way, and the attempt, of which nothing went out, doesn't count. A
/// row that is no longer under this lease stays as it is.
pub async fn abort(connection: &mut Connection, leases: &[Lease]) -> Result<(), StoreError> {
    let (programs, ids, tokens) = columns(leases);
    // A minute's wait keeps a mail whose lease has just ended from being tried over and over. One that waits for its program
    // to be resumed or to have rested, or for another plan, need not wait longer than that takes.
    let aborted = sqlx::query!(
        r#"UPDATE outreach o
           SET state = CASE WHEN f.obstacle IN ('queue', 'retry') THEN 'queued'::outreach_state
                            ELSE 'cancelled'::outreach_state END,
               reason = CASE WHEN f.obstacle NOT IN ('queue', 'retry') THEN f.obstacle END,
               due_at = CASE f.obstacle WHEN 'queue' THEN now() WHEN 'retry' THEN now() + interval '1 minute' END,
               recipient_key = CASE WHEN f.obstacle IN ('queue', 'retry') THEN o.recipient_key END,
               attempts = greatest(o.attempts - 1, 0), lease_token = NULL, updated_at = now()
           FROM (
               SELECT n.program_id, n.id, n.token,
                      CASE WHEN NOT f.alive THEN 'erased'
                           WHEN f.suppressed IS NOT NULL THEN f.suppressed
                           WHEN f.declined THEN 'no_longer_qualified'
                           WHEN f.stopped OR f.moved OR f.expired THEN 'queue'
                           ELSE 'retry' END AS obstacle
               FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS n (program_id, id, token)
               CROSS JOIN LATERAL (SELECT lead_id, recipient_index, permitted_until FROM outreach
                                   WHERE program_id = n.program_id AND id = n.id OFFSET 0) i
               CROSS JOIN LATERAL (
                   SELECT EXISTS (SELECT FROM lead_keys WHERE program_id = n.program_id AND lead_id = i.lead_id) AS alive,
                          (SELECT CASE reason WHEN 'do_not_contact' THEN reason ELSE 'suppressed' END FROM suppressions
                           WHERE program_id = n.program_id AND recipient_index = i.recipient_index) AS suppressed,
                          EXISTS (SELECT FROM enriched_leads
                                  WHERE program_id = n.program_id AND lead_id = i.lead_id AND decision = 'declined')
                              AS declined,
                          EXISTS (SELECT FROM programs WHERE id = n.program_id AND (paused OR rest_until > now())) AS stopped,
                          NOT EXISTS (SELECT FROM leads WHERE program_id = n.program_id AND id = i.lead_id
                                                          AND email_index = i.recipient_index) AS moved,
                          coalesce(i.permitted_until <= now(), false) AS expired
                   OFFSET 0
               ) f
               OFFSET 0
           ) f
           WHERE o.program_id = f.program_id AND o.id = f.id AND o.lease_token = f.token AND o.state = 'connecting'
           RETURNING o.program_id, o.recipient_index, o.campaign, o.step, o.recipient_key IS NULL AS "released!""#,
        &programs,
        &ids,
        &tokens,
    )
    .fetch_all(&mut *connection)
    .await?;
    let free: Vec<Place> = aborted
        .into_iter()
        .filter(|row| row.released)
        .map(|row| Place {
            program: ProgramId::from_uuid(row.program_id),
            recipient: row.recipient_index,
            campaign: row.campaign,
            step: row.step,
        })
        .collect();
    recipients::inherit(connection, &free).await?;
    Ok(())
}
