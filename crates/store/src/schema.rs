//! Applying migrations, and refusing a schema that doesn't fit.

mod blockers;
mod error;
mod indexes;
mod lock;
mod migrate;
mod report;
mod table_locks;

use sqlx::migrate::Migrator;

pub use error::MigrationError;
pub use migrate::{MigrationRunner, MigrationSettings};
pub use report::{AppliedMigration, MigrationReport, Progress, RebuiltIndex, Session, TableLock};

use crate::{Connection, Db, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// This program's version, as the schema counts it; raised whenever a schema is made that older programs can't use.
pub const PROGRAM_VERSION: i32 = 1;

/// Why a service doesn't use a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Nobody has migrated it.
    #[error("the database has no Leadmill schema: run `leadmill migrate`")]
    Missing,
    /// It is older than this program needs.
    #[error("the schema is at migration {found}, this program needs {needed}: run `leadmill migrate`")]
    TooOld {
        /// The newest migration that was applied.
        found: i64,
        /// The newest migration that this program knows.
        needed: i64,
    },
    /// It asks for a newer program.
    #[error(
        "the schema asks for program version {needed}, this program is version {PROGRAM_VERSION}: install a newer release"
    )]
    TooNew {
        /// The lowest program version that may use the schema.
        needed: i32,
    },
    /// It could not be looked at.
    #[error("the schema's version could not be read")]
    Unreadable(#[from] StoreError),
}

/// The newest migration that this program knows.
pub fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Applies what is missing. `url` must lead to PostgreSQL itself, not to a pooler in transaction mode. Waits are reported
/// to `progress`; see [`MigrationSettings`] for their limits.
pub async fn migrate(
    url: &str,
    settings: MigrationSettings,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<MigrationReport, MigrationError> {
    MigrationRunner::new(&MIGRATIONS, settings).run(url, progress).await
}

/// The indexes of the migrations that exist and are INVALID, by name: a build that was cut short has left them, they cost
/// every write, and no read uses them. [`migrate()`] builds them again.
pub async fn invalid_indexes(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let names: Vec<String> = MIGRATIONS.iter().flat_map(|migration| indexes::created(&migration.sql)).collect();
    Ok(indexes::invalid(connection, &names).await?)
}

/// Checks that this program may use the schema.
pub async fn check(db: &Db) -> Result<(), SchemaError> {
    let (found, minimum) = db
        .transact("schema.check", |tx, _| {
            Box::pin(async move {
                let found = applied(tx).await?.into_iter().max();
                let minimum = match found {
                    Some(_) => Some(
                        sqlx::query_scalar!("SELECT minimum_program_version FROM schema_requirements")
                            .fetch_one(tx)
                            .await?,
                    ),
                    None => None,
                };
                Ok((found, minimum))
            })
        })
        .await?;
    let (Some(found), Some(minimum)) = (found, minimum) else { return Err(SchemaError::Missing) };
    let needed = newest_migration();
    if minimum > PROGRAM_VERSION {
        Err(SchemaError::TooNew { needed: minimum })
    } else if found < needed {
        Err(SchemaError::TooOld { found, needed })
    } else {
        Ok(())
    }
}

/// The versions of the migrations that were applied. The table belongs to sqlx and isn't there before the first run.
async fn applied(connection: &mut Connection) -> Result<Vec<i64>, StoreError> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(Vec::new());
    }
    let versions = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(connection)
        .await?;
    Ok(versions)
}
