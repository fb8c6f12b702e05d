//! `leadmill bench pipeline`: from a posted lead to its mail.

use ceiling::bare;
use ceiling::counters::Counters;
use ceiling::truth::{Latencies, Outcome, Span};
use clap::ValueEnum;
use domain::clock::{Clock, SystemClock};
use time::OffsetDateTime;

use super::ceiling::{Shape, measure_together};
use super::fleet::{self, Fleet, Metrics, Usage};
use super::load::{Load, Population};
use super::machine::{Machine, ServersCpu};
use super::place::{self, BenchProgram, Place};
use super::report::{Report, Section, Unit};
use super::sink::{Sink, SinkArgs};
use super::watch::{Counter, Watch};
use super::{Bench, FleetArgs, Options, ensure_agreement};

/// Leads a second of a trickle.
const TRICKLE_RATE: f64 = 10.0;
/// Leads that come before a trickle, so that every connection is open and every statement prepared.
const WARM_UP: u64 = 10;
/// The population of the full load, and that of the trickle.
const SEEDS: (u64, u64) = (1, 2);

/// `leadmill bench pipeline`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Simulated leads are posted to the collector's HTTP ingest as fast as it takes them, the enricher analyses them with the
built-in analyser, the mailer decides, and captures or sends. Then, on processes that have done nothing yet but ten leads,
ten leads a second trickle in. At the end the bare ceiling of as many leads is measured on the same cores; see
`leadmill bench ceiling --help`.

With capture the leads are as they come: some have no address, some live where a first mail isn't lawful, some score too
low. With smtp all of them qualify and get a mail.

  Speed          leads/s of each stage from its first to its last row, by the instants in the tables (the collector's
                 begins with the first request), and end to end: from the first request to the last mail
  Latency        from the lead's acceptance (leads.created_at) to its mail (captured_at or sent_at)
  CPU            seconds per 1,000 leads of each process, PostgreSQL and RabbitMQ included: of the servers everything that
                 they did meanwhile, for whomever, and of PostgreSQL also what was done for the processes' connections
  Memory         the most resident memory of a process; of several replicas, of the largest
  Per lead       by PostgreSQL's own counters, from the start of the processes until the last has ended: rows written
                 (inserted, updated, deleted), transactions committed, and bytes, records and full-page images of
                 write-ahead log; messages published and confirmed, by the processes' own counters
  Ceiling        how much of the bare speed is reached; the bare rows write as many leads and mails as the run before

The counts of all of it have to agree with what SQL counts at the end, or the command fails.

To compare two versions, compare transactions, rows and write-ahead log per lead: unlike the speed they hardly depend on what
else the machine does. The write-ahead log is that of the whole server, so nothing else may write to the server meanwhile; a
note says when something did. A page's first change after a checkpoint logs the whole page, up to 8 KiB, as a full-page image.
So a checkpoint is made before the run, if the account may; compare bytes only between runs with about as many full-page
images.

Examples:
  leadmill bench pipeline --leads 20000
  leadmill bench pipeline --leads 20000 --processes --replicas 2 --runs 3
  leadmill bench pipeline --transport smtp --json")]
pub struct Args {
    /// How many leads are posted at full speed
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    leads: u64,
    /// How many leads trickle in, ten a second; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    trickle: u64,
    /// How mails leave
    #[arg(long, value_enum, default_value_t = Transport::Capture)]
    transport: Transport,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub options: Options,
}

