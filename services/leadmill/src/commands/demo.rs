//! `leadmill demo`: the whole way from profile to captured mail, with made-up creators.
//!
//! It makes sure by itself that nothing of anybody's gets into it: a database that holds programs of somebody's own is left
//! alone for a sibling, the queues have a namespace of their own, mails are captured whatever is configured, and the
//! analyser is the built-in one, which costs nothing.

mod place;
mod summary;
mod watch;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use broker::Admin;
use collector::intake::{Intake, Summary};
use collector::simulate::{Simulation, simulate};
use collector::source::simulated::SimulationMix;
use domain::clock::{Clock, SystemClock};
use domain::legal::Basis;
use domain::program::{ProgramSettings, Slug};
use service::readiness::Readiness;
use service::shutdown::Shutdown;
use store::programs::{self, OpenProgram};
use uuid::Uuid;

use self::place::Place;
use self::watch::Watch;
use super::PROGRAM;
use crate::output;
use crate::progress::Progress;
use crate::services::Services;

/// How long the services may take to become ready.
const START_LIMIT: Duration = Duration::from_mins(1);

/// `leadmill demo`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Makes a master key of its own, creates or updates the schema, makes a new program, starts all services in this process,
takes made-up creators in (duplicates, junk and hostile ones among them), waits until every one of them is through, prints
what became of them and checks the numbers against the database. Nothing is sent.

On a terminal it then goes on serving until Ctrl-C, so that you can look around; elsewhere it ends.

It works in the database of DATABASE_URL, unless that holds programs of your own: then in one beside it, with `_demo` at the
end of its name.

Examples:
  leadmill demo
  leadmill demo --leads 20000 --exit
  leadmill demo --exit --json")]
pub struct Args {
    /// How many rows are made up
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    leads: u64,
    /// Tells one population of creators from another
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// End when everything is through, also on a terminal
    #[arg(long)]
    exit: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// The folder that keeps the demo's master key [default: .stack here if there is one, else the user's state folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Runs the demo, and serves on when there is somebody to look.
pub fn run(file: Option<&Path>, args: Args) -> anyhow::Result<ExitCode> {
    let place = Place::prepare(file, args.dir.as_deref())?;
    let document = place.document.clone();
    Ok(service::run::execute(&PROGRAM, document, move |document, shutdown, readiness| async move {
        let Some(services) = Services::start(&document, &shutdown, &readiness).await? else { return Ok(()) };
        let shown = show(&args, &place, &services, &shutdown, &readiness).await;
        let serve_on = shown.is_ok() && !args.exit && io::stdin().is_terminal();
        if serve_on {
            output::note("\nStill serving, for you to look around. Ctrl-C ends it.");
            shutdown.soft().cancelled().await;
        }
        shutdown.request();
        let broker = Admin::new(services.process.broker.clone());
        let ended = services.ended().await;
        place.leave(&broker).await;
        shown.and(ended)
    }))
}

/// The demo itself.
async fn show(
    args: &Args,
    place: &Place,
    services: &Services,
    shutdown: &Shutdown,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let db = services.process.db.clone();
    ready(readiness, shutdown).await?;
    let program = create_program(services).await?;
    let slug = &program.program.slug;
    output::note(format_args!("program `{slug}` in {}; {}", place.database, place.key_told));

    let started = Instant::now();
    let progress = Progress::new();
    let mut collected = progress.meter("collected", Some(args.leads));
    let watch = Watch::new(db.clone(), program.program.id, Admin::new(services.process.broker.clone()));
    let intake = Intake {
        db: db.clone(),
        vault: services.process.programs.vault().clone(),
        clock: Arc::new(SystemClock),
        outbox: Some(services.process.outbox.clone()),
    };
    // A usual mix: what a purchased list is like, a little worse.
    let mix = SimulationMix { duplicates: 0.06, junk: 0.03, missing: 0.03, hostile: 0.02 };
    let simulation = Simulation { seed: args.seed, count: args.leads, mix, rate: None };
    let collecting = async {
        let summary = simulate(&intake, Arc::clone(&program), &simulation, shutdown.soft(), |counts| {
            collected.set(counts.rows(), "");
        })
        .await?;
        collected.finish(summary.counts.rows(), "");
        anyhow::Ok((summary, started.elapsed()))
    };
    let (summary, collecting_took): (Summary, Duration) = collecting.await?;
    ensure!(summary.complete, "the demo was stopped before all leads were collected");
    let status = watch.until_through(&summary.counts, &progress, shutdown).await?;
    let took = started.elapsed();
    progress.end();
    summary::Demo { slug, place, run: &summary, collecting_took, took, status: &status }
        .check_and_print(services, program.program.id, args.json)
        .await
}

/// Waits until all services are ready.
async fn ready(readiness: &Readiness, shutdown: &Shutdown) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let report = readiness.report();
        if report.ready {
            return Ok(());
        }
        let missing: Vec<String> = report
            .checks
            .iter()
            .filter_map(|check| check.missing.as_ref().map(|missing| format!("{}: {missing}", check.name)))
            .collect();
        ensure!(
            started.elapsed() < START_LIMIT,
            "the services did not become ready within a minute: {}. Is RabbitMQ there, and is AMQP_URL right? \
             `leadmill doctor` checks everything",
            missing.join("; ")
        );
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = shutdown.soft().cancelled() => anyhow::bail!("a service ended, or the demo was stopped, before it began"),
        }
    }
}

/// A program of this run's own, so that its numbers are those of the run.
async fn create_program(services: &Services) -> anyhow::Result<Arc<OpenProgram>> {
    let id = Uuid::now_v7().simple().to_string();
    let slug: Slug = format!("{}{}", place::SLUG_PREFIX, &id[id.len() - 8..]).parse().context("naming the program")?;
    let address = |text: &str| text.parse().context("the demo's sender");
    let settings = ProgramSettings {
        name: "Fernhill Partners".to_owned(),
        sender_name: "Robin of Fernhill".to_owned(),
        sender_email: Some(address("partners@fernhill.example.com")?),
        reply_to: None,
        postal_address: Some("Fernhill Goods, 1 Example Street, Springfield, IL 62701, USA".to_owned()),
        privacy_url: Some("https://fernhill.example.com/privacy".to_owned()),
        threshold: 70,
        niches: Vec::new(),
        product: "Fernhill makes everyday gear from recycled materials; partners earn 15 % of each sale they bring."
            .to_owned(),
        basis: Basis::LegitimateInterest,
        daily_cap: None,
        paused: false,
    };
    let vault = services.process.programs.vault();
    Ok(Arc::new(programs::create(&services.process.db, vault, &slug, &settings, SystemClock.now()).await?))
}
