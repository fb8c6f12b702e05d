//! The store against a real PostgreSQL, a database per test.

mod distribution;
mod enrichments;
mod holds;
mod intake;
mod limits;
mod outbox;
mod outreach;
mod recipients;
mod schema;
mod sessions;
mod sql;
mod world;