/// How mails leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Not at all: they are kept in the database
    Capture,
    /// By SMTP to a sink on this machine
    Smtp,
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let mut report = Report::default();
        let sink = Sink::for_transport(args.transport, &args.sink, place)?;
        let connections = args.sink.connections(bench.document)?;
        if let Some(sink) = &sink {
            report.note(format!("Mails went to {}, over {connections} connections of each mailer.", sink.told()));
        }
        let settings = sink.as_ref().map(Sink::settings).unwrap_or_default();
        let run = Run { bench, place, machine: &machine, transport: args.transport, settings };

        let full = run.at_full_speed(args.leads).await?;
        if let Some(taken) = sink.as_ref().and_then(Sink::taken) {
            ensure_agreement(&[("mails sent and mails in the sink", full.outcome.sent, taken as i64)])?;
        }
        full.add_to(&mut report, args.leads);
        if args.trickle > 0 {
            let latencies = run.trickle(args.trickle).await?;
            report.section(latency_section("trickle", "Latency at 10 leads/s", latencies));
        }
        let shape = Shape {
            leads: args.leads,
            mails: full.outcome.captured + full.outcome.sent,
            transport: args.transport,
            sink: sink.as_ref().map(Sink::address),
            connections,
        };
        let bare = measure_together(bench, place, &shape).await?;
        full.add_ratio_to(&mut report, args.leads, &bare);
        Ok((machine, report))
    })
    .await
}

/// Where and how a run takes place.
pub struct Run<'a> {
    /// The benchmark.
    pub bench: &'a Bench<'a>,
    /// Its database and queues.
    pub place: &'a Place,
    /// The servers.
    pub machine: &'a Machine,
    /// How mails leave.
    pub transport: Transport,
    /// Settings of the services that follow from it.
    pub settings: Vec<(&'static str, String)>,
}

/// What a run at full speed has shown.
pub struct Full {
    since: OffsetDateTime,
    /// What the tables say.
    pub outcome: Outcome,
    latencies: Option<Latencies>,
    usage: Vec<(Usage, Option<f64>)>,
    servers: ServersCpu,
    counters: Counters,
    published: (u64, u64),
}

impl Run<'_> {
    /// Posts leads as fast as they are taken, and waits until all are through.
    pub async fn at_full_speed(&self, leads: u64) -> anyhow::Result<Full> {
        let program = self.place.program("full-speed", self.transport == Transport::Smtp).await?;
        self.at_full_speed_for(&program, leads).await
    }

    /// The same for a program that is there already.
    pub async fn at_full_speed_for(&self, program: &BenchProgram, leads: u64) -> anyhow::Result<Full> {
        let Self { bench, place, machine, .. } = self;
        let population = match self.transport {
            Transport::Capture => Population::Usual,
            Transport::Smtp => Population::Reachable,
        };
        // Processes report what they have counted with a delay, so these are counted from their start to their end.
        place.database.wait_until_alone().await?;
        place.database.checkpoint().await;
        let counters_before = place.database.counters().await?;
        let mut fleet = Fleet::start(bench, place, fleet::all(bench.fleet.processes), &self.settings).await?;
        let load = Load::new(SEEDS.0, population, fleet.ingests(), program);
        let metrics_before = fleet.metrics().await?;
        let usage_before = fleet.usage();
        let servers_before = machine.servers().cpu(&place.database).await?;
        let since = SystemClock.now();
        let outcome =
            self.through(&mut fleet, program, since, leads, &metrics_before, load.at_full_speed(leads)).await?;
        let servers = machine.servers().cpu(&place.database).await? - servers_before;
        let usage = fleet
            .usage()
            .into_iter()
            .zip(usage_before)
            .map(|(after, before)| {
                let cpu = after.cpu.zip(before.cpu).map(|(after, before)| after - before);
                (after, cpu)
            })
            .collect();
        let (messages, confirmed) = fleet.metrics().await?.published();
        let (messages_before, confirmed_before) = metrics_before.published();
        fleet.stop().await?;
        place.database.wait_until_alone().await?;
        let counters = place.database.counters().await? - counters_before;
        Ok(Full {
            since,
            outcome,
            latencies: place.database.latencies(program.id, since).await?,
            usage,
            servers,
            counters,
            published: (messages - messages_before, confirmed - confirmed_before),
        })
    }

    /// Lets leads trickle in, and tells how long each took.
    async fn trickle(&self, leads: u64) -> anyhow::Result<Option<Latencies>> {
        let Self { bench, place, .. } = self;
        // One that writes to everybody, so that every lead tells how long its mail took.
        let program = place.program("trickle", true).await?;
        let mut fleet = Fleet::start(bench, place, fleet::all(bench.fleet.processes), &self.settings).await?;
        let load = Load::new(SEEDS.1, Population::Reachable, fleet.ingests(), &program);
        let mut since = SystemClock.now();
        for (first, count) in [(0, WARM_UP), (WARM_UP, leads)] {
            since = SystemClock.now();
            let before = fleet.metrics().await?;
            let trickling = load.at_rate(first, count, TRICKLE_RATE);
            let outcome = self.through(&mut fleet, &program, since, count, &before, trickling).await?;
            ensure_agreement(&[("leads and mails of the trickle", outcome.leads, outcome.captured + outcome.sent)])?;
        }
        fleet.stop().await?;
        Ok(place.database.latencies(program.id, since).await?)
    }

    /// Waits until leads that are being posted are through, and checks what became of them.
    async fn through(
        &self,
        fleet: &mut Fleet,
        program: &BenchProgram,
        since: OffsetDateTime,
        leads: u64,
        before: &Metrics,
        posting: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Outcome> {
        let mut counters = vec![Counter::Handled("enricher"), Counter::Handled("mailer")];
        if self.transport == Transport::Smtp {
            counters.push(Counter::Sent);
        }
        let watch =
            Watch::new(&self.place.database, (program.id, since), &counters, leads, before, &self.bench.progress);
        let wanted = leads as i64;
        let watching = watch.until(fleet, |outcome| outcome.decided == wanted && outcome.moving == 0);
        let ((), outcome) = tokio::try_join!(posting, watching)?;
        ensure_agreement(&[
            ("leads posted and stored", wanted, outcome.leads),
            ("leads and keys", outcome.leads, outcome.keys),
            ("leads and enrichments", outcome.leads, outcome.enriched),
            ("enrichments and decisions", outcome.enriched, outcome.decided),
            ("qualified leads and mails", outcome.qualified, outcome.captured + outcome.sent + outcome.held),
            ("mails that failed", 0, outcome.failed),
        ])?;
        Ok(outcome)
    }
}

