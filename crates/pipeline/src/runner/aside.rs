//! What leaves the ordinary way: retries, through the outbox, and dead letters.

use std::{sync::Arc, time::Duration};

use broker::DeadLetter;
use domain::event::{Outgoing, Route};
use retry::Policy;
use store::outbox;

use super::{Context, item::Item};
use crate::{error::chain, health::Part, stage::Stage};

/// How many dead letters are published at once.
const BURIED_AT_ONCE: usize = 256;

/// A delivery that will come again, as what.
pub(super) type PutOff = (Item, (Outgoing, Duration));

/// A delivery that is given up, as what.
pub(super) type Buried = (Item, DeadLetter);

/// The retry of an event: the same id, as this attempt, and only to the queue that it came from. `None` if it can't be
/// read; such a one is buried.
pub(super) fn retry_as(item: &Item, attempt: u32, after: Duration) -> Option<(Outgoing, Duration)> {
    let mut envelope = item.envelope()?.clone();
    envelope.attempt = attempt;
    Some((Outgoing { envelope, route: Route::Queue(item.queue()), trace: item.trace() }, after))
}

/// Writes retries into the outbox, then acknowledges. Returns how many have come to their end; should a shutdown come
/// while the database is away, they go back to the queue.
pub(super) async fn put_off<S: Stage>(context: Arc<Context<S>>, retries: Vec<PutOff>) -> usize {
    let (items, events): (Vec<Item>, Vec<(Outgoing, Duration)>) = retries.into_iter().unzip();
    let events = events.as_slice();
    let mut waits = Policy::OUTAGE.start();
    loop {
        let writing =
            context.db.transact("stage.retry", |tx, _| Box::pin(async move { outbox::schedule(tx, events).await }));
        match writing.await {
            Ok(()) => {
                context.health.present(Part::Database);
                context.acker.settle_all(items.iter().map(Item::tag));
                context.metrics.retried(items.len());
                return items.len();
            }
            Err(error) if error.is_transient() => context.health.missing(Part::Database, &chain(&error)),
            // Nowhere to put them: they stay in hand, unacknowledged, until it is mended.
            Err(error) => {
                if waits.is_news() {
                    tracing::error!(stage = S::NAME, error = %chain(&error), "retries can't be written");
                }
            }
        }
        tokio::select! {
            () = context.soft.cancelled() => return items.len(),
            () = waits.pause() => {}
        }
    }
}

/// Publishes dead letters and acknowledges those that are confirmed, until all are. Returns how many have come to their
/// end; should a shutdown come while RabbitMQ is away, they go back to the queue.
pub(super) async fn bury<S: Stage>(context: Arc<Context<S>>, mut rest: Vec<Buried>) -> usize {
    let total = rest.len();
    let mut waits = Policy::OUTAGE.start();
    while !rest.is_empty() {
        let now: Vec<Buried> = rest.drain(..rest.len().min(BURIED_AT_ONCE)).collect();
        let (items, letters): (Vec<Item>, Vec<DeadLetter>) = now.into_iter().unzip();
        let results = match context.publisher.publish_dead(&letters).await {
            Ok(results) => results.into_iter().map(|result| result.is_ok()).collect(),
            Err(error) => {
                context.health.missing(Part::Publishing, &chain(&error));
                vec![false; letters.len()]
            }
        };
        let mut stuck = Vec::new();
        for ((item, letter), confirmed) in items.into_iter().zip(letters).zip(results) {
            if confirmed {
                tracing::warn!(
                    parent: item.span(),
                    stage = S::NAME,
                    event.id = letter.message_id.as_deref(),
                    reason = %letter.reason,
                    "a dead letter",
                );
                context.acker.settle(item.tag());
                context.metrics.dead_lettered(1);
            } else {
                stuck.push((item, letter));
            }
        }
        if stuck.is_empty() {
            waits.reset();
            continue;
        }
        rest.extend(stuck);
        tokio::select! {
            () = context.soft.cancelled() => break,
            () = waits.pause() => {}
        }
    }
    total
}
