//! What shows that a lead may be written to at an address: sealed, one row per lead, address and kind.
//!
//! What a decision needs of it is not sealed: the kind and the times. Newer evidence of a kind takes the place of older.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
};

use domain::{
    id::{LeadId, ProgramId, RunId},
    law::{
        AddressKind, Consent,
        evidence::{Evidence, EvidenceKind},
    },
    submission::Submission,
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{BlindIndex, Column, DataKey, INDEX_VERSION, Sealed};

use crate::{Connection, Db, StoreError, leads, leads::Found, unreadable};

/// Evidence as it is stored, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvidence {
    /// The blind index of the address that it is about.
    pub recipient: Vec<u8>,
    /// What it is.
    pub evidence: Evidence,
}

/// Evidence about a lead, sealed.
#[derive(Debug, Clone)]
pub(crate) struct SealedEvidence {
    lead: LeadId,
    recipient: BlindIndex,
    kind: EvidenceKind,
    captured_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    sealed: Sealed,
    line: i64,
}

impl SealedEvidence {
    /// What came in about a new lead.
    pub(crate) fn of_new(item: &Submission, lead: LeadId, key: &DataKey, recipient: Option<BlindIndex>) -> Vec<Self> {
        Self::of_known(item, lead, key, recipient, &[])
    }

    /// What came in about a known lead and isn't stored yet. Without an address there is nothing that it could be about.
    pub(crate) fn of_known(
        item: &Submission,
        lead: LeadId,
        key: &DataKey,
        recipient: Option<BlindIndex>,
        stored: &[StoredEvidence],
    ) -> Vec<Self> {
        let Some(recipient) = recipient else { return Vec::new() };
        let is_new = |evidence: &&Evidence| {
            let same_kind = |stored: &&StoredEvidence| {
                stored.recipient == recipient.to_vec() && stored.evidence.kind() == evidence.kind()
            };
            stored.iter().find(same_kind).is_none_or(|stored| shows_more(evidence, &stored.evidence))
        };
        let seal = |evidence: &Evidence| {
            let text = serde_json::to_vec(evidence).expect("evidence has string keys only");
            Self {
                lead,
                recipient,
                kind: evidence.kind(),
                captured_at: evidence.captured_at(),
                expires_at: evidence.expires_at(),
                sealed: key.seal(Column::ContactEvidence, lead, &text),
                line: i64::try_from(item.line).unwrap_or(i64::MAX),
            }
        };
        item.evidence.iter().filter(is_new).map(seal).collect()
    }
}

/// Whether evidence says something that older evidence of its kind doesn't. The same page seen again shows nothing new.
fn shows_more(new: &Evidence, stored: &Evidence) -> bool {
    let is_same = match (new, stored) {
        (Evidence::PublishedAddress(new), Evidence::PublishedAddress(stored)) => new.url == stored.url,
        _ => new == stored,
    };
    !is_same && new.captured_at() >= stored.captured_at()
}

