//! The enricher as a process of its own.

use std::process::ExitCode;

use service::run::{Program, run};

fn main() -> ExitCode {
    let program = Program {
        name: "enricher",
        version: env!("CARGO_PKG_VERSION"),
        about: "Turns collected leads into enriched ones: niche, score, notes, message, compliance, confidence.",
        defaults: &[enricher::config::DEFAULTS],
        admin: Some("enricher.admin_listen"),
    };
    run(&program, enricher::process)
}
