//! All of Leadmill's AMQP: topology, confirmed publisher, supervised consumer, dead letters.
//!
//! ```text
//!            Publisher ── confirmed ──► exchange `leads` ──► lead.created  ─┐
//!                 │                                     └──► lead.enriched ─┤ Consumer ──► Delivery
//!                 └─ publish_dead ───► lead.created.dead, lead.enriched.dead┘     ▲           │
//!                                             ▲                                   └── Acker ◄─┘
//!                                           Admin: depths, list, replay, drop
//! ```
//!
//! - [`Publisher`] publishes batches and tells, message by message, what RabbitMQ confirmed.
//! - [`Consumer`] hands out deliveries of one queue for as long as the process wants them: it reconnects, declares the
//!   topology and consumes again after every failure. [`Acker`] acknowledges what is committed.
//! - [`Admin`] is for people and probes: depths, dead letters, declaring and deleting the topology.
//!
//! **Architecture invariants.** This crate is the only user of lapin, and knows neither the database nor what an event
//! means: it carries bytes and says what became of them. Queues are disposable; whoever publishes keeps the message
//! until it is confirmed, whoever consumes acknowledges only what is committed. lapin's own recovery stays off: on any
//! error the connection is dropped and built anew, so there is one way back to a known state and not two.
//! Every await on RabbitMQ has a timeout.
//!
//! A process uses two connections, one to publish and one to consume: RabbitMQ blocks a *connection* that publishes
//! during a memory or disk alarm, and acknowledgements on it would be stuck as well.
//!
//! RabbitMQ 3.10 to 4.x are supported. Where they differ, the code says so: [`Delivery::delivery_count`] and
//! [`Topology`].
//!
//! To add a queue, add it to [`domain::event::Queue`]: topology, depths and dead-letter handling follow from there.

mod admin;
mod config;
mod confirm;
mod consumer;
mod dead;
mod delivery;
mod error;
mod link;
mod message;
mod prefix;
mod properties;
mod publisher;
mod server;
mod supervise;
mod topology;

pub use admin::{Admin, Depth, QueueDepth};
pub use config::BrokerConfig;
pub use consumer::{Acker, Consumer, LinkStatus};
pub use dead::{DeadInfo, DeadSelector, Replayed};
pub use delivery::{Delivery, DeliveryTag};
pub use error::{BrokerError, PublishFailure};
pub use message::DeadLetter;
pub use prefix::{Acks, PrefixTracker};
pub use publisher::Publisher;
pub use topology::Topology;
