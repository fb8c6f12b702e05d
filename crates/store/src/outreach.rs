//! Outreach: one row per intended mail.
//!
//! [`plan`] records decisions and inserts rows, [`claim`] hands them to one sender at a time, [`settle`] writes down what
//! came of them. A row is guarded by its lease token throughout: whoever lost the lease changes nothing.

pub mod claim;
pub mod plan;
pub mod settle;

use domain::id::{LeadId, OutreachId, ProgramId};
use domain::outreach::{CampaignStep, Outreach, OutreachState};
use uuid::Uuid;

use crate::{Connection, StoreError};

/// An outreach row as a person wants to see it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The row.
    pub outreach: Outreach,
    /// When it changed last.
    pub updated_at: time::OffsetDateTime,
    /// When it wants attention next.
    pub due_at: Option<time::OffsetDateTime>,
}

/// Up to `limit` rows of a program after the id `after`, oldest first; in one state, or in any.
pub async fn list(
    connection: &mut Connection,
    program: ProgramId,
    state: Option<OutreachState>,
    after: Option<OutreachId>,
    limit: i64,
) -> Result<Vec<Listed>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, lead_id, campaign, step, state::text AS "state!", reason, message_id, attempts, enrichment_version,
                  updated_at, due_at
           FROM outreach
           WHERE program_id = $1 AND ($2::text IS NULL OR state::text = $2) AND ($3::uuid IS NULL OR id > $3)
           ORDER BY id LIMIT $4"#,
        program.as_uuid(),
        state.map(OutreachState::name),
        after.map(|after| after.as_uuid()),
        limit,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Listed {
                outreach: Outreach {
                    id: OutreachId::from_uuid(row.id),
                    program_id: program,
                    lead_id: LeadId::from_uuid(row.lead_id),
                    step: CampaignStep { campaign: row.campaign, step: row.step },
                    state: parse_state(row.id, &row.state)?,
                    reason: row.reason,
                    message_id: row.message_id,
                    attempts: row.attempts,
                    enrichment_version: row.enrichment_version,
                },
                updated_at: row.updated_at,
                due_at: row.due_at,
            })
        })
        .collect()
}

/// Puts captured rows back into the queue, so that a real transport sends them. Their captured mails go.
pub async fn requeue_captured(connection: &mut Connection, program: ProgramId) -> Result<u64, StoreError> {
    let requeued = sqlx::query!(
        "WITH requeued AS (
             UPDATE outreach SET state = 'queued', due_at = now(), updated_at = now()
             WHERE program_id = $1 AND state = 'captured' RETURNING id
         ), gone AS (
             DELETE FROM captured_mails WHERE program_id = $1 AND outreach_id IN (SELECT id FROM requeued)
         )
         SELECT count(*) AS \"count!\" FROM requeued",
        program.as_uuid(),
    )
    .fetch_one(connection)
    .await?;
    Ok(requeued.count as u64)
}

/// Queues rows that are held for a reason that has passed, named by its code without what follows the colon. Run it in
/// the transaction that removes the reason.
pub async fn release_held(
    connection: &mut Connection,
    program: ProgramId,
    reasons: &[&str],
) -> Result<u64, StoreError> {
    let reasons: Vec<String> = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    let released = sqlx::query!(
        "UPDATE outreach SET state = 'queued', reason = NULL, due_at = now(), updated_at = now()
         WHERE program_id = $1 AND state = 'held' AND recipient_key IS NOT NULL AND split_part(reason, ':', 1) = ANY($2)",
        program.as_uuid(),
        &reasons,
    )
    .execute(connection)
    .await?;
    Ok(released.rows_affected())
}

fn parse_state(row: Uuid, state: &str) -> Result<OutreachState, StoreError> {
    state.parse().map_err(|error: domain::event::UnknownName| StoreError::Inconsistent {
        table: "outreach",
        column: "state",
        row,
        detail: error.to_string(),
    })
}
