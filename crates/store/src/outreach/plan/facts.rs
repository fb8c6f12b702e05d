//! What a decision is made from, and writing it down.

use std::collections::{HashMap, HashSet};

use domain::{
    enrichment::Score,
    id::{LeadId, ProgramId},
    law::{Contact, Law, Verdict, is_relevant},
    lead::Country,
    program::ProgramSettings,
    qualification::{Blocker, Candidate, Decision, qualify},
};
use uuid::Uuid;

use super::{Decided, Occasion};
use crate::{
    Connection, StoreError,
    contact_evidence::Shown,
    leads,
    programs::{self, CurrentProgram},
    suppressions::{self, Standing},
    unreadable,
};

/// What is stored about an enriched lead at this moment, as far as a decision depends on it. Nothing of it is sealed.
#[derive(Debug, Clone)]
pub struct Facts {
    pub(crate) enrichment_version: i32,
    pub(crate) decided_version: Option<i32>,
    /// The last decision, as stored, with its reasons.
    pub(crate) decision: Option<String>,
    pub(crate) reasons: Vec<String>,
    score: Score,
    compliant: bool,
    niche: String,
    /// Whether the lead was written to: there is nothing left to decide.
    pub(crate) sent: bool,
    country: Option<Country>,
    /// Whom a mail goes to, if there is an address.
    pub(crate) recipient: Option<Vec<u8>>,
    /// What stands against the person.
    pub(crate) standing: Standing,
    /// What shows that this recipient may be written to.
    pub(crate) shown: Shown,
}

impl Facts {
    /// Whether there is something to decide.
    pub(super) fn wants(&self, occasion: Occasion) -> bool {
        match occasion {
            Occasion::Enriched { version } => {
                version == self.enrichment_version && self.decided_version.is_none_or(|decided| decided < version)
            }
            // What has no decision yet gets one from the queue.
            Occasion::Again { .. } => self.decided_version == Some(self.enrichment_version),
        }
    }

    /// Whether the last decision was another one, or for other reasons.
    pub(crate) fn differs(&self, decision: &Decision) -> bool {
        self.decision.as_deref() != Some(name_of(decision)) || self.reasons != codes(decision)
    }
}

/// Asks the law about a lead.
pub fn judge(facts: &Facts, settings: &ProgramSettings) -> Verdict {
    let Shown { consent, address, .. } = facts.shown;
    let relevant = is_relevant(&facts.niche, &settings.niches);
    Law::current().judge(facts.country, Contact { consent, address, relevant })
}

/// Decides about a lead by everything that is stored about it.
pub fn decide(facts: &Facts, settings: &ProgramSettings) -> Decision {
    qualify(&Candidate {
        score: facts.score,
        threshold: settings.threshold,
        compliant: facts.compliant,
        sent: facts.sent,
        suppressed: facts.standing.is_suppressed(),
        do_not_contact: facts.standing.list(),
        has_address: facts.recipient.is_some(),
        legal: judge(facts, settings),
        incomplete_sender: !settings.can_send(),
    })
}

