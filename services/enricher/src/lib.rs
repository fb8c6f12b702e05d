//! The enricher: turns collected leads into enriched ones.
//!
//! ```text
//!  lead.created ─► read the lead ─► Analyst ─► seal ─► write, guarded by the revision ─► lead.enriched
//!                                     │
//!                       model ── fails, or can't be believed ──► local
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`analyst`] | who turns a lead into an enrichment; which analyst has the last word |
//! | [`local`] | the built-in analyser: a lexicon and stated features; the default and the fallback |
//! | [`model`] | the client of a chat model: asking, and reading strictly |
//! | [`wording`] | what a model may say in a mail: slots that our sentences carry, and, where allowed, checked sentences |
//! | [`stage`] | the pipeline's stage around an analyst |
//! | [`config`] | the section `[enricher]` and its commented defaults |
//!
//! **Architecture invariants.** An analyst never fails a lead: a model that is away, slow, wrong or out of money means the
//! built-in analyser, and the lead says so. What a profile itself objects to can't be overruled by a model. No e-mail
//! address leaves the house. This crate knows nothing of mail, of how leads are collected, or of whether one is written to.
//!
//! To add an analyst, add a variant to [`analyst::Analyst`] and its choice to [`config::ProviderChoice`].

mod alarm;
pub mod analyst;
mod claims;
pub mod config;
pub mod local;
pub mod model;
mod run;
pub mod stage;
pub mod wording;

pub use self::{
    alarm::RefusalAlarm,
    run::{process, run},
};
