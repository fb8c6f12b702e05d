//! The trace context of a span, as it travels with an event, and back: <https://www.w3.org/TR/trace-context/>.
//!
//! One trace shows a lead's way through all services, because each event carries the context of the span that made it
//! and each delivery's span is a child of it. What comes in from outside and doesn't parse is ignored: the trace then
//! begins anew. Where nothing records traces, the incoming context is passed on as it came.

use std::str::FromStr;

use domain::event::TraceContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The context of the current span; empty when nothing is being traced.
pub fn current_trace() -> TraceContext {
    trace_of(&Span::current())
}

/// The context of `span`; empty when it isn't being traced.
pub fn trace_of(span: &Span) -> TraceContext {
    let context = span.context();
    let span = context.span();
    encode(span.span_context())
}

/// Makes `span` a child of the span that `trace` describes. Has to happen before the span is entered.
pub fn continue_trace(span: &Span, trace: &TraceContext) {
    if let Some(parent) = decode(trace) {
        // Fails where traces aren't recorded or the span has begun: then there is no trace to join.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
}

/// The context of `span`, or, where nothing is being traced, the one that it would have continued.
pub(crate) fn trace_through(span: &Span, incoming: &TraceContext) -> TraceContext {
    let own = trace_of(span);
    if own.traceparent.is_some() { own } else { incoming.clone() }
}

fn encode(context: &SpanContext) -> TraceContext {
    if !context.is_valid() {
        return TraceContext::default();
    }
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    let state = context.trace_state().header();
    TraceContext {
        traceparent: Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())),
        tracestate: (!state.is_empty()).then_some(state),
    }
}

fn decode(trace: &TraceContext) -> Option<SpanContext> {
    let mut fields = trace.traceparent.as_deref()?.trim().split('-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = TraceId::from_hex(hex(fields.next()?, 32)?).ok()?;
    let span_id = SpanId::from_hex(hex(fields.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(fields.next()?, 2)?, 16).ok()?;
    // Version 00 has exactly four fields, later ones may add some, and ff is none.
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let state = trace.tracestate.as_deref().and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let context = SpanContext::new(trace_id, span_id, TraceFlags::new(flags) & TraceFlags::SAMPLED, true, state);
    context.is_valid().then_some(context)
}

fn hex(field: &str, length: usize) -> Option<&str> {
    let valid = field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(traceparent: &str, tracestate: Option<&str>) -> TraceContext {
        TraceContext { traceparent: Some(traceparent.to_owned()), tracestate: tracestate.map(str::to_owned) }
    }

    #[test]
    fn a_context_survives_the_way_there_and_back() {
        let sent = trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("vendor=value"));
        assert_eq!(encode(&decode(&sent).unwrap()), sent);
    }

    #[test]
    fn what_is_no_context_is_ignored() {
        for noise in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-äaf7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(decode(&trace(noise, None)), None, "{noise:?}");
        }
    }

    #[test]
    fn a_later_version_with_more_fields_is_read() {
        assert!(decode(&trace("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", None)).is_some());
    }

    #[test]
    fn a_broken_trace_state_doesnt_cost_the_trace() {
        let context = decode(&trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some("no value")));
        assert_eq!(encode(&context.unwrap()).tracestate, None);
    }

    #[test]
    fn where_nothing_is_traced_the_incoming_context_is_passed_on() {
        let incoming = trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        assert_eq!(trace_through(&Span::none(), &incoming), incoming);
        assert_eq!(current_trace(), TraceContext::default());
    }
}
