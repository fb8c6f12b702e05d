//! Captured mails: complete messages that were kept instead of being sent.

use domain::id::{LeadId, OutreachId, ProgramId};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{Column, DataKey, Vault};

use crate::{Connection, StoreError};

/// The most bytes of a message that are opened.
const MAIL_BYTES: usize = 4 * 1024 * 1024;

/// A complete message, sealed.
#[derive(Debug, Clone)]
pub struct SealedMail {
    pub(crate) outreach_id: OutreachId,
    pub(crate) mail: Vec<u8>,
}

/// Compresses and seals a complete message under its lead's key.
pub fn seal(key: &DataKey, outreach: OutreachId, message: &[u8]) -> SealedMail {
    let mail = key.seal_compressed(Column::CapturedMail, outreach.as_uuid(), message);
    SealedMail { outreach_id: outreach, mail }
}

/// Stores captured mails of rows that were just settled as captured.
pub(crate) async fn insert(
    connection: &mut Connection,
    mails: &[(ProgramId, LeadId, &SealedMail)],
) -> Result<(), StoreError> {
    if mails.is_empty() {
        return Ok(());
    }
    let programs: Vec<Uuid> = mails.iter().map(|(program, _, _)| program.as_uuid()).collect();
    let leads: Vec<Uuid> = mails.iter().map(|(_, lead, _)| lead.as_uuid()).collect();
    let ids: Vec<Uuid> = mails.iter().map(|(_, _, mail)| mail.outreach_id.as_uuid()).collect();
    let sealed: Vec<Vec<u8>> = mails.iter().map(|(_, _, mail)| mail.mail.clone()).collect();
    sqlx::query!(
        "INSERT INTO captured_mails (program_id, outreach_id, lead_id, mail, captured_at)
         SELECT program_id, outreach_id, lead_id, mail, now()
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[]) AS n (program_id, outreach_id, lead_id, mail)
         ON CONFLICT (program_id, outreach_id) DO UPDATE
            SET mail = excluded.mail, captured_at = excluded.captured_at",
        &programs,
        &ids,
        &leads,
        &sealed,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A captured mail, opened.
#[derive(Debug, Clone)]
pub struct CapturedMail {
    /// The outreach row.
    pub outreach_id: OutreachId,
    /// Whom it was for.
    pub lead_id: LeadId,
    /// When it was captured.
    pub captured_at: OffsetDateTime,
    /// The complete message, as it would have gone out.
    pub message: Vec<u8>,
}

/// Up to `limit` captured mails of a program after the id `after`, oldest first; or the one with the id `only`. Those of
/// leads that were erased are left out: nobody can read them any more.
pub async fn page(
    connection: &mut Connection,
    vault: &Vault,
    program: ProgramId,
    only: Option<OutreachId>,
    after: Option<OutreachId>,
    limit: i64,
) -> Result<Vec<CapturedMail>, StoreError> {
    let rows = sqlx::query!(
        "SELECT c.outreach_id, c.lead_id, c.mail, c.captured_at, k.wrapped_key
         FROM captured_mails c
         JOIN lead_keys k ON k.program_id = c.program_id AND k.lead_id = c.lead_id
         WHERE c.program_id = $1 AND ($2::uuid IS NULL OR c.outreach_id = $2)
           AND ($3::uuid IS NULL OR c.outreach_id > $3)
         ORDER BY c.outreach_id LIMIT $4",
        program.as_uuid(),
        only.map(|id| id.as_uuid()),
        after.map(|id| id.as_uuid()),
        limit,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let lead_id = LeadId::from_uuid(row.lead_id);
            let sealed = |source| StoreError::Sealed { table: "captured_mails", row: row.outreach_id, source };
            let key = vault.unwrap_lead_key(program, lead_id, &row.wrapped_key).map_err(sealed)?;
            let message =
                key.open_compressed(Column::CapturedMail, row.outreach_id, &row.mail, MAIL_BYTES).map_err(sealed)?;
            let outreach_id = OutreachId::from_uuid(row.outreach_id);
            Ok(CapturedMail { outreach_id, lead_id, captured_at: row.captured_at, message })
        })
        .collect()
}
