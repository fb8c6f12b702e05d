//! What the tests against a real RabbitMQ share.

use std::time::Duration;

use broker::{BrokerConfig, PublishFailure};
use domain::{
    event::{Envelope, Event, Outgoing, Route, TraceContext},
    id::{LeadId, ProgramId},
};
use test_support::amqp::AmqpNamespace;
use time::OffsetDateTime;

/// Short enough for a test that runs into it, long enough for a busy machine.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

pub fn config(namespace: &AmqpNamespace) -> BrokerConfig {
    BrokerConfig {
        confirm_timeout: CONFIRM_TIMEOUT,
        ..BrokerConfig::new(namespace.url()).in_namespace(namespace.prefix())
    }
}

pub fn outgoing(event: Event, route: Route) -> Outgoing {
    let envelope = Envelope::new(ProgramId::generate(), LeadId::generate(), 1, OffsetDateTime::UNIX_EPOCH, event);
    Outgoing { envelope, route, trace: TraceContext::default() }
}

/// `count` events `lead.created`, to the exchange.
pub fn created(count: usize) -> Vec<Outgoing> {
    (0..count).map(|_| outgoing(Event::LeadCreated {}, Route::Exchange)).collect()
}

pub fn all_ok(results: &[Result<(), PublishFailure>]) -> bool {
    results.iter().all(Result::is_ok)
}

/// Awaits something that must happen soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens within 20 seconds")
}
