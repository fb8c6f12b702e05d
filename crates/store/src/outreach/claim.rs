//! Claiming rows by lease, the move to the data phase, and leases that ran out.

use std::collections::HashSet;

use domain::{
    id::{LeadId, LeaseToken, OutreachId, ProgramId},
    outreach::CampaignStep,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Connection, StoreError};

/// A row under lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The program.
    pub program_id: ProgramId,
    /// The row.
    pub id: OutreachId,
    /// Whom it is for.
    pub lead_id: LeadId,
    /// Which mail of which campaign.
    pub step: CampaignStep,
    /// Its `Message-ID`.
    pub message_id: String,
    /// How often it was claimed, this time included.
    pub attempts: i32,
    /// The lease.
    pub token: LeaseToken,
    /// When the row was planned.
    pub created_at: OffsetDateTime,
}

/// Claims up to `limit` due rows of one program. Rows of a paused program and of suppressed recipients are never claimed.
///
/// In the rest of its transaction nothing is sorted that an index can order.
pub async fn claim(
    connection: &mut Connection,
    program: ProgramId,
    limit: i64,
    token: LeaseToken,
    lease_seconds: i32,
) -> Result<Vec<Claimed>, StoreError> {
    // Along the index by due time, and no further than the limit. A program that the statistics don't know yet is taken for
    // an empty one, and then all that is due is read and sorted for each claim. For the same reason the conditions on other
    // tables are scalar subqueries, which no planner turns into joins.
    sqlx::query("SET LOCAL enable_sort = off").execute(&mut *connection).await?;
    let rows = sqlx::query!(
        "WITH due AS (
             SELECT o.program_id, o.id FROM outreach o
             WHERE o.program_id = $1 AND o.state IN ('queued', 'deferred') AND o.due_at <= now()
               AND NOT (SELECT p.paused FROM programs p WHERE p.id = $1)
               AND coalesce((SELECT false FROM suppressions s
                             WHERE s.program_id = $1 AND s.recipient_index = o.recipient_index), true)
             ORDER BY o.due_at LIMIT $2
             FOR UPDATE OF o SKIP LOCKED
         )
         UPDATE outreach o
         SET state = 'connecting', reason = NULL, lease_token = $3, due_at = now() + $4 * interval '1 second',
             attempts = o.attempts + 1, updated_at = now()
         FROM due WHERE o.program_id = due.program_id AND o.id = due.id
         RETURNING o.id, o.lead_id, o.campaign, o.step, o.message_id, o.attempts, o.created_at",
        program.as_uuid(),
        limit,
        token.as_uuid(),
        f64::from(lease_seconds),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Claimed {
            program_id: program,
            id: OutreachId::from_uuid(row.id),
            lead_id: LeadId::from_uuid(row.lead_id),
            step: CampaignStep { campaign: row.campaign, step: row.step },
            message_id: row.message_id,
            attempts: row.attempts,
            token,
            created_at: row.created_at,
        })
        .collect())
}

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

/// Moves rows to the data phase, after which their bodies may go out, once this is committed. Checks once more, by
/// PostgreSQL's clock, that the lease holds, that the lead was not erased, the recipient not suppressed, the program not
/// paused. Rows that aren't returned must not be sent: [`abort`] them.
pub async fn begin_data(
    connection: &mut Connection,
    leases: &[Lease],
    lease_seconds: i32,
) -> Result<HashSet<OutreachId>, StoreError> {
    let (programs, ids, tokens) = columns(leases);
    // Row by row along the primary key, as in settling: see there. CASE keeps the index of leases out, of which the planner
    // thinks as well as of the primary key.
    let begun = sqlx::query_scalar!(
        "UPDATE outreach o
         SET state = 'transmitting', due_at = now() + $4 * interval '1 second', updated_at = now()
         FROM (
             SELECT n.program_id, n.id, n.token
             FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS n (program_id, id, token)
             CROSS JOIN LATERAL (SELECT lead_id, recipient_index FROM outreach
                                 WHERE program_id = n.program_id AND id = n.id OFFSET 0) i
             WHERE NOT (SELECT p.paused FROM programs p WHERE p.id = n.program_id)
               AND coalesce((SELECT false FROM suppressions s
                             WHERE s.program_id = n.program_id AND s.recipient_index = i.recipient_index), true)
               AND coalesce((SELECT true FROM lead_keys k
                             WHERE k.program_id = n.program_id AND k.lead_id = i.lead_id), false)
             OFFSET 0
         ) n
         WHERE o.program_id = n.program_id AND o.id = n.id AND o.lease_token = n.token
           AND CASE o.state WHEN 'connecting' THEN o.due_at > now() ELSE false END
         RETURNING o.id",
        &programs,
        &ids,
        &tokens,
        f64::from(lease_seconds),
    )
    .fetch_all(connection)
    .await?;
    Ok(begun.into_iter().map(OutreachId::from_uuid).collect())
}

