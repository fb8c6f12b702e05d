//! Claims on paid analyses: which delivery is asking a model about a lead at this moment.
//!
//! Delivery is at least once, and a model's answer may take minutes. While it is on its way, the same lead's event may be
//! delivered again: by RabbitMQ after a lost connection, or by the reconciler. A claim is committed before the model is
//! asked, and deleted in the transaction that stores the answer, so that the answer is paid once. The claim of a process
//! that died ends by its time.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use domain::id::{LeadId, LeaseToken, ProgramId};
use uuid::Uuid;

use crate::{Connection, StoreError, leads};

/// A claim on the analysis of one revision of a lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnalysisClaim {
    /// The program.
    pub program_id: ProgramId,
    /// The lead.
    pub lead_id: LeadId,
    /// The revision that is to be analysed.
    pub lead_revision: i32,
    /// Who claims it: one delivery, not a process, since a process may have the same event in hand twice.
    pub holder: LeaseToken,
}

impl AnalysisClaim {
    const fn lead(&self) -> (ProgramId, LeadId) {
        (self.program_id, self.lead_id)
    }
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimResult {
    /// It is the caller's, once this is committed.
    Taken,
    /// Another delivery's claim on this revision, or on a newer one, has not ended.
    Held {
        /// How long it still lasts, by PostgreSQL's clock.
        remaining: Duration,
    },
    /// This revision, or a newer one, is enriched already: there is nothing to analyse.
    Enriched,
}

/// Claims analyses for `life`; says of each what became of it. A claim that is taken again by its own holder lasts anew,
/// and one on a newer revision doesn't wait for an older one.
///
/// # Errors
/// [`StoreError`], when the database fails.
pub async fn take(
    connection: &mut Connection,
    claims: &[AnalysisClaim],
    life: Duration,
) -> Result<HashMap<AnalysisClaim, ClaimResult>, StoreError> {
    // One per lead, or a statement would meet a row a second time; the others find it held.
    let mut candidates: HashMap<(ProgramId, LeadId), AnalysisClaim> = HashMap::with_capacity(claims.len());
    for claim in claims {
        let held = candidates.entry(claim.lead()).or_insert(*claim);
        if claim.lead_revision > held.lead_revision {
            *held = *claim;
        }
    }
    let mut candidates: Vec<AnalysisClaim> = candidates.into_values().collect();
    candidates.sort_unstable_by_key(AnalysisClaim::lead);
    let taken = insert(connection, &candidates, life).await?;
    // A statement of its own sees what was stored by those whose claims the insert has waited for.
    let leads: Vec<_> = candidates.iter().map(AnalysisClaim::lead).collect();
    let found = look_up(connection, &leads).await?;
    let results: HashMap<AnalysisClaim, ClaimResult> = claims
        .iter()
        .map(|claim| {
            let Found { enriched_revision, remaining } = found.get(&claim.lead()).copied().unwrap_or_default();
            let result = if enriched_revision.is_some_and(|enriched| enriched >= claim.lead_revision) {
                ClaimResult::Enriched
            } else if taken.contains(&claim.holder) {
                ClaimResult::Taken
            } else {
                ClaimResult::Held { remaining }
            };
            (*claim, result)
        })
        .collect();
    let in_vain: Vec<AnalysisClaim> = candidates
        .into_iter()
        .filter(|claim| taken.contains(&claim.holder) && results[claim] == ClaimResult::Enriched)
        .collect();
    release(connection, &in_vain).await?;
    Ok(results)
}

/// Gives claims back; one that another holder has taken over stays.
///
/// # Errors
/// [`StoreError`], when the database fails.
pub async fn release(connection: &mut Connection, claims: &[AnalysisClaim]) -> Result<(), StoreError> {
    let mut sorted: Vec<&AnalysisClaim> = claims.iter().collect();
    sorted.sort_unstable_by_key(|claim| claim.lead());
    // Program by program: a distributed PostgreSQL locks rows of one shard at a time.
    for of_program in sorted.chunk_by(|one, next| one.program_id == next.program_id) {
        let leads: Vec<Uuid> = of_program.iter().map(|claim| claim.lead_id.as_uuid()).collect();
        let holders: Vec<Uuid> = of_program.iter().map(|claim| claim.holder.as_uuid()).collect();
        // Locked in the order in which they are claimed. Each look is one row by its whole key, see `leads::lock_keys`.
        sqlx::query!(
            "WITH held AS (
                 SELECT c.lead_id
                 FROM UNNEST($2::uuid[], $3::uuid[]) AS n (lead_id, holder)
                 CROSS JOIN LATERAL (SELECT lead_id FROM analysis_claims
                                     WHERE program_id = $1 AND lead_id = n.lead_id AND holder = n.holder
                                     FOR UPDATE) c
             )
             DELETE FROM analysis_claims WHERE program_id = $1 AND lead_id IN (SELECT lead_id FROM held)",
            of_program[0].program_id.as_uuid(),
            &leads,
            &holders,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Inserts claims, which have each lead at most once and are sorted by it, where no other stands in the way; returns the
/// holders of those that are there now.
async fn insert(
    connection: &mut Connection,
    claims: &[AnalysisClaim],
    life: Duration,
) -> Result<HashSet<LeaseToken>, StoreError> {
    let programs: Vec<Uuid> = claims.iter().map(|claim| claim.program_id.as_uuid()).collect();
    let leads: Vec<Uuid> = claims.iter().map(|claim| claim.lead_id.as_uuid()).collect();
    let revisions: Vec<i32> = claims.iter().map(|claim| claim.lead_revision).collect();
    let holders: Vec<Uuid> = claims.iter().map(|claim| claim.holder.as_uuid()).collect();
    let taken = sqlx::query_scalar!(
        "INSERT INTO analysis_claims AS c (program_id, lead_id, lead_revision, holder, expires_at)
         SELECT program_id, lead_id, lead_revision, holder, now() + $1 * interval '1 second'
         FROM UNNEST($2::uuid[], $3::uuid[], $4::int[], $5::uuid[]) AS n (program_id, lead_id, lead_revision, holder)
         ON CONFLICT (program_id, lead_id) DO UPDATE
            SET lead_revision = excluded.lead_revision, holder = excluded.holder, expires_at = excluded.expires_at
            WHERE c.expires_at <= now() OR c.lead_revision < excluded.lead_revision OR c.holder = excluded.holder
         RETURNING holder",
        life.as_secs_f64(),
        &programs,
        &leads,
        &revisions,
        &holders,
    )
    .fetch_all(connection)
    .await?;
    Ok(taken.into_iter().map(LeaseToken::from_uuid).collect())
}

/// What there is about a lead.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    enriched_revision: Option<i32>,
    /// Of the claim on it, if there is one.
    remaining: Duration,
}

async fn look_up(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashMap<(ProgramId, LeadId), Found>, StoreError> {
    let (programs, leads) = leads::columns(ids);
    let rows = sqlx::query!(
        r#"SELECT n.program_id AS "program_id!", n.lead_id AS "lead_id!", e.lead_revision AS "enriched_revision?",
                  extract(epoch FROM c.expires_at - now())::float8 AS "remaining?"
           FROM UNNEST($1::uuid[], $2::uuid[]) AS n (program_id, lead_id)
           LEFT JOIN LATERAL (SELECT lead_revision FROM enriched_leads
                              WHERE program_id = n.program_id AND lead_id = n.lead_id OFFSET 0) e ON true
           LEFT JOIN LATERAL (SELECT expires_at FROM analysis_claims
                              WHERE program_id = n.program_id AND lead_id = n.lead_id OFFSET 0) c ON true"#,
        &programs,
        &leads,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let remaining =
                row.remaining.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
            let id = (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id));
            (id, Found { enriched_revision: row.enriched_revision, remaining })
        })
        .collect())
}
