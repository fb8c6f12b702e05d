//! The collector as a process of its own.

use std::process::ExitCode;

use service::run::{Program, run};

fn main() -> ExitCode {
    let program = Program {
        name: "collector",
        version: env!("CARGO_PKG_VERSION"),
        about: "Takes leads in over HTTP, stores them, and publishes what happened.",
        defaults: &[collector::config::DEFAULTS],
        admin: Some("collector.admin_listen"),
    };
    run(&program, collector::process)
}
