//! The exchange and the queues.

use domain::event::Queue;
use lapin::{
    ErrorKind, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{config::BrokerConfig, error::BrokerError, link::Link};

/// Dead letters stay until a person replays or drops them. Looking at them counts as a delivery on RabbitMQ below 4.3,
/// and beyond the limit, which is 20 unless set on version 4, they would be gone for good: so there is practically none.
const DEAD_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// The names of the exchange and the queues, and how they are declared.
///
/// - the topic exchange `leads`, durable;
/// - each work queue, a quorum queue bound to the exchange by the kinds of event it takes. What RabbitMQ itself gives
///   up on, beyond the delivery limit, goes to the dead-letter queue *at least once*, which works only together with
///   `x-overflow=reject-publish`
///   (<https://www.rabbitmq.com/docs/quorum-queues#activating-at-least-once-dead-lettering>);
/// - for each a dead-letter queue, a quorum queue too, reached through the default exchange by its name.
///
/// Only arguments that mean the same from RabbitMQ 3.10 to 4.x are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    namespace: String,
    delivery_limit: u32,
}

impl Topology {
    /// The topology of a namespace.
    pub fn new(config: &BrokerConfig) -> Self {
        Self { namespace: config.namespace.clone(), delivery_limit: config.delivery_limit }
    }

    /// The name of the exchange.
    pub fn exchange(&self) -> String {
        format!("{}leads", self.namespace)
    }

    /// The name of a work queue.
    pub fn queue(&self, queue: Queue) -> String {
        format!("{}{}", self.namespace, queue.name())
    }

    /// The name of its dead-letter queue.
    pub fn dead_queue(&self, queue: Queue) -> String {
        format!("{}{}", self.namespace, queue.dead_name())
    }

    /// Declares everything. Does nothing where it exists as it should be.
    pub(crate) async fn declare(&self, link: &Link) -> Result<(), BrokerError> {
        let channel = link.channel().await?;
        let exchange = self.exchange();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        link.ask(
            "declaring the exchange",
            channel.exchange_declare(short(&exchange), ExchangeKind::Topic, durable, FieldTable::default()),
        )
        .await
        .map_err(|error| explain(error, "exchange", &exchange))?;
        for queue in Queue::ALL {
            // The dead-letter queue first, so that there is no moment without the net.
            let dead = self.dead_queue(queue);
            for (name, arguments) in [(&dead, dead_arguments()), (&self.queue(queue), self.work_arguments(&dead))] {
                link.ask(
                    "declaring a queue",
                    channel.queue_declare(short(name), QueueDeclareOptions::durable(), arguments),
                )
                .await
                .map_err(|error| explain(error, "queue", name))?;
            }
            for kind in queue.bindings() {
                let binding = channel.queue_bind(
                    short(&self.queue(queue)),
                    short(&exchange),
                    kind.name().into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                link.ask("binding a queue", binding).await?;
            }
        }
        link.ask("closing a channel", channel.close(200, "OK".into())).await
    }

    /// Deletes one work queue, with all messages in it. If it doesn't exist, it counts as deleted.
    pub(crate) async fn delete_work_queue(&self, link: &Link, queue: Queue) -> Result<(), BrokerError> {
        let channel = link.channel().await?;
        let deleting = channel.queue_delete(short(&self.queue(queue)), QueueDeleteOptions::default());
        link.ask("deleting a queue", deleting).await?;
        link.ask("closing a channel", channel.close(200, "OK".into())).await
    }

    /// Deletes everything, with all messages in it. What doesn't exist counts as deleted.
    pub(crate) async fn delete(&self, link: &Link) -> Result<(), BrokerError> {
        let channel = link.channel().await?;
        for queue in Queue::ALL {
            for name in [self.queue(queue), self.dead_queue(queue)] {
                let deleting = channel.queue_delete(short(&name), QueueDeleteOptions::default());
                link.ask("deleting a queue", deleting).await?;
            }
        }
        let deleting = channel.exchange_delete(short(&self.exchange()), ExchangeDeleteOptions::default());
        link.ask("deleting the exchange", deleting).await?;
        link.ask("closing a channel", channel.close(200, "OK".into())).await
    }

    fn work_arguments(&self, dead_queue: &str) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments
            .insert("x-queue-type".into(), text("quorum"))
            .insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i64::from(self.delivery_limit)))
            .insert("x-dead-letter-exchange".into(), text(""))
            .insert("x-dead-letter-routing-key".into(), text(dead_queue))
            .insert("x-dead-letter-strategy".into(), text("at-least-once"))
            .insert("x-overflow".into(), text("reject-publish"));
        arguments
    }
}

fn dead_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments
        .insert("x-queue-type".into(), text("quorum"))
        .insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A name on the wire. Ours are at most a namespace of 100 bytes, as `BrokerConfig::validate` has made sure when the
/// link was opened, and a few more.
pub(crate) fn short(name: &str) -> ShortString {
    ShortString::try_new(name).expect("a name is shorter than 256 bytes")
}

/// Makes a refusal to redeclare something with other settings readable.
fn explain(error: BrokerError, kind: &str, name: &str) -> BrokerError {
    match &error {
        BrokerError::Amqp { source, .. } if has_code(source, AMQPSoftError::PRECONDITIONFAILED) => {
            BrokerError::TopologyMismatch { entity: format!("the {kind} `{name}`"), detail: reply_text(source) }
        }
        _ => error,
    }
}

/// Whether RabbitMQ answered with this code.
pub(crate) fn has_code(error: &lapin::Error, code: AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(answer) if *answer.kind() == AMQPErrorKind::Soft(code))
}

fn reply_text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(answer) => answer.get_message().to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_carries_the_namespace() {
        let topology = Topology::new(&BrokerConfig::new("amqp://host").in_namespace("t1."));
        assert_eq!(topology.exchange(), "t1.leads");
        assert_eq!(topology.queue(Queue::LeadCreated), "t1.lead.created");
        assert_eq!(topology.dead_queue(Queue::LeadEnriched), "t1.lead.enriched.dead");
    }
}
