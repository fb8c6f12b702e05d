//! The processes that are measured: `leadmill up`, or a binary for each service.

use std::fs::{self, File};
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use service::healthcheck;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Bench;
use super::http;
use super::place::Place;
use super::procfs;

/// How long a process may take to become ready.
const START_LIMIT: Duration = Duration::from_mins(1);
/// The time between two looks whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a process may take to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often a process is started that finds its port taken.
const MOST_TRIES: u32 = 3;
/// Lines of its log that are shown of a process that failed.
const SHOWN_LINES: usize = 15;

/// What a process consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// All services.
    Up,
    /// Takes leads in.
    Collector,
    /// Analyses them.
    Enricher,
    /// Decides about them and writes.
    Mailer,
}

impl Service {
    /// What it is called, and its binary but for the first.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "leadmill up",
            Self::Collector => "collector",
            Self::Enricher => "enricher",
            Self::Mailer => "mailer",
        }
    }

    /// The key of the address of its admin server.
    const fn admin_key(self) -> &'static str {
        match self {
            Self::Up => "admin.listen",
            Self::Collector => "collector.admin_listen",
            Self::Enricher => "enricher.admin_listen",
            Self::Mailer => "mailer.admin_listen",
        }
    }

    /// The keys of other addresses that it listens on.
    const fn listen_keys(self) -> &'static [&'static str] {
        match self {
            Self::Up => &["collector.listen", "mailer.listen"],
            Self::Collector => &["collector.listen"],
            Self::Enricher => &[],
            Self::Mailer => &["mailer.listen"],
        }
    }
}

/// The services of a measurement as processes: all in each, or each alone.
pub const fn all(processes: bool) -> &'static [Service] {
    if processes { &[Service::Collector, Service::Enricher, Service::Mailer] } else { &[Service::Up] }
}

/// Running processes; what is dropped is killed.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
}

/// A running process.
#[derive(Debug)]
struct Member {
    service: Service,
    child: Child,
    pid: u32,
    admin: SocketAddr,
    ingest: Option<SocketAddr>,
    log: PathBuf,
    ready_after: Duration,
}

/// What processes of a kind have used.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Which.
    pub service: Service,
    /// Seconds of CPU of all of them together.
    pub cpu: Option<f64>,
    /// The most memory that one of them has had in use, in MiB.
    pub peak_memory: Option<f64>,
}

impl Fleet {
    /// Starts as many of each service as `--replicas` says, with these settings on top of those of the place, and waits until
    /// all are ready.
    ///
    /// # Errors
    /// When a binary isn't there, or a process ends or doesn't become ready; with the end of its log.
    pub async fn start(
        bench: &Bench<'_>,
        place: &Place,
        services: &[Service],
        settings: &[(&'static str, String)],
    ) -> anyhow::Result<Self> {
        let spawn = |service: Service, number: usize| {
            let spawned = Instant::now();
            Member::spawn(bench, place, service, settings, number).map(|member| (member, spawned))
        };
        let wanted = services.iter().flat_map(|service| iter::repeat_n(*service, bench.fleet.replicas.into()));
        let starting: Vec<(Member, Instant)> =
            wanted.enumerate().map(|(number, service)| spawn(service, number)).collect::<anyhow::Result<_>>()?;
        let mut ready = Vec::new();
        for (number, (mut member, mut spawned)) in starting.into_iter().enumerate() {
            let mut tries = 1;
            while let Err(error) = member.wait_until_ready().await {
                if tries == MOST_TRIES || !member.lost_its_port() {
                    return Err(error);
                }
                tries += 1;
                (member, spawned) = spawn(member.service, number)?;
            }
            member.ready_after = spawned.elapsed();
            ready.push(member);
        }
        Ok(Self { members: ready })
    }

    /// How long the first process took from its start to the first 200 of `/readyz`.
    pub fn ready_after(&self) -> Duration {
        self.members.first().map(|member| member.ready_after).unwrap_or_default()
    }

    /// Where leads are taken in over HTTP.
    pub fn ingests(&self) -> Vec<SocketAddr> {
        self.members.iter().filter_map(|member| member.ingest).collect()
    }

    /// What the processes have used so far, by service.
    pub fn usage(&self) -> Vec<Usage> {
        let mut kinds: Vec<Service> = self.members.iter().map(|member| member.service).collect();
        kinds.dedup();
        kinds
            .into_iter()
            .map(|service| {
                let pids = || self.members.iter().filter(|member| member.service == service).map(|member| member.pid);
                Usage {
                    service,
                    cpu: pids().map(procfs::cpu).sum(),
                    peak_memory: pids().map(procfs::peak_memory).collect::<Option<Vec<f64>>>().map(largest),
                }
            })
            .collect()
    }

    /// What the processes count of themselves.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let mut text = String::new();
        for member in &self.members {
            text.push_str(
                &http::get(member.admin, "/metrics").await.with_context(|| member.service.name().to_owned())?,
            );
            text.push('\n');
        }
        Ok(Metrics { text })
    }

    /// Fails when a process has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(Member::check)
    }

