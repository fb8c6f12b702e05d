//! What a stage is: the part of a consumer that differs from one service to the next.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use domain::event::{Envelope, Queue};
use futures_util::future::BoxFuture;
use store::{Connection, StoreError};

use crate::error::chain;

/// Turns deliveries into committed effects: `prepare` one by one, `apply` as a set.
///
/// Delivery is at least once. Whatever a stage does has to be idempotent by a natural key or a guarded update, for the
/// same event may come again after its effect was committed, and to two replicas at the same time.
pub trait Stage: Send + Sync + 'static {
    /// Names the stage in spans, metrics and transactions, such as `enricher`.
    const NAME: &'static str;
    /// The queue that it consumes.
    const QUEUE: Queue;

    /// What `prepare` hands to `apply`. It bounds the memory of a stage: as many are held as deliveries may be in hand.
    type Prepared: Send + 'static;

    /// Does everything that needs no transaction, for one delivery: reading, computing, calling others. Several run at
    /// the same time. To read from the database in sets, share a [`Batcher`](crate::Batcher) between them.
    ///
    /// A panic counts as a failure of this delivery alone.
    fn prepare(&self, envelope: &Envelope) -> impl Future<Output = Outcome<Self::Prepared>> + Send;

    /// Writes the effects of a batch, in one transaction that the runner commits, with set-based statements and without
    /// waiting for anything but PostgreSQL. Returns one [`Effect`] for each of the batch, in its order.
    ///
    /// A batch is sorted by program and lead and has each lead at most once. The call may be repeated with the same
    /// batch, whole or in parts, after a lost race, an outage or a failure: what it changes in `batch` must allow that.
    fn apply<'a>(
        &'a self,
        tx: &'a mut Connection,
        batch: &'a mut [Self::Prepared],
    ) -> BoxFuture<'a, Result<Vec<Effect>, StoreError>>;

    /// Runs after an acknowledged COMMIT and the deliveries' acknowledgement, with the batch that was applied. Nothing
    /// may depend on it: a crash can come in between. While it runs, it holds one of the stage's places for commits.
    fn committed(&self, batch: Vec<Self::Prepared>) -> impl Future<Output = ()> + Send {
        drop(batch);
        std::future::ready(())
    }
}

/// What `prepare` says about a delivery.
#[derive(Debug)]
pub enum Outcome<T> {
    /// There is something to write.
    Apply(T),
    /// There is nothing to do: the lead is erased, the event is old news. The text is a short code for the metrics.
    Done(&'static str),
    /// Something else than our own database stands in the way; try again after this time, with the attempt counted.
    RetryLater {
        /// How long to wait.
        after: Duration,
        /// Why; ids only, nothing personal.
        reason: String,
    },
    /// Somebody else is at work on the same: look again after this time, with nothing counted, since nothing failed.
    InProgress {
        /// How long to wait.
        after: Duration,
        /// Who or what; ids only, nothing personal.
        reason: String,
    },
    /// It can't be handled, now or later: a dead letter.
    Reject {
        /// Why; ids only, nothing personal.
        reason: String,
    },
    /// The database failed. While it is away, the runner waits and prepares again, with nothing counted; anything else
    /// is a defect and counts as a failure of this delivery.
    Failed(Arc<StoreError>),
}

impl<T> Outcome<T> {
    /// The database failed: for a `StoreError`, or the shared one that a [`Batcher`](crate::Batcher) gives out.
    pub fn failed(error: impl Into<Arc<StoreError>>) -> Self {
        Self::Failed(error.into())
    }

    /// The delivery can't be handled, because of `error` and its causes.
    pub fn reject(error: &dyn Error) -> Self {
        Self::Reject { reason: chain(error) }
    }
}

/// What applying one prepared delivery did.
#[derive(Debug, Clone, Default)]
pub struct Effect {
    /// A short code for the metrics: `written`, `stale`, …
    pub result: &'static str,
    /// Events to be told, inserted into the outbox in the same transaction under the trace of the delivery.
    pub events: Vec<Envelope>,
}

impl Effect {
    /// An effect that nobody is told of.
    pub const fn silent(result: &'static str) -> Self {
        Self { result, events: Vec::new() }
    }

    /// An effect with one event.
    pub fn telling(result: &'static str, event: Envelope) -> Self {
        Self { result, events: vec![event] }
    }
}
