//! All SQL: the pool, named transactions, one file per aggregate, the outbox.
//!
//! Queries are functions on a [`Connection`] (or on [`Db`] where sealing has to stay outside of the transaction), checked
//! at compile time against `.sqlx/`. There is no trait in front of them: PostgreSQL is the one backend.
//!
//! **Architecture invariant:** only this crate knows sqlx. It never speaks AMQP; events leave it as rows of the outbox.
//! Sealed values are made and opened outside of transactions, and each write of one locks the lead's key row, so that a
//! slow worker can't write after an erasure. Batches are sorted by key before they are written (no deadlock) and
//! deduplicated (no "row a second time").
//!
//! A row that can't be read doesn't hide the others: who reads many rows skips it, counts it and logs it once.
//!
//! To add a query, put it into its aggregate's file, run `make sqlx-prepare`, and commit `.sqlx/` with it.

mod connection;
mod db;
mod error;
mod unreadable;

pub mod analysis_claims;
pub mod api_keys;
pub mod captured;
pub mod contact_evidence;
pub mod enrichments;
pub mod intake;
pub mod jobs;
pub mod leads;
pub mod leases;
pub mod model_usage;
pub mod organisations;
pub mod outbox;
pub mod outreach;
pub mod programs;
pub mod reanalysis;
pub mod reconcile;
pub mod rejects;
pub mod runs;
pub mod schema;
pub mod sender_health;
pub mod server;
pub mod status;
pub mod suppressions;

pub use connection::Connection;
pub use db::{Db, DbConfig, Scope};
pub use error::StoreError;
