//! The W3C trace context of the current span, as text to be carried along in messages, and back.
//!
//! <https://www.w3.org/TR/trace-context/>: `traceparent` is version, trace id, parent span id and flags; `tracestate` is a
//! list of vendors' own additions. Both come from outside, so what doesn't parse is ignored: a trace then begins anew.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// `(traceparent, tracestate)` of the current span; both `None` when nothing is being traced.
pub fn current_trace() -> (Option<String>, Option<String>) {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    let mut take = |name| carrier.remove(name).filter(|value: &String| !value.is_empty());
    (take(TRACEPARENT), take(TRACESTATE))
}

/// Makes `span` a child of the span that a [`current_trace`] described. Has to happen before the span is entered.
pub fn set_parent_from(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let mut carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    carrier.extend(tracestate.map(|state| (TRACESTATE.to_owned(), state.to_owned())));
    // Fails when traces aren't exported, or when the span has begun: then there is no trace to join, and no harm in it.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}
