//! How a process comes to its database, its outbox and its broker: opened from the configuration in the right order,
//! shared by whatever services it runs, and closed so that the last events still go out.
//!
//! | module | what it is for |
//! |---|---|
//! | [`settings`] | what the sections of the configuration become: vault, database, broker, reconciler |
//! | [`jobs`] | every job of the installation |
//! | [`process`] | opening and closing what the services of one process share |
//! | [`context`] | what one service gets of it |
//! | [`health`] | the readiness checks of PostgreSQL and RabbitMQ |
//!
//! **Architecture invariant:** this is the one crate that joins [`service`], which knows nothing of leads, with the
//! pipeline, which knows nothing of configuration files and probes. It decides nothing about leads.
//!
//! To extend it: a job goes into [`jobs::catalogue`]; a part that every service needs goes into [`Context`]; what only one of them needs, it opens itself.

pub mod context;
pub mod health;
pub mod jobs;
pub mod process;
pub mod settings;

pub use self::{
    context::Context,
    process::{Process, run},
};

/// A lead is many small allocations, handed from thread to thread, which costs the system's allocator a quarter of the time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
