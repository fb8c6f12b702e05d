//! The pool, and named transactions.

use std::{
    fmt,
    marker::PhantomData,
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use opentelemetry::{KeyValue, metrics::Histogram};
use sqlx::{
    Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::{debug, warn};

use crate::{StoreError, retry};

/// A connection inside of a transaction; what the functions of this crate take.
pub type Connection = sqlx::PgConnection;

/// Says that what a transaction borrows (`'env`) outlives the transaction (`'c`); a closure's signature has no other way
/// to say it. Ignore the argument.
pub type Scope<'c, 'env> = PhantomData<&'c &'env ()>;

/// How often a transaction runs again after it lost a race.
const MAX_RACES: u32 = 8;

/// How to reach PostgreSQL.
#[derive(Clone)]
pub struct DbConfig {
    /// `postgres://user:password@host:port/database`
    pub url: String,
    /// The most connections that this process opens.
    pub max_connections: u32,
    /// How long to wait for a connection before the attempt counts as failed.
    pub acquire_timeout: Duration,
    /// Shows in `pg_stat_activity`.
    pub application_name: String,
    /// Whether prepared statements are kept between transactions. Turn it off behind a pooler in transaction mode that
    /// doesn't track them (PgBouncer before 1.21).
    pub cache_statements: bool,
}

/// Debug output shows no password.
impl fmt::Debug for DbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbConfig").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

impl DbConfig {
    /// The defaults for a URL: 10 connections, 5 s.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            application_name: "leadmill".to_owned(),
            cache_statements: true,
        }
    }
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
}

static TRANSACTION_SECONDS: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    opentelemetry::global::meter("leadmill")
        .f64_histogram("leadmill.store.transaction")
        .with_unit("s")
        .with_description("Time from BEGIN to the acknowledged COMMIT, by transaction")
        .build()
});

impl Db {
    /// A pool for `config`; opens no connection yet, so that a service can start before its database.
    pub fn new(config: &DbConfig) -> Result<Self, StoreError> {
        let mut options: PgConnectOptions = config.url.parse()?;
        options = options.application_name(&config.application_name);
        if !config.cache_statements {
            options = options.statement_cache_capacity(0);
        }
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(Duration::from_mins(5))
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Waits until PostgreSQL answers, with backoff, for as long as it takes; `say` is told of each failed try.
    pub async fn wait_until_up(&self, mut say: impl FnMut(&StoreError)) {
        let mut delays = retry::Policy::OUTAGE.start();
        while let Err(error) = self.ping().await {
            say(&error);
            tokio::time::sleep(delays.next().unwrap_or(retry::Policy::OUTAGE.max)).await;
        }
    }

    /// Asks PostgreSQL for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        connection.ping().await?;
        Ok(())
    }

    /// Runs `work` in a transaction and commits. Runs it again when it lost a race against another transaction
    /// (serialization failure, deadlock), so `work` must have no effect but through its connection.
    ///
    /// An error after which it is unknown whether the transaction was committed (the connection broke in COMMIT) is
    /// returned like any other: every transaction of this program may be run again.
    ///
    /// `work` may borrow from its surroundings: `|tx, _| Box::pin(async move { … })`.
    pub async fn transact<'env, T, F>(&self, name: &'static str, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'env,
        F: for<'c> FnMut(&'c mut Connection, Scope<'c, 'env>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'env,
    {
        let started = Instant::now();
        let mut races = 0;
        loop {
            let result = self.transact_once(&mut work).await;
            match result {
                Err(error) if error.is_lost_race() && races < MAX_RACES => {
                    races += 1;
                    debug!(transaction = name, races, "lost a race, running again");
                    tokio::time::sleep(Duration::from_millis(rand::random_range(1..=10) << races.min(5))).await;
                }
                result => {
                    let outcome = if result.is_ok() { "committed" } else { "failed" };
                    let labels = [KeyValue::new("transaction", name), KeyValue::new("outcome", outcome)];
                    TRANSACTION_SECONDS.record(started.elapsed().as_secs_f64(), &labels);
                    if races > 2 {
                        warn!(transaction = name, races, "a transaction lost many races");
                    }
                    return result.map_err(|source| StoreError::Transaction { name, source: Box::new(source) });
                }
            }
        }
    }

    async fn transact_once<'env, T, F>(&self, work: &mut F) -> Result<T, StoreError>
    where
        T: Send + 'env,
        F: for<'c> FnMut(&'c mut Connection, Scope<'c, 'env>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'env,
    {
        let mut transaction = self.pool.begin().await?;
        let value = work(&mut transaction, PhantomData).await?;
        transaction.commit().await?;
        Ok(value)
    }

    /// Closes the pool: waits for connections in use.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
