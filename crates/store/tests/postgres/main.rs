//! The store against a real PostgreSQL, a database per test.

mod enrichments;
mod intake;
mod outbox;
mod outreach;
mod schema;
mod world;
