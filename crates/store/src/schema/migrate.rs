//! Applying migrations beside running services.
//!
//! The list and the table of what was applied are sqlx's, so that databases migrated by older releases go on, and older
//! releases can read the table. What differs is how locks are taken:
//!
//! - A migration waits for a lock only briefly, since everybody who comes after waits behind it. It gives up, lets go of
//!   everything, and tries again, for as long as [`MigrationSettings::step_limit`] allows.
//! - A file that begins with `-- no-transaction` is one concurrent index statement, which holds nobody up. What it leaves
//!   behind when it is cut short is cleared away by the next try or the next run.
//! - The lock that excludes other runs is tried for and never waited for, see [`MigrationLock`], and is given back before
//!   each wait.

use std::time::{Duration, Instant};

use retry::{Policy, Waits, jittered};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection,
    migrate::{Migrate as _, Migration, Migrator},
    postgres::PgConnectOptions,
};
use tokio::time::sleep;

use super::{
    blockers::Observer,
    error::MigrationError,
    indexes::{self, ConcurrentStatement},
    lock::MigrationLock,
    report::{AppliedMigration, MigrationReport, Progress, RebuiltIndex, Session, TableLock},
    table_locks,
};
use crate::db::connect_options;

/// How often to say again that another run is waited for.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// How long the server lets a transaction of ours idle, in which nothing ever does: a process that is frozen, or cut off
/// from the network, must not keep its locks.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a migration run waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationSettings {
    /// How long one try waits for a lock, and so how long others may have to wait behind it.
    pub lock_timeout: Duration,
    /// How long one try of a concurrent index statement waits for the transactions of others. Nobody waits behind it, and
    /// most of its waits come after the index has been built, which would have to be done again.
    pub concurrent_lock_timeout: Duration,
    /// How long to go on trying to apply one migration that doesn't get its locks.
    pub step_limit: Duration,
    /// How long to wait for another run.
    pub other_run_limit: Duration,
    /// How often to look whether the other run has ended.
    pub poll_interval: Duration,
    /// The waits between the tries of one migration.
    pub backoff: Policy,
}

impl Default for MigrationSettings {
    fn default() -> Self {
        Self {
            // Longer than deadlock_timeout (1 s), after which autovacuum gives way to whoever waits for its lock.
            lock_timeout: Duration::from_secs(2),
            concurrent_lock_timeout: Duration::from_mins(1),
            step_limit: Duration::from_mins(10),
            other_run_limit: Duration::from_mins(10),
            poll_interval: Duration::from_millis(500),
            backoff: Policy { initial: Duration::from_millis(500), max: Duration::from_secs(10) },
        }
    }
}

/// Applies a list of migrations.
#[derive(Debug, Clone, Copy)]
pub struct MigrationRunner<'m> {
    migrations: &'m [Migration],
    settings: MigrationSettings,
}

impl<'m> MigrationRunner<'m> {
    /// A runner for the list of `migrator`, of which nothing else is used.
    pub fn new(migrator: &'m Migrator, settings: MigrationSettings) -> Self {
        Self { migrations: migrator.iter().as_slice(), settings }
    }

    /// Applies what is missing, and builds again what was left INVALID. `url` must lead to PostgreSQL itself, not to a
    /// pooler in transaction mode: the migration lock belongs to a session.
    pub async fn run(
        &self,
        url: &str,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<MigrationReport, MigrationError> {
        let options = connect_options(url).map_err(MigrationError::Connect)?;
        // Building an index takes its time, and nobody wants to be warned of that.
        let options = options.application_name("leadmill migrate").disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await.map_err(MigrationError::Connect)?;
        let result = async {
            let mut run = Run::start(self.settings, &mut connection, options, progress).await?;
            run.all(self.migrations).await?;
            Ok(run.report)
        }
        .await;
        // The result is known; without this the server ends the session, and with it the lock, a moment later.
        let _ = connection.close().await;
        result
    }
}

/// Why a step was not done.
enum Obstacle {
    /// A lock was not free: worth another try.
    Blocked { source: sqlx::Error, blockers: Vec<Session> },
    /// Anything else.
    Failed(MigrationError),
}

impl From<MigrationError> for Obstacle {
    fn from(error: MigrationError) -> Self {
        Self::Failed(error)
    }
}

impl From<sqlx::Error> for Obstacle {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Obstacle {
    fn of(step: &str, source: sqlx::Error, blockers: Vec<Session>) -> Self {
        let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
        // lock_not_available, deadlock_detected
        if matches!(code.as_deref(), Some("55P03" | "40P01")) {
            Self::Blocked { source, blockers }
        } else {
            Self::Failed(MigrationError::Failed { step: step.to_owned(), source })
        }
    }
}

/// The tries of the step that is under way.
struct Tries {
    step: String,
    begun: Instant,
    /// Since when there have been failures: how long a build took before its first is no reason to give up.
    failing_since: Option<Instant>,
    count: u32,
    /// The longest that a try waited for its locks in front of others.
    longest_lock: Duration,
    waits: Waits,
}

/// A run under way.
struct Run<'r> {
    settings: MigrationSettings,
    connection: &'r mut PgConnection,
    lock: MigrationLock,
    observer: Observer,
    tries: Option<Tries>,
    report: MigrationReport,
    progress: &'r mut (dyn FnMut(Progress) + Send),
}

impl<'r> Run<'r> {
    async fn start(
        settings: MigrationSettings,
        connection: &'r mut PgConnection,
        options: PgConnectOptions,
        progress: &'r mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, MigrationError> {
        // A role or a database may have limits of its own that are meant for services.
        let limits = format!(
            "SET statement_timeout = 0; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}",
            settings.concurrent_lock_timeout.as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
        );
        connection.execute(limits.as_str()).await?;
        let lock = MigrationLock::of_database(connection).await?;
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
        // Half of it, so that whoever is waited for is known before the try is over.
        let interval = settings.lock_timeout / 2;
        let observer = Observer { options, pid, interval };
        Ok(Self { settings, connection, lock, observer, tries: None, report: MigrationReport::default(), progress })
    }

