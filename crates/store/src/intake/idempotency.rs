//! Requests that may be repeated: who comes first does the work, and the others get the same answer.

use domain::id::ProgramId;
use time::OffsetDateTime;

use crate::{Connection, StoreError};

/// Names a request that may be repeated.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKey {
    /// SHA-256 of the `Idempotency-Key` header.
    pub key_hash: [u8; 32],
    /// SHA-256 of the request's body.
    pub request_hash: [u8; 32],
}

impl IdempotencyKey {
    /// Claims the key for this transaction; a repeated request waits here for the first one to end, and gets its answer.
    pub(super) async fn claim(
        &self,
        tx: &mut Connection,
        program: ProgramId,
        now: OffsetDateTime,
    ) -> Result<Option<serde_json::Value>, StoreError> {
        let claimed = sqlx::query!(
            "INSERT INTO idempotent_answers (program_id, key_hash, request_hash, answer, created_at)
             VALUES ($1, $2, $3, 'null', $4)
             ON CONFLICT (program_id, key_hash) DO UPDATE
                SET request_hash = excluded.request_hash, answer = 'null', created_at = excluded.created_at
                WHERE idempotent_answers.created_at < excluded.created_at - interval '24 hours'",
            program.as_uuid(),
            self.key_hash.as_slice(),
            self.request_hash.as_slice(),
            now,
        )
        .execute(&mut *tx)
        .await?;
        if claimed.rows_affected() == 1 {
            return Ok(None);
        }
        let earlier = sqlx::query!(
            "SELECT request_hash, answer FROM idempotent_answers WHERE program_id = $1 AND key_hash = $2",
            program.as_uuid(),
            self.key_hash.as_slice(),
        )
        .fetch_one(tx)
        .await?;
        if earlier.request_hash == self.request_hash {
            Ok(Some(earlier.answer))
        } else {
            Err(StoreError::Conflict("the Idempotency-Key was used for another request".to_owned()))
        }
    }

    /// Keeps what a repeated request will get.
    pub(super) async fn answer(
        &self,
        tx: &mut Connection,
        program: ProgramId,
        answer: &serde_json::Value,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE idempotent_answers SET answer = $3 WHERE program_id = $1 AND key_hash = $2",
            program.as_uuid(),
            self.key_hash.as_slice(),
            answer,
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
