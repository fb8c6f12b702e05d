//! Who must not be written to. A suppression is a blind index: it outlives the lead.

use domain::id::{LeadId, ProgramId};
use time::OffsetDateTime;
use vault::{BlindIndex, INDEX_VERSION};

use crate::{Connection, StoreError};

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuppressionReason {
    /// They asked for it.
    Unsubscribed,
    /// The address doesn't exist.
    HardBounce,
    /// They reported a mail as spam.
    Complaint,
    /// Somebody of the program did it.
    Manual,
}

impl SuppressionReason {
    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsubscribed => "unsubscribed",
            Self::HardBounce => "hard_bounce",
            Self::Complaint => "complaint",
            Self::Manual => "manual",
        }
    }
}

/// Suppresses recipients at once, and cancels their mails that haven't gone out. Returns the leads behind those that
/// were not suppressed before, so that the caller can tell of it.
pub async fn add(
    connection: &mut Connection,
    program: ProgramId,
    recipients: &[BlindIndex],
    reason: SuppressionReason,
    now: OffsetDateTime,
) -> Result<Vec<(LeadId, i32)>, StoreError> {
    let mut recipients: Vec<Vec<u8>> = recipients.iter().map(|recipient| recipient.to_vec()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let added = sqlx::query_scalar!(
        "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
         SELECT $1, recipient_index, $2, $3, $4 FROM UNNEST($5::bytea[]) AS n (recipient_index)
         ON CONFLICT (program_id, recipient_index) DO NOTHING
         RETURNING recipient_index",
        program.as_uuid(),
        INDEX_VERSION,
        reason.name(),
        now,
        &recipients,
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE outreach SET state = 'cancelled', reason = 'suppressed', due_at = NULL, lease_token = NULL,
                             recipient_key = NULL, updated_at = now()
         WHERE program_id = $1 AND state IN ('queued', 'deferred', 'held')
           AND recipient_index = ANY($2)
           AND (recipient_key = ANY($2)
                OR lead_id IN (SELECT id FROM leads WHERE program_id = $1 AND email_index = ANY($2)))",
        program.as_uuid(),
        &recipients,
    )
    .execute(&mut *connection)
    .await?;
    let leads = sqlx::query!(
        "SELECT id, revision FROM leads WHERE program_id = $1 AND email_index = ANY($2) ORDER BY id",
        program.as_uuid(),
        &added,
    )
    .fetch_all(connection)
    .await?;
    Ok(leads.into_iter().map(|row| (LeadId::from_uuid(row.id), row.revision)).collect())
}

/// Whether a recipient is suppressed.
pub async fn contains(
    connection: &mut Connection,
    program: ProgramId,
    recipient: BlindIndex,
) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM suppressions WHERE program_id = $1 AND recipient_index = $2) AS "found!""#,
        program.as_uuid(),
        &recipient.to_vec(),
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}
