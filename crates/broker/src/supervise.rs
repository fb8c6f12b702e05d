//! What keeps a consumer going: one session after another, each on a connection of its own.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use domain::event::Queue;
use futures_util::{StreamExt, future::try_join_all};
use lapin::{
    Channel, ErrorKind,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    protocol::{AMQPErrorKind, AMQPHardError},
    types::{FieldTable, ShortString},
};
use retry::{Policy, Waits};
use tokio::{
    sync::mpsc::{Permit, Sender, UnboundedReceiver},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::BrokerConfig,
    consumer::{Command, LinkStatus, Shared},
    delivery::{Delivery, DeliveryTag},
    error::{BrokerError, chain},
    link::Link,
    prefix::PrefixTracker,
    topology::{Topology, short},
};

/// The only consumer on its channel, so any tag will do; a short one, since each delivery carries it.
const CONSUMER_TAG: &str = "leadmill";

/// How many commands to take at once before acknowledging.
const COMMANDS_AT_ONCE: usize = 1024;

/// What is said to have been done when a consumer fails.
const CONSUMING: &str = "consuming";

/// How often in a row RabbitMQ must have broken down over a consumer before its queue counts as dead: with the waits in
/// between after about five seconds, so that trouble which passes isn't taken for it. Being wrong costs redeliveries.
const BREAKDOWNS: u32 = 16;

/// Keeps a consumer going. Owns everything that talks to RabbitMQ; the consumer and its ackers only hold channels to it.
pub(crate) struct Supervisor {
    config: BrokerConfig,
    topology: Topology,
    queue: Queue,
    name: String,
    cancel: CancellationToken,
    shared: Arc<Shared>,
    commands: UnboundedReceiver<Command>,
    /// `None` once nothing more will be handed out.
    out: Option<Sender<Delivery>>,
    waits: Waits,
    /// How often in a row RabbitMQ has broken down over this consumer.
    breakdowns: u32,
}

impl Supervisor {
    pub(crate) fn new(
        config: BrokerConfig,
        queue: Queue,
        name: &str,
        cancel: CancellationToken,
        shared: Arc<Shared>,
        commands: UnboundedReceiver<Command>,
        out: Sender<Delivery>,
    ) -> Self {
        Self {
            topology: Topology::new(&config),
            config,
            queue,
            name: name.to_owned(),
            cancel,
            shared,
            commands,
            out: Some(out),
            waits: Policy::OUTAGE.start(),
            breakdowns: 0,
        }
    }

