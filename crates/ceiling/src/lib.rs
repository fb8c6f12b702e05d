//! What this machine can do bare: the servers behind the pipeline, driven with nothing of Leadmill in front.
//!
//! | module | what it is for |
//! |---|---|
//! | [`bare`] | rows, messages and mails as the pipeline makes them per lead, in batches and without logic |
//! | [`counters`] | what the server counts of a database: transactions, rows, write-ahead log |
//! | [`fill`] | tables as big as those of an installation that has run for years |
//! | [`postgres`] | a database under measurement |
//! | [`truth`] | what the tables say of a measured run: counts, instants, latencies |
//!
//! **Architecture invariant:** this is for `leadmill bench` alone, and works only in a database and a queue namespace that
//! the benchmark made for itself. It is the one crate besides `store` and `broker` that speaks SQL and AMQP, because what
//! those two add is just what is to be left out here. No service uses it.
//!
//! A migration that changes what is written per lead, or a change of the messages, has to be followed in [`bare`].
//! `leadmill bench` shows rows and messages per lead of both sides, so that one sees when it wasn't.

pub mod bare;
pub mod counters;
pub mod fill;
pub mod postgres;
pub mod truth;

mod error;

pub use self::error::CeilingError;
