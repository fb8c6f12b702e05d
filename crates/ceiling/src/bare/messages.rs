//! The messages of a lead's way: published in batches with confirms, and consumed with acknowledgements, over the queues
//! that the pipeline has declared.

use std::time::{Duration, Instant};

use domain::{
    event::{Envelope, Event, Queue},
    id::{LeadId, OutreachId, ProgramId},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::FuturesOrdered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use time::OffsetDateTime;

use super::{Amount, Transport};
use crate::CeilingError;

/// Messages of one batch, as the pipeline publishes them.
const BATCH: usize = 256;
/// Batches under way at once: while one waits for its confirms, the next is written.
const CHANNELS: usize = 3;
/// Unacknowledged messages of a consumer.
const PREFETCH: u16 = 500;
/// An acknowledgement covers at most so many messages.
const ACK_EVERY: u64 = 100;

/// RabbitMQ, and the names of what was declared there.
#[derive(Clone)]
pub struct Messages {
    url: String,
    namespace: String,
}

/// Debug output shows no password.
impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Messages {
    /// The exchange and the queues of a namespace, which exist, are empty and have no other consumers.
    pub fn new(url: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self { url: url.into(), namespace: namespace.into() }
    }

    /// Publishes all messages and consumes what goes to a queue; tells how long it took until the last one was acknowledged.
    pub async fn pass(&self, amount: Amount) -> Result<Duration, CeilingError> {
        let created = || Event::LeadCreated {};
        let enriched = || Event::LeadEnriched { enrichment_version: 1, score: 75 };
        let contacted =
            || Event::LeadContacted { outreach_id: OutreachId::generate(), campaign: "intro".to_owned(), step: 1 };
        let contacts = if amount.transport == Transport::Smtp { amount.mails } else { 0 };
        let started = Instant::now();
        tokio::try_join!(
            self.publish("created", amount.leads, &created),
            self.publish("enriched", amount.leads, &enriched),
            self.publish("contacted", contacts, &contacted),
            self.consume(Queue::LeadCreated, amount.leads),
            self.consume(Queue::LeadEnriched, amount.leads),
        )?;
        Ok(started.elapsed())
    }

    /// Publishes one message per lead that was taken in, for nobody to consume.
    pub async fn publish_created(&self, leads: u64) -> Result<(), CeilingError> {
        self.publish("created", leads, &|| Event::LeadCreated {}).await
    }

    async fn connect(&self, name: &str) -> Result<Connection, CeilingError> {
        let properties = ConnectionProperties::default().with_connection_name(format!("leadmill-bench-{name}").into());
        Connection::connect(&self.url, properties).await.map_err(CeilingError::rabbitmq("connecting"))
    }

    async fn publish(&self, name: &str, count: u64, event: &(dyn Fn() -> Event + Sync)) -> Result<(), CeilingError> {
        if count == 0 {
            return Ok(());
        }
        let refused = CeilingError::rabbitmq("publishing");
        let connection = self.connect(name).await?;
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            let channel = connection.create_channel().await.map_err(&refused)?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(&refused)?;
            channels.push(channel);
        }
        let exchange = format!("{}leads", self.namespace);
        let program = ProgramId::generate();
        // Every channel has a share of its own, batch by batch.
        let shares = channels.iter().enumerate().map(|(number, channel)| {
            let (exchange, refused) = (&exchange, &refused);
            let share = count / CHANNELS as u64 + u64::from((number as u64) < count % CHANNELS as u64);
            async move {
                let mut left = share as usize;
                while left > 0 {
                    let size = left.min(BATCH);
                    let batch: Vec<Envelope> = (0..size)
                        .map(|_| Envelope::new(program, LeadId::generate(), 1, OffsetDateTime::UNIX_EPOCH, event()))
                        .collect();
                    publish_batch(channel, exchange, &batch).await.map_err(|error| match error {
                        Some(error) => refused(error),
                        None => CeilingError::Unconfirmed,
                    })?;
                    left -= size;
                }
                Ok(())
            }
        });
        stream::iter(shares).map(Ok).try_for_each_concurrent(CHANNELS, |share| share).await?;
        connection.close(200, "OK".into()).await.map_err(refused)
    }

    async fn consume(&self, queue: Queue, count: u64) -> Result<(), CeilingError> {
        let refused = CeilingError::rabbitmq("consuming");
        let connection = self.connect(queue.name()).await?;
        let channel = connection.create_channel().await.map_err(&refused)?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(&refused)?;
        let name = format!("{}{}", self.namespace, queue.name());
        let mut consumer = channel
            .basic_consume(name.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(&refused)?;
        for number in 1..=count {
            let Some(delivery) = consumer.next().await else { return Err(CeilingError::Cancelled) };
            let delivery = delivery.map_err(&refused)?;
            if number % ACK_EVERY == 0 || number == count {
                delivery.acker.ack(BasicAckOptions { multiple: true }).await.map_err(&refused)?;
            }
        }
        connection.close(200, "OK".into()).await.map_err(refused)
    }
}

/// Publishes a batch and waits for all its confirms; `None` for one that did not come.
async fn publish_batch(channel: &Channel, exchange: &str, batch: &[Envelope]) -> Result<(), Option<lapin::Error>> {
    let mut confirms = FuturesOrdered::new();
    for envelope in batch {
        let kind = envelope.event.kind();
        let options = BasicPublishOptions { mandatory: kind.has_queue(), immediate: false };
        let confirm = channel
            .basic_publish(exchange.into(), kind.name().into(), options, &envelope.encode(), properties(envelope))
            .await?;
        confirms.push_back(confirm);
    }
    while let Some(confirmation) = confirms.try_next().await? {
        if !matches!(confirmation, Confirmation::Ack(None)) {
            return Err(None);
        }
    }
    Ok(())
}

/// The properties that stand beside every event.
fn properties(envelope: &Envelope) -> BasicProperties {
    let mut headers = FieldTable::default();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers
        .insert("x-leadmill-attempt".into(), AMQPValue::LongLongInt(0))
        .insert("traceparent".into(), AMQPValue::LongString(parent.into()));
    BasicProperties::default()
        .with_app_id("leadmill".into())
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_headers(headers)
        .with_message_id(envelope.event_id.to_string().into())
        .with_type(envelope.event.kind().name().into())
        .with_timestamp(0)
}
