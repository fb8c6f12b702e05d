//! The pool, and named transactions.

use std::{
    fmt,
    marker::PhantomData,
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, try_join_all};
use opentelemetry::{KeyValue, metrics::Histogram};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{Connection, StoreError};

/// Says that what a transaction borrows (`'env`) outlives the transaction (`'c`); a closure's signature has no other way
/// to say it. Ignore the argument.
pub type Scope<'c, 'env> = PhantomData<&'c &'env ()>;

/// How often a transaction runs again after it lost a race.
const MAX_RACES: u32 = 8;

/// How much longer than a transaction's limit to wait for PostgreSQL to say that it is over.
const ANSWER: Duration = Duration::from_secs(2);

/// How long saying goodbye may take; PostgreSQL ends the transactions of whoever is gone.
const CLOSING: Duration = Duration::from_secs(5);

/// How to reach PostgreSQL.
#[derive(Clone)]
pub struct DbConfig {
    /// `postgres://user:password@host:port/database`
    pub url: String,
    /// The most connections that this process opens.
    pub max_connections: u32,
    /// How long to wait for a connection before the attempt counts as failed.
    pub acquire_timeout: Duration,
    /// How long a statement may take, and a pause between two of a transaction; PostgreSQL ends what is longer. Where it
    /// isn't heard of soon after, the connection counts as dead and is closed: a network may lose one without telling.
    pub transaction_timeout: Duration,
    /// Shows in `pg_stat_activity`.
    pub application_name: String,
    /// Whether prepared statements are kept from one transaction to the next, see [`Connection`]. Turn it off behind a
    /// pooler in transaction mode that doesn't track them: PgBouncer before 1.21, or with `max_prepared_statements = 0`.
    pub cache_statements: bool,
}

/// Debug output shows no password.
impl fmt::Debug for DbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbConfig").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

impl DbConfig {
    /// The defaults for a URL: 10 connections, 5 s to get one, a minute for a transaction.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            transaction_timeout: Duration::from_mins(1),
            application_name: "leadmill".to_owned(),
            cache_statements: true,
        }
    }
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
    /// When a connection on which nothing is heard counts as dead.
    deadline: Duration,
    /// Begins a transaction with its limits.
    begin: String,
    cache_statements: bool,
}

/// Plans that are kept, and right for few rows of a table however large it has become since.
const KEPT_PLANS: &str = "; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; \
     SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

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
        let options = connect_options(&config.url)?.application_name(&config.application_name);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(Duration::from_mins(5))
            .test_before_acquire(false)
            .connect_lazy_with(options);
        // PostgreSQL keeps the limit by itself: whoever it stopped hearing of would keep its locks, and wait for others',
        // until TCP gives the connection up, hours later. LOCAL, since a pooler may give the connection to somebody else.
        let limit = config.transaction_timeout.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL idle_in_transaction_session_timeout = {limit}"
        );
        Ok(Self {
            pool,
            deadline: config.transaction_timeout + ANSWER,
            begin,
            cache_statements: config.cache_statements,
        })
    }

    /// The same database for transactions that write a few rows along their keys, thousands of times: PostgreSQL plans each
    /// of their statements once and keeps the plan, which never reads a whole table.
    ///
    /// Left to itself it plans them anew each time, since with the arrays at hand it can tell how few rows they are, and that
    /// takes more than twice as long as to run them. Where statements aren't kept there is nothing to gain.
    #[must_use]
    pub fn with_kept_plans(&self) -> Self {
        let mut same = self.clone();
        if self.cache_statements {
            same.begin.push_str(KEPT_PLANS);
        }
        same
    }

    /// Fails with [`StoreError::StatementsLost`] where prepared statements are to be kept and a pooler in between doesn't
    /// keep them. To be asked before the work begins: a name that means one statement on one server connection may mean
    /// another on the next.
    ///
    /// The first statement of every connection has the same name, so two connections that are served by one of the
    /// server's collide. A pooler that serves them by two goes unnoticed here; then the first collision is the error.
    pub async fn check_statements(&self) -> Result<(), StoreError> {
        if !self.cache_statements {
            return Ok(());
        }
        let count = self.pool.options().get_max_connections().min(2);
        // All are held until the last has come, or they would be one and the same.
        let mut connections = try_join_all((0..count).map(|_| self.acquire())).await?;
        for connection in &mut connections {
            let asked = sqlx::query("SELECT").execute(connection).await;
            asked.map_err(|error| StoreError::from(error).of_lost_statements())?;
        }
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
                    return result.map_err(|source| {
                        let source = if self.cache_statements { source.of_lost_statements() } else { source };
                        StoreError::Transaction { name, source: Box::new(source) }
                    });
                }
            }
        }
    }

    async fn transact_once<'env, T, F>(&self, work: &mut F) -> Result<T, StoreError>
    where
        T: Send + 'env,
        F: for<'c> FnMut(&'c mut Connection, Scope<'c, 'env>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'env,
    {
        let mut connection = self.acquire().await?;
        let whole = async {
            connection.begin(self.begin.clone()).await?;
            let value = work(&mut connection, PhantomData).await?;
            connection.commit().await?;
            Ok(value)
        };
        let Ok(result) = timeout(self.deadline, whole).await else {
            connection.abandon();
            return Err(StoreError::TimedOut { limit: self.deadline });
        };
        result
    }

    async fn acquire(&self) -> Result<Connection, StoreError> {
        Ok(Connection::new(self.pool.acquire().await?, self.cache_statements, self.deadline))
    }

    /// Closes the pool: waits for connections in use, though not for those on which nothing is heard any more.
    pub async fn close(&self) {
        if timeout(self.deadline.min(CLOSING), self.pool.close()).await.is_err() {
            warn!("PostgreSQL was left without a goodbye: a connection didn't come back");
        }
    }
}

/// What a URL says, as this program connects: without `extra_float_digits`, which only shapes numbers sent as text (ours
/// are binary), and which a PgBouncer refuses unless it is told to ignore it.
pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(url.parse::<PgConnectOptions>()?.extra_float_digits(None))
}
