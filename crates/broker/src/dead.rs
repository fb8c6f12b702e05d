//! Dead letters: looking at them, sending them back to work, dropping them.
//!
//! All of it works on what was in the queue at the start, one page at a time, and takes a message off the queue only
//! when it is safe elsewhere or was to go. If the connection breaks in between, everything not yet acknowledged is back
//! in its old place; a message may then be replayed twice, which its consumer's idempotency takes care of.

use std::time::Duration;

use domain::{
    event::{Envelope, EventKind, Queue},
    id::{EventId, LeadId, ProgramId},
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    admin::{Admin, depth},
    confirm,
    error::{BrokerError, PublishFailure},
    link::Link,
    message::Message,
    prefix::{Acks, PrefixTracker},
    properties,
    topology::short,
};

/// The only consumer on its channel, so any tag will do.
const CONSUMER_TAG: &str = "leadmill-admin";
/// How many dead letters are published, or taken off, at once.
const PAGE: usize = 256;
/// After how long without another letter there are no more: somebody else took them.
const LULL: Duration = Duration::from_secs(2);
/// How long to wait at most for letters that were given back to show again.
const GIVING_BACK: Duration = Duration::from_secs(2);

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadSelector {
    /// All that were there at the start.
    All,
    /// The one with this message id or event id.
    Id(String),
}

impl DeadSelector {
    /// How far to read ahead: of what is left alone everything is held until the end.
    fn window(&self) -> usize {
        match self {
            Self::All => PAGE,
            Self::Id(_) => usize::MAX,
        }
    }
}

/// A dead letter, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadInfo {
    /// The work queue that it came from.
    pub queue: Queue,
    /// Its message id, if it has one.
    pub message_id: Option<String>,
    /// The event id, if the body can be read; normally the same.
    pub event_id: Option<EventId>,
    /// What the event tells, if the body can be read.
    pub kind: Option<EventKind>,
    /// The program, if the body can be read.
    pub program_id: Option<ProgramId>,
    /// The lead, if the body can be read.
    pub lead_id: Option<LeadId>,
    /// Why it is a dead letter. Begins with `broker:` if RabbitMQ itself gave it up.
    pub reason: String,
    /// How often a handler had asked for it to be tried again.
    pub attempt: u32,
    /// When it was given up, if that is known.
    pub died_at: Option<OffsetDateTime>,
    /// The body's size in bytes.
    pub bytes: usize,
    /// The body as it came. If it isn't one of our events it may hold anything: don't log it.
    pub body: Vec<u8>,
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// How many went back to work.
    pub replayed: usize,
    /// How many others were looked at and left alone.
    pub left: usize,
}

impl Admin {
    /// The oldest dead letters of `queue`, up to `limit`. They stay where they are, in their order; others don't see
    /// them while this looks.
    pub async fn list_dead(&self, queue: Queue, limit: usize) -> Result<Vec<DeadInfo>, BrokerError> {
        let mut letters = Vec::new();
        let mut reader = Reader::open(self, queue, limit, limit).await?;
        while let Some(letter) = reader.next().await? {
            letters.push(letter.info(queue));
        }
        reader.finish().await?;
        Ok(letters)
    }

    /// Sends dead letters of `queue` back to work, up to `limit`, oldest first: only to their own queue, under the same
    /// event id, with the attempt back at 0, and confirmed before they leave the dead-letter queue.
    pub async fn replay_dead(
        &self,
        queue: Queue,
        selector: &DeadSelector,
        limit: usize,
    ) -> Result<Replayed, BrokerError> {
        let mut reader = Reader::open(self, queue, usize::MAX, selector.window()).await?;
        self.topology.declare(&reader.link).await?;
        let publishing = confirm::confirming_channel(&reader.link).await?;
        let mut outcome = Replayed::default();
        let mut page: Vec<Letter> = Vec::new();
        loop {
            let room = limit - outcome.replayed - page.len();
            let next = if room == 0 { None } else { reader.next().await? };
            let at_the_end = next.is_none();
            match next {
                Some(letter) if letter.is_selected(selector) => page.push(letter),
                Some(_) => outcome.left += 1,
                None => {}
            }
            if page.len() == PAGE || at_the_end {
                outcome.replayed += page.len();
                self.replay_page(&mut reader, &publishing, queue, std::mem::take(&mut page)).await?;
            }
            if at_the_end {
                break;
            }
        }
        reader.finish().await?;
        Ok(outcome)
    }

