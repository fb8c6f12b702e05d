//! Why migrations could not be applied.

use std::time::Duration;

use super::report::{Session, list};

/// Why migrations could not be applied. Whatever it is, `leadmill migrate` can be run again: what was applied is recorded,
/// and nothing is left half done that the next run wouldn't finish.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// PostgreSQL could not be reached, or let nobody in.
    #[error("PostgreSQL could not be reached")]
    Connect(#[source] sqlx::Error),
    /// A statement of the migration run itself failed, or its connection broke.
    #[error("the connection to PostgreSQL failed while migrating")]
    Database(#[from] sqlx::Error),
    /// A statement of a migration failed.
    #[error("{step} failed")]
    Failed {
        /// The migration or the index.
        step: String,
        /// What PostgreSQL said.
        #[source]
        source: sqlx::Error,
    },
    /// A lock could not be had in time.
    #[error(
        "{step} was tried {tries} times in {} s and did not get its locks, which are held by {}: wait until these \
         transactions have ended, or end them with pg_terminate_backend, and run `leadmill migrate` again",
        .waited.as_secs(), list(.blockers)
    )]
    Blocked {
        /// The migration or the index.
        step: String,
        /// How often it was tried.
        tries: u32,
        /// How long.
        waited: Duration,
        /// Whom the last try waited for.
        blockers: Vec<Session>,
        /// What PostgreSQL said of the last try.
        #[source]
        source: sqlx::Error,
    },
    /// Another run kept the migration lock.
    #[error(
        "another migration has been running for more than {} s, in {}: wait for it, or end it with pg_terminate_backend, \
         and run `leadmill migrate` again",
        .waited.as_secs(), list(.holder.as_slice())
    )]
    AlreadyRunning {
        /// How long was waited for it.
        waited: Duration,
        /// Who holds the lock.
        holder: Option<Session>,
    },
    /// The database was migrated by a newer release.
    #[error("migration {version} was applied to this database, but is not in this release: install a newer one")]
    Unknown {
        /// Its version.
        version: i64,
    },
    /// A migration that was applied has another text in this release.
    #[error("migration {version} was applied to this database with another text than it has in this release")]
    Changed {
        /// Its version.
        version: i64,
    },
    /// A defect of the release.
    #[error(
        "migration {version} runs outside of a transaction and is not exactly one CREATE INDEX CONCURRENTLY IF NOT EXISTS \
         or DROP INDEX CONCURRENTLY IF EXISTS, so it could not be run again after a crash"
    )]
    NotRepeatable {
        /// Its version.
        version: i64,
    },
}
