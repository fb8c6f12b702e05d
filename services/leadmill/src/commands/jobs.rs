//! `leadmill jobs`: work by the clock, when it ran and how it went.

use std::time::Duration;

use anyhow::bail;
use bootstrap::jobs::{JobParts, catalogue};
use broker::{Admin, Publisher};
use clap::Subcommand;
use pipeline::{
    Job, Outbox,
    jobs::{RequestProgress, register, run_on_request},
};
use serde_json::{Value, json};
use service::config::Document;
use store::{
    Db,
    jobs::{self, JobState, Run, RunOutcome},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;

use crate::output::{self, Table};
use crate::progress::Progress;
use crate::settings::{self, WrongUsage};

/// `leadmill jobs …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the jobs: when each runs, how its last run went, when the next is due
    #[command(after_help = "\
Every running service takes part: a lease decides which process runs a job. LAST LOOK is the end of the last run, also of one
that found nothing to do; LAST RUN is the last one with a record, see `leadmill jobs history`.

Examples:
  leadmill jobs list
  leadmill jobs list --json | jq '.[] | select(.last_run.outcome == \"failed\")'")]
    List {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a job now and wait for its end
    #[command(after_help = "\
This process runs the job, under the same lease as the services do. If one of them has the lease, that one runs it, and this
process waits. Ctrl-C stops the run, or takes the request back. Exit status 1 if the run failed or was interrupted.

Examples:
  leadmill jobs run reconciler
  leadmill jobs run job-history --json")]
    Run {
        /// Which job: a name that `leadmill jobs list` shows
        #[arg(value_name = "NAME")]
        name: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List runs, newest first
    #[command(after_help = "\
Recorded are runs that handled rows, failed, were interrupted, or were asked for by a person; runs that found nothing to do are
not. Failed runs in a row are one record, with their number. Records are kept for 90 days, and at most 1,000 of each job.

Examples:
  leadmill jobs history
  leadmill jobs history reconciler --limit 5 --json")]
    History {
        /// Only this job's runs
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// How many, at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub async fn run(document: &Document, command: Command) -> anyhow::Result<()> {
    let db = settings::connect(document).await?;
    let jobs = known_jobs(document)?;
    match command {
        Command::List { json } => list(&db, &jobs, json).await,
        Command::Run { name, json } => run_one(&db, named(&jobs, &name)?, json).await,
        Command::History { name, limit, json } => {
            let job = name.as_deref().map(|name| named(&jobs, name)).transpose()?.map(Job::name);
            let runs = db
                .transact("job.history", |tx, _| {
                    Box::pin(async move { jobs::history(tx, job, i64::from(limit)).await })
                })
                .await?;
            history(&runs, json)
        }
    }
}

/// The same jobs as the services run. Connects to nothing: what a job emits here is left to the sweepers of the services.
fn known_jobs(document: &Document) -> anyhow::Result<Vec<Job>> {
    let broker = settings::broker(document)?;
    Ok(catalogue(JobParts {
        outbox: Outbox::for_sweepers(Publisher::new(broker.clone(), "leadmill-jobs")),
        admin: Admin::new(broker),
        reconciler: bootstrap::settings::reconciler(document)?,
        // Looking at jobs takes no key.
        vault: settings::vault(document).ok(),
    })?)
}

fn named<'a>(jobs: &'a [Job], name: &str) -> anyhow::Result<&'a Job> {
    jobs.iter().find(|job| job.name() == name).ok_or_else(|| {
        let names: Vec<&str> = jobs.iter().map(Job::name).collect();
        WrongUsage(format!("there is no job `{}`; the jobs are {}", output::printable(name), names.join(", "))).into()
    })
}

async fn list(db: &Db, jobs: &[Job], as_json: bool) -> anyhow::Result<()> {
    register(db, jobs).await?;
    let asked: Vec<(&str, &str)> = jobs.iter().map(|job| (job.name(), job.lease_name())).collect();
    let (states, last) = {
        let asked = asked.as_slice();
        db.transact("job.list", |tx, _| {
            Box::pin(async move {
                let states = jobs::states(tx, asked).await?;
                let mut last = Vec::with_capacity(states.len());
                for state in &states {
                    last.push(jobs::last_run(tx, &state.name).await?);
                }
                Ok((states, last))
            })
        })
        .await?
    };
    let rows: Vec<(&Job, &JobState, Option<&Run>)> = states
        .iter()
        .zip(&last)
        .filter_map(|(state, last)| Some((jobs.iter().find(|job| job.name() == state.name)?, state, last.as_ref())))
        .collect();
    if as_json {
        let listed: Vec<Value> = rows.iter().map(|(job, state, last)| listed(job, state, *last)).collect();
        return output::json(&listed);
    }
    let mut table = Table::new(["NAME", "SCHEDULE", "LAST LOOK", "LAST RUN", "NEXT DUE", "RUNNING", "WHAT IT DOES"]);
    for (job, state, last) in rows {
        table.row([
            job.name().to_owned(),
            job.schedule().to_string(),
            state.last_ended_at.map_or_else(|| "never".to_owned(), |at| ago(state.now, at)),
            last.map_or_else(|| "-".to_owned(), |run| format!("{}, {}", run.outcome, ago(state.now, run.started_at))),
            due(state),
            running(state).map_or_else(|| "-".to_owned(), |(holder, rows)| format!("by {holder}, {rows} rows")),
            job.description().to_owned(),
        ]);
    }
    table.print()
}

/// Who runs the job, and how many rows are handled so far.
fn running(state: &JobState) -> Option<(uuid::Uuid, u64)> {
    Some((state.lease?.holder, state.run?.rows))
}

fn listed(job: &Job, state: &JobState, last: Option<&Run>) -> Value {
    json!({
        "name": job.name(),
        "description": job.description(),
        "schedule": job.schedule().to_string(),
        "next_due_at": rfc3339(state.next_due_at),
        "requested_at": state.requested_at.map(rfc3339),
        "last_ended_at": state.last_ended_at.map(rfc3339),
        "failures": state.failures,
        "last_run": last.map(as_value),
        "running": running(state).map(|(holder, rows)| json!({
            "id": state.run.map(|run| run.id),
            "holder": holder,
            "started_at": state.run.map(|run| rfc3339(run.started_at)),
            "rows": rows,
        })),
    })
}

async fn run_one(db: &Db, job: &Job, as_json: bool) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let progress = Progress::new();
    let mut meter = progress.meter(job.name(), None);
    let ended = run_on_request(db, job, &cancel, |so_far| match so_far {
        RequestProgress::Running { rows } => meter.set(rows, "rows"),
        RequestProgress::Elsewhere { holder, rows } => {
            let holder = holder.map_or_else(String::new, |holder| format!("; process {holder} has the lease"));
            meter.set(rows, &format!("rows{holder}"));
        }
    })
    .await?;
    meter.give_way(ended.rows);
    if as_json {
        output::json(&json!({
            "job": job.name(),
            "id": ended.id,
            "outcome": ended.outcome.name(),
            "rows": ended.rows,
            "seconds": ended.took.as_secs_f64(),
            "detail": ended.detail,
        }))?;
    }
    let detail = ended.detail.as_deref().unwrap_or_default();
    match ended.outcome {
        RunOutcome::Done if as_json => Ok(()),
        RunOutcome::Done => output::line(format_args!(
            "{} done: {} rows in {}{}{}",
            job.name(),
            ended.rows,
            duration(ended.took),
            if detail.is_empty() { "" } else { ": " },
            output::printable(detail),
        )),
        RunOutcome::Failed => bail!("the run of `{}` failed: {}", job.name(), output::printable(detail)),
        RunOutcome::Interrupted => {
            bail!("the run of `{}` was interrupted: {}", job.name(), output::printable(detail))
        }
    }
}

