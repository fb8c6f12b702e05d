//! What people, probes and the reconciler ask of RabbitMQ now and then.

use domain::event::Queue;
use lapin::{options::QueueDeclareOptions, protocol::AMQPSoftError, types::FieldTable};

use crate::{
    config::BrokerConfig,
    error::BrokerError,
    link::Link,
    topology::{Topology, has_code, short},
};

/// Looks after the queues. Each call uses a connection of its own and closes it.
#[derive(Debug, Clone)]
pub struct Admin {
    pub(crate) config: BrokerConfig,
    pub(crate) topology: Topology,
}

/// How much is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait to be delivered. Those delivered and not yet acknowledged aren't among them.
    pub ready: u32,
    /// Who consumes it.
    pub consumers: u32,
}

/// One queue and how much is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// The work queue that it is, or belongs to.
    pub queue: Queue,
    /// Whether it is the dead-letter queue.
    pub dead: bool,
    /// Its name, with the namespace.
    pub name: String,
    /// `None` if it doesn't exist.
    pub depth: Option<Depth>,
}

impl Admin {
    /// An admin for the topology that `config` names.
    pub fn new(config: BrokerConfig) -> Self {
        Self { topology: Topology::new(&config), config }
    }

    /// The depths of all queues, each work queue followed by its dead-letter queue. Creates nothing.
    pub async fn depths(&self) -> Result<Vec<QueueDepth>, BrokerError> {
        let link = self.link().await?;
        let mut depths = Vec::with_capacity(2 * Queue::ALL.len());
        for queue in Queue::ALL {
            for (dead, name) in [(false, self.topology.queue(queue)), (true, self.topology.dead_queue(queue))] {
                depths.push(QueueDepth { queue, dead, depth: depth(&link, &name).await?, name });
            }
        }
        link.close().await;
        Ok(depths)
    }

    /// Creates the exchange and the queues where they don't exist. Fails with [`BrokerError::TopologyMismatch`] if one
    /// exists with other settings.
    pub async fn declare_topology(&self) -> Result<(), BrokerError> {
        let link = self.link().await?;
        self.topology.declare(&link).await?;
        link.close().await;
        Ok(())
    }

    /// Deletes the exchange and the queues with everything in them. Nothing is lost by it but dead letters: the
    /// reconciler emits again what waits in PostgreSQL.
    pub async fn delete_topology(&self) -> Result<(), BrokerError> {
        let link = self.link().await?;
        self.topology.delete(&link).await?;
        link.close().await;
        Ok(())
    }

    pub(crate) async fn link(&self) -> Result<Link, BrokerError> {
        Link::open(&self.config, "leadmill-admin").await
    }
}

/// A queue's depth, or `None` if there is no such queue.
pub(crate) async fn depth(link: &Link, name: &str) -> Result<Option<Depth>, BrokerError> {
    // A passive declaration of a missing queue costs the channel.
    let channel = link.channel().await?;
    let asking = channel.queue_declare(short(name), QueueDeclareOptions::durable().passive(), FieldTable::default());
    match link.ask("asking for a queue's depth", asking).await {
        Ok(queue) => {
            link.ask("closing a channel", channel.close(200, "OK".into())).await?;
            Ok(Some(Depth { ready: queue.message_count(), consumers: queue.consumer_count() }))
        }
        Err(BrokerError::Amqp { source, .. }) if has_code(&source, AMQPSoftError::NOTFOUND) => Ok(None),
        Err(error) => Err(error),
    }
}
