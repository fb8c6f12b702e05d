//! Publishes rows that are due: retries whose time has come, and what a buffer or a process has left behind.

use std::time::Duration;

use futures_util::future::join_all;
use retry::{Policy, Waits};
use store::outbox::{self, Claimed, Leased};
use tokio::time::{Instant, sleep};

use super::Context;
use crate::{error::chain, health::Part};

/// How the time grows until rows are claimed again after RabbitMQ was there and didn't take them: each claim writes them
/// all anew.
const REFUSED: Policy = Policy { initial: Duration::from_millis(100), max: Duration::from_secs(10) };

/// How often the depth is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Claims due rows by extending their lease, publishes them, and goes on until there are none. Every replica runs one:
/// the claims skip each other's rows.
pub(super) struct Sweeper {
    context: Context,
    /// Waits for PostgreSQL.
    away: Waits,
    /// Waits for RabbitMQ to take what is claimed.
    refused: Waits,
    measured_at: Option<Instant>,
}

/// How a sweep ended.
enum Swept {
    /// There is nothing more that is due.
    Dry,
    /// PostgreSQL didn't give any.
    Away,
    /// RabbitMQ didn't take all.
    Refused,
}

impl Sweeper {
    pub(super) fn new(context: Context) -> Self {
        Self { context, away: Policy::OUTAGE.start(), refused: REFUSED.start(), measured_at: None }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.context.cancel.clone();
        let sweeping = async {
            loop {
                self.measure().await;
                match self.sweep().await {
                    Swept::Dry => {
                        self.away.reset();
                        self.refused.reset();
                        sleep(retry::jittered(self.context.config.sweep_every)).await;
                    }
                    Swept::Away => self.away.pause().await,
                    Swept::Refused => self.refused.pause().await,
                }
            }
        };
        // Dropping a sweep half-way is what a crash would do: the claimed rows come due again.
        tokio::select! {
            () = cancel.cancelled() => {}
            () = sweeping => {}
        }
    }

    /// Sweeps until dry, or until PostgreSQL or RabbitMQ gets in the way.
    async fn sweep(&mut self) -> Swept {
        loop {
            // A claim without RabbitMQ would only put the rows off.
            self.context.wait_for_broker(Duration::ZERO).await;
            let limit = self.context.config.sweep;
            let Some(Claimed { rows, skipped }) = self.claim(limit).await else { return Swept::Away };
            let claimed = rows.len() + skipped;
            self.context.metrics.skipped(skipped);
            if !rows.is_empty() {
                self.context.metrics.swept(rows.len());
                if !self.publish(rows).await {
                    return Swept::Refused;
                }
                self.measure().await;
            }
            if claimed < limit {
                return Swept::Dry;
            }
        }
    }

    async fn claim(&mut self, limit: usize) -> Option<Claimed> {
        let claimed = self
            .context
            .db
            .transact("outbox.claim", move |tx, _| Box::pin(async move { outbox::claim_due(tx, limit as i64).await }))
            .await;
        match claimed {
            Ok(claimed) => {
                self.context.health.present(Part::Database);
                Some(claimed)
            }
            Err(error) if error.is_transient() => {
                self.context.health.missing(Part::Database, &chain(&error));
                None
            }
            Err(error) => {
                if self.away.is_news() {
                    tracing::error!(error = %chain(&error), "due rows of the outbox can't be claimed");
                }
                None
            }
        }
    }

    /// Publishes all of them. Those that aren't confirmed come due again when this lease ends.
    async fn publish(&self, mut rows: Vec<Leased>) -> bool {
        let mut batches = Vec::new();
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(self.context.config.batch));
            batches.push(std::mem::replace(&mut rows, rest));
        }
        let published = join_all(batches.into_iter().map(|batch| self.context.publish(batch, |row| row))).await;
        let mut sound = true;
        for outcome in published {
            sound &= outcome.failed.is_empty();
            self.context.delete(outcome.confirmed).await;
        }
        sound
    }

    async fn measure(&mut self) {
        if self.measured_at.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        self.measured_at = Some(Instant::now());
        let depth = self.context.db.transact("outbox.depth", |tx, _| Box::pin(outbox::depth(tx))).await;
        if let Ok(depth) = depth {
            self.context.metrics.depth(&depth);
        }
    }
}