    /// Goes over the list until all of it is applied.
    async fn all(&mut self, migrations: &[Migration]) -> Result<(), MigrationError> {
        loop {
            self.take_lock().await?;
            let result = self.once(migrations).await;
            match result {
                Ok(()) => return Ok(self.lock.release(self.connection).await?),
                Err(Obstacle::Failed(error)) => return Err(error),
                Err(Obstacle::Blocked { source, blockers }) => {
                    // The other one that waits may be an older release's, whose waiting statement a concurrent build has
                    // to wait for: it goes first.
                    self.lock.release(self.connection).await?;
                    self.pause(source, blockers).await?;
                }
            }
        }
    }

    /// Tries for the migration lock until it is free.
    async fn take_lock(&mut self) -> Result<(), MigrationError> {
        let begun = Instant::now();
        let mut reported: Option<Instant> = None;
        while !self.lock.try_take(self.connection).await? {
            let holder = self.lock.holder(self.connection).await?;
            let waited = begun.elapsed();
            if waited >= self.settings.other_run_limit {
                return Err(MigrationError::AlreadyRunning { waited, holder });
            }
            if reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                (self.progress)(Progress::WaitingForMigration { holder });
            }
            sleep(jittered(self.settings.poll_interval)).await;
        }
        Ok(())
    }

