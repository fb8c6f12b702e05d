//! Enrichments: writing them, guarded by the lead's revision, and reading them back with their lead.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use domain::{
    enrichment::{Confidence, Enrichment, Score},
    id::{EnrichmentId, LeadId, ProgramId},
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{Column, Sealed, Vault};

use crate::{
    Connection, Db, StoreError,
    contact_evidence::Shown,
    leads::{self, OpenLead},
    reanalysis,
};

/// An enrichment, sealed and bound to the revision of the lead that it was made from.
#[derive(Debug, Clone)]
pub struct SealedEnrichment {
    program_id: ProgramId,
    lead_id: LeadId,
    lead_revision: i32,
    niches: Vec<String>,
    enrichment: Enrichment,
    notes: Sealed,
    message: Sealed,
    compliance_notes: Sealed,
}

impl SealedEnrichment {
    const fn id(&self) -> (ProgramId, LeadId) {
        (self.program_id, self.lead_id)
    }
}

/// Seals an enrichment of `lead` that was made for a program that looked for `niches`.
pub fn seal(lead: &OpenLead, niches: &[String], enrichment: Enrichment) -> SealedEnrichment {
    let id = lead.lead.id;
    let seal = |column, text: &str| lead.key.seal(column, id, text.as_bytes());
    SealedEnrichment {
        program_id: lead.lead.program_id,
        lead_id: id,
        lead_revision: lead.lead.revision,
        niches: niches.to_vec(),
        notes: seal(Column::Notes, &enrichment.notes),
        message: seal(Column::Message, &enrichment.message),
        compliance_notes: seal(Column::ComplianceNotes, &enrichment.compliance_notes),
        enrichment,
    }
}

/// What became of an enrichment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is stored, as the lead's enrichment of this version.
    New {
        /// From 1.
        version: i32,
    },
    /// One of the same or a newer revision is stored already.
    Stale,
    /// The lead was erased meanwhile.
    Erased,
}

/// Stores enrichments; returns what became of each, in order. A lead that was analysed for other niches than its program looks
/// for by now is analysed once more.
pub async fn write(
    connection: &mut Connection,
    batch: &[SealedEnrichment],
    now: OffsetDateTime,
) -> Result<Vec<Written>, StoreError> {
    // The newest per lead, in key order.
    let mut newest: HashMap<(ProgramId, LeadId), &SealedEnrichment> = HashMap::with_capacity(batch.len());
    for item in batch {
        newest
            .entry((item.program_id, item.lead_id))
            .and_modify(|held| {
                if item.lead_revision > held.lead_revision {
                    *held = item;
                }
            })
            .or_insert(item);
    }
    let mut ids: Vec<_> = newest.keys().copied().collect();
    ids.sort_unstable();
    let alive = leads::lock_keys_for_update(connection, &ids).await?;
    let items: Vec<&SealedEnrichment> = ids.iter().filter(|id| alive.contains(id)).map(|id| newest[id]).collect();
    let stored = upsert(connection, &items).await?;
    // Also of those that were stale: an enrichment of that revision or a newer one is stored.
    let enriched: Vec<_> = items.iter().map(|item| (item.program_id, item.lead_id, item.lead_revision)).collect();
    leads::enriched(connection, &enriched).await?;
    // Last, so that a change of the niches has little time to come in between: those who were analysed before it are found by
    // `reanalysis::program`.
    let unsent: Vec<&SealedEnrichment> =
        items.iter().copied().filter(|item| stored.get(&item.id()).is_some_and(|stored| !stored.sent)).collect();
    let outdated = for_other_niches(connection, &unsent).await?;
    reanalysis::raise(connection, &outdated, now).await?;
    let mut taken = HashSet::new();
    Ok(batch
        .iter()
        .map(|item| {
            let id = (item.program_id, item.lead_id);
            let is_newest = std::ptr::eq(newest[&id], item);
            match stored.get(&id) {
                _ if !alive.contains(&id) => Written::Erased,
                Some(stored) if is_newest && taken.insert(id) => Written::New { version: stored.version },
                _ => Written::Stale,
            }
        })
        .collect())
}

/// The leads, with their revisions, whose program looks for other niches by now than they were analysed for.
async fn for_other_niches(
    connection: &mut Connection,
    items: &[&SealedEnrichment],
) -> Result<Vec<leads::Revision>, StoreError> {
    let mut programs: Vec<Uuid> = items.iter().map(|item| item.program_id.as_uuid()).collect();
    programs.dedup();
    let rows =
        sqlx::query!("SELECT id, niches FROM programs WHERE id = ANY($1)", &programs).fetch_all(connection).await?;
    let niches: HashMap<_, _> = rows.into_iter().map(|row| (ProgramId::from_uuid(row.id), row.niches)).collect();
    Ok(items
        .iter()
        .filter(|item| niches.get(&item.program_id).is_some_and(|niches| *niches != item.niches))
        .map(|item| (item.program_id, item.lead_id, item.lead_revision))
        .collect())
}

/// What was stored of an enrichment.
struct Stored {
    version: i32,
    /// Whether a mail was sent before.
    sent: bool,
}

