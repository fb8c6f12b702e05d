//! Leases: the right to do work that one replica at a time does, for a limited time by PostgreSQL's clock.
//!
//! A holder that dies blocks nobody for longer than the life of its lease. One that goes on after its lease has ended must
//! find out before it does harm: renew well before the end, and stop when that fails.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Connection, StoreError};

/// A lease that is held at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The process, or the part of one, that holds it.
    pub holder: Uuid,
    /// When it ends unless it is renewed.
    pub expires_at: OffsetDateTime,
}

/// Takes a lease that is free or has ended, or renews the holder's own; `true` when `holder` has it now, for `life`.
pub async fn take(connection: &mut Connection, name: &str, holder: Uuid, life: Duration) -> Result<bool, StoreError> {
    let taken = sqlx::query!(
        "INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, now() + $3 * interval '1 second')
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
            WHERE leases.holder = excluded.holder OR leases.expires_at <= now()",
        name,
        holder,
        life.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Renews a lease for `life` from now; `false` when somebody else has it or it was released.
pub async fn renew(connection: &mut Connection, name: &str, holder: Uuid, life: Duration) -> Result<bool, StoreError> {
    let renewed = sqlx::query!(
        "UPDATE leases SET expires_at = now() + $3 * interval '1 second' WHERE name = $1 AND holder = $2",
        name,
        holder,
        life.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Gives a lease up, so that another replica need not wait for its end.
pub async fn release(connection: &mut Connection, name: &str, holder: Uuid) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM leases WHERE name = $1 AND holder = $2", name, holder).execute(connection).await?;
    Ok(())
}

/// Gives up every lease that `holder` has.
pub async fn release_all(connection: &mut Connection, holder: Uuid) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM leases WHERE holder = $1", holder).execute(connection).await?;
    Ok(())
}
