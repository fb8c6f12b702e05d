//! The mailer as a process of its own.

use std::process::ExitCode;

use service::run::{Program, run};

fn main() -> ExitCode {
    let program = Program {
        name: "mailer",
        version: env!("CARGO_PKG_VERSION"),
        about: "Decides about enriched leads, sends or captures their mails, and serves the unsubscribe pages.",
        defaults: &[mailer::config::DEFAULTS],
        admin: Some("mailer.admin_listen"),
    };
    run(&program, mailer::process)
}
