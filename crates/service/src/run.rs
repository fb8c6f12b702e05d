//! The runner of a service's `main`, so that it stays as short as this:
//!
//! ```no_run
//! use service::config::Defaults;
//! use service::run::{Program, run};
//!
//! const DEFAULTS: Defaults = Defaults {
//!     name: "counter",
//!     text: "[counter]\n# Where the admin server listens.\nadmin_listen = \"127.0.0.1:9109\"\n",
//!     secrets: &[],
//! };
//!
//! fn main() -> std::process::ExitCode {
//!     let program = Program {
//!         name: "counter",
//!         version: env!("CARGO_PKG_VERSION"),
//!         about: "Counts what comes by.",
//!         defaults: &[DEFAULTS],
//!         admin: Some("counter.admin_listen"),
//!     };
//!     run(&program, |_config, shutdown, readiness| async move {
//!         readiness.register("counter").set_ready();
//!         shutdown.soft().cancelled().await;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! What `main` returns ends the process: `Ok` asks the spawned tasks to finish and waits for them, an error does so too and
//! makes the process fail. A service that only spawns tasks therefore waits for `shutdown.soft()` at its end.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage or configuration.

mod args;
mod report;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;

pub use self::report::{exit_code, print_error};

use self::args::{Action, Args};
use crate::config::{
    COMMON_DEFAULTS, Defaults, Document, Loader, LogConfig, LogFormat, RuntimeConfig, TelemetryConfig,
    process_environment,
};
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;
use crate::telemetry::{self, Identity};
use crate::{admin, healthcheck, tls};

/// How long the last export of traces and metrics may take.
const FLUSH_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
/// How long threads that still block may take to end.
const RUNTIME_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What the runner has to know of a program.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name: of the process in telemetry, and in messages.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// The defaults of its crates, besides the common ones.
    pub defaults: &'static [Defaults],
    /// The key that holds the admin server's address; `None` for a program without one.
    pub admin: Option<&'static str>,
}

/// Runs a service: reads the arguments and the configuration, then does what [`execute`] does.
pub fn run<M, F>(program: &Program, main: M) -> ExitCode
where
    M: FnOnce(Document, Shutdown, Readiness) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            print_error(program.name, &anyhow::anyhow!("{problem}; `{} --help` lists the options", program.name));
            return report::USAGE.into();
        }
    };
    let text = match args.action {
        Action::Help => args::help(program),
        Action::Version => format!("{} {}\n", program.name, program.version),
        Action::PrintConfig => default_text(program.defaults),
        action @ (Action::Run | Action::HealthCheck) => {
            let loader =
                Loader::new().defaults(program.defaults).file(args.config.as_deref()).env(process_environment());
            return match loader.load() {
                Ok(config) if action == Action::HealthCheck => match check_health(program, &config) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => report::failed(program.name, &error),
                },
                Ok(config) => execute(program, config, main),
                Err(error) => report::failed(program.name, &error.into()),
            };
        }
    };
    // A closed pipe (`--help | head -1`) is the reader's choice.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Asks the running process of the same configuration whether it is ready.
///
/// # Errors
/// When it isn't, or doesn't answer, or has no admin server to ask.
pub fn check_health(program: &Program, config: &Document) -> anyhow::Result<()> {
    let key = program.admin.with_context(|| format!("{} has no admin server", program.name))?;
    Ok(healthcheck::ask(config.get(key)?)?)
}

/// Runs a program on a configuration: telemetry, runtime, signals, admin server, and `main` until it ends.
pub fn execute<M, F>(program: &Program, config: Document, main: M) -> ExitCode
where
    M: FnOnce(Document, Shutdown, Readiness) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    tls::install_provider();
    match prepare_and_run(program, config, main) {
        Ok(code) => code,
        Err(error) => report::failed(program.name, &error),
    }
}

fn prepare_and_run<M, F>(program: &Program, config: Document, main: M) -> anyhow::Result<ExitCode>
where
    M: FnOnce(Document, Shutdown, Readiness) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let runtime_config: RuntimeConfig = config.section("runtime")?;
    let log: LogConfig = config.section("log")?;
    let telemetry: TelemetryConfig = config.section("telemetry")?;
    let listen = program.admin.map(|key| config.get::<SocketAddr>(key).map(|listen| (key, listen))).transpose()?;

    let identity = Identity { name: program.name, version: program.version };
    let telemetry = telemetry::init(identity, &log, &telemetry).context("setting up telemetry")?;
    let runtime = runtime(&runtime_config).context("starting the runtime")?;
    let shutdown = Shutdown::new(runtime_config.shutdown_grace);
    let readiness = Readiness::new();
    let scrape = telemetry.scrape();

    let ended = runtime.block_on(async {
        shutdown.listen_for_signals().context("installing the signal handlers")?;
        let admin = match listen {
            Some((key, listen)) => {
                let server = admin::serve(listen, readiness.clone(), scrape, shutdown.clone())
                    .await
                    .with_context(|| format!("binding the admin address {listen} (`{key}`)"))?;
                tracing::info!(admin.address = %server.local_addr(), "admin server is listening");
                Some(server)
            }
            None => None,
        };
        tracing::info!(version = program.version, "{} is starting", program.name);

        let stop = shutdown.clone();
        let body = main(config, shutdown.clone(), readiness);
        // Its failure is reported at the very end, in the form that suits a terminal.
        shutdown.track(
            program.name,
            async move {
                body.await?;
                stop.request();
                Ok(())
            },
            |_, _| {},
        );
        let ended = shutdown.ended().await;
        if let Some(server) = admin {
            server.stop().await;
        }
        anyhow::Ok(ended)
    })?;

    let code = report::ended(program.name, log.format == LogFormat::Json, &ended);
    runtime.shutdown_timeout(RUNTIME_LIMIT);
    telemetry.shutdown(FLUSH_LIMIT);
    Ok(code)
}

/// The runtime that a process works on.
///
/// # Errors
/// When its threads can't be started.
pub fn runtime(config: &RuntimeConfig) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.worker_threads > 0 {
        builder.worker_threads(config.worker_threads.into());
    }
    builder.thread_name("worker").enable_all().build()
}

/// The embedded defaults of a program as one commented document, to start a configuration file from.
pub fn default_text(defaults: &[Defaults]) -> String {
    let mut text = String::from(
        "# Every key with its default. A configuration file needs only what differs.\n\
         # The environment beats the file: `mailer.smtp.host` is also LEADMILL_MAILER_SMTP_HOST, and with\n\
         # _FILE at its end a variable names a file that holds the value. Unknown keys are refused.\n\n",
    );
    for part in [COMMON_DEFAULTS].iter().chain(defaults) {
        text.push_str(part.text.trim_end());
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