impl Full {
    /// Seconds from the first request to the last row.
    pub fn seconds(&self) -> f64 {
        let ends = [self.outcome.collected, self.outcome.enriching, self.outcome.deciding, self.outcome.mailing];
        let last = ends.iter().filter_map(|span| span.last).max().unwrap_or(self.since);
        (last - self.since).as_seconds_f64()
    }

    fn add_to(&self, report: &mut Report, leads: u64) {
        let Outcome { collected, enriching, deciding, mailing, .. } = self.outcome;
        let per_second = |count: i64, seconds: Option<f64>| seconds.map(|seconds| count as f64 / seconds);
        let speed = |count: i64, span: Span| per_second(count, span.seconds());
        let mails = self.outcome.captured + self.outcome.sent;
        let collecting = collected.last.map(|last| (last - self.since).as_seconds_f64());
        let mut section = Section::new("speed", format!("Speed at full load, {leads} leads"));
        let unit = Unit::PerSecond("leads");
        section
            .add("collected_per_second", "collected", unit, per_second(self.outcome.leads, collecting))
            .add("enriched_per_second", "enriched", unit, speed(self.outcome.enriched, enriching))
            .add("decided_per_second", "decided", unit, speed(self.outcome.decided, deciding))
            .add("mailed_per_second", "mailed", Unit::PerSecond("mails"), speed(mails, mailing))
            .add("leads_per_second", "end to end", unit, leads as f64 / self.seconds())
            .add("seconds", "in", Unit::Seconds, self.seconds())
            .add("qualified", "of them qualified", Unit::Count, self.outcome.qualified as f64)
            .add("mails", "and got a mail", Unit::Count, mails as f64);
        report.section(section);
        report.section(latency_section("latency", "Latency at full load", self.latencies));

        let thousands = leads as f64 / 1000.0;
        let mut section = Section::new("cpu", "CPU per 1,000 leads");
        for (usage, cpu) in &self.usage {
            let key = usage.service.name().replace(' ', "_");
            section.add(key, usage.service.name(), Unit::Seconds, cpu.map(|cpu| cpu / thousands));
        }
        let each = |cpu: Option<f64>| cpu.map(|cpu| cpu / thousands);
        section
            .add("postgresql", "PostgreSQL", Unit::Seconds, each(self.servers.postgresql))
            .add("postgresql_connections", "of it these connections", Unit::Seconds, each(self.servers.connections))
            .add("rabbitmq", "RabbitMQ", Unit::Seconds, each(self.servers.rabbitmq));
        report.section(section);

        let mut section = Section::new("memory", "Peak resident memory");
        for (usage, _) in &self.usage {
            let key = usage.service.name().replace(' ', "_");
            section.add(key, usage.service.name(), Unit::Mebibytes, usage.peak_memory);
        }
        report.section(section);

        let each = |count: f64| count / leads as f64;
        let (messages, confirmed) = self.published;
        let wal = self.counters.wal;
        let mut section = Section::new("per_lead", "Per lead");
        section
            .add("rows", "rows written", Unit::Count, each(self.counters.rows() as f64))
            .add("transactions", "transactions", Unit::Count, each(self.counters.transactions as f64))
            .add("wal_bytes", "write-ahead log", Unit::Bytes, each(wal.bytes as f64))
            .add("wal_records", "its records", Unit::Count, each(wal.records as f64))
            .add("wal_full_page_images", "full-page images in it", Unit::Count, each(wal.full_page_images as f64))
            .add("messages", "messages", Unit::Count, each(messages as f64))
            .add("confirms", "confirms", Unit::Count, each(confirmed as f64));
        report.section(section);
        let mut section = Section::new("whole_run", "Of the whole run");
        section.add("wal_full_page_images", "full-page images", Unit::Count, wal.full_page_images as f64).add(
            "checkpoints",
            "checkpoints",
            Unit::Count,
            wal.checkpoints as f64,
        );
        report.section(section);
        if self.counters.is_log_shared() {
            report.note(
                "Other databases of the PostgreSQL server were written to meanwhile, and the write-ahead log includes theirs: \
                 its bytes, records and full-page images per lead are too high.",
            );
        }
    }

