//! `leadmill bench ceiling`: what this machine can do bare.

use std::net::SocketAddr;
use std::time::Duration;

use ceiling::bare::{self, Amount, MailSink, Messages, Parts};
use mailer::config::MailerConfig;
use service::config::AmqpConfig;

use super::machine::Machine;
use super::pipeline::Transport;
use super::place::{self, Place};
use super::report::{Report, Section, Unit};
use super::sink::{Sink, SinkArgs};
use super::{Bench, Options};

/// More leads than this are not made at once: they stand in memory before the clock starts, and a bare speed is the same
/// after a few seconds as after an hour.
const MOST_LEADS: u64 = 100_000;

/// `leadmill bench ceiling`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same rows as the pipeline writes per lead are written in batches of 256 by four connections, the same messages are
published with confirms and consumed with acknowledgements, and mails of typical size are handed to a sink: first each
alone, then all at once on the same cores. Nothing is read, sealed, decided or waited for. A pipeline on this machine comes
close to that at best; a few per cent more are the noise between two runs.

  alone          rows, counted as leads/s, messages/s from the first to the last acknowledged one, mails/s
  all at once    leads/s until the last of the parts is done: with capture rows and messages; with smtp also mails, one for
                 each lead, whose rows are others and whose messages are more
  per lead       rows, bytes of write-ahead log and messages, to be compared with those of `leadmill bench pipeline`

Examples:
  leadmill bench ceiling
  leadmill bench ceiling --leads 50000 --runs 3 --json")]
pub struct Args {
    /// How many leads
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=MOST_LEADS))]
    leads: u64,
    /// How many of 100 leads get a mail
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100))]
    mailed: u64,
    #[command(flatten)]
    sink: SinkArgs,
    #[command(flatten)]
    pub options: Options,
}

/// What a bare run is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Leads.
    pub leads: u64,
    /// Mails to them.
    pub mails: i64,
    /// How they leave.
    pub transport: Transport,
    /// Where to.
    pub sink: Option<SocketAddr>,
    /// Over how many connections.
    pub connections: u32,
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let sink = Sink::plain(&args.sink, place)?;
        let connections = args.sink.connections(bench.document)?;
        let mails = args.leads * args.mailed / 100;
        let amount = Amount { leads: args.leads, mails, transport: bare::Transport::Capture };
        let mut report = Report::default();

        let mut section = Section::new("alone", format!("Each alone, {} leads", args.leads));
        let bare = Bare::prepare(bench, place, "alone").await?;
        let per_second = |count: u64, took: Duration| count as f64 / took.as_secs_f64();
        bench.say("rows alone");
        let took = bare.parts(None).rows(amount).await?;
        section.add("rows_leads_per_second", "rows", Unit::PerSecond("leads"), per_second(args.leads, took));
        bench.say("messages alone");
        let took = bare.parts(None).messages(amount).await?;
        let speed = per_second(amount.messages(), took);
        section.add("messages_per_second", "messages", Unit::PerSecond("messages"), speed);
        let mails_per_connection = mails_per_connection(bench)?;
        let mail_sink = MailSink { address: sink.address(), connections, mails_per_connection };
        if mails > 0 {
            bench.say("mails alone");
            let took = mail_sink.send(mails).await?;
            section.add("mails_per_second", "mails", Unit::PerSecond("mails"), per_second(mails, took));
        }
        report.section(section);
        report.note(format!("Mails went to {}, over {connections} connections.", sink.told()));

        for (key, transport) in [("capture", Transport::Capture), ("smtp", Transport::Smtp)] {
            bench.say(&format!("all at once, {key}"));
            let shape =
                Shape { leads: args.leads, mails: mails as i64, transport, sink: Some(sink.address()), connections };
            let servers_before = machine.servers().cpu(&place.database).await?;
            let together = measure_together(bench, place, &shape).await?;
            let servers = machine.servers().cpu(&place.database).await? - servers_before;
            let each = |count: f64| count / args.leads as f64;
            let thousand = |cpu: Option<f64>| cpu.map(|cpu| 1000.0 * each(cpu));
            let mut section = Section::new(key, format!("All at once, with {key}"));
            section
                .add("leads_per_second", "leads", Unit::PerSecond("leads"), together.leads_per_second())
                .add("rows_per_lead", "rows per lead", Unit::Count, each(together.counters.rows() as f64))
                .add(
                    "wal_bytes_per_lead",
                    "write-ahead log per lead",
                    Unit::Bytes,
                    each(together.counters.wal.bytes as f64),
                )
                .add("messages_per_lead", "messages per lead", Unit::Count, each(together.messages as f64))
                .add("postgresql_cpu", "PostgreSQL, CPU per 1,000 leads", Unit::Seconds, thousand(servers.postgresql))
                .add("rabbitmq_cpu", "RabbitMQ, CPU per 1,000 leads", Unit::Seconds, thousand(servers.rabbitmq));
            report.section(section);
        }
        Ok((machine, report))
    })
    .await
}

/// All parts of a bare run at once.
pub async fn measure_together(bench: &Bench<'_>, place: &Place, shape: &Shape) -> anyhow::Result<bare::Together> {
    let leads = shape.leads.min(MOST_LEADS);
    let mails = (shape.mails.unsigned_abs() * leads).div_ceil(shape.leads).min(leads);
    let (slug, transport) = match shape.transport {
        Transport::Capture => ("bare-capture", bare::Transport::Capture),
        Transport::Smtp => ("bare-smtp", bare::Transport::Smtp),
    };
    bench.say(&format!("the bare ceiling, {leads} leads"));
    let bare = Bare::prepare(bench, place, slug).await?;
    let mails_per_connection = mails_per_connection(bench)?;
    let sink = shape.sink.map(|address| MailSink { address, connections: shape.connections, mails_per_connection });
    Ok(bare.parts(sink.as_ref()).together(Amount { leads, mails, transport }).await?)
}

/// The bare intake of leads.
pub async fn measure_intake(bench: &Bench<'_>, place: &Place, leads: u64) -> anyhow::Result<bare::Together> {
    let leads = leads.min(MOST_LEADS);
    bench.say(&format!("the bare ceiling, {leads} leads"));
    Ok(Bare::prepare(bench, place, "bare-intake").await?.parts(None).intake(leads).await?)
}

fn mails_per_connection(bench: &Bench<'_>) -> anyhow::Result<u32> {
    Ok(MailerConfig::read(bench.document)?.0.smtp.mails_per_connection.get())
}

/// What the parts of a bare run work on.
struct Bare<'a> {
    place: &'a Place,
    program: domain::id::ProgramId,
    messages: Messages,
}

impl<'a> Bare<'a> {
    async fn prepare(bench: &Bench<'_>, place: &'a Place, slug: &str) -> anyhow::Result<Self> {
        let amqp: AmqpConfig = bench.document.section("amqp")?;
        let messages = Messages::new(amqp.url.expose().clone(), place.namespace.clone());
        let program = place.program(slug, true).await?.id;
        // What came before is not to be paid for here.
        place.database.checkpoint().await;
        Ok(Self { place, program, messages })
    }

    fn parts<'b>(&'b self, sink: Option<&'b MailSink>) -> Parts<'b> {
        Parts { database: &self.place.database, program: self.program, messages: &self.messages, sink }
    }
}
