//! `leadmill status`: how far everything is.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use broker::Admin;
use domain::program::Slug;
use serde::Serialize;
use serde_json::Value;
use service::config::Document;
use store::{Db, programs, status};

use crate::{output, sending, settings};

/// Time between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// `leadmill status`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leadmill status
  leadmill status --program coffee --watch
  leadmill status --json | jq .outreach.sent")]
pub struct Args {
    /// Count one program only; queues and outbox are shared by all
    #[arg(long, value_name = "NAME")]
    program: Option<Slug>,
    /// Print JSON; with --watch one object a line
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    counts: status::Status,
    /// Messages ready in `lead.created`, `lead.enriched` and, together, in their dead-letter queues; `None` when
    /// RabbitMQ can't be asked.
    queues: Option<BTreeMap<&'static str, u64>>,
    /// The programs that are paused or rest, each with `slug`, `paused` and why.
    not_sending: Vec<Value>,
    /// The same, for people.
    #[serde(skip)]
    stopped: Vec<String>,
    /// What could not be found out.
    errors: Vec<String>,
}

/// Does what was asked for.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let db = settings::connect(document).await?;
    let broker = Admin::new(settings::broker(document)?);
    let program = match &args.program {
        None => None,
        Some(slug) => {
            let found = db.transact("program.find", |tx, _| Box::pin(programs::by_slug(tx, slug))).await?;
            Some(found.ok_or_else(|| settings::no_such_program(slug))?.id)
        }
    };
    loop {
        let report = read(&db, &broker, program).await?;
        match (args.json, args.watch) {
            (true, false) => return output::json(&report),
            (true, true) => output::line(serde_json::to_string(&report)?)?,
            (false, watch) => {
                if watch && io::stdout().is_terminal() {
                    // Home, and clear what is below (ECMA-48).
                    output::bytes(b"\x1b[H\x1b[J")?;
                }
                print(&report)?;
            }
        }
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Counts everything.
async fn read(db: &Db, broker: &Admin, program: Option<domain::id::ProgramId>) -> anyhow::Result<Report> {
    let counts = db.transact("status.read", |tx, _| Box::pin(status::read(tx, program))).await?;
    let mut not_sending = Vec::new();
    let mut stopped = Vec::new();
    for health in sending::read(db, program).await? {
        let Some(description) = sending::describe(&health) else { continue };
        not_sending.push(sending::as_value(&health));
        stopped.push(format!("{} {description}", health.slug));
    }
    let (queues, errors) = match broker.depths().await {
        Ok(depths) => {
            let mut queues = BTreeMap::from([("dead", 0)]);
            for depth in depths {
                let ready = depth.depth.map_or(0, |depth| u64::from(depth.ready));
                *queues.entry(if depth.dead { "dead" } else { depth.queue.name() }).or_default() += ready;
            }
            (Some(queues), Vec::new())
        }
        Err(error) => (None, vec![format!("queues: {:#}", anyhow::Error::from(error))]),
    };
    Ok(Report { counts, queues, not_sending, stopped, errors })
}

fn print(report: &Report) -> anyhow::Result<()> {
    let Report { counts, queues, stopped, errors, .. } = report;
    let pairs = |map: &BTreeMap<String, i64>| {
        let shown: Vec<String> =
            map.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}")).collect();
        if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
    };
    let status::Leads { accepted, rejected, duplicates, updated } = &counts.leads;
    output::line(format_args!(
        "leads      {accepted} accepted, {rejected} rejected, {duplicates} duplicates, {updated} updated"
    ))?;
    let enriched = &counts.enriched;
    output::line(format_args!(
        "enriched   {} total, {} qualified, {} declined, {} undecided",
        enriched.total, enriched.qualified, enriched.declined, enriched.undecided
    ))?;
    output::line(format_args!("  by       {}", pairs(&enriched.by_provider)))?;
    if !enriched.fallbacks.is_empty() {
        output::line(format_args!("  fallback {}", pairs(&enriched.fallbacks)))?;
    }
    if !enriched.reasons.is_empty() {
        output::line(format_args!("  unsent   {}", pairs(&enriched.reasons)))?;
    }
    output::line(format_args!("outreach   {}", pairs(&counts.outreach)))?;
    match queues {
        Some(queues) => {
            let shown: Vec<String> = queues.iter().map(|(name, ready)| format!("{ready} {name}")).collect();
            output::line(format_args!("queues     {}", shown.join(", ")))?;
        }
        None => output::line("queues     unknown")?,
    }
    let outbox = &counts.outbox;
    output::line(format_args!("outbox     {} due, {} scheduled", outbox.due, outbox.scheduled))?;
    for program in stopped {
        output::line(format_args!("sending    {}", output::printable(program)))?;
    }
    for error in errors {
        output::note(format_args!("warning: {error}"));
    }
    Ok(())
}
