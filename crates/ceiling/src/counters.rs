//! What PostgreSQL counts of a database under measurement.
//!
//! A server process reports what it has counted when it ends, and otherwise at most once a second; one that has become idle
//! may take ten. A difference of two readings is exact when everybody who worked between them has left the database before
//! the second one ([`Database::wait_until_alone`]); the benchmark's own connections are told to report at each reading.

use std::ops::Sub;

use crate::{CeilingError, postgres::Database};

/// The first major version in which checkpoints are counted in a view of their own.
const CHECKPOINTER_VIEW_SINCE: i32 = 17;

/// What the server counts, from its start on: only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Transactions committed in this database, also those that only read.
    pub transactions: i64,
    /// Rows inserted in it, those of TOAST tables and of the system catalogs included.
    pub inserted: i64,
    /// Rows updated in it.
    pub updated: i64,
    /// Rows deleted in it.
    pub deleted: i64,
    /// Rows written in the other databases of the server. A database that is dropped takes its count with it, so that a
    /// difference may be negative.
    pub rows_elsewhere: i64,
    /// The write-ahead log of all databases on the server.
    pub wal: WalCounters,
}

/// What the server counts of its write-ahead log, which all databases on it share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalCounters {
    /// Bytes, by the log's insert position, which never lags.
    pub bytes: i64,
    /// Records.
    pub records: i64,
    /// Whole pages in it: each page's first change after a checkpoint logs the page itself, up to 8 KiB of it.
    pub full_page_images: i64,
    /// Checkpoints, requested and by the clock.
    pub checkpoints: i64,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            transactions: self.transactions - earlier.transactions,
            inserted: self.inserted - earlier.inserted,
            updated: self.updated - earlier.updated,
            deleted: self.deleted - earlier.deleted,
            rows_elsewhere: self.rows_elsewhere - earlier.rows_elsewhere,
            wal: self.wal - earlier.wal,
        }
    }
}

impl Sub for WalCounters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes - earlier.bytes,
            records: self.records - earlier.records,
            full_page_images: self.full_page_images - earlier.full_page_images,
            checkpoints: self.checkpoints - earlier.checkpoints,
        }
    }
}

impl Counters {
    /// Rows written in any way.
    pub const fn rows(&self) -> i64 {
        self.inserted + self.updated + self.deleted
    }

    /// Whether so much was written in other databases that the write-ahead log says little about this one: more than a
    /// hundredth of what was written here.
    pub const fn is_log_shared(&self) -> bool {
        100 * self.rows_elsewhere.abs() > self.rows()
    }
}

impl Database {
    /// What the server has counted so far. To be read while nobody else is connected to the database, see the module.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn counters(&self) -> Result<Counters, CeilingError> {
        let refused = CeilingError::postgres("reading its counters");
        // All that there may be, each held until the last has reported, or one of them would be told twice.
        let mut connections = Vec::new();
        for _ in 0..self.pool.options().get_max_connections() {
            let mut connection = self.pool.acquire().await.map_err(&refused)?;
            sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut *connection).await.map_err(&refused)?;
            connections.push(connection);
        }
        drop(connections);
        let (transactions, inserted, updated, deleted, rows_elsewhere) = sqlx::query_as(
            "SELECT own.xact_commit, own.tup_inserted, own.tup_updated, own.tup_deleted,
                    (SELECT coalesce(sum(tup_inserted + tup_updated + tup_deleted), 0)::bigint
                     FROM pg_stat_database WHERE datname <> current_database())
             FROM pg_stat_database own WHERE own.datname = current_database()",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(&refused)?;
        Ok(Counters { transactions, inserted, updated, deleted, rows_elsewhere, wal: self.wal().await? })
    }

    async fn wal(&self) -> Result<WalCounters, CeilingError> {
        let refused = CeilingError::postgres("reading its counters of the write-ahead log");
        let (bytes, records, full_page_images, version): (i64, i64, i64, i32) = sqlx::query_as(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, wal_records, wal_fpi,
                    current_setting('server_version_num')::int / 10000
             FROM pg_stat_wal",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(&refused)?;
        let checkpoints = if version >= CHECKPOINTER_VIEW_SINCE {
            "SELECT num_timed + num_requested FROM pg_stat_checkpointer"
        } else {
            "SELECT checkpoints_timed + checkpoints_req FROM pg_stat_bgwriter"
        };
        let checkpoints = sqlx::query_scalar(checkpoints).fetch_one(&self.pool).await.map_err(&refused)?;
        Ok(WalCounters { bytes, records, full_page_images, checkpoints })
    }
}
