//! The store against a real PostgreSQL, a database per test.

mod analysis_claims;
mod buffer_counts;
mod buffers;
mod distribution;
mod enrichments;
mod holds;
mod intake;
mod law;
mod limits;
mod mails;
mod migrations;
mod organisations;
mod outbox;
mod outreach;
mod reanalysis;
mod recipients;
mod reconcile;
mod schema;
mod sender_health;
mod sessions;
mod sql;
mod suppressions;
mod unreadable;
mod world;
