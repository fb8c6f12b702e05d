//! Claiming rows by lease.

use domain::{
    id::{LeadId, LeaseToken, OutreachId, ProgramId},
    outreach::{CampaignStep, OutreachState},
};
use uuid::Uuid;
use vault::BlindIndex;

use super::{
    plan::PlanItem,
    recipients::{self, Place},
};
use crate::{Connection, StoreError, programs};

/// A row under lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The program.
    pub program_id: ProgramId,
    /// The row.
    pub id: OutreachId,
    /// Whom it is for.
    pub lead_id: LeadId,
    /// The blind index of the address that it was planned for.
    pub recipient: BlindIndex,
    /// Which mail of which campaign.
    pub step: CampaignStep,
    /// Its `Message-ID`.
    pub message_id: String,
    /// How often it was claimed, this time included.
    pub attempts: i32,
    /// The lease.
    pub token: LeaseToken,
}

/// What a claim found.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Rows that are under lease now.
    pub claimed: Vec<Claimed>,
    /// Rows that were cancelled instead: their recipient is suppressed, or their lead was erased or has no address any more.
    pub cancelled: u64,
    /// What is to be planned again, by [`super::plan::plan`] in a transaction of its own, since it locks leads before their rows: their
    /// lead has another address than they were planned for, the consent that they rest on has expired, or the law's rules are
    /// newer than the plan. Unless that is done, the next claims leave them for a minute.
    pub moved: Vec<PlanItem>,
}

impl Claim {
    /// How many due rows were looked at.
    pub fn seen(&self) -> u64 {
        (self.claimed.len() + self.moved.len()) as u64 + self.cancelled
    }
}

/// Claims up to `limit` due rows of one program, unless it is paused or rests. What must not be sent is cancelled, and what is to
/// be planned again waits for a minute and is named in the result, so that no row is looked at by one claim after the other.
///
/// In the rest of its transaction nothing is sorted that an index can order.
pub async fn claim(
    connection: &mut Connection,
    program: ProgramId,
    limit: i64,
    token: LeaseToken,
    lease_seconds: i32,
) -> Result<Claim, StoreError> {
    // Along the index by due time, and no further than the limit. A program that the statistics don't know yet is taken for
    // an empty one, and then all that is due is read and sorted for each claim. For the same reason each look into another
    // table is one row by its whole key, behind an OFFSET 0 that no planner turns into a join.
    // What can't be planned again yet, because a newer enrichment is about to be decided about, makes room for the others.
    sqlx::query("SET LOCAL enable_sort = off").execute(&mut *connection).await?;
    let rows = sqlx::query!(
        r#"WITH due AS (
               SELECT o.program_id, o.id, o.lead_id, o.recipient_index, o.law_version, o.permitted_until FROM outreach o
               WHERE o.program_id = $1 AND o.state IN ('queued', 'deferred') AND o.due_at <= now()
                 AND (SELECT NOT p.paused AND coalesce(p.rest_until <= now(), true) FROM programs p WHERE p.id = $1)
               ORDER BY o.due_at LIMIT $2
               FOR UPDATE OF o SKIP LOCKED
           ), seen AS (
               SELECT d.program_id, d.id, d.recipient_index,
                      CASE WHEN NOT f.alive THEN 'erased'
                           WHEN f.suppressed IS NOT NULL THEN f.suppressed
                           WHEN l.email_index IS NULL THEN 'no_address'
                           WHEN l.email_index <> d.recipient_index THEN 'plan_again'
                           WHEN d.permitted_until <= now() OR coalesce(d.law_version, 1) < $5::smallint THEN 'plan_again'
                      END AS obstacle
               FROM due d
               CROSS JOIN LATERAL (SELECT email_index FROM leads
                                   WHERE program_id = d.program_id AND id = d.lead_id OFFSET 0) l
               CROSS JOIN LATERAL (
                   SELECT EXISTS (SELECT FROM lead_keys WHERE program_id = d.program_id AND lead_id = d.lead_id) AS alive,
                          (SELECT CASE reason WHEN 'do_not_contact' THEN reason ELSE 'suppressed' END FROM suppressions
                           WHERE program_id = d.program_id AND recipient_index = d.recipient_index) AS suppressed
                   OFFSET 0
               ) f
           )
           UPDATE outreach o
           SET state = CASE WHEN s.obstacle IS NULL THEN 'connecting'::outreach_state
                            WHEN s.obstacle = 'plan_again' THEN o.state
                            ELSE 'cancelled'::outreach_state END,
               reason = CASE s.obstacle WHEN 'plan_again' THEN o.reason ELSE s.obstacle END,
               lease_token = CASE WHEN s.obstacle IS NULL THEN $3::uuid END,
               due_at = CASE WHEN s.obstacle IS NULL THEN now() + $4 * interval '1 second'
                             WHEN s.obstacle = 'plan_again' THEN now() + interval '1 minute' END,
               recipient_key = CASE WHEN coalesce(s.obstacle, 'plan_again') = 'plan_again' THEN o.recipient_key END,
               attempts = o.attempts + CASE WHEN s.obstacle IS NULL THEN 1 ELSE 0 END,
               updated_at = now()
           FROM seen s WHERE o.program_id = s.program_id AND o.id = s.id
           RETURNING o.id, o.lead_id, o.campaign, o.step, o.message_id, o.attempts, o.recipient_index,
                     s.obstacle AS "obstacle?""#,
        program.as_uuid(),
        limit,
        token.as_uuid(),
        f64::from(lease_seconds),
        programs::law_version(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut claim = Claim::default();
    let mut free = Vec::new();
    for row in rows {
        let lead_id = LeadId::from_uuid(row.lead_id);
        let step = CampaignStep { campaign: row.campaign, step: row.step };
        match row.obstacle.as_deref() {
            None => claim.claimed.push(Claimed {
                program_id: program,
                id: OutreachId::from_uuid(row.id),
                lead_id,
                recipient: index_of(row.id, &row.recipient_index)?,
                step,
                message_id: row.message_id,
                attempts: row.attempts,
                token,
            }),
            Some("plan_again") => claim.moved.push(PlanItem { step, ..PlanItem::again(program, lead_id) }),
            Some(_) => {
                claim.cancelled += 1;
                let CampaignStep { campaign, step } = step;
                free.push(Place { program, recipient: row.recipient_index, campaign, step });
            }
        }
    }
    recipients::inherit(connection, &free).await?;
    Ok(claim)
}

/// The blind index in a row.
pub(super) fn index_of(row: Uuid, index: &[u8]) -> Result<BlindIndex, StoreError> {
    BlindIndex::try_from(index).map_err(|error| StoreError::Inconsistent {
        table: "outreach",
        column: "recipient_index",
        row,
        detail: error.to_string(),
    })
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
    let states = sqlx::query!(
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
           RETURNING o.id, o.state::text AS "state!""#,
        program.as_uuid(),
    )
    .fetch_all(connection)
    .await?;
    let mut expired = Expired::default();
    for row in states {
        match super::parse_state(row.id, &row.state)? {
            OutreachState::Uncertain => expired.uncertain += 1,
            _ => expired.requeued += 1,
        }
    }
    Ok(expired)
}
