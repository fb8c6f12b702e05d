//! A delivery in hand, and what becomes of it.

use std::time::Duration;

use broker::{DeadLetter, Delivery, DeliveryTag};
use domain::{
    clock::{Clock as _, SystemClock},
    event::{DecodeError, Envelope, Queue, TraceContext},
    id::{LeadId, ProgramId},
};
use tracing::Span;

use crate::{
    stage::Stage,
    trace::{continue_trace, trace_through},
};

/// A delivery in hand. Its span lasts until its end, so that it covers `prepare`, `apply` and the COMMIT.
pub(super) struct Item {
    delivery: Delivery,
    /// `None` if it can't be read.
    envelope: Option<Envelope>,
    span: Span,
    alone: bool,
}

/// What `prepare` came to.
pub(super) enum Verdict<T> {
    Apply(Item, T),
    Done(Item, &'static str),
    Later(Item, Duration, String),
    /// The same later, with no attempt counted.
    InProgress(Item, Duration, String),
    Failed(Item, String),
    Dead(Item, String),
    /// Not finished before the shutdown; goes back to the queue.
    Left(Item),
}

impl Item {
    /// Reads the delivery; if that fails, says why.
    pub(super) fn new<S: Stage>(delivery: Delivery) -> (Self, Option<String>) {
        match delivery.envelope() {
            Ok(envelope) => {
                let span = tracing::info_span!(
                    "delivery",
                    otel.name = S::NAME,
                    otel.kind = "consumer",
                    stage = S::NAME,
                    queue = S::QUEUE.name(),
                    event.kind = envelope.event.kind().name(),
                    event.id = %envelope.event_id,
                    program.id = %envelope.program_id,
                    lead.id = %envelope.lead_id,
                    lead.revision = envelope.revision,
                    attempt = envelope.attempt,
                    delivery.count = delivery.delivery_count,
                );
                continue_trace(&span, &delivery.trace);
                (Self { delivery, envelope: Some(envelope), span, alone: false }, None)
            }
            Err(error) => {
                let reason = describe(&error);
                (Self { delivery, envelope: None, span: Span::none(), alone: false }, Some(reason))
            }
        }
    }

    pub(super) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(super) const fn is_alone(&self) -> bool {
        self.alone
    }

    pub(super) const fn tag(&self) -> DeliveryTag {
        self.delivery.tag
    }

    pub(super) const fn queue(&self) -> Queue {
        self.delivery.queue
    }

    pub(super) const fn envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    pub(super) const fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn attempt(&self) -> u32 {
        self.envelope.as_ref().map_or(0, |envelope| envelope.attempt)
    }

    /// Orders and tells apart leads.
    pub(super) fn lead(&self) -> Option<(ProgramId, LeadId)> {
        self.envelope.as_ref().map(|envelope| (envelope.program_id, envelope.lead_id))
    }

    /// What events and retries that come of it carry.
    pub(super) fn trace(&self) -> TraceContext {
        trace_through(&self.span, &self.delivery.trace)
    }

    pub(super) fn dead_letter(&self, reason: String) -> DeadLetter {
        let mut letter = DeadLetter::from_delivery(&self.delivery, reason, SystemClock.now());
        letter.trace = self.trace();
        letter
    }
}

/// Why a message can't be read, without anything of what is in it: serde's own words would quote it.
fn describe(error: &DecodeError) -> String {
    match error {
        DecodeError::Malformed(source) => {
            let what = match source.classify() {
                serde_json::error::Category::Eof => "it ends too early",
                serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it isn't JSON",
                serde_json::error::Category::Data => "it isn't an envelope",
            };
            format!("{error}: {what} (line {}, column {})", source.line(), source.column())
        }
        DecodeError::UnknownVersion { .. } | DecodeError::UnknownKind { .. } => error.to_string(),
    }
}
