//! Who must not be written to. A suppression is a blind index: it outlives the lead.
//!
//! A suppression is a fact, written in the transaction of the event that it comes from. What is unsent to the recipient is
//! cancelled right after it, by [`recipients::cancel_suppressed`], and once more some minutes later, by [`apply`]: a mail may
//! have been planned by a transaction that was under way. A claim and the move to the data phase look at the fact itself.

use std::time::Duration;

use domain::id::{LeadId, ProgramId};
use vault::{BlindIndex, INDEX_VERSION};

use crate::{Connection, Db, StoreError, outreach::recipients, programs};

/// Recipients of one transaction.
const PAGE: i64 = 500;
/// No transaction that plans a mail takes longer.
const IN_FLIGHT: Duration = Duration::from_mins(2);

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

/// Suppresses recipients at once. Returns the leads behind those that were not suppressed before, so that the caller can tell
/// of it. Once it is committed, cancel what is unsent to them: [`recipients::cancel_suppressed`].
pub async fn add(
    connection: &mut Connection,
    program: ProgramId,
    recipients: &[BlindIndex],
    reason: SuppressionReason,
) -> Result<Vec<(LeadId, i32)>, StoreError> {
    let mut recipients: Vec<Vec<u8>> = recipients.iter().map(|recipient| recipient.to_vec()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let added = sqlx::query_scalar!(
        "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
         SELECT $1, recipient_index, $2, $3, now() FROM UNNEST($4::bytea[]) AS n (recipient_index)
         ON CONFLICT (program_id, recipient_index) DO NOTHING
         RETURNING recipient_index",
        program.as_uuid(),
        INDEX_VERSION,
        reason.name(),
        &recipients,
    )
    .fetch_all(&mut *connection)
    .await?;
    let leads = sqlx::query!(
        r#"SELECT l.id, l.revision
           FROM UNNEST($2::bytea[]) AS n (recipient)
           CROSS JOIN LATERAL (SELECT id, revision FROM leads
                               WHERE program_id = $1 AND email_index = n.recipient OFFSET 0) l
           ORDER BY l.id"#,
        program.as_uuid(),
        &added,
    )
    .fetch_all(connection)
    .await?;
    Ok(leads.into_iter().map(|row| (LeadId::from_uuid(row.id), row.revision)).collect())
}

/// The job: applies the suppressions of every program that are due for it; returns how many there were.
///
/// # Errors
/// When the database fails; the next run goes on.
pub async fn apply_all(db: Db) -> Result<u64, StoreError> {
    let mut count = 0;
    for program in db.transact("suppressions.programs", |tx, _| Box::pin(programs::ids(tx))).await? {
        loop {
            let found = db.transact("suppressions.apply", |tx, _| Box::pin(apply(tx, program, PAGE))).await?;
            count += found;
            if found < PAGE as u64 {
                break;
            }
        }
    }
    Ok(count)
}

/// Cancels what is unsent to up to `limit` recipients of a program whose suppressions are so old that no transaction can still
/// be under way which doesn't know of them; each is looked at once. Returns how many recipients there were.
pub async fn apply(connection: &mut Connection, program: ProgramId, limit: i64) -> Result<u64, StoreError> {
    let recipients = sqlx::query_scalar!(
        "UPDATE suppressions SET applied_at = now()
         WHERE program_id = $1 AND recipient_index IN (
             SELECT recipient_index FROM suppressions
             WHERE program_id = $1 AND applied_at IS NULL AND created_at < now() - $2 * interval '1 second'
             ORDER BY recipient_index LIMIT $3
             FOR UPDATE SKIP LOCKED)
         RETURNING recipient_index",
        program.as_uuid(),
        IN_FLIGHT.as_secs_f64(),
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let found = recipients.len() as u64;
    let recipients: Vec<BlindIndex> =
        recipients.iter().filter_map(|index| BlindIndex::try_from(index.as_slice()).ok()).collect();
    recipients::cancel_suppressed(connection, program, &recipients).await?;
    Ok(found)
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
