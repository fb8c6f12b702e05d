//! What can go wrong with the database.

mod sqlstate;

use std::{sync::Arc, time::Duration};

use vault::VaultError;

/// The constraint by which a recipient is one row's at a time.
const RECIPIENT_KEY: &str = "outreach_program_id_recipient_key_campaign_step_key";

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A statement failed.
    #[error("the transaction `{name}` failed")]
    Transaction {
        /// The transaction's name.
        name: &'static str,
        /// What the database or the connection said.
        #[source]
        source: Box<StoreError>,
    },
    /// The database or the connection to it.
    #[error("PostgreSQL answered with an error")]
    Database(#[from] sqlx::Error),
    /// PostgreSQL was not heard of any more.
    #[error("PostgreSQL did not answer within {} s; whether it did the work is unknown", .limit.as_secs_f32())]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// A prepared statement is not what it was on the same connection.
    #[error(
        "a pooler in transaction mode stands before PostgreSQL and doesn't keep prepared statements: set \
         database.statement_cache to \"off\""
    )]
    StatementsLost(#[source] sqlx::Error),
    /// A sealed value.
    #[error("row {row} of {table}: a sealed value cannot be opened")]
    Sealed {
        /// The table.
        table: &'static str,
        /// The row's id.
        row: uuid::Uuid,
        /// Why not.
        #[source]
        source: VaultError,
    },
    /// A value in the database that this program can't have written.
    #[error("{table}.{column} of row {row} holds something unexpected: {detail}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's id.
        row: uuid::Uuid,
        /// What is unexpected about it, without personal data.
        detail: String,
    },
    /// What a write was prepared from changed meanwhile: prepare it again.
    #[error("the rows changed since they were read")]
    Stale,
    /// Something that the caller asked for can't be done.
    #[error("{0}")]
    Conflict(String),
}

impl StoreError {
    /// Whether the same work may succeed a moment later: the server is away, starting, stopping, read-only or full of
    /// connections, it ended the transaction by one of its timeouts, or another transaction was in the way. Everything else
    /// is a defect of the data or of the program. `error/sqlstate.rs` lists PostgreSQL's codes with reasons.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transaction { source, .. } => source.is_transient(),
            Self::Database(error) => is_transient(error),
            // No fault of the work, and the next server connection may well answer, or know the statement.
            Self::TimedOut { .. } | Self::StatementsLost(_) => true,
            _ => false,
        }
    }

    /// Whether the transaction only lost a race and should run again at once: another one was in the way, or has taken over a
    /// recipient that this one saw nobody hold.
    pub fn is_lost_race(&self) -> bool {
        match self {
            Self::Transaction { source, .. } => source.is_lost_race(),
            Self::Database(error) => {
                matches!(code(error).as_deref(), Some("40001" | "40P01"))
                    || self.violated_constraint() == Some(RECIPIENT_KEY)
            }
            _ => false,
        }
    }

    /// Whether the account lacks a privilege.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Transaction { source, .. } => source.is_forbidden(),
            Self::Database(error) => code(error).as_deref() == Some("42501"),
            _ => false,
        }
    }

    /// Whether the work was prepared from rows that changed meanwhile.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Transaction { source, .. } => source.is_stale(),
            Self::Stale => true,
            _ => false,
        }
    }

    /// This error as one of the row that was being opened, or as one of everything that this process reads: a master key
    /// that isn't configured.
    pub(crate) fn of_the_row(self) -> Result<Arc<Self>, Self> {
        match self {
            Self::Sealed { source: VaultError::UnknownMasterKey { .. }, .. } => Err(self),
            error => Ok(Arc::new(error)),
        }
    }

    /// This error as one of a pooler, if it is: a statement's name is taken by somebody else, or unknown.
    pub(crate) fn of_lost_statements(self) -> Self {
        match self {
            Self::Database(error) if matches!(code(&error).as_deref(), Some("42P05" | "26000")) => {
                Self::StatementsLost(error)
            }
            error => error,
        }
    }

    /// What the caller did wrong, if that is what happened.
    pub fn conflict(&self) -> Option<&str> {
        match self {
            Self::Transaction { source, .. } => source.conflict(),
            Self::Conflict(what) => Some(what),
            _ => None,
        }
    }

    /// The unique constraint that was violated, if that is what happened.
    pub fn violated_constraint(&self) -> Option<&str> {
        match self {
            Self::Transaction { source, .. } => source.violated_constraint(),
            Self::Database(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned)
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        // The driver reports a connection that ended in the middle of a message as a protocol error.
        sqlx::Error::Protocol(_)
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(_) => code(error).is_some_and(|code| sqlstate::is_transient(&code)),
        _ => false,
    }
}