    /// Applies what is missing, and builds again what is INVALID, up to the first step that doesn't get its locks.
    async fn once(&mut self, migrations: &[Migration]) -> Result<(), Obstacle> {
        self.connection.ensure_migrations_table().await.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(source) => source,
            other => sqlx::Error::Migrate(Box::new(other)),
        })?;
        for migration in self.missing(migrations).await? {
            self.apply(migration).await?;
        }
        let names: Vec<String> = migrations.iter().flat_map(|migration| indexes::created(&migration.sql)).collect();
        for index in indexes::invalid(&mut *self.connection, &names).await? {
            self.rebuild(index).await?;
        }
        Ok(())
    }

    /// The migrations that aren't recorded as applied. A record of a failure, which neither this runner nor sqlx writes for
    /// PostgreSQL, is none: a migration is applied whole, or can be applied again.
    async fn missing<'a>(&mut self, migrations: &'a [Migration]) -> Result<Vec<&'a Migration>, MigrationError> {
        let applied: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
                .fetch_all(&mut *self.connection)
                .await?;
        for (version, checksum) in &applied {
            match migrations.iter().find(|migration| migration.version == *version) {
                None => return Err(MigrationError::Unknown { version: *version }),
                Some(migration) if *migration.checksum != **checksum => {
                    return Err(MigrationError::Changed { version: *version });
                }
                Some(_) => {}
            }
        }
        let is_applied = |migration: &Migration| applied.iter().any(|(version, _)| *version == migration.version);
        Ok(migrations.iter().filter(|migration| !is_applied(migration)).collect())
    }

    async fn apply(&mut self, migration: &Migration) -> Result<(), Obstacle> {
        let step = format!("migration {} ({})", migration.version, migration.description);
        let is_first = self.begin_try(&step);
        let locks = if migration.no_tx {
            if is_first {
                (self.progress)(Progress::Started { step: step.clone() });
            }
            self.apply_concurrently(migration, &step).await?;
            Vec::new()
        } else {
            self.apply_in_transaction(migration, &step).await?
        };
        if let Some(tries) = self.tries.take() {
            self.report.applied.push(AppliedMigration {
                version: migration.version,
                description: migration.description.clone().into_owned(),
                concurrently: migration.no_tx,
                duration: tries.begun.elapsed(),
                tries: tries.count,
                longest_lock: tries.longest_lock,
                locks,
            });
        }
        Ok(())
    }

    /// Runs a migration and records it, both or none. Returns what it had locked.
    async fn apply_in_transaction(&mut self, migration: &Migration, step: &str) -> Result<Vec<TableLock>, Obstacle> {
        let existing = table_locks::existing_tables(self.connection).await?;
        let opening = format!("BEGIN; SET LOCAL lock_timeout = {}", self.settings.lock_timeout.as_millis());
        let begun = Instant::now();
        let connection = &mut *self.connection;
        let work = async {
            let mut transaction = connection.begin_with(opening).await?;
            transaction.execute(&*migration.sql).await?;
            let locks = table_locks::held(&mut transaction, &existing).await?;
            record(&mut transaction, migration, begun.elapsed()).await?;
            transaction.commit().await?;
            Ok(locks)
        };
        let (result, blockers) = self.observer.watch(work, &mut |_| {}).await;
        let held = begun.elapsed();
        // Behind a transaction that had locked nothing that others use nobody had to wait.
        if let Some(tries) = &mut self.tries
            && result.as_ref().map_or(true, |locks: &Vec<TableLock>| !locks.is_empty())
        {
            tries.longest_lock = tries.longest_lock.max(held);
        }
        result.map_err(|source| Obstacle::of(step, source, blockers))
    }

    /// Runs the one statement of a migration outside of a transaction, and then records it. A crash in between leaves a
    /// valid index, for which the statement does nothing the next time.
    async fn apply_concurrently(&mut self, migration: &Migration, step: &str) -> Result<(), Obstacle> {
        let begun = Instant::now();
        let statement = ConcurrentStatement::parse(&migration.sql)
            .ok_or(MigrationError::NotRepeatable { version: migration.version })?;
        if let ConcurrentStatement::Create(name) = statement {
            for unfinished in indexes::invalid(&mut *self.connection, &[name]).await? {
                self.execute(&indexes::drop_statement(&unfinished), step).await?;
            }
        }
        self.execute(&migration.sql, step).await?;
        record(self.connection, migration, begun.elapsed()).await?;
        Ok(())
    }

    /// Builds an index again that is INVALID.
    async fn rebuild(&mut self, name: String) -> Result<(), Obstacle> {
        let step = format!("rebuilding the INVALID index {name}");
        if self.begin_try(&step) {
            (self.progress)(Progress::Started { step: step.clone() });
        }
        for leftover in indexes::leftovers(self.connection, &name).await? {
            self.execute(&indexes::drop_statement(&leftover), &step).await?;
        }
        self.execute(&indexes::rebuild_statement(&name), &step).await?;
        if let Some(tries) = self.tries.take() {
            self.report.rebuilt.push(RebuiltIndex { name, duration: tries.begun.elapsed() });
        }
        Ok(())
    }

    /// Runs a concurrent statement, and reports whom it waits for.
    async fn execute(&mut self, statement: &str, step: &str) -> Result<(), Obstacle> {
        let progress = &mut *self.progress;
        let mut report = |sessions: &[Session]| {
            progress(Progress::WaitingForTransactions { step: step.to_owned(), sessions: sessions.to_vec() });
        };
        let (result, blockers) = self.observer.watch(self.connection.execute(statement), &mut report).await;
        result.map(|_| ()).map_err(|source| Obstacle::of(step, source, blockers))
    }

    /// Counts a try of a step, and says whether it is the first.
    fn begin_try(&mut self, step: &str) -> bool {
        match &mut self.tries {
            Some(tries) if tries.step == step => {
                tries.count += 1;
                false
            }
            other => {
                let waits = self.settings.backoff.start();
                let (step, begun) = (step.to_owned(), Instant::now());
                *other =
                    Some(Tries { step, begun, failing_since: None, count: 1, longest_lock: Duration::ZERO, waits });
                true
            }
        }
    }

    /// Waits before the next try of the step, or says that there have been enough.
    async fn pause(&mut self, source: sqlx::Error, blockers: Vec<Session>) -> Result<(), MigrationError> {
        let Some(tries) = &mut self.tries else { return Err(source.into()) };
        let (step, waited, pause) = (tries.step.clone(), tries.begun.elapsed(), tries.waits.next_wait());
        let failing = tries.failing_since.get_or_insert_with(Instant::now).elapsed();
        if failing + pause > self.settings.step_limit {
            return Err(MigrationError::Blocked { step, tries: tries.count, waited, blockers, source });
        }
        (self.progress)(Progress::Retrying { step, blockers, pause });
        sleep(pause).await;
        Ok(())
    }
}

/// Records a migration as sqlx does, in the place of a record of a failure.
async fn record(connection: &mut PgConnection, migration: &Migration, duration: Duration) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES ($1, $2, true, $3, $4)
         ON CONFLICT (version) DO UPDATE
         SET description = excluded.description, installed_on = now(), success = true, checksum = excluded.checksum,
             execution_time = excluded.execution_time",
    )
    .bind(migration.version)
    .bind(&*migration.description)
    .bind(&*migration.checksum)
    .bind(duration.as_nanos() as i64)
    .execute(connection)
    .await?;
    Ok(())
}