async fn upsert(
    connection: &mut Connection,
    items: &[&SealedEnrichment],
) -> Result<HashMap<(ProgramId, LeadId), Stored>, StoreError> {
    if items.is_empty() {
        return Ok(HashMap::new());
    }
    let programs: Vec<Uuid> = items.iter().map(|item| item.program_id.as_uuid()).collect();
    let leads: Vec<Uuid> = items.iter().map(|item| item.lead_id.as_uuid()).collect();
    let ids: Vec<Uuid> = items.iter().map(|_| EnrichmentId::generate().as_uuid()).collect();
    let niches: Vec<String> = items.iter().map(|item| item.enrichment.niche.clone()).collect();
    let scores: Vec<i16> = items.iter().map(|item| item.enrichment.score.get()).collect();
    let notes: Vec<Vec<u8>> = items.iter().map(|item| item.notes.clone()).collect();
    let messages: Vec<Vec<u8>> = items.iter().map(|item| item.message.clone()).collect();
    let compliant: Vec<bool> = items.iter().map(|item| item.enrichment.compliant).collect();
    let compliance_notes: Vec<Vec<u8>> = items.iter().map(|item| item.compliance_notes.clone()).collect();
    let confidences: Vec<f32> = items.iter().map(|item| item.enrichment.confidence.get()).collect();
    let providers: Vec<String> = items.iter().map(|item| item.enrichment.provider.name().to_owned()).collect();
    let reasons: Vec<Option<String>> = items.iter().map(|item| item.enrichment.fallback_reason.clone()).collect();
    let revisions: Vec<i32> = items.iter().map(|item| item.lead_revision).collect();
    // Times are PostgreSQL's, to be compared with that of a change of the program's niches.
    let rows = sqlx::query!(
        "INSERT INTO enriched_leads (program_id, lead_id, id, niche, score, notes, message, compliant, compliance_notes,
                                     ai_confidence, provider, fallback_reason, lead_revision, created_at, updated_at)
         SELECT program_id, lead_id, id, niche, score, notes, message, compliant, compliance_notes, ai_confidence,
                provider, fallback_reason, lead_revision, now(), now()
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::smallint[], $6::bytea[], $7::bytea[],
                     $8::boolean[], $9::bytea[], $10::real[], $11::text[], $12::text[], $13::int[])
              AS n (program_id, lead_id, id, niche, score, notes, message, compliant, compliance_notes, ai_confidence,
                    provider, fallback_reason, lead_revision)
         ON CONFLICT (program_id, lead_id) DO UPDATE
            SET niche = excluded.niche, score = excluded.score, notes = excluded.notes, message = excluded.message,
                compliant = excluded.compliant, compliance_notes = excluded.compliance_notes,
                ai_confidence = excluded.ai_confidence, provider = excluded.provider,
                fallback_reason = excluded.fallback_reason, lead_revision = excluded.lead_revision, reviewed = false,
                enrichment_version = enriched_leads.enrichment_version + 1, updated_at = excluded.updated_at
            WHERE enriched_leads.lead_revision < excluded.lead_revision
         RETURNING program_id, lead_id, enrichment_version, sent",
        &programs,
        &leads,
        &ids,
        &niches,
        &scores,
        &notes,
        &messages,
        &compliant,
        &compliance_notes,
        &confidences,
        &providers,
        &reasons as &[Option<String>],
        &revisions,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let id = (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id));
            (id, Stored { version: row.enrichment_version, sent: row.sent })
        })
        .collect())
}

/// A lead with its enrichment, and what a decision about it needs.
#[derive(Debug, Clone)]
pub struct EnrichedLead {
    /// The lead.
    pub lead: OpenLead,
    /// Its newest enrichment.
    pub enrichment: Enrichment,
    /// That enrichment's version, from 1.
    pub version: i32,
    /// The revision of the lead that it was made from.
    pub lead_revision: i32,
    /// The version that was decided about last.
    pub decided_version: Option<i32>,
    /// Whether a mail was sent.
    pub sent: bool,
    /// Whether the address is suppressed.
    pub suppressed: bool,
    /// What shows that the address may be written to.
    pub shown: Shown,
}

/// What there is behind an id.
#[derive(Debug, Clone)]
pub enum FoundEnriched {
    /// A lead with its enrichment.
    Enriched(Box<EnrichedLead>),
    /// A lead that has none.
    NotEnriched,
    /// A lead that was erased.
    Erased,
    /// A lead that can't be opened, or its enrichment can't: see [`leads::Found::Unreadable`].
    Unreadable(Arc<StoreError>),
    /// Nothing: no such lead was ever stored.
    Unknown,
}

