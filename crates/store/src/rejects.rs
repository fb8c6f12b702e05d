//! Rows that were refused, kept sealed so that they can be given back.

use domain::{
    email::EmailAddress,
    handle::Handle,
    id::{ProgramId, RejectId, RunId},
    reject::Defect,
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{Column, INDEX_VERSION, ProgramKeys};

use crate::{Connection, StoreError, unreadable};

/// The most bytes of a refused row that are kept.
pub const RAW_BYTES: usize = 8 * 1024;

/// A refused row.
#[derive(Debug, Clone)]
pub struct Reject {
    /// SHA-256 of what the row stood in; with the line, it tells a row that was refused before.
    pub source_digest: [u8; 32],
    /// The line where the row starts, from 1; the item's position for sources without lines.
    pub line: u64,
    /// What is wrong.
    pub defect: Defect,
    /// The row as it was found, of which the first [`RAW_BYTES`] are kept.
    pub raw: Vec<u8>,
    /// The user name, where one could be read.
    pub username: Option<Handle>,
    /// The address, where one could be read.
    pub email: Option<EmailAddress>,
}

/// A refused row, sealed.
#[derive(Debug, Clone)]
pub(crate) struct SealedReject {
    id: RejectId,
    source_digest: [u8; 32],
    line: i64,
    defect: Defect,
    raw: Vec<u8>,
    username_index: Option<Vec<u8>>,
    email_index: Option<Vec<u8>>,
}

impl SealedReject {
    pub(crate) fn seal(reject: &Reject, keys: &ProgramKeys) -> Self {
        let id = RejectId::generate();
        let kept = &reject.raw[..reject.raw.len().min(RAW_BYTES)];
        Self {
            id,
            source_digest: reject.source_digest,
            line: i64::try_from(reject.line).unwrap_or(i64::MAX),
            raw: keys.rejects().seal_row(Column::RejectedRow, id.as_uuid(), kept),
            username_index: reject.username.as_ref().map(|username| keys.username_index(username).to_vec()),
            email_index: reject.email.as_ref().map(|email| keys.email_index(email).to_vec()),
            defect: reject.defect.clone(),
        }
    }
}

/// Inserts refused rows; returns how many were not there yet.
pub(crate) async fn insert(
    connection: &mut Connection,
    program: ProgramId,
    run: RunId,
    rejects: &[SealedReject],
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    if rejects.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = rejects.iter().map(|reject| reject.id.as_uuid()).collect();
    let digests: Vec<Vec<u8>> = rejects.iter().map(|reject| reject.source_digest.to_vec()).collect();
    let lines: Vec<i64> = rejects.iter().map(|reject| reject.line).collect();
    let reasons: Vec<String> = rejects.iter().map(|reject| reject.defect.reason.name().to_owned()).collect();
    let fields: Vec<String> = rejects.iter().map(|reject| reject.defect.field.clone()).collect();
    let details: Vec<String> = rejects.iter().map(|reject| reject.defect.detail.clone()).collect();
    let raws: Vec<Vec<u8>> = rejects.iter().map(|reject| reject.raw.clone()).collect();
    let usernames: Vec<Option<Vec<u8>>> = rejects.iter().map(|reject| reject.username_index.clone()).collect();
    let emails: Vec<Option<Vec<u8>>> = rejects.iter().map(|reject| reject.email_index.clone()).collect();
    let inserted = sqlx::query!(
        "INSERT INTO rejected_leads (program_id, id, run_id, source_digest, line, reason, field, detail, raw,
                                     username_index, email_index, index_version, created_at)
         SELECT $1, id, $2, source_digest, line, reason, field, detail, raw, username_index, email_index, $3, $4
         FROM UNNEST($5::uuid[], $6::bytea[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bytea[],
                     $12::bytea[], $13::bytea[])
              AS r (id, source_digest, line, reason, field, detail, raw, username_index, email_index)
         ORDER BY source_digest, line
         ON CONFLICT (program_id, source_digest, line) DO NOTHING",
        program.as_uuid(),
        run.as_uuid(),
        INDEX_VERSION,
        now,
        &ids,
        &digests,
        &lines,
        &reasons,
        &fields,
        &details,
        &raws,
        &usernames as &[Option<Vec<u8>>],
        &emails as &[Option<Vec<u8>>],
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}

/// A refused row, opened.
#[derive(Debug, Clone)]
pub struct OpenReject {
    /// The row's id; pass the last one to [`page`] for the next page.
    pub id: RejectId,
    /// The run that refused it first.
    pub run_id: RunId,
    /// The line where it starts.
    pub line: i64,
    /// The kind of defect.
    pub reason: String,
    /// The field.
    pub field: String,
    /// A sentence for a person.
    pub detail: String,
    /// The row, or its beginning.
    pub raw: Vec<u8>,
    /// When it was refused.
    pub created_at: OffsetDateTime,
}

/// Up to `limit` refused rows after the id `after`, oldest first; of one run, or of all. Those that can't be opened are left
/// out; no page but the last is empty for that.
pub async fn page(
    connection: &mut Connection,
    keys: &ProgramKeys,
    run: Option<RunId>,
    after: Option<RejectId>,
    limit: i64,
) -> Result<Vec<OpenReject>, StoreError> {
    let mut after = after.map(|after| after.as_uuid());
    loop {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, run_id, line, reason, field, detail, raw, created_at FROM rejected_leads
             WHERE program_id = $1 AND ($2::uuid IS NULL OR run_id = $2) AND ($3::uuid IS NULL OR id > $3)
             ORDER BY id LIMIT $4",
            keys.program().as_uuid(),
            run.map(|run| run.as_uuid()),
            after,
            limit,
        )
        .fetch_all(&mut *connection)
        .await?;
        let next = rows.last().map(|row| row.id).filter(|_| rows.len() as i64 == limit);
        let page: Vec<OpenReject> =
            rows.into_iter().filter_map(|row| unreadable::readable("rejected_leads", row.id, row.open(keys))).collect();
        if !page.is_empty() || next.is_none() {
            return Ok(page);
        }
        after = next;
    }
}

struct Row {
    id: Uuid,
    run_id: Uuid,
    line: i64,
    reason: String,
    field: String,
    detail: String,
    raw: Vec<u8>,
    created_at: OffsetDateTime,
}

impl Row {
    fn open(self, keys: &ProgramKeys) -> Result<OpenReject, StoreError> {
        let raw = keys
            .rejects()
            .open_row(Column::RejectedRow, self.id, &self.raw)
            .map_err(|source| StoreError::Sealed { table: "rejected_leads", row: self.id, source })?;
        Ok(OpenReject {
            id: RejectId::from_uuid(self.id),
            run_id: RunId::from_uuid(self.run_id),
            line: self.line,
            reason: self.reason,
            field: self.field,
            detail: self.detail,
            raw: raw.to_vec(),
            created_at: self.created_at,
        })
    }
}
