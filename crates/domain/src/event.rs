//! Events v1: the facts that travel between the stages.
//!
//! An event is small, versioned and free of personal data: ids and numbers only. Whoever needs more reads it from
//! PostgreSQL. The wire form is one JSON object, see [`Envelope`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::{EventId, LeadId, OutreachId, ProgramId};

/// The version of the wire form that this program writes, and the newest it reads.
pub const SCHEMA_VERSION: u16 = 1;

/// A work queue: one per stage that consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Leads to enrich; the enricher's.
    LeadCreated,
    /// Enriched leads to decide about; the mailer's.
    LeadEnriched,
}

impl Queue {
    /// Every work queue.
    pub const ALL: [Self; 2] = [Self::LeadCreated, Self::LeadEnriched];

    /// The queue's name, without a namespace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeadCreated => "lead.created",
            Self::LeadEnriched => "lead.enriched",
        }
    }

    /// The name of its dead-letter queue, without a namespace.
    pub const fn dead_name(self) -> &'static str {
        match self {
            Self::LeadCreated => "lead.created.dead",
            Self::LeadEnriched => "lead.enriched.dead",
        }
    }

    /// The routing keys that are bound to it: a changed lead is enriched again.
    pub const fn bindings(self) -> &'static [EventKind] {
        match self {
            Self::LeadCreated => &[EventKind::LeadCreated, EventKind::LeadUpdated],
            Self::LeadEnriched => &[EventKind::LeadEnriched],
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Queue {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|queue| queue.name() == text)
            .ok_or_else(|| UnknownName { what: "queue", text: text.to_owned() })
    }
}

/// A name that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no known {what}")]
pub struct UnknownName {
    /// What kind of name was expected.
    pub what: &'static str,
    /// What was found.
    pub text: String,
}

/// What an event tells; its name is its routing key on the exchange `leads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A lead was accepted.
    #[serde(rename = "lead.created")]
    LeadCreated,
    /// A lead changed materially.
    #[serde(rename = "lead.updated")]
    LeadUpdated,
    /// A lead was enriched.
    #[serde(rename = "lead.enriched")]
    LeadEnriched,
    /// A mail to a lead was taken by a mail server.
    #[serde(rename = "lead.contacted")]
    LeadContacted,
    /// A recipient objected to mail.
    #[serde(rename = "lead.unsubscribed")]
    LeadUnsubscribed,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::LeadCreated, Self::LeadUpdated, Self::LeadEnriched, Self::LeadContacted, Self::LeadUnsubscribed];

    /// The routing key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeadCreated => "lead.created",
            Self::LeadUpdated => "lead.updated",
            Self::LeadEnriched => "lead.enriched",
            Self::LeadContacted => "lead.contacted",
            Self::LeadUnsubscribed => "lead.unsubscribed",
        }
    }

    /// Whether one of our own queues is bound to it; if not, nobody needs to be listening.
    pub fn has_queue(self) -> bool {
        Queue::ALL.iter().any(|queue| queue.bindings().contains(&self))
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownName { what: "event type", text: text.to_owned() })
    }
}

/// What an event says beyond its envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "payload")]
pub enum Event {
    /// A lead was accepted and waits for enrichment.
    #[serde(rename = "lead.created")]
    LeadCreated {},
    /// A lead changed materially and waits for enrichment again.
    #[serde(rename = "lead.updated")]
    LeadUpdated {},
    /// A lead was enriched and waits for a decision.
    #[serde(rename = "lead.enriched")]
    LeadEnriched {
        /// Counts the lead's enrichments, from 1.
        enrichment_version: i32,
        /// 0 to 100.
        score: i16,
    },
    /// A mail server took a mail.
    #[serde(rename = "lead.contacted")]
    LeadContacted {
        /// The outreach row.
        outreach_id: OutreachId,
        /// The campaign's name.
        campaign: String,
        /// The step within the campaign, from 1.
        step: i16,
    },
    /// A recipient objected.
    #[serde(rename = "lead.unsubscribed")]
    LeadUnsubscribed {},
}

impl Event {
    /// The event's kind.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::LeadCreated {} => EventKind::LeadCreated,
            Self::LeadUpdated {} => EventKind::LeadUpdated,
            Self::LeadEnriched { .. } => EventKind::LeadEnriched,
            Self::LeadContacted { .. } => EventKind::LeadContacted,
            Self::LeadUnsubscribed {} => EventKind::LeadUnsubscribed,
        }
    }
}

