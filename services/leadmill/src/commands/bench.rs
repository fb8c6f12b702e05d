//! `leadmill bench`: how fast it is on this machine, beside what the machine can do bare.
//!
//! | module | what it is for |
//! |---|---|
//! | [`place`] | a database, queues and a folder of its own for each measurement |
//! | [`fleet`], [`load`], [`watch`] | the processes that are measured, what goes in, and waiting until it is through |
//! | [`sink`], [`model`] | where mails and questions to a model go |
//! | [`door`] | a server that comes late |
//! | [`machine`], [`procfs`] | what the machine is, and what its processes have used |
//! | [`report`] | the numbers, printed |
//! | the others | one measurement each |
//!
//! What is measured are processes of their own, never this one: it makes the load and watches, and what that costs must not
//! be counted. Speed is computed from the instants in the tables, and every count has to agree with them.

mod ceiling;
mod door;
mod enrich;
mod fleet;
mod growth;
mod http;
mod import;
mod load;
mod machine;
mod mail;
mod model;
mod pipeline;
mod place;
mod procfs;
mod report;
mod sink;
mod start;
mod watch;

use std::path::Path;

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use service::config::Document;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::machine::Machine;
use self::report::Report;
use crate::output;
use crate::progress::Progress;

/// `leadmill bench …`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Each works in a database and a queue namespace that it makes for itself, on the servers of DATABASE_URL and AMQP_URL, and
removes both at the end, also after Ctrl-C. The account needs the right to create databases. Nothing that is there is
touched, and nothing leaves the machine; but it takes all the speed that the servers have.

Use a release build, and a machine that has nothing else to do.

Examples:
  leadmill bench ceiling
  leadmill bench pipeline --leads 20000 --runs 3
  leadmill bench pipeline --json | jq .median.speed")]
pub enum Command {
    /// What this machine can do bare: rows, messages and mails without any logic, alone and all at once
    Ceiling(ceiling::Args),
    /// Speed, latency, CPU and memory from a posted lead to its mail, beside the ceiling of the same run
    Pipeline(pipeline::Args),
    /// Rows a second of `leadmill import`, and its memory for a small and a large file
    Import(import::Args),
    /// Leads a second with a model of a given latency, beside what that latency allows
    Enrich(enrich::Args),
    /// Mails a second into a sink, with and without TLS
    Mail(mail::Args),
    /// The pipeline's speed with millions of leads in the tables, beside its speed with none
    Growth(growth::Args),
    /// How long a process takes until it is ready
    Start(start::Args),
}

/// Which processes are measured.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FleetArgs {
    /// Measure the binaries `collector`, `enricher` and `mailer` beside this program [default: all in one process]
    #[arg(long)]
    processes: bool,
    /// How many of each process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,
}

/// The whole of Leadmill in one process, as for a measurement that has no choice.
const ONE_PROCESS: FleetArgs = FleetArgs { processes: false, replicas: 1 };

/// What all of them have in common.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often to measure; the median and the range are printed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// A benchmark under way.
pub struct Bench<'a> {
    /// The configuration's file, if one was named.
    file: Option<&'a Path>,
    /// The configuration.
    document: &'a Document,
    /// How often it is measured, and how the numbers are printed.
    options: &'a Options,
    /// Which processes are measured.
    fleet: FleetArgs,
    /// For people who wait.
    progress: Progress,
    /// Cancelled by Ctrl-C and SIGTERM.
    stop: CancellationToken,
}

/// Does what was asked for.
pub async fn run(file: Option<&Path>, document: &Document, command: Command) -> anyhow::Result<()> {
    let new = |options, fleet| Bench::new(file, document, options, fleet);
    match &command {
        Command::Ceiling(args) => {
            let bench = new(&args.options, ONE_PROCESS)?;
            bench.repeat("ceiling", async || ceiling::measure(&bench, args).await).await
        }
        Command::Pipeline(args) => {
            let bench = new(&args.options, args.fleet)?;
            bench.repeat("pipeline", async || pipeline::measure(&bench, args).await).await
        }
        Command::Import(args) => {
            let bench = new(&args.options, ONE_PROCESS)?;
            bench.repeat("import", async || import::measure(&bench, args).await).await
        }
        Command::Enrich(args) => {
            let bench = new(&args.options, args.fleet)?;
            bench.repeat("enrich", async || enrich::measure(&bench, args).await).await
        }
        Command::Mail(args) => {
            let bench = new(&args.options, args.fleet)?;
            bench.repeat("mail", async || mail::measure(&bench, args).await).await
        }
        Command::Growth(args) => {
            let bench = new(&args.options, args.fleet)?;
            bench.repeat("growth", async || growth::measure(&bench, args).await).await
        }
        Command::Start(args) => {
            let bench = new(&args.options, FleetArgs { processes: args.processes, ..ONE_PROCESS })?;
            bench.repeat("start", async || start::measure(&bench, args).await).await
        }
    }
}

impl<'a> Bench<'a> {
    fn new(
        file: Option<&'a Path>,
        document: &'a Document,
        options: &'a Options,
        fleet: FleetArgs,
    ) -> anyhow::Result<Self> {
        service::tls::install_provider();
        let stop = CancellationToken::new();
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
            output::note("clearing away");
            stopping.cancel();
        });
        Ok(Self { file, document, options, fleet, progress: Progress::new(), stop })
    }

    /// Measures as often as was asked for, and prints what was found.
    async fn repeat(
        &self,
        name: &'static str,
        measure: impl AsyncFn() -> anyhow::Result<(Machine, Report)>,
    ) -> anyhow::Result<()> {
        let mut reports = Vec::new();
        let mut first: Option<Machine> = None;
        for run in 1..=self.options.runs {
            if self.options.runs > 1 {
                self.say(&format!("run {run} of {}", self.options.runs));
            }
            let (machine, report) = measure().await?;
            first.get_or_insert(machine);
            reports.push(report);
        }
        self.progress.end();
        let Some(machine) = first else { return Ok(()) };
        if self.options.json {
            let mut all = report::json(&reports);
            all["bench"] = json!(name);
            all["arguments"] = std::env::args().skip(1).collect();
            all["machine"] = machine.json();
            all["options"] = json!({ "processes": self.fleet.processes, "replicas": self.fleet.replicas });
            all["warnings"] = json!(machine.warnings());
            return output::json(&all);
        }
        // What was said while it was measured may end anywhere in a line.
        output::line("")?;
        machine.print()?;
        report::print(&reports)?;
        for warning in machine.warnings() {
            output::line(format_args!("\n{warning}"))?;
        }
        Ok(())
    }

    /// Tells somebody who waits what is done now.
    fn say(&self, what: &str) {
        self.progress.say(what);
    }
}

/// Fails unless all pairs of counts are equal: what doesn't add up was not measured.
fn ensure_agreement(counts: &[(&str, i64, i64)]) -> anyhow::Result<()> {
    let wrong: Vec<String> = counts
        .iter()
        .filter(|(_, one, other)| one != other)
        .map(|(what, one, other)| format!("{what}: {one} and {other}"))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("the numbers don't agree with what SQL counts: {}", wrong.join("; "))
}