    /// Drops dead letters of `queue` for good, and says how many.
    pub async fn drop_dead(&self, queue: Queue, selector: &DeadSelector) -> Result<usize, BrokerError> {
        let mut reader = Reader::open(self, queue, usize::MAX, selector.window()).await?;
        let mut dropped = 0;
        while let Some(letter) = reader.next().await? {
            if letter.is_selected(selector) {
                reader.take(&letter);
                dropped += 1;
                if dropped % PAGE == 0 {
                    reader.acknowledge().await?;
                }
            }
        }
        reader.finish().await?;
        Ok(dropped)
    }

    async fn replay_page(
        &self,
        reader: &mut Reader,
        publishing: &Channel,
        queue: Queue,
        page: Vec<Letter>,
    ) -> Result<(), BrokerError> {
        let batch: Vec<_> = page
            .iter()
            .map(|letter| {
                let id = properties::message_id(&letter.properties);
                let trace = properties::trace(&letter.properties);
                Message::replay(&letter.body, id.as_deref(), &trace, queue, &self.topology)
            })
            .collect();
        let outcome = confirm::publish(publishing, &batch, self.config.confirm_timeout).await;
        let mut failures: Vec<PublishFailure> = Vec::new();
        for (letter, result) in page.iter().zip(outcome.results) {
            match result {
                Ok(()) => reader.take(letter),
                Err(failure) => failures.push(failure),
            }
        }
        reader.acknowledge().await?;
        let failed = failures.len();
        match failures.into_iter().next() {
            Some(first) => Err(BrokerError::NotMoved { failed, total: page.len(), first }),
            None => Ok(()),
        }
    }
}

/// Goes through a dead-letter queue from its oldest message. What it has read it holds until it is taken off, or else
/// to the end, for a message that is given back comes first again.
///
/// It consumes rather than `basic.get`s: to a quorum queue each get is a consumer of its own, to be acknowledged alone,
/// and a queue that gets too many acknowledgements at once buffers them and forgets the buffer when the channel closes.
struct Reader {
    link: Link,
    channel: Channel,
    consumer: lapin::Consumer,
    queue: Queue,
    name: String,
    /// How many are still to be read: no more than there were at the start, so that one which dies again meanwhile
    /// isn't met twice.
    left: usize,
    held: PrefixTracker,
}

/// A dead letter that is held.
struct Letter {
    tag: u64,
    properties: BasicProperties,
    body: Vec<u8>,
    envelope: Option<Envelope>,
}

impl Reader {
    /// Begins with the oldest of at most `limit` letters; RabbitMQ sends up to `window` ahead of what is taken off.
    async fn open(admin: &Admin, queue: Queue, limit: usize, window: usize) -> Result<Self, BrokerError> {
        let link = admin.link().await?;
        let name = admin.topology.dead_queue(queue);
        let Some(depth) = depth(&link, &name).await? else { return Err(BrokerError::NoSuchQueue { name }) };
        let channel = link.channel().await?;
        // Zero stands for no limit at all, and a larger number than fits will do as one.
        let prefetch = u16::try_from(window.max(1)).unwrap_or(0);
        link.ask("setting the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let consuming = channel.basic_consume(
            short(&name),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = link.ask("reading dead letters", consuming).await?;
        let left = limit.min(depth.ready as usize);
        Ok(Self { link, channel, consumer, queue, name, left, held: PrefixTracker::new(0) })
    }

    async fn next(&mut self) -> Result<Option<Letter>, BrokerError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        match timeout(LULL, self.consumer.next()).await {
            Ok(Some(Ok(delivery))) => {
                self.held.delivered(delivery.delivery_tag);
                Ok(Some(Letter::new(delivery)))
            }
            Ok(Some(Err(source))) => Err(BrokerError::Amqp { doing: "reading dead letters", source }),
            Ok(None) => Err(BrokerError::ConsumerEnded(self.queue)),
            Err(_) => {
                self.left = 0;
                Ok(None)
            }
        }
    }

