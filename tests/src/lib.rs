//! The harness of the end-to-end tests: it starts the real binaries beside real servers and looks at them from outside.
//!
//! | module | what it is for |
//! |---|---|
//! | [`stack`] | what a scenario runs on: a database, a queue namespace, a master key, a program |
//! | [`process`] | a binary that runs: its log, its ports, its end, gentle or not |
//! | [`cli`] | the operator's command line |
//! | [`creators`] | what goes in: made-up creators whose every field is known |
//! | [`mail`] | what comes out: a real SMTP server, and what a lawful mail has |
//! | [`pooler`] | a pooler between the services and PostgreSQL |
//! | [`audit`] | what must hold at the end of every scenario |
//! | [`faults`] | breaking things, and the verdict over what came of it |
//! | [`dump`] | everything that the database holds, as text, and a search through it |
//! | [`otlp`] | a stand-in for a collector of traces |
//! | [`truth`] | what the database says, opened with the keys |
//! | [`wait`] | waiting for a condition, with a deadline |
//!
//! **Architecture invariant:** what the programs do is never reimplemented here. The harness may use the crates below the
//! services to prepare and to look, but whatever a scenario is about is done by a binary.
//!
//! To add a scenario, write a file into `tests/tests/`, named for what it shows, start a [`stack::Stack`], and end with
//! [`audit::audit`].

pub mod audit;
pub mod cli;
pub mod creators;
pub mod dump;
pub mod faults;
pub mod mail;
pub mod otlp;
pub mod pooler;
pub mod process;
pub mod stack;
pub mod truth;
pub mod wait;