    /// Runs until it is cancelled and everything is settled, or until nobody is interested any more.
    pub(crate) async fn run(mut self) {
        loop {
            let ended = match self.connect().await {
                Some(Ok(link)) => {
                    let ended = self.session(&link).await;
                    if ended.is_ok() {
                        link.close().await;
                    }
                    ended
                }
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            // Whatever was delivered on this channel and isn't acknowledged goes back to the queue.
            self.shared.epoch.fetch_add(1, Ordering::AcqRel);
            let Err(error) = ended else { break };
            if self.waits.is_news() {
                tracing::warn!(
                    queue = %self.queue,
                    connection.name = %self.name,
                    error = %chain(&error),
                    "not consuming; trying again until it works",
                );
            }
            self.shared.set_status(LinkStatus { connected: false, error: Some(chain(&error)) });
            self.breakdowns = if is_breakdown(&error) { self.breakdowns + 1 } else { 0 };
            if self.breakdowns >= BREAKDOWNS && self.delete_dead_queue().await.is_none() {
                break;
            }
            if self.pause().await.is_none() {
                break;
            }
        }
        self.shared.set_status(LinkStatus::default());
    }

    /// Connects, with the topology in place. `None` if that isn't wanted any more.
    async fn connect(&mut self) -> Option<Result<Link, BrokerError>> {
        let out = self.out.as_ref()?;
        let connecting = async {
            let link = Link::open(&self.config, &self.name).await?;
            self.topology.declare(&link).await?;
            Ok(link)
        };
        tokio::select! {
            () = stopped(&self.cancel, Some(out)) => None,
            () = closing(&mut self.commands) => None,
            result = connecting => Some(result),
        }
    }

    /// Deletes the queue, so that the next attempt declares a sound one. `None` if that isn't wanted any more.
    ///
    /// RabbitMQ can lose the process behind a quorum queue, as 3.10 does when a queue is deleted while others declare it.
    /// The queue is still there by name, empty to whoever asks, refuses every message and breaks down over every
    /// consumer. Work queues are disposable: what it may have held waits in PostgreSQL, and the reconciler tells of it again.
    async fn delete_dead_queue(&mut self) -> Option<()> {
        self.breakdowns = 0;
        let out = self.out.as_ref()?;
        let deleting = async {
            // Right after the last attempt, or another replica might have replaced the queue in between.
            let link = Link::open(&self.config, &self.name).await?;
            self.topology.delete_work_queue(&link, self.queue).await?;
            link.close().await;
            Ok::<_, BrokerError>(())
        };
        let deleted = tokio::select! {
            () = stopped(&self.cancel, Some(out)) => return None,
            () = closing(&mut self.commands) => return None,
            result = deleting => result,
        };
        match deleted {
            Ok(()) => tracing::warn!(
                queue = %self.queue,
                breakdowns = BREAKDOWNS,
                "RabbitMQ broke down over the queue time after time; it was deleted, to be declared anew",
            ),
            Err(error) => tracing::warn!(queue = %self.queue, error = %chain(&error), "the queue is dead, and stays"),
        }
        Some(())
    }

    /// Waits before the next attempt. `None` if there is to be none.
    async fn pause(&mut self) -> Option<()> {
        let out = self.out.as_ref()?;
        tokio::select! {
            () = stopped(&self.cancel, Some(out)) => None,
            () = closing(&mut self.commands) => None,
            () = self.waits.pause() => Some(()),
        }
    }

    /// Consumes until the connection breaks (an error), or until it is over.
    async fn session(&mut self, link: &Link) -> Result<(), BrokerError> {
        let mut subscription = self.subscribe(link).await?;
        self.waits.reset();
        self.breakdowns = 0;
        self.shared.set_status(LinkStatus { connected: true, error: None });
        tracing::info!(queue = %self.queue, connection.name = %self.name, "consuming");

        let mut commands = Vec::with_capacity(COMMANDS_AT_ONCE);
        let mut arrived: Option<Delivery> = None;
        let mut flow = Flow::Flowing;
        let mut idle_since = Instant::now();
        loop {
            if flow == Flow::Dry && arrived.is_none() {
                // Tells the consumer that there is nothing more to come.
                self.out = None;
                if subscription.tracker.open() == 0 {
                    return Ok(());
                }
            }
            let is_idle = flow == Flow::Flowing && subscription.tracker.unacknowledged() == 0;
            tokio::select! {
                biased;
                taken = self.commands.recv_many(&mut commands, COMMANDS_AT_ONCE) => {
                    let ended = subscription.carry_out(commands.drain(..)).await?;
                    if taken == 0 || ended.is_break() {
                        return Ok(());
                    }
                    idle_since = Instant::now();
                }
                () = stopped(&self.cancel, self.out.as_ref()), if flow == Flow::Flowing => {
                    subscription.stop_the_flow().await?;
                    flow = Flow::Draining;
                }
                next = subscription.consumer.next(), if arrived.is_none() && flow != Flow::Dry => match next {
                    Some(Ok(delivery)) => {
                        subscription.tracker.delivered(delivery.delivery_tag);
                        arrived = Some(Delivery::new(self.queue, subscription.epoch, delivery));
                        idle_since = Instant::now();
                    }
                    Some(Err(source)) => return Err(BrokerError::Amqp { doing: CONSUMING, source }),
                    None if flow == Flow::Draining => flow = Flow::Dry,
                    None => return Err(BrokerError::ConsumerEnded(self.queue)),
                },
                room = reserve(self.out.as_ref()), if arrived.is_some() => {
                    // Without room nobody will ever take it, and the end of the session gives it back.
                    if let (Some(room), Some(delivery)) = (room, arrived.take()) {
                        room.send(delivery);
                    }
                }
                () = sleep_until(idle_since + self.config.idle_refresh), if is_idle => {
                    subscription.end().await?;
                    subscription = self.subscribe(link).await?;
                    idle_since = Instant::now();
                }
            }
        }
    }

    /// Begins to consume on a fresh channel.
    async fn subscribe<'a>(&self, link: &'a Link) -> Result<Subscription<'a>, BrokerError> {
        let channel = link.channel().await?;
        let qos = channel.basic_qos(self.config.prefetch, BasicQosOptions::default());
        link.ask("setting the prefetch", qos).await?;
        let consuming = channel.basic_consume(
            short(&self.topology.queue(self.queue)),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = link.ask(CONSUMING, consuming).await?;
        Ok(Subscription {
            link,
            channel,
            consumer,
            epoch: self.shared.epoch.fetch_add(1, Ordering::AcqRel) + 1,
            tracker: PrefixTracker::new(usize::from(self.config.prefetch / 2)),
        })
    }
}

