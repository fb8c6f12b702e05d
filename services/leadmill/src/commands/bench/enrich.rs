//! `leadmill bench enrich`: how near the enricher comes to what a model's latency allows.

use std::time::Duration;

use anyhow::Context;
use domain::clock::{Clock, SystemClock};
use service::config::duration;

use super::fleet::{Fleet, Service};
use super::load::{Load, Population};
use super::machine::Machine;
use super::model::Model;
use super::place;
use super::report::{Report, Section, Unit};
use super::watch::{Counter, Watch};
use super::{Bench, FleetArgs, Options, ensure_agreement};

/// The creators.
const SEED: u64 = 5;

/// `leadmill bench enrich`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A stand-in for a chat model's API takes the same time for every answer. With so many questions open at once, nobody can get
more answers than concurrency / latency a second: that is the ideal.

  leads/s        enriched leads, from the first question to the last stored answer
  ideal          what latency and concurrency allow, of all replicas together
  reached        the one of 100 of the other
  open at once   the most questions that were open at the same time

Every lead has to be analysed by the stand-in, with one question; a fallback makes the command fail.

Examples:
  leadmill bench enrich
  leadmill bench enrich --latency 200ms --concurrency 64 --replicas 2")]
pub struct Args {
    /// How long the model takes for an answer
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = latency)]
    latency: Duration,
    /// Questions that one enricher may have open at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// How many leads are enriched [default: those of 20 seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    leads: Option<u64>,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub options: Options,
}

/// How long the ideal takes unless somebody says how many leads.
const SECONDS: f64 = 20.0;

fn latency(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(latency) if latency >= Duration::from_millis(1) && latency <= Duration::from_secs(20) => Ok(latency),
        _ => Err("expected a time from 1ms to 20s, such as 200ms".to_owned()),
    }
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let ideal = f64::from(args.concurrency) * f64::from(bench.fleet.replicas) / args.latency.as_secs_f64();
        let leads = args.leads.unwrap_or((ideal * SECONDS).ceil().clamp(1.0, 1e6) as u64);
        let model = Model::start(args.latency).await?;
        let services: &[Service] =
            if bench.fleet.processes { &[Service::Collector, Service::Enricher] } else { &[Service::Up] };
        let mut fleet = Fleet::start(bench, place, services, &model.settings(args.concurrency)).await?;
        let program = place.program("model", false).await?;
        let load = Load::new(SEED, Population::Usual, fleet.ingests(), &program);
        let before = fleet.metrics().await?;
        let usage_before = fleet.usage();
        let since = SystemClock.now();
        let counters = [Counter::Handled("enricher")];
        let watch = Watch::new(&place.database, (program.id, since), &counters, leads, &before, &bench.progress);
        let watching = watch.until(&mut fleet, |outcome| outcome.enriched == leads as i64);
        let ((), outcome) = tokio::try_join!(load.at_full_speed(leads), watching)?;
        let usage = fleet.usage();
        fleet.stop().await?;
        ensure_agreement(&[
            ("leads posted and enriched", leads as i64, outcome.enriched),
            ("leads that the built-in analyser did", 0, outcome.fallbacks),
            ("leads and questions", leads as i64, model.questions() as i64),
        ])?;

        let first = model.first_question().context("the model was asked nothing")?;
        let last = outcome.enriching.last.context("nothing was enriched")?;
        let seconds = (last - first).as_seconds_f64();
        let speed = leads as f64 / seconds;
        let mut report = Report::default();
        let mut section = Section::new(
            "speed",
            format!(
                "{leads} leads, a model of {} ms, {} questions at once, {} enrichers",
                args.latency.as_millis(),
                args.concurrency,
                bench.fleet.replicas
            ),
        );
        section
            .add("leads_per_second", "enriched", Unit::PerSecond("leads"), speed)
            .add("ideal_per_second", "ideal", Unit::PerSecond("leads"), ideal)
            .add("percent", "reached", Unit::Percent, 100.0 * speed / ideal)
            .add("seconds", "in", Unit::Seconds, seconds)
            .add("most_at_once", "open at once", Unit::Count, model.most_at_once() as f64);
        report.section(section);
        let mut section = Section::new("processes", "The processes");
        for (after, before) in usage.iter().zip(usage_before) {
            let key = after.service.name().replace(' ', "_");
            let cpu = after.cpu.zip(before.cpu).map(|(after, before)| 1000.0 * (after - before) / leads as f64);
            let name = after.service.name();
            section.add(format!("{key}_cpu"), format!("{name}, CPU per 1,000 leads"), Unit::Seconds, cpu).add(
                format!("{key}_memory"),
                format!("{name}, peak memory"),
                Unit::Mebibytes,
                after.peak_memory,
            );
        }
        report.section(section);
        Ok((machine, report))
    })
    .await
}
