//! The machine that is measured: what has to stand beside every number, and what its servers have used.

use std::fs;
use std::thread;

use anyhow::Context;
use broker::Admin;
use ceiling::postgres::Database;
use domain::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use service::config::{AmqpConfig, DatabaseConfig, Document};
use store::server;
use time::{Duration, OffsetDateTime};
use url::Url;

use super::place::Place;
use super::procfs;
use crate::output;
use crate::settings;

/// Clocks that differ by more than this spoil latencies that begin with the one and end with the other, in milliseconds.
const CLOCK_TOLERANCE: f64 = 5.0;

/// How often the clocks are compared: the quickest answer tells most.
const CLOCK_LOOKS: usize = 10;

/// The machine and its servers, as they were when the benchmark began.
#[derive(Debug, Clone)]
pub struct Machine {
    cores: Option<usize>,
    cpu: Option<String>,
    memory_gib: Option<f64>,
    /// Of the last minute, when the benchmark began: what else the machine was doing.
    load: Option<f64>,
    postgresql: String,
    postgresql_settings: Vec<(String, String)>,
    rabbitmq: Option<String>,
    /// By how many milliseconds the database's clock is ahead of this process's.
    clock_difference: f64,
    servers: Servers,
}

/// The processes of the servers, where they run on this machine and may be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Servers {
    postgresql: Option<u32>,
    rabbitmq: Option<u32>,
}

/// Seconds of CPU.
#[derive(Debug, Clone, Copy)]
pub struct ServersCpu {
    /// Of PostgreSQL, all of its processes.
    pub postgresql: Option<f64>,
    /// Of them, those that serve connections to the benchmark's database.
    pub connections: Option<f64>,
    /// Of RabbitMQ.
    pub rabbitmq: Option<f64>,
}

impl std::ops::Sub for ServersCpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let difference = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Self {
            postgresql: difference(self.postgresql, earlier.postgresql),
            connections: difference(self.connections, earlier.connections),
            rabbitmq: difference(self.rabbitmq, earlier.rabbitmq),
        }
    }
}

impl Servers {
    /// Finds them by the sockets that they listen on.
    pub fn find(document: &Document) -> anyhow::Result<Self> {
        let database: DatabaseConfig = document.section("database")?;
        let amqp: AmqpConfig = document.section("amqp")?;
        let pid = |url: &str, port, name| {
            let url = Url::parse(url).ok()?;
            procfs::listener(url.host_str()?, url.port().unwrap_or(port), name)
        };
        Ok(Self {
            postgresql: pid(database.direct_url().expose(), 5432, "postgres"),
            rabbitmq: pid(amqp.url.expose(), 5672, "beam.smp"),
        })
    }

    /// What they have used so far, for whomever; and what the connections that are open now to the benchmark's database
    /// have. A connection that was closed before counts in the former alone.
    pub async fn cpu(&self, database: &Database) -> anyhow::Result<ServersCpu> {
        let backends = if self.postgresql.is_some() { Some(database.backends().await?) } else { None };
        Ok(ServersCpu {
            postgresql: self.postgresql.and_then(procfs::cpu_of_family),
            connections: backends.map(|pids| pids.into_iter().filter_map(procfs::cpu).sum()),
            rabbitmq: self.rabbitmq.and_then(procfs::cpu),
        })
    }
}

impl Machine {
    /// Looks at everything.
    pub async fn look(place: &Place) -> anyhow::Result<Self> {
        let facts = place.db().transact("server.facts", |tx, _| Box::pin(server::facts(tx))).await?;
        let rabbitmq = Admin::new(settings::broker(place.document())?).server_version().await?;
        Ok(Self {
            cores: thread::available_parallelism().ok().map(Into::into),
            cpu: field_of("/proc/cpuinfo", "model name"),
            memory_gib: field_of("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok())
                .map(|kibibytes| kibibytes / f64::from(1 << 20)),
            load: fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok()),
            postgresql: facts.version,
            postgresql_settings: place.database.settings().await?.values,
            rabbitmq,
            clock_difference: clock_difference(place).await?,
            servers: Servers::find(place.document()).context("looking for the servers' processes")?,
        })
    }

    /// The servers' processes.
    pub const fn servers(&self) -> &Servers {
        &self.servers
    }

    /// What makes the numbers doubtful.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if cfg!(debug_assertions) {
            warnings.push(
                "This is a debug build, many times slower than a release build: the numbers say nothing about Leadmill."
                    .to_owned(),
            );
        }
        if let (Some(load), Some(cores)) = (self.load, self.cores)
            && load > 0.3 * cores as f64
        {
            warnings.push(format!(
                "The machine was busy with something else when this began (load {load:.1} on {cores} cores)."
            ));
        }
        if self.clock_difference.abs() > CLOCK_TOLERANCE {
            warnings.push(format!(
                "The database's clock is {:.0} ms ahead of this machine's: latencies are off by as much.",
                self.clock_difference
            ));
        }
        let lost = |name: &str| self.postgresql_settings.iter().any(|(found, value)| found == name && value == "off");
        if lost("fsync") || lost("synchronous_commit") {
            warnings.push("PostgreSQL doesn't wait for its disk here, as it has to where data matters.".to_owned());
        }
        if self.servers.postgresql.is_none() || self.servers.rabbitmq.is_none() {
            warnings.push(
                "n/a: a server's CPU is known only where it runs on this machine and its process may be looked at."
                    .to_owned(),
            );
        }
        warnings
    }

    /// Prints what was found.
    pub fn print(&self) -> anyhow::Result<()> {
        let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        output::line(format_args!(
            "{} cores ({}), {} GiB of memory, load {} before",
            known(self.cores.map(|cores| cores.to_string())),
            known(self.cpu.clone()),
            known(self.memory_gib.map(|memory| format!("{memory:.0}"))),
            known(self.load.map(|load| format!("{load:.2}"))),
        ))?;
        let settings: Vec<String> =
            self.postgresql_settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        output::line(format_args!("PostgreSQL {} ({})", self.postgresql, settings.join(" ")))?;
        output::line(format_args!(
            "{}; leadmill {}, {} build",
            known(self.rabbitmq.clone()),
            env!("CARGO_PKG_VERSION"),
            profile()
        ))
    }

    /// What was found, for scripts.
    pub fn json(&self) -> Value {
        let settings: serde_json::Map<String, Value> =
            self.postgresql_settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "cores": self.cores,
            "cpu": self.cpu,
            "memory_gib": self.memory_gib,
            "load_before": self.load,
            "postgresql": self.postgresql,
            "postgresql_settings": settings,
            "rabbitmq": self.rabbitmq,
            "clock_difference_ms": self.clock_difference,
            "leadmill": env!("CARGO_PKG_VERSION"),
            "build": profile(),
        })
    }
}

/// By how many milliseconds the database's clock is ahead of this process's, as far as the time that an answer takes lets one
/// know: 0 when both may be the same.
async fn clock_difference(place: &Place) -> anyhow::Result<f64> {
    let mut best: Option<(Duration, Duration)> = None;
    for _ in 0..CLOCK_LOOKS {
        let before = SystemClock.now();
        let theirs: OffsetDateTime = place.database.now().await?;
        let took = SystemClock.now() - before;
        if best.is_none_or(|(shortest, _)| took < shortest) {
            best = Some((took, theirs - before - took / 2));
        }
    }
    let (took, difference) = best.unwrap_or_default();
    let is_known = difference.abs() > took / 2;
    Ok(if is_known { difference.as_seconds_f64() * 1000.0 } else { 0.0 })
}

/// How this program was built.
const fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// A line `name: value` of a file below `/proc`.
fn field_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}