/// The settings of the programs of these leads, as they are now.
pub async fn programs_of(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashMap<ProgramId, CurrentProgram>, StoreError> {
    let mut wanted: Vec<ProgramId> = ids.iter().map(|(program, _)| *program).collect();
    wanted.dedup();
    programs::current(connection, &wanted).await
}

/// Reads the facts about enriched leads.
pub async fn read(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashMap<(ProgramId, LeadId), Facts>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let (programs, leads) = leads::columns(ids);
    // OFFSET 0 keeps each look one row by its whole key, also for a program that the statistics don't know yet.
    let rows = sqlx::query!(
        r#"SELECT w.program_id AS "program_id!", w.lead_id AS "lead_id!", e.enrichment_version, e.decided_version,
                  e.decision, e.decision_reasons, e.score, e.compliant, e.niche, e.sent, l.country, l.email_index,
                  c.consented AS "consented!", c.holds AS "holds!", c.consent_until, c.published AS "published!"
           FROM UNNEST($1::uuid[], $2::uuid[]) AS w (program_id, lead_id)
           CROSS JOIN LATERAL (SELECT enrichment_version, decided_version, decision, decision_reasons, score, compliant, niche,
                                      sent
                               FROM enriched_leads WHERE program_id = w.program_id AND lead_id = w.lead_id OFFSET 0) e
           CROSS JOIN LATERAL (SELECT country, email_index FROM leads
                               WHERE program_id = w.program_id AND id = w.lead_id OFFSET 0) l
           CROSS JOIN LATERAL (SELECT coalesce(bool_or(kind = 1), false) AS consented,
                                      coalesce(bool_or(kind = 1 AND coalesce(expires_at > now(), true)), false) AS holds,
                                      max(expires_at) FILTER (WHERE kind = 1) AS consent_until,
                                      coalesce(bool_or(kind = 2), false) AS published
                               FROM contact_evidence
                               WHERE program_id = w.program_id AND lead_id = w.lead_id
                                 AND recipient_index = l.email_index OFFSET 0) c"#,
        &programs,
        &leads,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut standing = suppressions::standing(connection, ids).await?;
    let facts = rows.into_iter().filter_map(|row| {
        let inconsistent =
            |table, column, detail: String| StoreError::Inconsistent { table, column, row: row.lead_id, detail };
        let score =
            Score::new(row.score.into()).map_err(|error| inconsistent("enriched_leads", "score", error.to_string()));
        let country = row.country.as_deref().map(Country::parse).transpose();
        let country = country.map_err(|error| inconsistent("leads", "country", error.to_string()));
        let facts = Facts {
            enrichment_version: row.enrichment_version,
            decided_version: row.decided_version,
            decision: row.decision,
            reasons: row.decision_reasons,
            score: unreadable::readable("enriched_leads", row.lead_id, score)?,
            compliant: row.compliant,
            niche: row.niche,
            sent: row.sent,
            country: unreadable::readable("leads", row.lead_id, country)?,
            recipient: row.email_index,
            standing: standing
                .remove(&(ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id)))
                .unwrap_or_default(),
            shown: Shown::new(row.consented, row.consent_until, row.holds, row.published),
        };
        Some(((ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id)), facts))
    });
    Ok(facts.collect())
}

/// Writes decisions down, each guarded by the enrichment that it is about; returns the leads whose decision stands. A lead
/// that is decided about again in the same way isn't written.
pub(super) async fn record(
    connection: &mut Connection,
    decided: &[Decided<'_>],
) -> Result<HashSet<(ProgramId, LeadId)>, StoreError> {
    let mut stands: HashSet<_> = decided.iter().map(Decided::id).collect();
    let changed: Vec<&Decided<'_>> = decided
        .iter()
        .filter(|lead| matches!(lead.item.occasion, Occasion::Enriched { .. }) || lead.facts.differs(&lead.decision))
        .collect();
    if changed.is_empty() {
        return Ok(stands);
    }
    let programs: Vec<Uuid> = changed.iter().map(|lead| lead.item.program_id.as_uuid()).collect();
    let leads: Vec<Uuid> = changed.iter().map(|lead| lead.item.lead_id.as_uuid()).collect();
    let versions: Vec<i32> = changed.iter().map(|lead| lead.facts.enrichment_version).collect();
    let before: Vec<Option<i32>> = changed.iter().map(|lead| lead.facts.decided_version).collect();
    let decisions: Vec<String> = changed.iter().map(|lead| name_of(&lead.decision).to_owned()).collect();
    // An array of arrays can't be unnested by rows: reasons travel joined by a character that no code has.
    let reasons: Vec<String> = changed.iter().map(|lead| codes(&lead.decision).join("\n")).collect();
    let rows = sqlx::query!(
        r"UPDATE enriched_leads e
          SET decision = n.decision, decision_reasons = string_to_array(n.reasons, E'\n'),
              decided_version = n.version, decided_at = now()
          FROM UNNEST($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[])
               AS n (program_id, lead_id, version, before, decision, reasons)
          WHERE e.program_id = n.program_id AND e.lead_id = n.lead_id AND e.enrichment_version = n.version
            AND e.decided_version IS NOT DISTINCT FROM n.before
          RETURNING e.program_id, e.lead_id",
        &programs,
        &leads,
        &versions,
        &before as &[Option<i32>],
        &decisions,
        &reasons,
    )
    .fetch_all(connection)
    .await?;
    let written: HashSet<_> =
        rows.into_iter().map(|row| (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id))).collect();
    for lead in changed {
        if !written.contains(&lead.id()) {
            stands.remove(&lead.id());
        }
    }
    Ok(stands)
}

/// A decision, as stored.
pub const fn name_of(decision: &Decision) -> &'static str {
    match decision {
        Decision::Plan => "planned",
        Decision::Hold(_) => "held",
        Decision::Decline(_) => "declined",
    }
}

fn codes(decision: &Decision) -> Vec<String> {
    decision.blockers().iter().map(Blocker::code).collect()
}
