//! The collector: from a source of profiles to stored leads and `lead.created`.
//!
//! ```text
//! source ──page──► validate ──batch──► store (lead + key + outbox, one transaction) ──► outbox
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`source`] | where profiles come from: files, made-up creators |
//! | [`normalise`] | what a value means: counts, addresses, networks, countries |
//! | [`validate`] | from a raw row to a profile, or to the reason why not |
//! | [`intake`] | pages into the database, overlapped, with exact counts |
//! | [`import`], [`simulate`] | a file, made-up creators into the intake |
//! | [`http`] | `POST /v1/leads` |
//! | [`rejects`] | refused rows as a file |
//! | [`run`] | the service: HTTP ingest, outbox, reconciler |
//!
//! **Architecture invariant:** the collector knows no other service. It learns nothing of what happens to a lead later,
//! and a broken row, file or request never stops another one. While RabbitMQ is away it goes on accepting.
//!
//! To add a source, see [`source`].

pub mod config;
pub mod http;
pub mod import;
pub mod intake;
pub mod normalise;
pub mod rejects;
pub mod simulate;
pub mod source;
pub mod validate;

mod run;

pub use run::{process, run};
