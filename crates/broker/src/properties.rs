//! AMQP properties and headers: what stands beside a message's body.
//!
//! | where | what |
//! |---|---|
//! | `message_id` | the event id |
//! | `type` | the event's kind |
//! | `timestamp` | when it happened |
//! | `app_id`, `content_type`, `delivery_mode` | `leadmill`, `application/json`, 2 (persistent) |
//! | `traceparent`, `tracestate` | the W3C trace context |
//! | `x-leadmill-attempt` | how often a handler has asked for it to be tried again |
//! | `x-leadmill-reason`, `-died-at`, `-first-queue` | on a dead letter: why, when, and where it died |

use domain::event::TraceContext;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use time::OffsetDateTime;

/// How often a handler has asked for it to be tried again.
pub(crate) const ATTEMPT: &str = "x-leadmill-attempt";
/// Why it is a dead letter.
pub(crate) const REASON: &str = "x-leadmill-reason";
/// When it became one, in milliseconds since 1970.
pub(crate) const DIED_AT: &str = "x-leadmill-died-at";
/// The work queue it died in, without its namespace.
pub(crate) const FIRST_QUEUE: &str = "x-leadmill-first-queue";

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Longer values of a text header are cut, or not passed on: all headers must fit into one frame. The W3C asks that at
/// least 512 characters of `tracestate` get through.
pub(crate) const MAX_TEXT: usize = 1024;

/// Properties that every message of ours has.
pub(crate) fn base(trace: &TraceContext, mut headers: FieldTable) -> BasicProperties {
    for (name, value) in [(TRACEPARENT, &trace.traceparent), (TRACESTATE, &trace.tracestate)] {
        if let Some(value) = value.as_ref().filter(|value| value.len() <= MAX_TEXT) {
            headers.insert(name.into(), text(value));
        }
    }
    BasicProperties::default()
        .with_app_id("leadmill".into())
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_headers(headers)
}

/// A text header.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(cut(value).into())
}

/// A whole number as a header.
pub(crate) fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

/// The trace context that came with a message.
pub(crate) fn trace(properties: &BasicProperties) -> TraceContext {
    let read = |name| text_header(properties, name).filter(|value| value.len() <= MAX_TEXT);
    TraceContext { traceparent: read(TRACEPARENT), tracestate: read(TRACESTATE) }
}

/// A message's id, if it has one.
pub(crate) fn message_id(properties: &BasicProperties) -> Option<String> {
    properties.message_id().as_ref().map(ShortString::to_string)
}

/// How often the message was delivered before.
///
/// Up to RabbitMQ 4.2, `x-delivery-count` counts every return to the queue. From 4.3 it leaves out `basic.nack`, and
/// `x-acquired-count` counts what it used to count. Both are missing on the first delivery.
pub(crate) fn delivery_count(properties: &BasicProperties) -> u32 {
    ["x-delivery-count", "x-acquired-count"]
        .into_iter()
        .filter_map(|name| number_header(properties, name))
        .map(|count| u32::try_from(count.max(0)).unwrap_or(u32::MAX))
        .max()
        .unwrap_or(0)
}

/// A text header's value.
pub(crate) fn text_header(properties: &BasicProperties, name: &str) -> Option<String> {
    as_text(header(properties, name)?)
}

/// A whole number's value.
pub(crate) fn number_header(properties: &BasicProperties, name: &str) -> Option<i64> {
    as_number(header(properties, name)?)
}

/// When and why RabbitMQ itself dead-lettered the message, from the newest entry of `x-death`.
pub(crate) fn death(properties: &BasicProperties) -> Option<(String, Option<OffsetDateTime>)> {
    let AMQPValue::FieldArray(deaths) = header(properties, "x-death")? else { return None };
    let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
    let reason = as_text(newest.inner().get("reason")?)?;
    let time = match newest.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).ok(),
        _ => None,
    };
    Some((reason, time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())))
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn as_number(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(n) => Some(n.into()),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => Some(n.into()),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => Some(n.into()),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::LongLongInt(n) => Some(n),
        _ => None,
    }
}

/// The longest start of a text that may stand in a header.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn the_trace_context_survives_the_headers() {
        let trace = TraceContext {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: Some("vendor=value".to_owned()),
        };
        assert_eq!(super::trace(&base(&trace, FieldTable::default())), trace);
    }

    #[test]
    fn a_monstrous_trace_state_isnt_passed_on() {
        let trace = TraceContext { traceparent: None, tracestate: Some("x".repeat(MAX_TEXT + 1)) };
        assert_eq!(super::trace(&base(&trace, FieldTable::default())), TraceContext::default());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let AMQPValue::LongString(value) = text(&"ä".repeat(MAX_TEXT)) else { panic!("not a string") };
        assert_eq!(value.to_string(), "ä".repeat(MAX_TEXT / 2));
    }

    #[test]
    fn deliveries_are_counted_on_every_version() {
        assert_eq!(delivery_count(&BasicProperties::default()), 0);
        assert_eq!(delivery_count(&with(&[("x-delivery-count", number(2))])), 2);
        let newest = with(&[("x-delivery-count", AMQPValue::LongUInt(1)), ("x-acquired-count", AMQPValue::LongInt(4))]);
        assert_eq!(delivery_count(&newest), 4);
        assert_eq!(delivery_count(&with(&[("x-delivery-count", text("junk"))])), 0);
    }
}
