//! What the buffer's publisher and the sweeper do alike.

use std::time::Duration;

use store::outbox::Leased;
use tokio::time::{Instant, sleep};

use super::Context;
use crate::{error::chain, health::Part};

/// How often to look whether RabbitMQ's alarm is over.
const WHILE_BLOCKED: Duration = Duration::from_millis(250);
/// How often to try again what an operator has to mend.
const WHILE_WRONG: Duration = Duration::from_secs(5);

/// What became of a batch.
pub(super) struct Published<T> {
    pub(super) confirmed: Vec<T>,
    pub(super) failed: Vec<T>,
}

impl Context {
    /// Publishes a batch once.
    pub(super) async fn publish<T>(&self, batch: Vec<T>, row: impl Fn(&T) -> &Leased) -> Published<T> {
        let began = Instant::now();
        let outgoing: Vec<_> = batch.iter().map(|item| &row(item).outgoing).collect();
        let published = match self.publisher.publish(outgoing).await {
            Ok(results) => {
                let mut published = Published { confirmed: Vec::with_capacity(batch.len()), failed: Vec::new() };
                let mut first = None;
                for (item, result) in batch.into_iter().zip(results) {
                    match result {
                        Ok(()) => published.confirmed.push(item),
                        Err(failure) => {
                            first.get_or_insert(failure);
                            published.failed.push(item);
                        }
                    }
                }
                match first {
                    None => self.health.present(Part::Publishing),
                    Some(failure) => {
                        tracing::warn!(failed = published.failed.len(), error = %failure, "messages weren't confirmed");
                        self.health.missing(Part::Publishing, &failure.to_string());
                    }
                }
                published
            }
            Err(error) => {
                // The broker has logged it.
                self.health.missing(Part::Publishing, &chain(&error));
                Published { confirmed: Vec::new(), failed: batch }
            }
        };
        self.metrics.published(published.confirmed.len(), published.failed.len(), began.elapsed());
        published
    }

    /// Hands confirmed rows to the deleter, waiting for it while PostgreSQL is away.
    pub(super) async fn delete(&self, rows: Vec<Leased>) {
        if !rows.is_empty() {
            // The deleter outlives everybody who confirms, unless the process ends in haste.
            let _ = self.confirmed.send(rows).await;
        }
    }

    /// Waits `pause`, then until there is a connection to RabbitMQ.
    pub(super) fn wait_for_broker(&self, pause: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (publisher, health) = (self.publisher.clone(), self.health.clone());
        async move {
            sleep(pause).await;
            loop {
                if !publisher.is_connected() && !publisher.is_blocked() {
                    health.missing(Part::Publishing, "not connected to RabbitMQ");
                }
                match publisher.ready().await {
                    Ok(()) if publisher.is_blocked() => {
                        health.missing(Part::Publishing, "RabbitMQ blocks publishing because of a resource alarm");
                        sleep(WHILE_BLOCKED).await;
                    }
                    Ok(()) => return health.present(Part::Publishing),
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "publishing can't work");
                        health.missing(Part::Publishing, &chain(&error));
                        sleep(WHILE_WRONG).await;
                    }
                }
            }
        }
    }
}
