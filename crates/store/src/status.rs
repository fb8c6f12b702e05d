//! Counts for people: what `leadmill status` shows.

use std::collections::BTreeMap;

use domain::id::ProgramId;
use serde::Serialize;

use crate::{Connection, StoreError, outbox};

/// Counts, of one program or of all.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// How collection went.
    pub leads: Leads,
    /// How enrichment went.
    pub enriched: Enriched,
    /// Outreach rows by state; the two phases of sending counted together as `sending`.
    pub outreach: BTreeMap<String, i64>,
    /// Rows of the outbox, of all programs.
    pub outbox: outbox::Depth,
}

/// How collection went.
#[derive(Debug, Clone, Serialize)]
pub struct Leads {
    /// Leads stored.
    pub accepted: i64,
    /// Rows refused.
    pub rejected: i64,
    /// Rows about leads that were known already, counted each time they were seen.
    pub duplicates: i64,
    /// Rows that changed a known lead.
    pub updated: i64,
}

/// How enrichment went.
#[derive(Debug, Clone, Serialize)]
pub struct Enriched {
    /// Leads enriched.
    pub total: i64,
    /// Leads for which a mail is planned, or held for a reason that can pass.
    pub qualified: i64,
    /// Leads decided against.
    pub declined: i64,
    /// Leads enriched that nobody decided about yet.
    pub undecided: i64,
    /// Leads by who analysed them.
    pub by_provider: BTreeMap<String, i64>,
    /// Fallbacks by reason.
    pub fallbacks: BTreeMap<String, i64>,
    /// Leads by reason why they were declined or held; the numbers and rules after a reason's name are left out.
    pub reasons: BTreeMap<String, i64>,
}

/// The names under which outreach is counted.
const STATES: [&str; 9] =
    ["queued", "sending", "sent", "captured", "deferred", "failed", "uncertain", "held", "cancelled"];

/// Counts everything; walks the tables, so not for every second.
pub async fn read(connection: &mut Connection, program: Option<ProgramId>) -> Result<Status, StoreError> {
    let program = program.map(|program| program.as_uuid());
    let leads = sqlx::query_as!(
        Leads,
        r#"SELECT (SELECT count(*) FROM leads WHERE $1::uuid IS NULL OR program_id = $1) AS "accepted!",
                  (SELECT count(*) FROM rejected_leads WHERE $1::uuid IS NULL OR program_id = $1) AS "rejected!",
                  coalesce(sum(duplicates), 0)::bigint AS "duplicates!", coalesce(sum(updated), 0)::bigint AS "updated!"
           FROM collection_runs WHERE $1::uuid IS NULL OR program_id = $1"#,
        program,
    )
    .fetch_one(&mut *connection)
    .await?;
    let groups = sqlx::query!(
        r#"SELECT provider, fallback_reason, decision, count(*) AS "count!"
           FROM enriched_leads WHERE $1::uuid IS NULL OR program_id = $1
           GROUP BY provider, fallback_reason, decision"#,
        program,
    )
    .fetch_all(&mut *connection)
    .await?;
    let reasons = sqlx::query!(
        r#"SELECT split_part(reason, ':', 1) AS "reason!", count(*) AS "count!"
           FROM enriched_leads, UNNEST(decision_reasons) AS reason
           WHERE $1::uuid IS NULL OR program_id = $1 GROUP BY 1"#,
        program,
    )
    .fetch_all(&mut *connection)
    .await?;
    let states = sqlx::query!(
        r#"SELECT state::text AS "state!", count(*) AS "count!"
           FROM outreach WHERE $1::uuid IS NULL OR program_id = $1 GROUP BY state"#,
        program,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut enriched = Enriched {
        total: 0,
        qualified: 0,
        declined: 0,
        undecided: 0,
        by_provider: BTreeMap::new(),
        fallbacks: BTreeMap::new(),
        reasons: reasons.into_iter().map(|row| (row.reason, row.count)).collect(),
    };
    for group in groups {
        enriched.total += group.count;
        match group.decision.as_deref() {
            Some("planned" | "held") => enriched.qualified += group.count,
            Some(_) => enriched.declined += group.count,
            None => enriched.undecided += group.count,
        }
        *enriched.by_provider.entry(group.provider).or_default() += group.count;
        if let Some(reason) = group.fallback_reason {
            *enriched.fallbacks.entry(reason).or_default() += group.count;
        }
    }
    let mut outreach: BTreeMap<String, i64> = STATES.iter().map(|state| ((*state).to_owned(), 0)).collect();
    for row in states {
        let name =
            if matches!(row.state.as_str(), "connecting" | "transmitting") { "sending".to_owned() } else { row.state };
        *outreach.entry(name).or_default() += row.count;
    }
    Ok(Status { leads, enriched, outreach, outbox: outbox::depth(connection).await? })
}
