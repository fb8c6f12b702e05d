//! `leadmill bench start`: how long a process takes until it is ready, its servers being there or coming late.

use std::time::{Duration, Instant};

use anyhow::ensure;
use service::config::{AmqpConfig, DatabaseConfig, duration};
use tokio::time::sleep;

use super::door::{Door, Opened};
use super::fleet::{self, Fleet, Service};
use super::machine::Machine;
use super::place::{self, Place};
use super::report::{Report, Section, Unit};
use super::{Bench, Options};

/// `leadmill bench start`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each process is started alone, its schema migrated and its queues declared, and asked for /readyz every five milliseconds:
with its servers there, and with servers that come later than itself, whose addresses refuse every connection until then.

  median         to the first 200: from the start of the process, or from the moment when its servers are there
  longest        of all starts

Examples:
  leadmill bench start
  leadmill bench start --processes --times 20
  leadmill bench start --late 30s")]
pub struct Args {
    /// Measure the binaries `collector`, `enricher` and `mailer` beside this program [default: all in one process]
    #[arg(long)]
    pub processes: bool,
    /// How often each is started
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    times: u16,
    /// How long after the process its servers come, at most 30s; 0s leaves that out
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = late)]
    late: Duration,
    #[command(flatten)]
    pub options: Options,
}

fn late(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(late) if late <= Duration::from_secs(30) => Ok(late),
        _ => Err("expected a time from 0s to 30s, such as 3s".to_owned()),
    }
}

/// What is there when a process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Both servers.
    ServersFirst,
    /// Neither; both come at the same moment.
    ServersLate,
    /// PostgreSQL.
    RabbitMqLate,
}

impl Order {
    const fn key(self) -> &'static str {
        match self {
            Self::ServersFirst => "start",
            Self::ServersLate => "servers_late",
            Self::RabbitMqLate => "rabbitmq_late",
        }
    }

    fn title(self, args: &Args) -> String {
        let (times, late) = (args.times, args.late.as_secs_f64());
        match self {
            Self::ServersFirst => format!("Ready after its start, of {times} starts"),
            Self::ServersLate => {
                format!("Ready after PostgreSQL and RabbitMQ, which came {late} s after it, of {times} starts")
            }
            Self::RabbitMqLate => format!("Ready after RabbitMQ, which came {late} s after it, of {times} starts"),
        }
    }
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let mut report = Report::default();
        let orders: &[Order] = if args.late.is_zero() {
            &[Order::ServersFirst]
        } else {
            &[Order::ServersFirst, Order::ServersLate, Order::RabbitMqLate]
        };
        for order in orders {
            report.section(starts(bench, place, args, *order).await?);
        }
        Ok((machine, report))
    })
    .await
}

async fn starts(bench: &Bench<'_>, place: &Place, args: &Args, order: Order) -> anyhow::Result<Section> {
    let title = order.title(args);
    let mut section = Section::new(order.key(), &*title);
    for service in fleet::all(args.processes) {
        bench.say(&format!("{}: {title}", service.name()));
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..args.times {
            took.push(match order {
                Order::ServersFirst => on_time(bench, place, *service).await?,
                Order::ServersLate | Order::RabbitMqLate => late_by(bench, place, *service, args.late, order).await?,
            });
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
    Ok(section)
}

/// From its start to its readiness.
async fn on_time(bench: &Bench<'_>, place: &Place, service: Service) -> anyhow::Result<Duration> {
    let fleet = Fleet::start(bench, place, &[service], &[]).await?;
    let took = fleet.ready_after();
    fleet.stop().await?;
    Ok(took)
}

/// From the moment when its servers are there to its readiness.
async fn late_by(
    bench: &Bench<'_>,
    place: &Place,
    service: Service,
    late: Duration,
    order: Order,
) -> anyhow::Result<Duration> {
    let mut doors = Vec::new();
    let mut settings = Vec::new();
    let amqp: AmqpConfig = place.document().section("amqp")?;
    let door = Door::before("AMQP_URL", amqp.url.expose(), 5672)?;
    settings.push(("amqp.url", door.url().to_owned()));
    doors.push(door);
    if order == Order::ServersLate {
        let database: DatabaseConfig = place.document().section("database")?;
        let door = Door::before("DATABASE_URL", database.url.expose(), 5432)?;
        settings.push(("database.url", door.url().to_owned()));
        doors.push(door);
    }
    let opening = async {
        sleep(late).await;
        let opened: Vec<Opened> = doors.into_iter().map(Door::open).collect::<anyhow::Result<_>>()?;
        Ok((Instant::now(), opened))
    };
    let services = [service];
    let starting = Fleet::start(bench, place, &services, &settings);
    let (fleet, (opened_at, opened)) = tokio::try_join!(starting, opening)?;
    let took = opened_at.elapsed();
    ensure!(fleet.ready_after() >= late, "{} was ready without its servers", service.name());
    fleet.stop().await?;
    drop(opened);
    Ok(took)
}
