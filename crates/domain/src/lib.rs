//! Types, events, the lead's life cycle, qualification and compliance rules.
//!
//! **Architecture invariant:** this crate does no I/O and knows no runtime, database, broker or protocol. Every value
//! that can be wrong is made by parsing, so that a function which takes it need not check it again.
//!
//! To add an event, add a variant to [`event::Event`] and [`event::EventKind`]; to add a state, add it and its legal
//! transitions in the module of the thing it belongs to.

pub mod clock;
pub mod email;
pub mod enrichment;
pub mod event;
pub mod handle;
pub mod hold;
pub mod id;
pub mod law;
pub mod lead;
pub mod legal;
pub mod outreach;
pub mod person_name;
pub mod profile_url;
pub mod program;
pub mod qualification;
pub mod reject;
pub mod smtp_reply;
pub mod submission;
pub mod suppression;
pub mod text;