fn history(runs: &[Run], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(&runs.iter().map(as_value).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        output::note("There are no recorded runs.");
        return Ok(());
    }
    let mut table = Table::new(["JOB", "STARTED", "TOOK", "TRIGGER", "OUTCOME", "ROWS", "DETAIL"]);
    for run in runs {
        let took = run.ended_at.and_then(|ended| Duration::try_from(ended - run.started_at).ok());
        let times = if run.attempts > 1 { format!(" x {}", run.attempts) } else { String::new() };
        table.row([
            run.job.clone(),
            rfc3339(run.started_at),
            took.map_or_else(|| "-".to_owned(), duration),
            run.trigger.clone(),
            format!("{}{times}", run.outcome),
            run.rows.to_string(),
            run.detail.clone().unwrap_or_default(),
        ]);
    }
    table.print()
}

fn as_value(run: &Run) -> Value {
    json!({
        "id": run.id,
        "job": run.job,
        "trigger": run.trigger,
        "holder": run.holder,
        "started_at": rfc3339(run.started_at),
        "ended_at": run.ended_at.map(rfc3339),
        "rows": run.rows,
        "outcome": run.outcome,
        "attempts": run.attempts,
        "detail": run.detail,
    })
}

fn rfc3339(instant: OffsetDateTime) -> String {
    // Whole seconds: PostgreSQL's microseconds are of no use to a person.
    instant.replace_nanosecond(0).unwrap_or(instant).format(&Rfc3339).unwrap_or_default()
}

fn ago(now: OffsetDateTime, then: OffsetDateTime) -> String {
    format!("{} ago", duration(Duration::try_from(now - then).unwrap_or_default()))
}

fn due(state: &JobState) -> String {
    match Duration::try_from(state.next_due_at - state.now) {
        _ if state.requested_at.is_some() => "now, requested".to_owned(),
        Ok(wait) if !wait.is_zero() => format!("in {}", duration(wait)),
        _ => "now".to_owned(),
    }
}

/// With one unit, rounded down: `3 h`.
fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
