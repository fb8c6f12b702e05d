//! What each command does, one file per command.

pub mod bench;
pub mod dead;
pub mod demo;
pub mod doctor;
pub mod healthcheck;
pub mod import;
pub mod jobs;
pub mod keys;
pub mod law;
pub mod mail;
pub mod migrate;
pub mod organisation;
pub mod program;
pub mod rejects;
pub mod simulate;
pub mod status;
pub mod suppress;
pub mod suppressions;
pub mod up;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use service::config::{Document, LogConfig, Origin, RuntimeConfig, TelemetryConfig};
use service::run::{self, Program};
use service::telemetry::{self, Identity};

use crate::cli::{Cli, Command};
use crate::output::{self, ReaderGone};
use crate::settings::{self, DEFAULTS, Override, WrongUsage};

/// What the runner has to know of the long-running commands.
pub const PROGRAM: Program = Program {
    name: "leadmill",
    version: env!("CARGO_PKG_VERSION"),
    about: "The operator's CLI; runs all services in one process.",
    defaults: DEFAULTS,
    admin: Some("admin.listen"),
};

/// How long the last export of traces and metrics may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// How long threads that still block may take to end.
const RUNTIME_LIMIT: Duration = Duration::from_secs(1);

/// Does what was asked for.
pub fn run(cli: Cli) -> ExitCode {
    let file = cli.config.as_deref();
    let result = match cli.command {
        _ if cli.print_config => output::bytes(run::default_text(DEFAULTS).as_bytes()),
        None => Err(WrongUsage("say what to do; `leadmill --help` lists the commands".to_owned()).into()),
        // These two run until they are told to end, with signals, an admin server and an exit status of their own.
        Some(Command::Up(args)) => match up::run(file, &args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some(Command::Demo(args)) => match demo::run(file, args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some(Command::Keys(command)) => keys::run(&command),
        Some(Command::Law(command)) => law::run(&command),
        Some(Command::Healthcheck(_)) => settings::load(file, &[]).and_then(|document| healthcheck::run(&document)),
        Some(Command::Migrate(args)) => brief(file, async move |document| migrate::run(&document, &args).await),
        Some(Command::Organisation(command)) => {
            brief(file, async move |document| organisation::run(&document, command).await)
        }
        Some(Command::Program(command)) => brief(file, async move |document| program::run(&document, command).await),
        Some(Command::Simulate(args)) => brief(file, async move |document| simulate::run(&document, args).await),
        Some(Command::Import(args)) => brief(file, async move |document| import::run(&document, args).await),
        Some(Command::Rejects(command)) => brief(file, async move |document| rejects::run(&document, command).await),
        Some(Command::Status(args)) => brief(file, async move |document| status::run(&document, args).await),
        Some(Command::Mail(command)) => brief(file, async move |document| mail::run(&document, command).await),
        Some(Command::Suppress(args)) => brief(file, async move |document| suppress::run(&document, args).await),
        Some(Command::Suppressions(command)) => {
            brief(file, async move |document| suppressions::run(&document, command).await)
        }
        Some(Command::Dead(command)) => brief(file, async move |document| dead::run(&document, command).await),
        Some(Command::Jobs(command)) => brief(file, async move |document| jobs::run(&document, command).await),
        Some(Command::Bench(command)) => brief(file, async move |document| bench::run(file, &document, command).await),
        Some(Command::Doctor(args)) => brief(file, async move |document| doctor::run(&document, &args).await),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            run::print_error(PROGRAM.name, &error);
            if error.is::<WrongUsage>() { ExitCode::from(2) } else { run::exit_code(&error) }
        }
    }
}

/// Runs a command that ends by itself.
fn brief(file: Option<&Path>, command: impl AsyncFnOnce(Document) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let document = settings::load(file, &[])?;
    let runtime: RuntimeConfig = document.section("runtime")?;
    let mut log: LogConfig = document.section("log")?;
    if let Some((_, _, filter)) = quiet(&document) {
        log.filter = filter;
    }
    let exported: TelemetryConfig = document.section("telemetry")?;
    let identity = Identity { name: PROGRAM.name, version: PROGRAM.version };
    let telemetry = telemetry::init(identity, &log, &exported).context("setting up telemetry")?;
    let runtime = run::runtime(&runtime).context("starting the runtime")?;
    let result = runtime.block_on(command(document));
    runtime.shutdown_timeout(RUNTIME_LIMIT);
    telemetry.shutdown(FLUSH_LIMIT);
    result
}

/// What commands for people log: warnings, and nothing of what the AMQP library says on the side. `broker` reports what
/// matters of that, and the rest is alarming: a queue that isn't there yet counts as an error.
const QUIET: &str = "warn,lapin=off";

/// Commands for people log little, unless somebody has said what they want to see.
pub fn quiet(document: &Document) -> Option<Override> {
    is_default(document, "log.filter").then(|| ("of a command for people", "log.filter", QUIET.to_owned()))
}

/// Whether nobody has set a key.
pub fn is_default(document: &Document, key: &str) -> bool {
    document.settings().iter().any(|setting| setting.key == key && matches!(setting.origin, Origin::Defaults(_)))
}
