//! Applying migrations, and refusing a schema that doesn't fit.

use sqlx::{Connection as _, PgConnection, migrate::Migrator};

use crate::{Connection, Db, DbConfig, StoreError, db::connect_options};

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

/// Applies what is missing and returns the versions that were applied. Uses a connection of its own, since migrations
/// hold a session lock: `url` must lead to PostgreSQL itself, not to a pooler in transaction mode.
pub async fn migrate(url: &str) -> Result<Vec<i64>, StoreError> {
    let db = Db::new(&DbConfig { max_connections: 1, ..DbConfig::new(url) })?;
    let find_applied = || db.transact("schema.applied", |tx, _| Box::pin(applied(tx)));
    let before = find_applied().await?;
    let mut connection = PgConnection::connect_with(&connect_options(url)?).await?;
    MIGRATIONS.run(&mut connection).await?;
    connection.close().await?;
    let after = find_applied().await?;
    db.close().await;
    Ok(after.into_iter().filter(|version| !before.contains(version)).collect())
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