/// An event with everything that a consumer must know about it.
///
/// On the wire, one JSON object:
/// `{"event_id", "schema_version", "program_id", "lead_id", "revision", "occurred_at", "attempt", "type", "payload"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Stays the same through retries, dead letters and replays.
    pub event_id: EventId,
    /// The version of this form.
    pub schema_version: u16,
    /// The program (tenant).
    pub program_id: ProgramId,
    /// The lead it is about.
    pub lead_id: LeadId,
    /// The lead's revision that the event tells of, from 1.
    pub revision: i32,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub occurred_at: OffsetDateTime,
    /// How often a handler has asked for it to be tried again: 0 at first.
    pub attempt: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// An event that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program.
    #[error("the event has schema version {found}, this program reads up to {SCHEMA_VERSION}")]
    UnknownVersion {
        /// The version found.
        found: u64,
    },
    /// Of a kind that this program doesn't know.
    #[error("the event has an unknown type `{found}`")]
    UnknownKind {
        /// The type found, cut to 64 characters.
        found: String,
    },
    /// Not an event.
    #[error("the event can't be decoded")]
    Malformed(#[source] serde_json::Error),
}

impl Envelope {
    /// A first telling of `event`.
    pub fn new(
        program_id: ProgramId,
        lead_id: LeadId,
        revision: i32,
        occurred_at: OffsetDateTime,
        event: Event,
    ) -> Self {
        Self {
            event_id: EventId::generate(),
            schema_version: SCHEMA_VERSION,
            program_id,
            lead_id,
            revision,
            occurred_at,
            attempt: 0,
            event,
        }
    }

    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope has string keys and finite numbers only")
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Head<'a> {
            schema_version: u64,
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        let head: Head<'_> = serde_json::from_slice(bytes).map_err(DecodeError::Malformed)?;
        if head.schema_version == 0 || head.schema_version > u64::from(SCHEMA_VERSION) {
            return Err(DecodeError::UnknownVersion { found: head.schema_version });
        }
        if head.kind.parse::<EventKind>().is_err() {
            return Err(DecodeError::UnknownKind { found: head.kind.chars().take(64).collect() });
        }
        serde_json::from_slice(bytes).map_err(DecodeError::Malformed)
    }
}

/// The W3C trace context (<https://www.w3.org/TR/trace-context/>) that travels with an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: Option<String>,
    /// The `tracestate` header.
    pub tracestate: Option<String>,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// To the exchange, under the event's kind: everybody bound to it gets a copy.
    Exchange,
    /// To one queue alone: a retry or a replay, which other queues must not see again.
    Queue(Queue),
}

/// An event on its way out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The event.
    pub envelope: Envelope,
    /// Where it goes.
    pub route: Route,
    /// The trace that it belongs to.
    pub trace: TraceContext,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope::new(
            ProgramId::generate(),
            LeadId::generate(),
            3,
            OffsetDateTime::UNIX_EPOCH,
            Event::LeadEnriched { enrichment_version: 2, score: 71 },
        )
    }

    #[test]
    fn an_envelope_survives_the_wire() {
        let sent = envelope();
        assert_eq!(Envelope::decode(&sent.encode()).unwrap(), sent);
    }

    #[test]
    fn a_newer_version_is_named_and_refused() {
        let mut json: serde_json::Value = serde_json::from_slice(&envelope().encode()).unwrap();
        json["schema_version"] = 9.into();
        let error = Envelope::decode(json.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::UnknownVersion { found: 9 }));
    }

    #[test]
    fn an_unknown_type_is_named_and_refused() {
        let mut json: serde_json::Value = serde_json::from_slice(&envelope().encode()).unwrap();
        json["type"] = "lead.teleported".into();
        let error = Envelope::decode(json.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "the event has an unknown type `lead.teleported`");
    }

    #[test]
    fn noise_is_refused() {
        for noise in [&b"\xff\xfe"[..], b"", b"[]", b"{}", b"{\"schema_version\":1,\"type\":\"lead.created\"}"] {
            assert!(matches!(Envelope::decode(noise), Err(DecodeError::Malformed(_))));
        }
    }

    #[test]
    fn every_kind_and_queue_is_found_by_its_name() {
        for kind in EventKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for queue in Queue::ALL {
            assert_eq!(queue.name().parse(), Ok(queue));
        }
    }
}
