//! A database under measurement.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use time::OffsetDateTime;

use crate::CeilingError;

/// What PostgreSQL shows for the connections of the benchmark itself.
pub const APPLICATION: &str = "leadmill-bench";
/// The same for those that write what is measured.
const LANE_APPLICATION: &str = "leadmill-bench-lane";
/// How long to wait for a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the server's processes may take to report their last counts.
const REPORT_LIMIT: Duration = Duration::from_secs(15);
/// The time between two looks at whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A database that a benchmark made for itself.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) pool: PgPool,
}

/// Settings of the server that decide how fast it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name and value as `SHOW` prints it.
    pub values: Vec<(String, String)>,
}

impl Database {
    /// Opens connections when they are needed, up to `connections`.
    ///
    /// # Errors
    /// When `url` isn't one.
    pub fn new(url: &str, connections: u32) -> Result<Self, CeilingError> {
        let options: PgConnectOptions = url.parse().map_err(CeilingError::postgres("reading the database's URL"))?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            // What takes long here is meant to.
            .connect_lazy_with(options.application_name(APPLICATION).disable_statement_logging());
        Ok(Self { pool })
    }

    /// Waits until nobody but the benchmark itself is connected to the database, since a server process reports its last
    /// counts when it ends; gives up waiting after a while.
    pub async fn wait_until_alone(&self) -> Result<(), CeilingError> {
        let deadline = tokio::time::Instant::now() + REPORT_LIMIT;
        loop {
            let others: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity
                                WHERE datname = current_database() AND backend_type = 'client backend'
                                  AND application_name <> $1)",
            )
            .bind(APPLICATION)
            .fetch_one(&self.pool)
            .await
            .map_err(CeilingError::postgres("looking who is connected"))?;
            if !others || tokio::time::Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The process ids of the server processes that work for this database at this moment.
    pub async fn backends(&self) -> Result<Vec<u32>, CeilingError> {
        let pids: Vec<i32> = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(CeilingError::postgres("looking who is connected"))?;
        Ok(pids.into_iter().map(i32::unsigned_abs).collect())
    }

    /// The server's clock.
    pub async fn now(&self) -> Result<OffsetDateTime, CeilingError> {
        sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&self.pool)
            .await
            .map_err(CeilingError::postgres("asking for the time"))
    }

    /// The size of the database, indexes included, in bytes.
    pub async fn bytes(&self) -> Result<i64, CeilingError> {
        sqlx::query_scalar("SELECT pg_database_size(current_database())")
            .fetch_one(&self.pool)
            .await
            .map_err(CeilingError::postgres("asking for its size"))
    }

    /// Writes everything that waits in memory to the data files, so that the next measurement doesn't pay for it; left
    /// out where the account may not.
    pub async fn checkpoint(&self) {
        // Only superusers and members of pg_checkpoint may; the figures are a little less even without it.
        let _ = sqlx::query("CHECKPOINT").execute(&self.pool).await;
    }

    /// The settings that decide how fast the server writes.
    pub async fn settings(&self) -> Result<Settings, CeilingError> {
        let values = sqlx::query_as(
            "SELECT name, current_setting(name) FROM pg_settings
             WHERE name IN ('fsync', 'synchronous_commit', 'shared_buffers', 'max_wal_size', 'wal_compression',
                            'full_page_writes')
             ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(CeilingError::postgres("reading its settings"))?;
        Ok(Settings { values })
    }

    /// Connections that are open already, to be closed after use: what their server processes counted is then reported.
    pub(crate) async fn lanes(&self, count: usize) -> Result<PgPool, CeilingError> {
        let options = (*self.pool.connect_options()).clone().application_name(LANE_APPLICATION);
        let pool = PgPoolOptions::new()
            .max_connections(count as u32)
            .min_connections(count as u32)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options);
        let opening = (0..count).map(|_| pool.acquire());
        futures_util::future::try_join_all(opening).await.map_err(CeilingError::postgres("connecting"))?;
        Ok(pool)
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
