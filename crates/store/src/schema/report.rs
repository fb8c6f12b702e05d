//! What a migration run reports while it goes on, and in the end.

use std::{fmt, time::Duration};

/// Another session of the database server, as `pg_stat_activity` shows it. Its statement is left out: it may hold personal
/// data.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Session {
    /// Its process id on the server, for `pg_terminate_backend`.
    pub pid: i32,
    /// What it calls itself; may be empty.
    pub application: String,
    /// Its database role; missing for the server's own processes.
    pub role: Option<String>,
    /// Such as `active` or `idle in transaction`; missing where the account may not see it.
    pub state: Option<String>,
    /// How long its transaction has been open, in seconds; missing where there is none, or the account may not see it.
    pub transaction_seconds: Option<f64>,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        let mut details = Vec::new();
        if !self.application.is_empty() {
            details.push(self.application.clone());
        }
        details.extend(self.role.as_ref().map(|role| format!("role {role}")));
        details.extend(self.state.clone());
        details.extend(self.transaction_seconds.map(|seconds| format!("transaction open for {seconds:.0} s")));
        if details.is_empty() { Ok(()) } else { write!(f, " ({})", details.join(", ")) }
    }
}

/// Sessions in one line.
pub(super) fn list(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "a session that was gone before it could be identified".to_owned();
    }
    sessions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A lock on a table that existed before the migration, of a mode that some reads or writes have to wait for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TableLock {
    /// The table.
    pub table: String,
    /// The strongest mode that was held, as `pg_locks` names it, such as `AccessExclusiveLock`.
    pub mode: String,
}

impl fmt::Display for TableLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.mode, self.table)
    }
}

/// A migration that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its version: the timestamp that its file name begins with.
    pub version: i64,
    /// The rest of its file name, with spaces.
    pub description: String,
    /// Whether it built or dropped an index outside of a transaction, which no read or write waits for.
    pub concurrently: bool,
    /// From the first try to the acknowledged commit.
    pub duration: Duration,
    /// How often it was tried; more than once where a lock was not free.
    pub tries: u32,
    /// The longest time that one try waited for and held its locks, from its first statement to its end: nobody had to
    /// wait longer because of it. Zero where nobody had to wait at all.
    pub longest_lock: Duration,
    /// What was locked in the try that succeeded, without tables that the migration itself made.
    pub locks: Vec<TableLock>,
}

impl fmt::Display for AppliedMigration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let concurrently = if self.concurrently { " (concurrently)" } else { "" };
        write!(f, "{} {}{concurrently} in {}", self.version, self.description, Short(self.duration))?;
        if self.tries > 1 {
            write!(f, " and {} tries", self.tries)?;
        }
        if self.longest_lock.is_zero() {
            return write!(f, ", no lock on an existing table that reads or writes wait for");
        }
        write!(f, ", longest lock {}", Short(self.longest_lock))?;
        let locks: Vec<String> = self.locks.iter().map(ToString::to_string).collect();
        if locks.is_empty() { Ok(()) } else { write!(f, " ({})", locks.join(", ")) }
    }
}

/// An index that was INVALID and was built again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuiltIndex {
    /// Its name, qualified by its schema where that is not on the search path.
    pub name: String,
    /// How long the rebuild took.
    pub duration: Duration,
}

impl fmt::Display for RebuiltIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} in {}", self.name, Short(self.duration))
    }
}

/// What a migration run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations that were missing, in the order in which they were applied.
    pub applied: Vec<AppliedMigration>,
    /// The indexes that had been left INVALID.
    pub rebuilt: Vec<RebuiltIndex>,
}

/// What a migration run is doing, for somebody who watches it.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Another run holds the migration lock; reported at once and every ten seconds.
    WaitingForMigration {
        /// Who holds it, unless it was released meanwhile.
        holder: Option<Session>,
    },
    /// An index is being built or dropped, which may take long.
    Started {
        /// The migration or the index.
        step: String,
    },
    /// A concurrent build waits for the transactions of others to end; nobody waits for it.
    WaitingForTransactions {
        /// The migration or the index.
        step: String,
        /// Whose.
        sessions: Vec<Session>,
    },
    /// A lock was not free; nothing is locked until the next try.
    Retrying {
        /// The migration or the index.
        step: String,
        /// Who holds the lock.
        blockers: Vec<Session>,
        /// When the next try is.
        pause: Duration,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingForMigration { holder: Some(holder) } => {
                write!(f, "another migration is running in {holder}; waiting for it")
            }
            Self::WaitingForMigration { holder: None } => write!(f, "another migration is running; waiting for it"),
            Self::Started { step } => write!(f, "{step}: started; reads and writes go on meanwhile"),
            Self::WaitingForTransactions { step, sessions } => {
                write!(f, "{step}: waiting until these transactions end: {}", list(sessions))
            }
            Self::Retrying { step, blockers, pause } => {
                let blockers = list(blockers);
                write!(f, "{step}: a lock is held by {blockers}; trying again in {}", Short(*pause))
            }
        }
    }
}

/// A duration for people: milliseconds up to a second, then seconds.
pub(super) struct Short(pub Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_shows_what_is_known_of_it() {
        let session = Session {
            pid: 7,
            application: "psql".to_owned(),
            role: Some("ann".to_owned()),
            state: Some("idle in transaction".to_owned()),
            transaction_seconds: Some(95.4),
        };
        assert_eq!(session.to_string(), "process 7 (psql, role ann, idle in transaction, transaction open for 95 s)");
        let hidden =
            Session { application: String::new(), role: None, state: None, transaction_seconds: None, ..session };
        assert_eq!(hidden.to_string(), "process 7");
    }

    #[test]
    fn an_applied_migration_says_what_it_locked_and_for_how_long() {
        let mut applied = AppliedMigration {
            version: 5,
            description: "outreach by recipient".to_owned(),
            concurrently: true,
            duration: Duration::from_millis(3210),
            tries: 1,
            longest_lock: Duration::ZERO,
            locks: vec![],
        };
        let nothing_locked = "5 outreach by recipient (concurrently) in 3.2 s, no lock on an existing table that reads or \
                              writes wait for";
        assert_eq!(applied.to_string(), nothing_locked);
        applied.concurrently = false;
        applied.tries = 3;
        applied.longest_lock = Duration::from_millis(12);
        applied.locks = vec![TableLock { table: "outreach".to_owned(), mode: "AccessExclusiveLock".to_owned() }];
        assert_eq!(
            applied.to_string(),
            "5 outreach by recipient in 3.2 s and 3 tries, longest lock 12 ms (AccessExclusiveLock on outreach)"
        );
    }
}