/// Reads and opens leads with their enrichments.
pub async fn open(
    db: &Db,
    vault: &Vault,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashMap<(ProgramId, LeadId), FoundEnriched>, StoreError> {
    let (lead_rows, enrichment_rows) = db
        .transact("enrichments.open", |tx, _| {
            Box::pin(async move { Ok((leads::select(tx, ids).await?, select(tx, ids).await?)) })
        })
        .await?;
    let mut enrichments: HashMap<_, _> = enrichment_rows
        .into_iter()
        .map(|row| ((ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id)), row))
        .collect();
    let mut found: HashMap<_, _> = ids.iter().map(|id| (*id, FoundEnriched::Unknown)).collect();
    for row in lead_rows {
        let id = (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.id));
        let enriched = match (row.open(vault), enrichments.remove(&id)) {
            (Err(error), _) => FoundEnriched::Unreadable(error.of_the_row()?),
            (Ok(None), _) => FoundEnriched::Erased,
            (Ok(Some(_)), None) => FoundEnriched::NotEnriched,
            (Ok(Some(lead)), Some(row)) => match row.open(lead) {
                Ok(lead) => FoundEnriched::Enriched(Box::new(lead)),
                Err(error) => FoundEnriched::Unreadable(Arc::new(error)),
            },
        };
        found.insert(id, enriched);
    }
    Ok(found)
}

struct Row {
    program_id: Uuid,
    lead_id: Uuid,
    niche: String,
    score: i16,
    notes: Option<Vec<u8>>,
    message: Option<Vec<u8>>,
    compliant: bool,
    compliance_notes: Option<Vec<u8>>,
    ai_confidence: f32,
    provider: String,
    fallback_reason: Option<String>,
    enrichment_version: i32,
    lead_revision: i32,
    decided_version: Option<i32>,
    sent: bool,
    suppressed: bool,
    consented: bool,
    holds: bool,
    consent_until: Option<OffsetDateTime>,
    published: bool,
}

/// Why the model was not believed for the lead that was analysed last, of all programs; `None` when it was believed, or
/// never asked.
pub async fn latest_fallback(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    // Reads every row: for a person who asks, not for a service.
    let reason = sqlx::query_scalar!(
        "SELECT fallback_reason FROM enriched_leads WHERE provider <> 'local' ORDER BY updated_at DESC LIMIT 1"
    )
    .fetch_optional(connection)
    .await?;
    Ok(reason.flatten())
}

async fn select(connection: &mut Connection, ids: &[(ProgramId, LeadId)]) -> Result<Vec<Row>, StoreError> {
    let (programs, leads) = leads::columns(ids);
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT e.program_id, e.lead_id, e.niche, e.score, e.notes, e.message, e.compliant, e.compliance_notes,
                  e.ai_confidence, e.provider, e.fallback_reason, e.enrichment_version, e.lead_revision,
                  e.decided_version, e.sent,
                  EXISTS (SELECT FROM suppressions s
                          WHERE s.program_id = l.program_id AND s.recipient_index = l.email_index) AS "suppressed!",
                  c.consented AS "consented!", c.holds AS "holds!", c.consent_until, c.published AS "published!"
           FROM UNNEST($1::uuid[], $2::uuid[]) AS w (program_id, lead_id)
           JOIN enriched_leads e USING (program_id, lead_id)
           JOIN leads l ON l.program_id = e.program_id AND l.id = e.lead_id
           CROSS JOIN LATERAL (SELECT coalesce(bool_or(kind = 1), false) AS consented,
                                      coalesce(bool_or(kind = 1 AND coalesce(expires_at > now(), true)), false) AS holds,
                                      max(expires_at) FILTER (WHERE kind = 1) AS consent_until,
                                      coalesce(bool_or(kind = 2), false) AS published
                               FROM contact_evidence
                               WHERE program_id = e.program_id AND lead_id = e.lead_id
                                 AND recipient_index = l.email_index OFFSET 0) c"#,
        &programs,
        &leads,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

impl Row {
    fn open(self, lead: OpenLead) -> Result<EnrichedLead, StoreError> {
        let row = self.lead_id;
        let inconsistent =
            |column, detail: String| StoreError::Inconsistent { table: "enriched_leads", column, row, detail };
        let text = |column, bytes: Option<Vec<u8>>| {
            let bytes = bytes.unwrap_or_default();
            if bytes.is_empty() {
                return Ok(String::new());
            }
            lead.key.open_text(column, lead.lead.id, &bytes).map_err(|source| StoreError::Sealed {
                table: "enriched_leads",
                row,
                source,
            })
        };
        let enrichment = Enrichment {
            niche: self.niche,
            score: Score::new(self.score.into()).map_err(|error| inconsistent("score", error.to_string()))?,
            notes: text(Column::Notes, self.notes)?,
            message: text(Column::Message, self.message)?,
            compliant: self.compliant,
            compliance_notes: text(Column::ComplianceNotes, self.compliance_notes)?,
            confidence: Confidence::new(self.ai_confidence.into())
                .map_err(|error| inconsistent("ai_confidence", error.to_string()))?,
            provider: self
                .provider
                .parse()
                .map_err(|error: domain::event::UnknownName| inconsistent("provider", error.to_string()))?,
            fallback_reason: self.fallback_reason,
        };
        Ok(EnrichedLead {
            lead,
            enrichment,
            version: self.enrichment_version,
            lead_revision: self.lead_revision,
            decided_version: self.decided_version,
            sent: self.sent,
            suppressed: self.suppressed,
            shown: Shown::new(self.consented, self.consent_until, self.holds, self.published),
        })
    }
}
