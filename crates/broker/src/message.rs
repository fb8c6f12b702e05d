//! Messages on their way out.

use domain::event::{DecodeError, Envelope, Outgoing, Queue, Route, TraceContext};
use lapin::{
    BasicProperties,
    types::{FieldTable, ShortString},
};
use time::OffsetDateTime;

use crate::{
    delivery::Delivery,
    properties,
    topology::{Topology, short},
};

/// A delivery that can't be handled, on its way to the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The work queue that it came from.
    pub queue: Queue,
    /// The body as it came, whatever it is.
    pub body: Vec<u8>,
    /// Its message id, if it had one: the event id.
    pub message_id: Option<String>,
    /// Why it can't be handled. Ids only, nothing personal; cut to 1,024 bytes.
    pub reason: String,
    /// How often a handler had asked for it to be tried again.
    pub attempt: u32,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// When it was given up.
    pub died_at: OffsetDateTime,
}

impl DeadLetter {
    /// The dead letter that a delivery becomes.
    pub fn from_delivery(delivery: &Delivery, reason: impl Into<String>, died_at: OffsetDateTime) -> Self {
        Self {
            queue: delivery.queue,
            body: delivery.body.clone(),
            message_id: delivery.message_id.clone(),
            reason: reason.into(),
            attempt: delivery.envelope().map_or(0, |envelope| envelope.attempt),
            trace: delivery.trace.clone(),
            died_at,
        }
    }
}

/// A message that is ready to be published.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Whether some queue has to take it.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn event(outgoing: &Outgoing, topology: &Topology) -> Self {
        let kind = outgoing.envelope.event.kind();
        let (exchange, routing_key, mandatory) = match outgoing.route {
            Route::Exchange => (short(&topology.exchange()), kind.name().into(), kind.has_queue()),
            Route::Queue(queue) => (ShortString::default(), short(&topology.queue(queue)), true),
        };
        Self {
            exchange,
            routing_key,
            mandatory,
            properties: event_properties(&outgoing.envelope, &outgoing.trace),
            body: outgoing.envelope.encode(),
        }
    }

    pub(crate) fn dead(letter: &DeadLetter, topology: &Topology) -> Self {
        let mut headers = FieldTable::default();
        headers
            .insert(properties::REASON.into(), properties::text(&letter.reason))
            .insert(properties::ATTEMPT.into(), properties::number(letter.attempt.into()))
            .insert(properties::DIED_AT.into(), properties::number(milliseconds(letter.died_at)))
            .insert(properties::FIRST_QUEUE.into(), properties::text(letter.queue.name()));
        let mut properties = properties::base(&letter.trace, headers);
        if let Ok(envelope) = Envelope::decode(&letter.body) {
            properties = properties.with_type(envelope.event.kind().name().into());
        }
        Self {
            exchange: ShortString::default(),
            routing_key: short(&topology.dead_queue(letter.queue)),
            mandatory: true,
            properties: with_id(properties, letter.message_id.as_deref()),
            body: letter.body.clone(),
        }
    }

    /// A dead letter on its way back to its work queue, as if it had never been tried: under the same event id, with
    /// the attempt reset. A body that can't be read goes back as it is; perhaps a newer program reads it.
    pub(crate) fn replay(
        body: &[u8],
        message_id: Option<&str>,
        trace: &TraceContext,
        queue: Queue,
        topology: &Topology,
    ) -> Self {
        let decoded: Result<Envelope, DecodeError> = Envelope::decode(body);
        let (properties, body) = match decoded {
            Ok(mut envelope) => {
                envelope.attempt = 0;
                (event_properties(&envelope, trace), envelope.encode())
            }
            Err(_) => (with_id(properties::base(trace, FieldTable::default()), message_id), body.to_vec()),
        };
        Self {
            exchange: ShortString::default(),
            routing_key: short(&topology.queue(queue)),
            mandatory: true,
            properties,
            body,
        }
    }
}

fn event_properties(envelope: &Envelope, trace: &TraceContext) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(properties::ATTEMPT.into(), properties::number(envelope.attempt.into()));
    let properties = properties::base(trace, headers)
        .with_message_id(short(&envelope.event_id.to_string()))
        .with_type(envelope.event.kind().name().into());
    // AMQP's timestamps begin with 1970.
    match u64::try_from(envelope.occurred_at.unix_timestamp()) {
        Ok(seconds) => properties.with_timestamp(seconds),
        Err(_) => properties,
    }
}

/// Adds a message id. A foreign one that is too long for AMQP is left out; the body holds the event id.
fn with_id(properties: BasicProperties, message_id: Option<&str>) -> BasicProperties {
    match message_id.map(ShortString::try_new) {
        Some(Ok(id)) => properties.with_message_id(id),
        _ => properties,
    }
}

fn milliseconds(instant: OffsetDateTime) -> i64 {
    i64::try_from(instant.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
