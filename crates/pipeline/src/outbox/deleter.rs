//! Deletes rows that RabbitMQ has confirmed.

use std::time::Duration;

use retry::Policy;
use store::{
    Db,
    outbox::{self, Leased},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::Context;
use crate::{
    error::chain,
    health::{Health, Part},
};

/// How long a confirmed row waits for others to be deleted with. Nobody waits for a delete, so it can be generous: as
/// long as it is much shorter than the lease.
const COMPANY: Duration = Duration::from_millis(25);

/// How many rows one statement deletes.
const AT_ONCE: usize = 1024;

/// Deletes confirmed rows in sets, until all who confirm have gone.
pub(super) struct Deleter {
    db: Db,
    health: Health,
    confirmed: mpsc::Receiver<Vec<Leased>>,
}

impl Deleter {
    pub(super) fn new(context: &Context, confirmed: mpsc::Receiver<Vec<Leased>>) -> Self {
        Self { db: context.db.clone(), health: context.health.clone(), confirmed }
    }

    pub(super) async fn run(mut self) {
        while let Some(mut rows) = self.confirmed.recv().await {
            let until = Instant::now() + COMPANY;
            while rows.len() < AT_ONCE {
                match timeout_at(until, self.confirmed.recv()).await {
                    Ok(Some(more)) => rows.extend(more),
                    Ok(None) | Err(_) => break,
                }
            }
            self.delete(rows).await;
        }
    }

    /// Deletes them, however long PostgreSQL is away. Should a lease end meanwhile, the row has a new due time and
    /// isn't found: whoever publishes it again deletes it.
    async fn delete(&self, rows: Vec<Leased>) {
        let mut waits = Policy::OUTAGE.start();
        let rows = rows.as_slice();
        loop {
            let deleted = self
                .db
                .transact("outbox.delete", |tx, _| Box::pin(async move { outbox::delete(tx, rows).await }))
                .await;
            match deleted {
                Ok(_) => return self.health.present(Part::Database),
                Err(error) if error.is_transient() => {
                    self.health.missing(Part::Database, &chain(&error));
                    waits.pause().await;
                }
                Err(error) => {
                    // They will be published again, which is harmless, and tried again.
                    return tracing::error!(error = %chain(&error), "confirmed rows of the outbox can't be deleted");
                }
            }
        }
    }
}
