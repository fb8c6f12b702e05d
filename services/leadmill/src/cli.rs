//! The command line. The texts here are what `--help` teaches.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    bench, dead, demo, doctor, healthcheck, import, jobs, keys, law, mail, migrate, organisation, program, rejects,
    simulate, status, suppress, suppressions, up,
};

/// Finds creators who could promote an affiliate program, scores them, and writes to the good ones: lawfully, and once.
#[derive(Debug, Parser)]
#[command(
    name = "leadmill",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  leadmill demo                                      see the whole way, with made-up creators; nothing is sent
  leadmill keys generate --out master.key            make the key that everything personal is encrypted under
  leadmill migrate                                   create or update the database's schema
  leadmill program create coffee --sender-email ann@example.com --postal-address '1 Main St, Springfield, IL'
  leadmill import creators.csv --program coffee      take a file in
  leadmill up                                        run collector, enricher and mailer in one process
  leadmill status --watch                            see how far it is
  leadmill doctor                                    see what is configured, what answers, and what is missing
  leadmill bench pipeline                            see how fast it is on this machine

Settings come from embedded defaults, a TOML file (--config) and the environment (DATABASE_URL, AMQP_URL, LEADMILL_*);
`leadmill --print-config` lists all of them. Exit status: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub struct Cli {
    /// Configuration file (TOML); also LEADMILL_CONFIG
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print every setting with its default and what it means, and end
    #[arg(long)]
    pub print_config: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole way from profile to captured mail, with made-up creators; nothing is sent
    Demo(demo::Args),
    /// Run all services in one process until Ctrl-C
    Up(up::Args),
    /// Create or update the database's schema
    Migrate(migrate::Args),
    /// Organisations: the controllers above programs, who share what is suppressed
    #[command(subcommand)]
    Organisation(organisation::Command),
    /// Programs: whom the mails come from, and what they look for
    #[command(subcommand)]
    Program(program::Command),
    /// Take made-up creators in
    Simulate(simulate::Args),
    /// Take a CSV or JSON Lines file in
    Import(import::Args),
    /// Rows that were refused
    #[command(subcommand)]
    Rejects(rejects::Command),
    /// Show how far everything is
    Status(status::Args),
    /// Mails: look at the captured ones, release them
    #[command(subcommand)]
    Mail(mail::Command),
    /// See to it that nobody writes to an address, a user name or a domain any more
    Suppress(suppress::Args),
    /// Suppressions: who must not be written to and why; import do-not-contact lists, export, lift
    #[command(subcommand)]
    Suppressions(suppressions::Command),
    /// Dead letters: messages that no stage could handle
    #[command(subcommand)]
    Dead(dead::Command),
    /// Jobs: work by the clock; list them, run one now, see how earlier runs went
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// The law: whom a program may write to, country by country
    #[command(subcommand)]
    Law(law::Command),
    /// Measure how fast it is here, beside what this machine can do bare
    #[command(subcommand)]
    Bench(bench::Command),
    /// Check what is configured, what answers, what is missing, and say what to do
    Doctor(doctor::Args),
    /// Ask the `leadmill up` that runs under the same configuration whether it is ready
    Healthcheck(healthcheck::Args),
}