/// Whether RabbitMQ itself failed over the consumer (`internal-error`, AMQP 0-9-1, 1.1).
fn is_breakdown(error: &BrokerError) -> bool {
    let BrokerError::Amqp { doing: CONSUMING, source } = error else { return false };
    matches!(source.kind(), ErrorKind::ProtocolError(answer)
        if *answer.kind() == AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR))
}

/// Whether RabbitMQ still sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// It does.
    Flowing,
    /// It was told to stop; what it had sent before is still to be read.
    Draining,
    /// Everything is read.
    Dry,
}

/// Until there is no reason to consume any more.
async fn stopped(cancel: &CancellationToken, out: Option<&Sender<Delivery>>) {
    match out {
        Some(out) => tokio::select! {
            () = cancel.cancelled() => {}
            () = out.closed() => {}
        },
        None => cancel.cancelled().await,
    }
}

/// Until the consumer is closed, or it and all its ackers are gone. For use between sessions: what else comes in then
/// is about deliveries that RabbitMQ has taken back, and is ignored.
async fn closing(commands: &mut UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        if matches!(command, Command::Close) {
            return;
        }
    }
}

async fn reserve(out: Option<&Sender<Delivery>>) -> Option<Permit<'_, Delivery>> {
    out?.reserve().await.ok()
}

/// A consumer on its channel, and what is known of its deliveries.
struct Subscription<'a> {
    link: &'a Link,
    channel: Channel,
    consumer: lapin::Consumer,
    epoch: u64,
    tracker: PrefixTracker,
}

impl Subscription<'_> {
    /// Carries out commands and acknowledges what can be. Breaks off when one of them is to close.
    async fn carry_out(&mut self, commands: impl Iterator<Item = Command>) -> Result<ControlFlow<()>, BrokerError> {
        let mut ended = ControlFlow::Continue(());
        for command in commands {
            match command {
                Command::Settle(tags) => {
                    for tag in self.current(tags) {
                        self.tracker.settle(tag);
                    }
                }
                Command::Release(tags) => {
                    for tag in self.current(tags) {
                        if self.tracker.release(tag) {
                            let back = BasicNackOptions { multiple: false, requeue: true };
                            self.link.ask("releasing a delivery", self.channel.basic_nack(tag, back)).await?;
                        }
                    }
                }
                Command::Close => ended = ControlFlow::Break(()),
            }
        }
        let acks = self.tracker.take_acks();
        let ack =
            |tag, multiple| self.link.ask("acknowledging", self.channel.basic_ack(tag, BasicAckOptions { multiple }));
        if let Some(tag) = acks.multiple {
            ack(tag, true).await?;
        }
        try_join_all(acks.singles.into_iter().map(|tag| ack(tag, false))).await?;
        Ok(ended)
    }

    async fn stop_the_flow(&self) -> Result<(), BrokerError> {
        let tag = ShortString::from(CONSUMER_TAG);
        let cancelling = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        self.link.ask("cancelling the consumer", cancelling).await
    }

    /// Leaves the channel. What RabbitMQ thinks we hold goes back to the queue.
    async fn end(self) -> Result<(), BrokerError> {
        self.link.ask("closing a channel", self.channel.close(200, "OK".into())).await
    }

    /// The bare tags of those that are this channel's.
    fn current(&self, tags: Vec<DeliveryTag>) -> impl Iterator<Item = u64> + use<> {
        let epoch = self.epoch;
        tags.into_iter().filter(move |tag| tag.epoch == epoch).map(|tag| tag.tag)
    }
}