/// Inserts evidence, in the transaction that writes its leads.
pub(crate) async fn insert(
    connection: &mut Connection,
    program: ProgramId,
    run: RunId,
    evidence: &[SealedEvidence],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if evidence.is_empty() {
        return Ok(());
    }
    let leads: Vec<Uuid> = evidence.iter().map(|row| row.lead.as_uuid()).collect();
    let recipients: Vec<Vec<u8>> = evidence.iter().map(|row| row.recipient.to_vec()).collect();
    let kinds: Vec<i16> = evidence.iter().map(|row| row.kind.code()).collect();
    let captured: Vec<OffsetDateTime> = evidence.iter().map(|row| row.captured_at).collect();
    let expires: Vec<Option<OffsetDateTime>> = evidence.iter().map(|row| row.expires_at).collect();
    let sealed: Vec<Vec<u8>> = evidence.iter().map(|row| row.sealed.clone()).collect();
    let lines: Vec<i64> = evidence.iter().map(|row| row.line).collect();
    sqlx::query!(
        "INSERT INTO contact_evidence (program_id, lead_id, recipient_index, kind, index_version, captured_at, expires_at,
                                       evidence, run_id, line, created_at)
         SELECT $1, lead_id, recipient, kind, $2, captured_at, expires_at, evidence, $3, line, $4
         FROM UNNEST($5::uuid[], $6::bytea[], $7::smallint[], $8::timestamptz[], $9::timestamptz[], $10::bytea[],
                     $11::bigint[])
              AS n (lead_id, recipient, kind, captured_at, expires_at, evidence, line)
         ON CONFLICT (program_id, lead_id, recipient_index, kind) DO UPDATE
            SET captured_at = excluded.captured_at, expires_at = excluded.expires_at, evidence = excluded.evidence,
                run_id = excluded.run_id, line = excluded.line, created_at = excluded.created_at
            WHERE contact_evidence.captured_at <= excluded.captured_at",
        program.as_uuid(),
        INDEX_VERSION,
        run.as_uuid(),
        now,
        &leads,
        &recipients,
        &kinds,
        &captured,
        &expires as &[Option<OffsetDateTime>],
        &sealed,
        &lines,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The evidence about leads that were opened before; of those that can't be read, none.
///
/// # Errors
/// When the database fails.
pub async fn of<S: BuildHasher>(
    db: &Db,
    ids: &[(ProgramId, LeadId)],
    open: &HashMap<(ProgramId, LeadId), Found, S>,
) -> Result<HashMap<LeadId, Vec<StoredEvidence>>, StoreError> {
    let wanted: HashSet<_> = ids.iter().copied().collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = db.transact("contact_evidence.read", |tx, _| Box::pin(async move { select(tx, ids).await })).await?;
    let mut found: HashMap<LeadId, Vec<StoredEvidence>> = HashMap::new();
    for row in rows {
        let id = (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id));
        let Some(Found::Lead(lead)) = open.get(&id) else { continue };
        let evidence = unreadable::readable("contact_evidence", row.lead_id, row.open(&lead.key));
        found.entry(id.1).or_default().extend(evidence);
    }
    Ok(found)
}

struct Row {
    program_id: Uuid,
    lead_id: Uuid,
    recipient_index: Vec<u8>,
    kind: i16,
    evidence: Vec<u8>,
}

async fn select(connection: &mut Connection, ids: &[(ProgramId, LeadId)]) -> Result<Vec<Row>, StoreError> {
    let (programs, leads) = leads::columns(ids);
    let rows = sqlx::query_as!(
        Row,
        "SELECT e.program_id, e.lead_id, e.recipient_index, e.kind, e.evidence
         FROM UNNEST($1::uuid[], $2::uuid[]) AS w (program_id, lead_id)
         CROSS JOIN LATERAL (SELECT program_id, lead_id, recipient_index, kind, evidence FROM contact_evidence
                             WHERE program_id = w.program_id AND lead_id = w.lead_id OFFSET 0) e",
        &programs,
        &leads,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

impl Row {
    fn open(self, key: &DataKey) -> Result<StoredEvidence, StoreError> {
        let row = self.lead_id;
        let inconsistent =
            |column, detail: String| StoreError::Inconsistent { table: "contact_evidence", column, row, detail };
        let text = key.open_text(Column::ContactEvidence, LeadId::from_uuid(row), &self.evidence);
        let text = text.map_err(|source| StoreError::Sealed { table: "contact_evidence", row, source })?;
        let evidence: Evidence =
            serde_json::from_str(&text).map_err(|_| inconsistent("evidence", "it is no evidence".to_owned()))?;
        if evidence.kind().code() != self.kind {
            return Err(inconsistent("kind", format!("{} isn't the kind that is sealed beside it", self.kind)));
        }
        Ok(StoredEvidence { recipient: self.recipient_index, evidence })
    }
}

/// What a decision needs to know of the evidence about a lead's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Whether they agreed.
    pub consent: Consent,
    /// When the consent expires.
    pub consent_until: Option<OffsetDateTime>,
    /// What is known of the address.
    pub address: AddressKind,
}

impl Shown {
    /// From what the statements say that read it: whether there is consent, when it expires, whether it holds by PostgreSQL's
    /// clock, and whether the address is published.
    pub(crate) const fn new(
        consented: bool,
        consent_until: Option<OffsetDateTime>,
        consent_holds: bool,
        published: bool,
    ) -> Self {
        let consent = match (consented, consent_holds) {
            (false, _) => Consent::None,
            (true, false) => Consent::Expired,
            (true, true) => Consent::Given,
        };
        let address = if published { AddressKind::PublishedForBusiness } else { AddressKind::Unknown };
        Self { consent, consent_until, address }
    }
}
