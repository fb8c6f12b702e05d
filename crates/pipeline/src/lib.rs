//! What joins store and broker: the write-through outbox, the runner of stages, jobs by the clock, the reconciler.
//!
//! | module | what it is for |
//! |---|---|
//! | [`outbox`] | from a committed row to a confirmed message; the sweeper |
//! | [`stage`] | what a service implements: `prepare`, `apply` |
//! | [`runner`] | runs a stage: batches, acknowledgements, retries, dead letters |
//! | [`jobs`] | named work by the clock or on request, one replica at a time |
//! | [`reconciler`] | emits again what lost its message |
//! | [`Batcher`] | many concurrent reads of one key become a few of many |
//! | [`trace`] | the W3C trace context of a span, out and in |
//! | [`health`] | which server is missing, for a readiness probe |
//!
//! **Architecture invariants.** Services publish only through here, so an event can't get past the outbox. This crate
//! knows neither SQL nor AMQP: it calls `store` and `broker`, which never see each other. It knows nothing of what an
//! event means: that is the stages'. Nothing of importance is held in memory: whatever a process loses, PostgreSQL still
//! has, and whatever is told twice changes nothing the second time.
//!
//! To add a job, see [`jobs`]. To add a stage, add its queue to [`domain::event::Queue`], implement [`Stage`] in its service and hand it to a
//! [`StageRunner`].

mod batcher;
mod error;
pub mod health;
pub mod jobs;
mod metrics;
pub mod outbox;
pub mod reconciler;
pub mod runner;
pub mod stage;
pub mod trace;

pub use batcher::Batcher;
pub use health::{Health, Part};
pub use jobs::Job;
pub use outbox::{Outbox, OutboxConfig};
pub use reconciler::ReconcilerConfig;
pub use runner::{RunnerConfig, StageRunner};
pub use stage::{Effect, Outcome, Stage};
pub use trace::{continue_trace, current_trace};
