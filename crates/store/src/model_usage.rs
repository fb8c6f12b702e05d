//! What was spent on a chat model, per program and day.

use std::collections::BTreeMap;

use domain::id::ProgramId;
use time::Date;
use uuid::Uuid;

use crate::{Connection, StoreError};

/// Adds tokens that were spent on `day` (UTC), and returns the day's total of all programs and models.
///
/// Part of the transaction that stores what they were spent on. If that runs again although it was committed, the tokens
/// count twice: a limit is rather reached early.
pub async fn add(
    connection: &mut Connection,
    day: Date,
    model: &str,
    spent: &BTreeMap<ProgramId, u64>,
) -> Result<u64, StoreError> {
    let programs: Vec<Uuid> = spent.keys().map(ProgramId::as_uuid).collect();
    let tokens: Vec<i64> = spent.values().map(|tokens| i64::try_from(*tokens).unwrap_or(i64::MAX)).collect();
    sqlx::query!(
        "INSERT INTO model_usage (program_id, day, model, tokens)
         SELECT program_id, $1, $2, tokens FROM UNNEST($3::uuid[], $4::bigint[]) AS n (program_id, tokens)
         ON CONFLICT (program_id, day, model) DO UPDATE SET tokens = model_usage.tokens + excluded.tokens",
        day,
        model,
        &programs,
        &tokens,
    )
    .execute(&mut *connection)
    .await?;
    total(connection, day).await
}

/// The tokens that were spent on `day` (UTC) by all programs on all models.
pub async fn total(connection: &mut Connection, day: Date) -> Result<u64, StoreError> {
    let total = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(tokens), 0)::bigint AS "total!" FROM model_usage WHERE day = $1"#,
        day
    )
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(total).unwrap_or_default())
}
