//! The write-through outbox: from a committed row to a confirmed message.
//!
//! ```text
//!   transaction ── outbox::insert ──► rows leased to this process for 15 s
//!        │ COMMIT acknowledged
//!        ▼
//!   Outbox::offer ──► buffer ──► publisher ──confirmed──► deleter
//!                       │ full, stale, crash                 ▲
//!                       └────────────► the rows come due ──► sweeper (every replica)
//! ```
//!
//! Losing the buffer loses nothing: the rows stay until RabbitMQ has confirmed them. A row can be published twice, after
//! a crash between confirm and delete, or when a lease ends before its delete is committed; consumers are idempotent.
//! The lease is long enough for one attempt to publish, so in the ordinary course each row goes out once, however many
//! replicas sweep. No transaction stays open across a network call.

mod buffer;
mod deleter;
mod publisher;
mod sending;
mod sweeper;

use std::{fmt, panic::resume_unwind, sync::Arc, time::Duration};

use broker::Publisher;
use store::{Db, outbox::Leased};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{buffer::Buffer, deleter::Deleter, publisher::BufferPublisher, sweeper::Sweeper};
use crate::{health::Health, metrics::OutboxMetrics};

/// How patient, and how big, an outbox is.
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// How many events may wait in memory, from 1; about half a kilobyte each. What finds no room is the sweeper's.
    pub buffer: usize,
    /// How many messages go out as one batch, at most; 100 to 256 serve best.
    pub batch: usize,
    /// For how long an event in memory may still be published. Together with the broker's confirm timeout it must not
    /// be longer than the lease of 15 s, or the sweeper of another replica would publish the event as well.
    pub fresh: Duration,
    /// How often to look for due rows when the last look found none, give or take a fifth.
    pub sweep_every: Duration,
    /// How many rows to claim at once.
    pub sweep: usize,
    /// For how long publishing may go on after the cancellation.
    pub drain: Duration,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            buffer: 8192,
            batch: 256,
            fresh: Duration::from_secs(5),
            sweep_every: Duration::from_secs(1),
            sweep: 1024,
            drain: Duration::from_secs(5),
        }
    }
}

/// How often whoever waits for room looks whether it is still worth waiting.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A process's way to RabbitMQ. Clones share it.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    buffer: Arc<Buffer>,
    publisher: Publisher,
    metrics: Arc<OutboxMetrics>,
}

/// What publisher, sweeper and deleter have in common.
#[derive(Clone)]
struct Context {
    db: Db,
    publisher: Publisher,
    config: OutboxConfig,
    health: Health,
    metrics: Arc<OutboxMetrics>,
    cancel: CancellationToken,
    /// To the deleter.
    confirmed: mpsc::Sender<Vec<Leased>>,
}

impl Outbox {
    /// Starts publisher, sweeper and deleter. After `cancel` they publish what is in memory, for as long as
    /// [`OutboxConfig::drain`] at most, delete what is confirmed, and end; then the handle resolves. Cancel it after
    /// everything that offers has ended.
    pub fn start(
        db: Db,
        publisher: Publisher,
        config: OutboxConfig,
        health: Health,
        cancel: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let metrics = Arc::new(OutboxMetrics::new());
        let buffer = Arc::new(Buffer::new(config.buffer, config.fresh));
        let shared =
            Shared { buffer: Arc::clone(&buffer), publisher: publisher.clone(), metrics: Arc::clone(&metrics) };
        let outbox = Self { shared: Arc::new(shared) };
        let (confirmed, to_delete) = mpsc::channel(16);
        let limit = config.drain * 2;
        let context = Context { db, publisher, config, health, metrics, cancel: cancel.clone(), confirmed };
        let deleter = Deleter::new(&context, to_delete);
        let running = async move {
            let sweeping = tokio::spawn(Sweeper::new(context.clone()).run());
            let publishing = tokio::spawn(BufferPublisher::new(context, buffer).run());
            let deleting = tokio::spawn(deleter.run());
            let tasks = [sweeping, publishing, deleting];
            let aborts = tasks.each_ref().map(JoinHandle::abort_handle);
            let ended = async {
                for task in tasks {
                    if let Err(error) = task.await
                        && error.is_panic()
                    {
                        resume_unwind(error.into_panic());
                    }
                }
            };
            let overdue = async {
                cancel.cancelled().await;
                tokio::time::sleep(limit).await;
            };
            tokio::select! {
                () = ended => {}
                () = overdue => {
                    tracing::warn!("the outbox didn't end in time; what is left is the sweepers'");
                    aborts.iter().for_each(tokio::task::AbortHandle::abort);
                }
            }
        };
        (outbox, tokio::spawn(running))
    }

    /// An outbox that publishes nothing itself: what it is offered stays in PostgreSQL until the sweeper of a running service
    /// publishes it. For commands that end soon.
    pub fn for_sweepers(publisher: Publisher) -> Self {
        let buffer = Arc::new(Buffer::new(0, Duration::ZERO));
        Self { shared: Arc::new(Shared { buffer, publisher, metrics: Arc::new(OutboxMetrics::new()) }) }
    }

    /// Takes rows to be published, after the COMMIT of the transaction that inserted them was acknowledged. Never blocks
    /// and never fails: what finds no room is published by a sweeper when its lease ends.
    pub fn offer(&self, rows: Vec<Leased>) {
        if rows.is_empty() {
            return;
        }
        let overflow = self.shared.buffer.offer(rows);
        if overflow > 0 {
            self.shared.metrics.overflowed(overflow);
        }
        self.shared.metrics.buffered(self.shared.buffer.len());
    }

    /// Waits until half of the buffer is free, for who can wait: what finds no room is published all the same, but costs twice.
    /// Returns at once where RabbitMQ is away or blocks: accepting goes on without it.
    pub async fn room(&self) {
        let Shared { buffer, publisher, .. } = &*self.shared;
        while !buffer.has_room() && publisher.is_connected() {
            // Whatever becomes of RabbitMQ meanwhile is seen at the next look.
            let _ = tokio::time::timeout(LOOK_EVERY, buffer.taken()).await;
        }
    }

    /// How many of the offered events this process has not published, or left to the sweepers.
    pub fn unpublished(&self) -> u64 {
        self.shared.buffer.unpublished()
    }

    /// How many events wait in memory.
    pub fn buffered(&self) -> usize {
        self.shared.buffer.len()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("buffered", &self.buffered()).finish_non_exhaustive()
    }
}
