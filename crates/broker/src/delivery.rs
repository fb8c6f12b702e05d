//! Messages on their way in.

use domain::event::{DecodeError, Envelope, Queue, TraceContext};

use crate::properties;

/// Names a delivery to the [`Acker`](crate::Acker).
///
/// Delivery tags count anew on each channel, so a tag holds as well which of the consumer's channels it came on. After
/// a reconnect RabbitMQ has put everything that was unacknowledged back into the queue; tags from before mean nothing
/// then and are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag {
    pub(crate) epoch: u64,
    pub(crate) tag: u64,
}

/// A message from a work queue. It stays unacknowledged until the [`Acker`](crate::Acker) settles or releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The queue that it came from.
    pub queue: Queue,
    /// The body, unread.
    pub body: Vec<u8>,
    /// The message id: the event id, if the message is one of ours.
    pub message_id: Option<String>,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// Whether it may have been delivered before, to anybody.
    pub redelivered: bool,
    /// How often it was delivered before and came back, 0 at first. Counted by RabbitMQ, over all consumers and however
    /// they ended; releases count on every version, whatever they are called there.
    pub delivery_count: u32,
    /// For the acknowledgement.
    pub tag: DeliveryTag,
}

impl Delivery {
    pub(crate) fn new(queue: Queue, epoch: u64, delivery: lapin::message::Delivery) -> Self {
        let lapin::message::Delivery { delivery_tag, redelivered, properties, data, .. } = delivery;
        Self {
            queue,
            body: data,
            message_id: properties::message_id(&properties),
            trace: properties::trace(&properties),
            redelivered,
            delivery_count: properties::delivery_count(&properties),
            tag: DeliveryTag { epoch, tag: delivery_tag },
        }
    }

    /// Reads the event.
    pub fn envelope(&self) -> Result<Envelope, DecodeError> {
        Envelope::decode(&self.body)
    }
}
