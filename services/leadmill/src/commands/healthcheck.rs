//! `leadmill healthcheck`: is the `leadmill up` of the same configuration ready?

use service::config::Document;

use super::PROGRAM;

/// `leadmill healthcheck`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks /readyz at `admin.listen`. Exit status: 0 ready, 1 not ready or not there; what is missing goes to standard error.
The services have the same as an option: `collector --healthcheck`.")]
pub struct Args {}

/// Does what was asked for.
pub fn run(document: &Document) -> anyhow::Result<()> {
    service::run::check_health(&PROGRAM, document)
}
