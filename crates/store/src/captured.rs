//! Captured mails: complete messages that were kept instead of being sent.

use domain::id::{LeadId, OutreachId, ProgramId};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{Column, DataKey, Vault};

use crate::{Connection, StoreError, unreadable};

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
/// leads that were erased, and those that can't be opened, are left out; no page but the last is empty for that.
///
/// # Errors
/// Also when a master key isn't configured: then it is this process that can't read, and not a row. And when the mail with the
/// id `only` can't be opened.
pub async fn page(
    connection: &mut Connection,
    vault: &Vault,
    program: ProgramId,
    only: Option<OutreachId>,
    after: Option<OutreachId>,
    limit: i64,
) -> Result<Vec<CapturedMail>, StoreError> {
    let mut after = after.map(|after| after.as_uuid());
    loop {
        let rows = select(connection, program, only, after, limit).await?;
        let next = rows.last().map(|row| row.outreach_id).filter(|_| rows.len() as i64 == limit);
        let mut mails = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.outreach_id;
            let opened = match row.open(vault, program) {
                // Whoever asks for this one wants to know why not.
                Err(error) if only.is_some() => return Err(error),
                Err(error) => Err(error.of_the_row()?),
                Ok(mail) => Ok(mail),
            };
            mails.extend(unreadable::readable("captured_mails", id, opened));
        }
        if !mails.is_empty() || next.is_none() {
            return Ok(mails);
        }
        after = next;
    }
}

struct Row {
    outreach_id: Uuid,
    lead_id: Uuid,
    mail: Vec<u8>,
    captured_at: OffsetDateTime,
    wrapped_key: Vec<u8>,
}

async fn select(
    connection: &mut Connection,
    program: ProgramId,
    only: Option<OutreachId>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT c.outreach_id, c.lead_id, c.mail, c.captured_at, k.wrapped_key
         FROM captured_mails c
         JOIN lead_keys k ON k.program_id = c.program_id AND k.lead_id = c.lead_id
         WHERE c.program_id = $1 AND ($2::uuid IS NULL OR c.outreach_id = $2)
           AND ($3::uuid IS NULL OR c.outreach_id > $3)
         ORDER BY c.outreach_id LIMIT $4",
        program.as_uuid(),
        only.map(|id| id.as_uuid()),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

impl Row {
    fn open(self, vault: &Vault, program: ProgramId) -> Result<CapturedMail, StoreError> {
        let lead_id = LeadId::from_uuid(self.lead_id);
        let sealed = |source| StoreError::Sealed { table: "captured_mails", row: self.outreach_id, source };
        let key = vault.unwrap_lead_key(program, lead_id, &self.wrapped_key).map_err(sealed)?;
        let message =
            key.open_compressed(Column::CapturedMail, self.outreach_id, &self.mail, MAIL_BYTES).map_err(sealed)?;
        let outreach_id = OutreachId::from_uuid(self.outreach_id);
        Ok(CapturedMail { outreach_id, lead_id, captured_at: self.captured_at, message })
    }
}
