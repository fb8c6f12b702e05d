//! `leadmill up`: all services in one process.

use std::path::Path;
use std::process::ExitCode;

use super::PROGRAM;
use crate::{services::Services, settings};

/// `leadmill up`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Collector, enricher and mailer run over one set of connections; each can just as well run as a process of its own, on
other machines, in any number. /healthz, /readyz and /metrics of all of them are at `admin.listen`.
The first Ctrl-C or SIGTERM ends them when their work in progress is done, a second one at once.

Mails are captured, not sent, until `mailer.transport` is smtp.

Examples:
  leadmill up
  LEADMILL_MAILER_TRANSPORT=smtp LEADMILL_MAILER_SMTP_HOST=smtp.example.com \
    LEADMILL_MAILER_PUBLIC_URL=https://mail.example.com leadmill up")]
pub struct Args {}

/// Runs until it is told to end.
pub fn run(file: Option<&Path>, Args {}: &Args) -> anyhow::Result<ExitCode> {
    let document = settings::load(file, &[])?;
    Ok(service::run::execute(&PROGRAM, document, |document, shutdown, readiness| async move {
        match Services::start(&document, &shutdown, &readiness).await? {
            Some(services) => services.ended().await,
            None => Ok(()),
        }
    }))
}
