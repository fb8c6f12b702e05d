//! What a service gets of its process.

use std::sync::Arc;

use broker::{BrokerConfig, Publisher};
use domain::clock::Clock;
use pipeline::{Health, Outbox};
use service::{readiness::Readiness, shutdown::Shutdown};
use store::{Db, programs::Directory};

/// What a service needs of its process; several services can share one.
#[derive(Clone)]
pub struct Context {
    /// The database, its schema checked.
    pub db: Db,
    /// Programs and their keys.
    pub programs: Directory,
    /// How to consume.
    pub broker: BrokerConfig,
    /// For dead letters.
    pub publisher: Publisher,
    /// For events.
    pub outbox: Outbox,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Is told of PostgreSQL and RabbitMQ.
    pub health: Health,
    /// Where a service registers checks of its own.
    pub readiness: Readiness,
    /// Ends the work.
    pub shutdown: Shutdown,
}
