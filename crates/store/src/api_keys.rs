//! Keys for the HTTP ingest: `lmi_`, the program's id, and 32 random bytes. Only a hash is stored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::id::ProgramId;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Connection, StoreError};

const PREFIX: &str = "lmi_";

/// Makes a key for a program and returns its text, which can't be had again.
pub async fn create(
    connection: &mut Connection,
    program: ProgramId,
    label: &str,
    now: OffsetDateTime,
) -> Result<String, StoreError> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).expect("the operating system gives randomness");
    let key = format!("{PREFIX}{}_{}", program.as_uuid().simple(), URL_SAFE_NO_PAD.encode(secret));
    let key_hash = hash(&key);
    sqlx::query!(
        "INSERT INTO api_keys (program_id, id, key_hash, label, created_at) VALUES ($1, $2, $3, $4, $5)",
        program.as_uuid(),
        Uuid::now_v7(),
        key_hash.as_slice(),
        label,
        now,
    )
    .execute(connection)
    .await?;
    Ok(key)
}

/// The program that a key belongs to; `None` when it is unknown, malformed or revoked.
pub async fn authenticate(connection: &mut Connection, key: &str) -> Result<Option<ProgramId>, StoreError> {
    let program = key
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('_'))
        .and_then(|(id, _)| (key.len() <= 128).then(|| Uuid::try_parse(id).ok()).flatten());
    let Some(program) = program else { return Ok(None) };
    let key_hash = hash(key);
    let known = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM api_keys WHERE program_id = $1 AND key_hash = $2 AND revoked_at IS NULL) AS "known!""#,
        program,
        key_hash.as_slice(),
    )
    .fetch_one(connection)
    .await?;
    Ok(known.then(|| ProgramId::from_uuid(program)))
}

/// A key, without what makes it work.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ApiKey {
    /// Names the key.
    pub id: Uuid,
    /// What its owner calls it.
    pub label: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A program's keys.
pub async fn list(connection: &mut Connection, program: ProgramId) -> Result<Vec<ApiKey>, StoreError> {
    let keys = sqlx::query_as!(
        ApiKey,
        "SELECT id, label, created_at, revoked_at FROM api_keys WHERE program_id = $1 ORDER BY id",
        program.as_uuid(),
    )
    .fetch_all(connection)
    .await?;
    Ok(keys)
}

/// Revokes a key; `false` when the program has none of this id that still works.
pub async fn revoke(
    connection: &mut Connection,
    program: ProgramId,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let revoked = sqlx::query!(
        "UPDATE api_keys SET revoked_at = $3 WHERE program_id = $1 AND id = $2 AND revoked_at IS NULL",
        program.as_uuid(),
        id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
