//! Mails to mailboxes that are full: tried once more, a week later.

use super::data_phase::Lease;
use crate::{Connection, StoreError};

/// Writes down that the recipient's mailbox is full; `true` when it was full at an earlier attempt already, at least a day ago.
/// An attempt that was settled by nobody, because its process died, is no earlier one.
pub async fn found_full(connection: &mut Connection, (program, id, token): Lease) -> Result<bool, StoreError> {
    let again = sqlx::query_scalar!(
        r#"UPDATE outreach SET mailbox_full_at = coalesce(mailbox_full_at, now())
           WHERE program_id = $1 AND id = $2 AND lease_token = $3
           RETURNING mailbox_full_at < now() - interval '1 day' AS "again!""#,
        program.as_uuid(),
        id.as_uuid(),
        token.as_uuid(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(again.unwrap_or_default())
}
