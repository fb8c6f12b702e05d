//! The confirmed publisher.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::event::Outgoing;
use lapin::Channel;
use retry::{Policy, Waits};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::{
    config::BrokerConfig,
    confirm,
    error::{BrokerError, PublishFailure, chain},
    link::Link,
    message::{DeadLetter, Message},
    topology::Topology,
};

/// How many batches may be under way at once: while one waits for the disks behind its confirms, others are written.
const CHANNELS: usize = 4;

/// Publishes batches over one connection of its own. Cheap to clone; the clones share the connection.
///
/// It connects when it is first used, declares the topology, and after any error drops the connection, waits with
/// backoff and jitter, and connects anew. It never retries a message by itself: what isn't confirmed is the caller's,
/// who still has it.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    config: BrokerConfig,
    topology: Topology,
    name: String,
    permits: Semaphore,
    state: Mutex<State>,
    /// Held while connecting, so that one does it and the others wait for the result.
    dialling: tokio::sync::Mutex<Dialling>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Channels of `link` that carry nothing at present.
    idle: Vec<Channel>,
    /// A queue was found missing, so the topology is to be declared again before the next batch.
    topology_is_stale: bool,
}

struct Dialling {
    waits: Waits,
    not_before: Option<Instant>,
}

impl Default for Dialling {
    fn default() -> Self {
        Self { waits: Policy::OUTAGE.start(), not_before: None }
    }
}

