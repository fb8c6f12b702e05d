//! `lead.enriched` → decide → plan → claim → send → settle; and the unsubscribe endpoint.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | the stage: decides about each enriched lead, records why, plans the mail |
//! | [`sender`] | what is planned, under lease, to the transport; group commits; polling for what is due |
//! | [`message`] | the complete mail: both parts, every header, nothing of a stranger's that works |
//! | [`transport`] | SMTP in phases, and what each reply or silence means |
//! | [`unsubscribe`] | the pages behind the link in every mail |
//! | [`config`] | `[mailer]` |
//! | [`run`] | all of it together |
//!
//! **Architecture invariants.** A mail's body goes out only after an acknowledged commit that says so, and what is unknown
//! about it is never guessed: nobody gets the same mail twice. Nothing is sent that `domain::qualification` doesn't let
//! through, asked when the mail is planned and again when it is claimed. Only this crate knows lettre. It never writes SQL
//! and publishes nothing itself: events are rows of the outbox.
//!
//! To add a transport, add a variant to [`sender::Transport`] and [`sender::Slot`] and a file beside `sender/smtp.rs` that
//! takes a job to its settlement. To add a template, see [`message`].

pub mod config;
pub mod message;
pub mod plan;
mod run;
pub mod sender;
pub mod transport;
pub mod unsubscribe;

pub use self::run::{process, run};
