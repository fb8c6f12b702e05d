//! Outreach: one row per intended mail.
//!
//! [`plan`] decides and inserts rows, [`claim`] hands them to one sender at a time, [`data_phase`] lets their bodies go out,
//! [`settle`] writes down what came of them. A row is guarded by its lease token throughout: whoever lost the lease changes
//! nothing. [`reevaluate`] and [`release`] take rows out of `held` and `captured`; [`recipients`] says who may write to whom.
//!
//! A row belongs to a recipient, not only to a lead: it is sent to the address that it was planned for, or planned again.

pub mod budget;
pub mod claim;
pub mod data_phase;
pub mod mailbox_full;
pub mod plan;
pub mod recipients;
pub mod reevaluate;
pub mod release;
pub mod settle;

use domain::id::{LeadId, OutreachId, ProgramId};
use domain::outreach::{CampaignStep, Outreach, OutreachState};
use uuid::Uuid;

use crate::{Connection, StoreError, unreadable};

/// When a held row is looked at for the first time, in seconds after it was held: every transaction that was under way then,
/// and could have missed it, has ended.
const FIRST_LOOK_SECONDS: f64 = 120.0;

/// When a held row that stays held is looked at again, in seconds.
const NEXT_LOOK_SECONDS: f64 = 86_400.0;

/// An outreach row as a person wants to see it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The row.
    pub outreach: Outreach,
    /// When it changed last.
    pub updated_at: time::OffsetDateTime,
    /// When it wants attention next.
    pub due_at: Option<time::OffsetDateTime>,
    /// The law's rule that lets it go out, while one does.
    pub law_rule: Option<String>,
    /// When the consent expires that it rests on.
    pub permitted_until: Option<time::OffsetDateTime>,
}

/// Up to `limit` rows of a program after the id `after`, oldest first; in one state, or in any. Rows in a state that this
/// version doesn't know are left out.
pub async fn list(
    connection: &mut Connection,
    program: ProgramId,
    state: Option<OutreachState>,
    after: Option<OutreachId>,
    limit: i64,
) -> Result<Vec<Listed>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, lead_id, campaign, step, state::text AS "state!", reason, message_id, attempts, enrichment_version,
                  updated_at, due_at, law_rule, permitted_until
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
    let listed = rows.into_iter().filter_map(|row| {
        let state = unreadable::readable("outreach", row.id, parse_state(row.id, &row.state))?;
        Some(Listed {
            outreach: Outreach {
                id: OutreachId::from_uuid(row.id),
                program_id: program,
                lead_id: LeadId::from_uuid(row.lead_id),
                step: CampaignStep { campaign: row.campaign, step: row.step },
                state,
                reason: row.reason,
                message_id: row.message_id,
                attempts: row.attempts,
                enrichment_version: row.enrichment_version,
            },
            updated_at: row.updated_at,
            due_at: row.due_at,
            law_rule: row.law_rule,
            permitted_until: row.permitted_until,
        })
    });
    Ok(listed.collect())
}

fn parse_state(row: Uuid, state: &str) -> Result<OutreachState, StoreError> {
    state.parse().map_err(|error: domain::event::UnknownName| StoreError::Inconsistent {
        table: "outreach",
        column: "state",
        row,
        detail: error.to_string(),
    })
}
