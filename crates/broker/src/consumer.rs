//! The consumer: a stream of deliveries that outlives connections, and the way back for acknowledgements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::event::Queue;
use tokio::{
    sync::{
        mpsc::{self, UnboundedSender},
        watch,
    },
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::BrokerConfig,
    delivery::{Delivery, DeliveryTag},
    supervise::Supervisor,
};

/// Consumes one work queue over one connection of its own, and goes on until it is cancelled: after every failure
/// (the server gone, the connection cut, the queue deleted) it reconnects with backoff and jitter, declares the topology
/// and consumes again.
///
/// Cancelling stops the flow from RabbitMQ. What had already arrived is still handed out, at most
/// [`BrokerConfig::prefetch`] deliveries; then [`Consumer::next`] returns `None`. Whoever hasn't the time calls
/// [`Consumer::close`] or drops the consumer: what isn't settled then goes back to the queue.
#[derive(Debug)]
pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
    acker: Acker,
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
    patience: Duration,
}

/// How a consumer stands with RabbitMQ, for a readiness probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkStatus {
    /// Whether it is consuming.
    pub connected: bool,
    /// Why not, if it tried and failed.
    pub error: Option<String>,
}

/// What the consumer and its supervisor both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The channel that counts; deliveries of an earlier one have gone back to the queue.
    pub(crate) epoch: AtomicU64,
    status: watch::Sender<LinkStatus>,
}

impl Shared {
    pub(crate) fn set_status(&self, status: LinkStatus) {
        self.status.send_replace(status);
    }
}

impl Consumer {
    /// Starts consuming `queue`; the connection shows as `connection_name` in RabbitMQ. Must be called within a Tokio
    /// runtime, which runs the supervisor.
    pub fn start(config: BrokerConfig, queue: Queue, connection_name: &str, cancel: CancellationToken) -> Self {
        let shared = Arc::new(Shared::default());
        let (to_supervisor, commands) = mpsc::unbounded_channel();
        let (out, deliveries) = mpsc::channel(usize::from(config.prefetch.max(1)));
        let patience = config.connect_timeout;
        let supervisor =
            Supervisor::new(config, queue, connection_name, cancel, Arc::clone(&shared), commands, out).run();
        Self { deliveries, acker: Acker { to_supervisor }, shared, supervisor: tokio::spawn(supervisor), patience }
    }

    /// The next delivery; `None` once it was cancelled and everything that had arrived is handed out. Cancel-safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.recv().await?;
            if self.is_current(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// A delivery that has arrived already, if there is one.
    pub fn try_next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.try_recv().ok()?;
            if self.is_current(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// The way back for acknowledgements. Cheap to clone.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Whether it is consuming at present.
    pub fn is_connected(&self) -> bool {
        self.status().connected
    }

    /// How it stands with RabbitMQ.
    pub fn status(&self) -> LinkStatus {
        self.shared.status.borrow().clone()
    }

    /// The same, for whoever wants to hear of each change.
    pub fn statuses(&self) -> watch::Receiver<LinkStatus> {
        self.shared.status.subscribe()
    }

    /// Sends the acknowledgements that are due and disconnects. What was neither settled nor released goes back to the
    /// queue; so does what arrived and wasn't handed out.
    pub async fn close(self) {
        self.acker.send(Command::Close);
        // The supervisor's own awaits are bounded; this is for the sum of them.
        if timeout(self.patience * 3, self.supervisor).await.is_err() {
            tracing::warn!("the consumer didn't come to an end in time; its deliveries go back to the queue");
        }
    }

    /// Whether RabbitMQ still counts on us for it. One from before a reconnect is on its way to us again.
    fn is_current(&self, delivery: &Delivery) -> bool {
        delivery.tag.epoch == self.shared.epoch.load(Ordering::Acquire)
    }
}

/// What the supervisor is told.
#[derive(Debug)]
pub(crate) enum Command {
    Settle(Vec<DeliveryTag>),
    Release(Vec<DeliveryTag>),
    Close,
}

/// Tells RabbitMQ what became of deliveries: in any order, each at most once. Cheap to clone; it never waits.
///
/// Acknowledgements are gathered into as few frames as possible, see [`PrefixTracker`](crate::PrefixTracker), and sent
/// from the consumer's own task. If the connection breaks before they are sent the deliveries come again, as they do
/// when the process dies: effects must be idempotent.
#[derive(Debug, Clone)]
pub struct Acker {
    to_supervisor: UnboundedSender<Command>,
}

impl Acker {
    /// The delivery's effect is committed: it may be acknowledged.
    pub fn settle(&self, tag: DeliveryTag) {
        self.send(Command::Settle(vec![tag]));
    }

    /// The effects of all these deliveries are committed.
    pub fn settle_all(&self, tags: impl IntoIterator<Item = DeliveryTag>) {
        self.send(Command::Settle(tags.into_iter().collect()));
    }

    /// The delivery goes back to the queue, and comes again soon, to us or to another replica.
    pub fn release(&self, tag: DeliveryTag) {
        self.send(Command::Release(vec![tag]));
    }

    /// All these deliveries go back to the queue.
    pub fn release_all(&self, tags: impl IntoIterator<Item = DeliveryTag>) {
        self.send(Command::Release(tags.into_iter().collect()));
    }

    fn send(&self, command: Command) {
        // Without a supervisor there is no connection, and RabbitMQ has taken the deliveries back by itself.
        let _ = self.to_supervisor.send(command);
    }
}
