//! Counting the shared buffers that a piece of work touches.

use store::{Db, DbConfig, server};

use crate::world::World;

/// Every access to a page of a table, its indexes and its TOAST table, whether the page was in memory or not.
const BUFFERS: &str = "SELECT sum(coalesce(heap_blks_hit, 0) + coalesce(heap_blks_read, 0)
                                + coalesce(idx_blks_hit, 0) + coalesce(idx_blks_read, 0)
                                + coalesce(toast_blks_hit, 0) + coalesce(toast_blks_read, 0)
                                + coalesce(tidx_blks_hit, 0) + coalesce(tidx_blks_read, 0))::bigint
                       FROM pg_statio_user_tables";

impl World {
    /// Goes on with a new and only connection: it has no plans yet, and no other session of the database has anything left
    /// to report. What [`World::buffers_touched`] counts is exact from here on, as long as all work is done by `db`.
    pub async fn reconnect_alone(&mut self) {
        self.db.close().await;
        // A session reports what it has counted when it ends; this waits for its end, if need be.
        self.count(
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
             WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .await;
        self.db = Db::new(&DbConfig { max_connections: 1, ..DbConfig::new(self.database.url()) }).unwrap();
    }

    /// Does some work over the only connection (see [`World::reconnect_alone`]), and counts the shared buffers that it
    /// touches in tables and indexes, a page as often as it is asked for. The system catalogs are left out.
    pub async fn buffers_touched<T>(&self, work: impl Future<Output = T>) -> (T, i64) {
        self.report_statistics().await;
        let before = self.count(BUFFERS).await;
        let value = work.await;
        self.report_statistics().await;
        (value, self.count(BUFFERS).await - before)
    }

    async fn report_statistics(&self) {
        self.db.transact("test.statistics", |tx, _| Box::pin(server::report_statistics(tx))).await.unwrap();
    }
}