    fn add_ratio_to(&self, report: &mut Report, leads: u64, bare: &bare::Together) {
        let speed = leads as f64 / self.seconds();
        // The bare run may be of fewer leads.
        let each = |count: f64| count / bare.leads as f64;
        let mut section = Section::new("ceiling", "Beside the bare ceiling, measured in the same run");
        section
            .add("bare_leads_per_second", "bare", Unit::PerSecond("leads"), bare.leads_per_second())
            .add("percent", "reached", Unit::Percent, 100.0 * speed / bare.leads_per_second())
            .add("bare_rows", "rows per lead, bare", Unit::Count, each(bare.counters.rows() as f64))
            .add("bare_wal_bytes", "write-ahead log per lead, bare", Unit::Bytes, each(bare.counters.wal.bytes as f64))
            .add("bare_messages", "messages per lead, bare", Unit::Count, each(bare.messages as f64));
        report.section(section);
    }
}

fn latency_section(key: &str, title: &str, latencies: Option<Latencies>) -> Section {
    let mut section = Section::new(key, title);
    section
        .add("p50_ms", "p50", Unit::Milliseconds, latencies.map(|latencies| latencies.p50))
        .add("p95_ms", "p95", Unit::Milliseconds, latencies.map(|latencies| latencies.p95))
        .add("p99_ms", "p99", Unit::Milliseconds, latencies.map(|latencies| latencies.p99));
    section
}
