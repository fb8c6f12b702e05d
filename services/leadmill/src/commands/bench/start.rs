//! `leadmill bench start`: how long a process takes until it is ready.

use std::time::Duration;

use super::fleet::{self, Fleet};
use super::machine::Machine;
use super::place;
use super::report::{Report, Section, Unit};
use super::{Bench, Options};

/// `leadmill bench start`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each process is started alone, with its servers up, its schema migrated and its queues declared, and asked for /readyz every
five milliseconds.

  median         from the start of the process to the first 200
  longest        of all starts

Examples:
  leadmill bench start
  leadmill bench start --processes --times 20")]
pub struct Args {
    /// Measure the binaries `collector`, `enricher` and `mailer` beside this program [default: all in one process]
    #[arg(long)]
    pub processes: bool,
    /// How often each is started
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    times: u16,
    #[command(flatten)]
    pub options: Options,
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let mut section = Section::new("start", format!("Ready after its start, of {} starts", args.times));
        for service in fleet::all(args.processes) {
            bench.say(&format!("starting {}", service.name()));
            let mut took: Vec<Duration> = Vec::new();
            for _ in 0..args.times {
                let fleet = Fleet::start(bench, place, &[*service], &[]).await?;
                took.push(fleet.ready_after());
                fleet.stop().await?;
            }
            took.sort_unstable();
            let milliseconds = |took: Option<&Duration>| took.map(|took| 1000.0 * took.as_secs_f64());
            let (name, key) = (service.name(), service.name().replace(' ', "_"));
            section
                .add(
                    format!("{key}_median_ms"),
                    format!("{name}, median"),
                    Unit::Milliseconds,
                    milliseconds(took.get(took.len() / 2)),
                )
                .add(
                    format!("{key}_longest_ms"),
                    format!("{name}, longest"),
                    Unit::Milliseconds,
                    milliseconds(took.last()),
                );
        }
        let mut report = Report::default();
        report.section(section);
        Ok((machine, report))
    })
    .await
}