    /// Asks all to end, and waits until they have.
    ///
    /// # Errors
    /// When one has failed, or has to be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        for member in &self.members {
            let pid = i32::try_from(member.pid).ok().and_then(Pid::from_raw);
            let pid = pid.with_context(|| format!("the id of {} is none", member.service.name()))?;
            kill_process(pid, Signal::TERM).with_context(|| format!("asking {} to end", member.service.name()))?;
        }
        for member in &mut self.members {
            let ended = timeout(END_LIMIT, member.child.wait()).await;
            let status =
                ended.with_context(|| format!("{} does not end: {}", member.service.name(), member.tail()))??;
            ensure!(status.success(), "{} failed: {}", member.service.name(), member.tail());
        }
        Ok(())
    }
}

fn largest(values: Vec<f64>) -> f64 {
    values.into_iter().fold(0.0, f64::max)
}

impl Member {
    fn spawn(
        bench: &Bench<'_>,
        place: &Place,
        service: Service,
        settings: &[(&'static str, String)],
        number: usize,
    ) -> anyhow::Result<Self> {
        let program = binary(service)?;
        let log = place.folder.path().join(format!("{number}.log"));
        let file = File::create(&log).with_context(|| format!("making the log {}", log.display()))?;
        let admin = free_address()?;
        let mut ingest = None;
        let mut command = command(&program, bench.file, place, settings);
        set(&mut command, service.admin_key(), &admin.to_string());
        for key in service.listen_keys() {
            let address = free_address()?;
            set(&mut command, key, &address.to_string());
            if *key == "collector.listen" {
                ingest = Some(address);
            }
        }
        if service == Service::Up {
            command.arg("up");
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            // Ctrl-C is for the benchmark, which ends its processes itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let pid = child.id().with_context(|| format!("{} ended at once", service.name()))?;
        Ok(Self { service, child, pid, admin, ingest, log, ready_after: Duration::ZERO })
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let admin = self.admin;
            let asked = tokio::task::spawn_blocking(move || healthcheck::ask(admin)).await;
            let unready = match asked.context("asking for readiness")? {
                Ok(()) => return Ok(()),
                Err(unready) => unready,
            };
            self.check()?;
            if started.elapsed() > START_LIMIT {
                return Err(anyhow::Error::new(unready).context(format!(
                    "{} did not become ready within a minute: {}",
                    self.service.name(),
                    self.tail()
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().with_context(|| format!("looking for {}", self.service.name()))? {
            bail!("{} ended by itself ({status}): {}", self.service.name(), self.tail());
        }
        Ok(())
    }

    /// Whether somebody else took a port that was free when it was chosen.
    fn lost_its_port(&self) -> bool {
        self.tail().contains("Address already in use")
    }

    /// The end of its log.
    fn tail(&self) -> String {
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// The running program itself, or a binary beside it.
fn binary(service: Service) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    if service == Service::Up {
        return Ok(own);
    }
    let path = own.with_file_name(service.name());
    ensure!(
        path.is_file(),
        "{} is not there: `cargo build --release` makes the binaries of all services; without --processes none is needed",
        path.display()
    );
    Ok(path)
}

/// A program under the configuration of the caller, but in this place.
pub fn command(program: &Path, config: Option<&Path>, place: &Place, settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(program);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    for (key, value) in place.settings.iter().chain(settings) {
        set(&mut command, key, value);
    }
    // What is asked on this machine must not take a way around it.
    command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost");
    command
}

/// Sets a key of the configuration, whatever else has set it.
fn set(command: &mut Command, key: &str, value: &str) {
    let name = format!("LEADMILL_{}", key.replace('.', "_").to_ascii_uppercase());
    command.env_remove(format!("{name}_FILE")).env(name, value);
}

/// An address of the loopback that was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}

/// What processes count of themselves, in Prometheus's text format.
#[derive(Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// The sum of a counter over all series whose labels contain each of `labels`, such as `result="confirmed"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        self.text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Deliveries that a stage has brought to their end.
    pub fn handled(&self, stage: &str) -> u64 {
        self.sum("leadmill_stage_handled_total", &[&format!("stage=\"{stage}\"")])
    }

    /// Messages published, and how many of them RabbitMQ has confirmed.
    pub fn published(&self) -> (u64, u64) {
        let name = "leadmill_outbox_publishes_total";
        (self.sum(name, &[]), self.sum(name, &["result=\"confirmed\""]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_the_series_that_are_meant() {
        let text = "# TYPE handled_total counter\nhandled_total{stage=\"mailer\",result=\"held\"} 3\n\
                    handled_total{stage=\"mailer\",result=\"claimed\"} 4\nhandled_total{stage=\"enricher\"} 9\n\
                    handled_total_other 100\nplain 7\n";
        let metrics = Metrics { text: text.to_owned() };
        assert_eq!(metrics.sum("handled_total", &["stage=\"mailer\""]), 7);
        assert_eq!(metrics.sum("handled_total", &["stage=\"mailer\"", "result=\"held\""]), 3);
        assert_eq!(metrics.sum("plain", &[]), 7);
        assert_eq!(metrics.sum("absent", &[]), 0);
    }
}