    /// Marks a letter as safe to take off the queue.
    fn take(&mut self, letter: &Letter) {
        self.held.settle(letter.tag);
    }

    /// Takes off what was marked.
    async fn acknowledge(&mut self) -> Result<(), BrokerError> {
        let Acks { multiple, singles } = self.held.take_acks();
        let singles = singles.into_iter().map(|tag| (tag, false));
        for (tag, multiple) in multiple.map(|tag| (tag, true)).into_iter().chain(singles) {
            let acking = self.channel.basic_ack(tag, BasicAckOptions { multiple });
            self.link.ask("taking off dead letters", acking).await?;
        }
        Ok(())
    }

    /// Takes off what was marked, gives everything else back, and disconnects.
    async fn finish(mut self) -> Result<(), BrokerError> {
        self.acknowledge().await?;
        let cancelling = self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        self.link.ask("reading no more dead letters", cancelling).await?;
        // What was sent ahead. The stream ends now that the consumer is cancelled.
        while let Ok(Some(Ok(delivery))) = timeout(LULL, self.consumer.next()).await {
            self.held.delivered(delivery.delivery_tag);
        }
        let held = self.held.open();
        if held > 0 {
            let others = self.ready().await?;
            // Tag 0 stands for all that is unacknowledged (AMQP 0-9-1, 1.8.3.13).
            let giving_back = self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true });
            self.link.ask("giving back dead letters", giving_back).await?;
            self.wait_until_back(others + held).await?;
        }
        self.link.ask("closing a channel", self.channel.close(200, "OK".into())).await?;
        self.link.close().await;
        Ok(())
    }

    /// Giving back is not answered, and a moment passes until it is done: without waiting for it, whoever looks next
    /// would find letters missing. If others work on the queue the number may never be seen; then this ends as well.
    async fn wait_until_back(&self, wanted: usize) -> Result<(), BrokerError> {
        let deadline = Instant::now() + GIVING_BACK;
        while self.ready().await? < wanted && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn ready(&self) -> Result<usize, BrokerError> {
        Ok(depth(&self.link, &self.name).await?.map_or(0, |depth| depth.ready as usize))
    }
}

impl Letter {
    fn new(delivery: lapin::message::Delivery) -> Self {
        let lapin::message::Delivery { delivery_tag, properties, data, .. } = delivery;
        let envelope = Envelope::decode(&data).ok();
        Self { tag: delivery_tag, properties, body: data, envelope }
    }

    fn is_selected(&self, selector: &DeadSelector) -> bool {
        match selector {
            DeadSelector::All => true,
            DeadSelector::Id(id) => {
                properties::message_id(&self.properties).as_ref() == Some(id)
                    || self.envelope.as_ref().is_some_and(|envelope| envelope.event_id.to_string() == *id)
            }
        }
    }

    fn info(self, queue: Queue) -> DeadInfo {
        let own = properties::text_header(&self.properties, properties::REASON);
        let own_time = properties::number_header(&self.properties, properties::DIED_AT).and_then(instant);
        let (reason, died_at) = match (own, properties::death(&self.properties)) {
            (Some(reason), _) => (reason, own_time),
            (None, Some((reason, time))) => (format!("broker: {reason}"), time),
            (None, None) => ("unknown".to_owned(), None),
        };
        let attempt = properties::number_header(&self.properties, properties::ATTEMPT)
            .and_then(|attempt| u32::try_from(attempt).ok())
            .or(self.envelope.as_ref().map(|envelope| envelope.attempt))
            .unwrap_or(0);
        DeadInfo {
            queue,
            message_id: properties::message_id(&self.properties),
            event_id: self.envelope.as_ref().map(|envelope| envelope.event_id),
            kind: self.envelope.as_ref().map(|envelope| envelope.event.kind()),
            program_id: self.envelope.as_ref().map(|envelope| envelope.program_id),
            lead_id: self.envelope.as_ref().map(|envelope| envelope.lead_id),
            reason,
            attempt,
            died_at,
            bytes: self.body.len(),
            body: self.body,
        }
    }
}

fn instant(milliseconds: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}
