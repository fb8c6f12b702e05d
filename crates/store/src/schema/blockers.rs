//! Who a waiting statement waits for.

use std::{convert::Infallible, time::Duration};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::sleep;

use super::report::Session;

/// Looks, over a connection of its own, whom one session of the server waits for.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) options: PgConnectOptions,
    /// The session that is looked at.
    pub(super) pid: i32,
    /// When to look for the first time, and how often then. Most work is over before, and costs no second connection.
    pub(super) interval: Duration,
}

impl Observer {
    /// Awaits `work`, a statement of the observed session. Calls `on_change` whenever it waits for other sessions than
    /// before, and returns the last that it waited for.
    pub(super) async fn watch<T>(
        &self,
        work: impl Future<Output = T>,
        on_change: &mut (dyn FnMut(&[Session]) + Send),
    ) -> (T, Vec<Session>) {
        let mut seen = Vec::new();
        let output = tokio::select! {
            output = work => output,
            never = self.observe(&mut seen, on_change) => match never {},
        };
        (output, seen)
    }

    async fn observe(&self, seen: &mut Vec<Session>, on_change: &mut (dyn FnMut(&[Session]) + Send)) -> Infallible {
        let mut connection = None;
        loop {
            sleep(self.interval).await;
            // Names are a help, no more: where they can't be had the work goes on without.
            let Ok(found) = self.blockers(&mut connection).await else {
                connection = None;
                continue;
            };
            if found.is_empty() {
                continue;
            }
            if !found.iter().map(|session| session.pid).eq(seen.iter().map(|session| session.pid)) {
                on_change(&found);
            }
            *seen = found;
        }
    }

    async fn blockers(&self, connection: &mut Option<PgConnection>) -> Result<Vec<Session>, sqlx::Error> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(PgConnection::connect_with(&self.options).await?),
        };
        sqlx::query_as(
            "SELECT DISTINCT a.pid, a.application_name AS application, a.usename::text AS role, a.state,
                    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds
             FROM unnest(pg_blocking_pids($1)) AS blocking (pid)
             JOIN pg_stat_activity a ON a.pid = blocking.pid
             ORDER BY a.pid",
        )
        .bind(self.pid)
        .fetch_all(connection)
        .await
    }
}