impl Publisher {
    /// A publisher whose connection shows as `connection_name` in RabbitMQ. Connects when first used.
    pub fn new(config: BrokerConfig, connection_name: &str) -> Self {
        Self {
            shared: Arc::new(Shared {
                topology: Topology::new(&config),
                config,
                name: connection_name.to_owned(),
                permits: Semaphore::new(CHANNELS),
                state: Mutex::default(),
                dialling: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Publishes a batch, persistent, and waits for RabbitMQ to confirm all of it. An event that one of our queues must
    /// get counts as published only if a queue took it. Best used with 100 to 256 messages at once; a longer batch must
    /// be confirmed within the same `confirm_timeout`.
    ///
    /// Returns what became of each message, in order. Fails as a whole, with nothing sent, when there is no connection:
    /// at once, without trying, while the backoff after the last attempt lasts ([`BrokerError::Away`]), or while an
    /// alarm blocks publishing ([`BrokerError::Blocked`]). Dropping the future leaves it open what was sent.
    pub async fn publish<'a>(
        &self,
        batch: impl IntoIterator<Item = &'a Outgoing>,
    ) -> Result<Vec<Result<(), PublishFailure>>, BrokerError> {
        let topology = &self.shared.topology;
        self.publish_messages(batch.into_iter().map(|outgoing| Message::event(outgoing, topology)).collect()).await
    }

    /// Publishes dead letters to their dead-letter queues, with the reason in the headers, in the manner of
    /// [`Publisher::publish`]. Only what is confirmed may be acknowledged in the work queue.
    pub async fn publish_dead(&self, dead: &[DeadLetter]) -> Result<Vec<Result<(), PublishFailure>>, BrokerError> {
        self.publish_messages(dead.iter().map(|letter| Message::dead(letter, &self.shared.topology)).collect()).await
    }

    /// Waits until there is a connection, trying with backoff and jitter for as long as it takes: for a service that
    /// has something to publish and nowhere to go. Ends early only on what waiting won't mend, see
    /// [`BrokerError::is_permanent`]. To cancel, drop the future.
    pub async fn ready(&self) -> Result<(), BrokerError> {
        loop {
            match self.link().await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_permanent() => return Err(error),
                Err(BrokerError::Away { retry_in }) => sleep_until(Instant::now() + retry_in).await,
                // The failed attempt has set the time of the next one.
                Err(_) => {}
            }
        }
    }

    /// Whether there is a connection and RabbitMQ takes messages on it. False before the first use.
    pub fn is_connected(&self) -> bool {
        self.shared.state().link.as_ref().is_some_and(|link| link.is_open() && !link.is_blocked())
    }

    /// Whether a memory or disk alarm of RabbitMQ blocks publishing. It says so only once something was published.
    pub fn is_blocked(&self) -> bool {
        self.shared.state().link.as_ref().is_some_and(|link| link.is_open() && link.is_blocked())
    }

    /// Says goodbye to RabbitMQ. A later batch would connect again.
    pub async fn close(&self) {
        let state = std::mem::take(&mut *self.shared.state());
        if let Some(link) = state.link {
            link.close().await;
        }
    }

    async fn publish_messages(&self, batch: Vec<Message>) -> Result<Vec<Result<(), PublishFailure>>, BrokerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let _permit = self.shared.permits.acquire().await.expect("the semaphore is never closed");
        let link = self.link().await?;
        if link.is_blocked() {
            return Err(BrokerError::Blocked);
        }
        let channel = match self.channel(&link).await {
            Ok(channel) => channel,
            Err(error) => {
                self.shared.forget(&link);
                return Err(error);
            }
        };
        let mut outcome = confirm::publish(&channel, &batch, self.shared.config.confirm_timeout).await;
        if outcome.channel_is_clean {
            let mut state = self.shared.state();
            state.topology_is_stale |= outcome.results.contains(&Err(PublishFailure::Unroutable));
            if state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, &link)) {
                state.idle.push(channel);
            }
        } else if link.is_blocked() {
            // The connection is sound; what was written goes out when the alarm ends. Only the channel is given up.
            for result in &mut outcome.results {
                if let Err(PublishFailure::Unconfirmed(why)) = result {
                    why.push_str("; RabbitMQ blocks publishing because of a resource alarm");
                }
            }
        } else {
            tracing::warn!(
                connection.name = %self.shared.name,
                messages = batch.len(),
                unconfirmed = outcome.results.iter().filter(|result| result.is_err()).count(),
                "a batch wasn't confirmed; the connection is dropped",
            );
            self.shared.forget(&link);
        }
        Ok(outcome.results)
    }

    /// The current connection, or a new one.
    async fn link(&self) -> Result<Arc<Link>, BrokerError> {
        if let Some(link) = self.shared.open_link() {
            return Ok(link);
        }
        let mut dialling = self.shared.dialling.lock().await;
        if let Some(link) = self.shared.open_link() {
            return Ok(link);
        }
        let now = Instant::now();
        if let Some(due) = dialling.not_before.filter(|due| *due > now) {
            return Err(BrokerError::Away { retry_in: due - now });
        }
        match self.dial().await {
            Ok(link) => {
                *dialling = Dialling::default();
                tracing::info!(connection.name = %self.shared.name, "connected to RabbitMQ for publishing");
                *self.shared.state() = State { link: Some(Arc::clone(&link)), ..State::default() };
                Ok(link)
            }
            Err(error) => {
                dialling.not_before = Some(Instant::now() + dialling.waits.next_wait());
                if dialling.waits.is_news() {
                    tracing::warn!(
                        connection.name = %self.shared.name,
                        error = %chain(&error),
                        "can't publish: no connection to RabbitMQ; trying again until there is",
                    );
                }
                Err(error)
            }
        }
    }

    async fn dial(&self) -> Result<Arc<Link>, BrokerError> {
        let link = Link::open(&self.shared.config, &self.shared.name).await?;
        self.shared.topology.declare(&link).await?;
        Ok(Arc::new(link))
    }

    /// A channel that carries nothing, with the topology in place.
    async fn channel(&self, link: &Arc<Link>) -> Result<Channel, BrokerError> {
        let (idle, stale) = {
            let mut state = self.shared.state();
            let current = state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
            if current { (state.idle.pop(), std::mem::take(&mut state.topology_is_stale)) } else { (None, false) }
        };
        if stale {
            self.shared.topology.declare(link).await?;
        }
        match idle {
            Some(channel) => Ok(channel),
            None => confirm::confirming_channel(link).await,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_link(&self) -> Option<Arc<Link>> {
        self.state().link.as_ref().filter(|link| link.is_open()).map(Arc::clone)
    }

    /// Drops a connection, unless another has taken its place. Batches still under way on it keep it until they end.
    fn forget(&self, link: &Arc<Link>) {
        let mut state = self.state();
        if state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *state = State::default();
        }
    }
}