/// Gives up rows that [`begin_data`] did not return: what is suppressed or erased is cancelled, the rest goes back to the
/// queue, held back for a minute. A row that is no longer under this lease stays as it is.
pub async fn abort(connection: &mut Connection, leases: &[Lease]) -> Result<(), StoreError> {
    let (programs, ids, tokens) = columns(leases);
    sqlx::query!(
        "UPDATE outreach o
         SET state = CASE WHEN gone.reason IS NULL THEN 'queued'::outreach_state ELSE 'cancelled'::outreach_state END,
             reason = gone.reason,
             due_at = CASE WHEN gone.reason IS NULL THEN now() + interval '1 minute' END,
             recipient_key = CASE WHEN gone.reason IS NULL THEN o.recipient_key END,
             lease_token = NULL, updated_at = now()
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS n (program_id, id, token)
         JOIN outreach i USING (program_id, id)
         CROSS JOIN LATERAL (
             SELECT CASE
                 WHEN EXISTS (SELECT FROM suppressions s
                              WHERE s.program_id = i.program_id AND s.recipient_index = i.recipient_index)
                 THEN 'suppressed'
                 WHEN NOT EXISTS (SELECT FROM lead_keys k WHERE k.program_id = i.program_id AND k.lead_id = i.lead_id)
                 THEN 'erased'
             END AS reason
         ) gone
         WHERE o.program_id = n.program_id AND o.id = n.id AND o.lease_token = n.token AND o.state = 'connecting'",
        &programs,
        &ids,
        &tokens,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How many leases ran out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Nothing had gone out: back in the queue.
    pub requeued: u64,
    /// The body may have gone out: `uncertain`. The token stays, so that the owner may still say what came of it.
    pub uncertain: u64,
}

/// Takes back the rows of one program whose lease ran out.
pub async fn expire(connection: &mut Connection, program: ProgramId) -> Result<Expired, StoreError> {
    let states = sqlx::query_scalar!(
        r#"WITH stale AS (
               SELECT program_id, id FROM outreach
               WHERE program_id = $1 AND state IN ('connecting', 'transmitting') AND due_at <= now()
               ORDER BY due_at LIMIT 1000
               FOR UPDATE SKIP LOCKED
           )
           UPDATE outreach o
           SET state = CASE o.state WHEN 'connecting' THEN 'queued'::outreach_state ELSE 'uncertain'::outreach_state END,
               reason = CASE o.state WHEN 'connecting' THEN NULL ELSE 'lease_expired' END,
               due_at = CASE o.state WHEN 'connecting' THEN now() END,
               lease_token = CASE o.state WHEN 'connecting' THEN NULL ELSE o.lease_token END,
               updated_at = now()
           FROM stale WHERE o.program_id = stale.program_id AND o.id = stale.id
           RETURNING o.state::text AS "state!""#,
        program.as_uuid(),
    )
    .fetch_all(connection)
    .await?;
    let uncertain = states.iter().filter(|state| *state == "uncertain").count() as u64;
    Ok(Expired { requeued: states.len() as u64 - uncertain, uncertain })
}

/// The span of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// A minute of the clock.
    Minute,
    /// A day, in UTC.
    Day,
}

impl Span {
    const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
        }
    }
}

/// Takes up to `wanted` tokens from a program's budget for the current span, of which `limit` may be used in all; returns
/// how many were granted. Take them in the transaction of the claim, so that all replicas share the limit and a claim that
/// fails gives them back.
pub async fn take_budget(
    connection: &mut Connection,
    program: ProgramId,
    span: Span,
    limit: i32,
    wanted: i32,
) -> Result<i32, StoreError> {
    let span = span.name();
    sqlx::query!(
        "INSERT INTO send_budgets (program_id, span, window_start, used)
         VALUES ($1, $2, date_trunc($2, now(), 'UTC'), 0) ON CONFLICT DO NOTHING",
        program.as_uuid(),
        span,
    )
    .execute(&mut *connection)
    .await?;
    let used = sqlx::query_scalar!(
        "SELECT used FROM send_budgets
         WHERE program_id = $1 AND span = $2 AND window_start = date_trunc($2, now(), 'UTC') FOR UPDATE",
        program.as_uuid(),
        span,
    )
    .fetch_one(&mut *connection)
    .await?;
    let granted = wanted.min(limit - used).max(0);
    if granted > 0 {
        sqlx::query!(
            "UPDATE send_budgets SET used = used + $3
             WHERE program_id = $1 AND span = $2 AND window_start = date_trunc($2, now(), 'UTC')",
            program.as_uuid(),
            span,
            granted,
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query!(
        "DELETE FROM send_budgets WHERE program_id = $1 AND span = $2 AND window_start < now() - interval '2 days'",
        program.as_uuid(),
        span,
    )
    .execute(connection)
    .await?;
    Ok(granted)
}

/// Gives back tokens that were taken but not used, in the transaction that took them or soon after.
pub async fn return_budget(
    connection: &mut Connection,
    program: ProgramId,
    span: Span,
    unused: i32,
) -> Result<(), StoreError> {
    if unused <= 0 {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE send_budgets SET used = greatest(used - $3, 0)
         WHERE program_id = $1 AND span = $2 AND window_start = date_trunc($2, now(), 'UTC')",
        program.as_uuid(),
        span.name(),
        unused,
    )
    .execute(connection)
    .await?;
    Ok(())
}
