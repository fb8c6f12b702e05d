//! `leadmill bench mail`: mails a second into a sink.

use anyhow::Context;
use domain::clock::{Clock, SystemClock};
use store::outreach::release::{self, Filter};

use super::fleet::{self, Fleet, Service};
use super::load::{Load, Population};
use super::machine::Machine;
use super::place::{self, Place};
use super::report::{Report, Section, Unit};
use super::sink::{Sink, SinkArgs};
use super::watch::{Counter, Watch};
use super::{Bench, FleetArgs, Options, ensure_agreement};

/// The creators; each program has them all.
const SEED: u64 = 6;

/// `leadmill bench mail`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Leads go through the pipeline once with capture. Then their mails are released, as `leadmill mail release --captured` does it,
and nothing is left to do but to send them: claim, compose, connect, commit the move to the data phase, transmit, settle.
First without TLS, then the same again by STARTTLS.

  mails/s        from the first to the last mail, by the instants in the tables (outreach.sent_at)
  CPU            seconds per 1,000 mails of the mailer (or of `leadmill up`), and of the servers everything that they did
                 meanwhile; of PostgreSQL also what was done for the mailer's connections
  connections    of each mailer; as many mails are on their way at once

Without TLS the mails go to postfix's smtp-sink where it is installed, or to where --sink says; by STARTTLS always to a
built-in sink, which shares the cores, so part of its cost is the sink's.

Examples:
  leadmill bench mail
  leadmill bench mail --mails 20000 --connections 16 --processes")]
pub struct Args {
    /// How many mails
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    mails: u64,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub options: Options,
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let mut report = Report::default();
        let connections = args.sink.connections(bench.document)?;
        for (key, title) in [("plain", "Without TLS"), ("tls", "By STARTTLS")] {
            let sink = if key == "tls" { Sink::with_tls(&args.sink, place)? } else { Sink::plain(&args.sink, place)? };
            report.note(format!("{title} mails went to {}, over {connections} connections.", sink.told()));
            let title = format!("{title}, {} mails", args.mails);
            report.section(send(bench, place, &machine, &sink, args.mails, Section::new(key, title)).await?);
        }
        Ok((machine, report))
    })
    .await
}

/// Captures mails, releases them, and sends them to the sink.
async fn send(
    bench: &Bench<'_>,
    place: &Place,
    machine: &Machine,
    sink: &Sink,
    mails: u64,
    mut section: Section,
) -> anyhow::Result<Section> {
    let slug = if sink.is_encrypted() { "mail-tls" } else { "mail-plain" };
    let program = place.program(slug, true).await?;
    let since = SystemClock.now();
    let wanted = mails as i64;

    bench.say("making mails");
    let mut fleet = Fleet::start(bench, place, fleet::all(bench.fleet.processes), &[]).await?;
    let load = Load::new(SEED, Population::Reachable, fleet.ingests(), &program);
    let before = fleet.metrics().await?;
    let counters = [Counter::Handled("mailer")];
    let watch = Watch::new(&place.database, (program.id, since), &counters, mails, &before, &bench.progress);
    let watching = watch.until(&mut fleet, |outcome| outcome.captured == wanted);
    tokio::try_join!(load.at_full_speed(mails), watching)?;
    fleet.stop().await?;
    let id = program.id;
    let released =
        release::release(place.db(), id, &Filter::Captured, |_| {}).await.context("releasing the mails")?.queued;

    bench.say("sending them");
    let services: &[Service] = if bench.fleet.processes { &[Service::Mailer] } else { &[Service::Up] };
    let servers_before = machine.servers().cpu(&place.database).await?;
    let mut fleet = Fleet::start(bench, place, services, &sink.settings()).await?;
    let before = fleet.metrics().await?;
    // It has begun to send before it could be asked: what was counted by then is counted as well.
    let sent_before = Counter::Sent.read(&before);
    let left = mails.saturating_sub(sent_before);
    let watch = Watch::new(&place.database, (id, since), &[Counter::Sent], left, &before, &bench.progress);
    let outcome = watch.until(&mut fleet, |outcome| outcome.sent == wanted).await?;
    let servers = machine.servers().cpu(&place.database).await? - servers_before;
    let usage = fleet.usage();
    fleet.stop().await?;
    ensure_agreement(&[
        ("mails captured and released", wanted, released as i64),
        ("mails released and sent", wanted, outcome.sent),
        ("mails sent and mails in the sink", wanted, sink.taken().map_or(wanted, |taken| taken as i64)),
    ])?;

    let thousand = |cpu: Option<f64>| cpu.map(|cpu| 1000.0 * cpu / mails as f64);
    let seconds = outcome.mailing.seconds().context("nothing was sent")?;
    section.add("mails_per_second", "sent", Unit::PerSecond("mails"), mails as f64 / seconds);
    section.add("seconds", "in", Unit::Seconds, seconds);
    for usage in usage {
        let name = usage.service.name();
        let key = name.replace(' ', "_");
        section
            .add(format!("{key}_cpu"), format!("{name}, CPU per 1,000 mails"), Unit::Seconds, thousand(usage.cpu))
            .add(format!("{key}_memory"), format!("{name}, peak memory"), Unit::Mebibytes, usage.peak_memory);
    }
    section
        .add("postgresql_cpu", "PostgreSQL, CPU per 1,000 mails", Unit::Seconds, thousand(servers.postgresql))
        .add("connections_cpu", "of it these connections", Unit::Seconds, thousand(servers.connections))
        .add("rabbitmq_cpu", "RabbitMQ, CPU per 1,000 mails", Unit::Seconds, thousand(servers.rabbitmq));
    Ok(section)
}
