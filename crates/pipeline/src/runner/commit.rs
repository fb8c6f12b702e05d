//! Applying a batch, and finding the one that makes it fail.

use std::{panic::AssertUnwindSafe, sync::Arc};

use domain::event::{Outgoing, Route, TraceContext};
use futures_util::FutureExt as _;
use retry::Policy;
use store::{
    StoreError,
    outbox::{self, Leased},
};
use tokio::{sync::Mutex, time::Instant};

use super::{Context, item::Item, shelf::Batch};
use crate::{error::chain, health::Part, stage::Stage};

/// What became of a batch.
pub(super) struct Committed {
    /// How many have come to their end: acknowledged, or left to the queue by a shutdown.
    pub(super) finished: usize,
    /// Those that fail by themselves, and why.
    pub(super) failed: Vec<(Item, String)>,
    /// Whether it was a suspect.
    pub(super) alone: bool,
}

/// Applies a batch in one transaction. When that fails, in two halves, and so on down to single messages: the others
/// pass, and the one that is to blame is known.
pub(super) async fn commit<S: Stage>(context: Arc<Context<S>>, batch: Batch<S::Prepared>) -> Committed {
    let mut outcome =
        Committed { finished: 0, failed: Vec::new(), alone: batch.first().is_some_and(|(item, _)| item.is_alone()) };
    let mut parts: Vec<(Vec<Item>, Vec<S::Prepared>)> = vec![batch.into_iter().unzip()];
    while let Some((mut items, prepared)) = parts.pop() {
        match apply(&context, &items, prepared).await {
            Applied::Done(prepared) => {
                outcome.finished += items.len();
                // Before `committed`, so that the spans tell how long the effect took and not what followed.
                drop(items);
                follow_up(&context, prepared).await;
            }
            Applied::Left => outcome.finished += items.len(),
            Applied::Failed(mut prepared, reason) => {
                if items.len() > 1 {
                    tracing::warn!(stage = S::NAME, size = items.len(), error = %reason, "a batch failed; splitting it");
                    let half = items.len() / 2;
                    parts.push((items.split_off(half), prepared.split_off(half)));
                    parts.push((items, prepared));
                } else {
                    context.metrics.failed("apply");
                    for item in items {
                        tracing::error!(parent: item.span(), stage = S::NAME, error = %reason, "applying failed");
                        outcome.failed.push((item, reason.clone()));
                    }
                }
            }
        }
    }
    outcome
}

enum Applied<T> {
    /// Committed and acknowledged.
    Done(Vec<T>),
    /// The shutdown came while the database was away.
    Left,
    /// A defect, and why.
    Failed(Vec<T>, String),
}

/// What a transaction has written.
struct Written {
    results: Vec<&'static str>,
    rows: Vec<Leased>,
    finished_at: Instant,
}

/// Applies until it is committed or a defect shows. Waits while the database is away.
async fn apply<S: Stage>(
    context: &Arc<Context<S>>,
    items: &[Item],
    prepared: Vec<S::Prepared>,
) -> Applied<S::Prepared> {
    let traces: Vec<TraceContext> = items.iter().map(Item::trace).collect();
    // Behind a lock because a transaction may run again, and to have it back after a panic.
    let prepared = Mutex::new(prepared);
    let mut waits = Policy::OUTAGE.start();
    loop {
        let began = Instant::now();
        let (batch, traces) = (&prepared, traces.as_slice());
        let transaction = context.db.transact(S::NAME, |tx, _| {
            Box::pin(async move { write(&*context.stage, tx, &mut batch.lock().await, traces).await })
        });
        let reason = match AssertUnwindSafe(transaction).catch_unwind().await {
            Ok(Ok(written)) => {
                context.health.present(Part::Database);
                context.metrics.committed(items.len(), written.finished_at - began, written.finished_at.elapsed());
                context.outbox.offer(written.rows);
                context.acker.settle_all(items.iter().map(Item::tag));
                for result in written.results {
                    context.metrics.handled(result);
                }
                return Applied::Done(prepared.into_inner());
            }
            Ok(Err(error)) if error.is_transient() => {
                // Perhaps it was committed; then applying it again changes nothing.
                let reason = chain(&error);
                if waits.is_news() {
                    tracing::warn!(stage = S::NAME, size = items.len(), error = %reason, "the database is away");
                }
                context.health.missing(Part::Database, &reason);
                tokio::select! {
                    () = context.soft.cancelled() => return Applied::Left,
                    () = waits.pause() => continue,
                }
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "the stage panicked while applying it".to_owned(),
        };
        return Applied::Failed(prepared.into_inner(), reason);
    }
}

async fn write<S: Stage>(
    stage: &S,
    tx: &mut store::Connection,
    prepared: &mut [S::Prepared],
    traces: &[TraceContext],
) -> Result<Written, StoreError> {
    let effects = stage.apply(tx, prepared).await?;
    assert_eq!(effects.len(), prepared.len(), "a stage returns one effect for each of its batch");
    let results = effects.iter().map(|effect| effect.result).collect();
    let events = effects
        .into_iter()
        .zip(traces)
        .flat_map(|(effect, trace)| effect.events.into_iter().map(move |event| (event, trace)))
        .map(|(envelope, trace)| Outgoing { envelope, route: Route::Exchange, trace: trace.clone() })
        .collect();
    let rows = outbox::insert(tx, events).await?;
    Ok(Written { results, rows, finished_at: Instant::now() })
}

async fn follow_up<S: Stage>(context: &Arc<Context<S>>, prepared: Vec<S::Prepared>) {
    let following = async { context.stage.committed(prepared).await };
    if AssertUnwindSafe(following).catch_unwind().await.is_err() {
        context.metrics.failed("committed");
        tracing::error!(stage = S::NAME, "panicked after its COMMIT");
    }
}
