//! Breaking things: services that are killed and started again, networks that misbehave, servers that go away, and the
//! verdict over what a mail server got meanwhile.
//!
//! ```text
//!   Feed ──HTTP──► collector ─┐                    ┌─► Mailbox (a scriptable SMTP server)
//!                  enricher  ─┼─ Network: proxies ─┤
//!                  mailer    ─┘                    └─► PostgreSQL, RabbitMQ: the machine's, or Servers of one's own
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`world`] | all of it together: leads in, faults meanwhile, the verdict at the end |
//! | [`service`] | a binary that is started again whenever it ends |
//! | [`network`] | the way of one process to its servers |
//! | [`feed`] | leads that go in, however often the collector has to be asked |
//! | [`clock`] | clocks that are wrong, or set while processes run by them |
//! | [`gate`] | holds transactions at a chosen moment, to kill whoever waits there |
//! | [`history`] | every state that a mail was ever in |
//! | [`pages`] | people who object |
//! | [`servers`] | a PostgreSQL and a RabbitMQ that may be stopped |
//! | [`fault`] | faults by chance |
//! | [`limits`] | how many mails were begun in each window of a limit |
//! | [`mood`] | what a mail server in a bad mood does |
//! | [`verdict`] | lost, doubled, uncertain, stranded: counted by the mail server's own record |
//!
//! To add a fault, add it to [`fault`] if it can happen at any time, else write a scenario into `tests/tests/faults/`.

pub mod clock;
pub mod fault;
pub mod feed;
pub mod gate;
pub mod history;
pub mod limits;
pub mod mood;
pub mod network;
pub mod pages;
pub mod servers;
pub mod service;
pub mod verdict;
pub mod world;
