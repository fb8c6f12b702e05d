//! A binary that runs.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::wait::{PATIENCE, eventually};

/// Lines of a log that are shown when a test fails.
const SHOWN_LINES: usize = 40;

/// Where the binaries are: `TEST_BIN_DIR`, or beside the test itself.
///
/// # Panics
/// When they aren't built.
pub fn binaries() -> PathBuf {
    let folder = env::var_os("TEST_BIN_DIR").map_or_else(
        || {
            let test = env::current_exe().expect("a running program has a path");
            test.ancestors().nth(2).expect("a test stands in target/debug/deps").to_owned()
        },
        PathBuf::from,
    );
    for binary in ["collector", "enricher", "mailer", "leadmill"] {
        let path = folder.join(binary);
        assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    }
    folder
}

/// A command over one of the binaries in a folder, with nothing of the caller's own settings.
pub(crate) fn command(binaries: &Path, binary: &str, env: Vec<(String, String)>) -> Command {
    let mut command = Command::new(binaries.join(binary));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let is_setting = ["LEADMILL_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix))
            || ["RUST_LOG", "DATABASE_URL", "DATABASE_DIRECT_URL", "AMQP_URL"].contains(&name.as_str());
        if is_setting {
            command.env_remove(name);
        }
    }
    command.envs(env).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A process to start.
#[derive(Debug, Clone)]
pub struct Starting {
    binaries: PathBuf,
    binary: String,
    folder: PathBuf,
    env: Vec<(String, String)>,
    args: Vec<String>,
}

impl Starting {
    pub(crate) fn new(binaries: &Path, binary: &str, folder: &Path, env: Vec<(String, String)>) -> Self {
        Self {
            binaries: binaries.to_owned(),
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            env,
            args: Vec::new(),
        }
    }

    /// The same process of the release whose binaries are in `folder`.
    pub fn of_release(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.binaries);
        self
    }

    /// Adds variables to the environment.
    pub fn envs(mut self, env: &[(&str, &str)]) -> Self {
        self.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Takes a variable out of the environment.
    pub fn without(mut self, name: &str) -> Self {
        self.env.retain(|(found, _)| found != name);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Starts it and doesn't wait.
    pub fn spawn(self) -> Process {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.binary);
        let log = self.folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("the stack's folder takes files");
        let same = file.try_clone().expect("an open file can be shared");
        let child = command(&self.binaries, &self.binary, self.env)
            .args(self.args)
            .current_dir(&self.folder)
            .stdout(file)
            .stderr(same)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
        Process { name, log, child: Some(child) }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Process {
        let process = self.spawn();
        process.ready().await;
        process
    }
}

/// A running binary; killed when dropped. Its log is shown if the test has failed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Everything that it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The log's lines that are JSON.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// An address that it has logged under `field`, once it listens there.
    pub async fn address(&self, field: &str) -> SocketAddr {
        eventually(&format!("{} has logged `{field}`", self.name), PATIENCE, async || {
            let lines = self.log_lines();
            let found = lines.iter().find_map(|line| line[field].as_str());
            found.and_then(|text| text.parse().ok()).ok_or_else(|| self.tail())
        })
        .await
    }

    /// Where it answers probes.
    pub async fn admin(&self) -> SocketAddr {
        self.address("admin.address").await
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        let url = format!("http://{}/readyz", self.admin().await);
        eventually(&format!("{} is ready", self.name), PATIENCE, async || {
            let answer = reqwest::get(&url).await.map_err(|error| format!("{error}\n{}", self.tail()))?;
            if answer.status().is_success() {
                return Ok(());
            }
            Err(answer.text().await.unwrap_or_default())
        })
        .await;
    }

    /// The sum of a counter over all its labels that contain every one of `labels`, such as `result="written"`.
    pub async fn counted(&self, name: &str, labels: &[&str]) -> u64 {
        let url = format!("http://{}/metrics", self.admin().await);
        let text = reqwest::get(url).await.expect("the admin port answers").text().await.expect("text");
        text.lines()
            .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Ends it as a power cut would.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a process of ours can be killed");
        }
    }

    /// Whether it hasn't ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id, while it runs.
    fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Sends it a signal, such as `TERM`.
    pub async fn signal(&self, signal: &str) {
        let id = self.id().unwrap_or_else(|| panic!("{} has ended already", self.name));
        let signal = format!("-{signal}");
        let sent = Command::new("kill").args([&signal, &id.to_string()]).status().await.expect("kill is installed");
        assert!(sent.success(), "{} took no signal", self.name);
    }

    /// The most memory that it has had resident so far, in bytes; 0 where the kernel doesn't tell.
    pub fn peak_memory(&self) -> u64 {
        self.id().map_or(0, peak_memory)
    }

    /// Asks it to end (SIGTERM), and waits; gives its exit status and how long it took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal("TERM").await;
        let status = self.ended(PATIENCE).await;
        (status, asked.elapsed())
    }

    /// Stops it where it is (SIGSTOP): its connections stay, and nobody reads from them.
    pub async fn freeze(&self) {
        self.signal("STOP").await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        self.signal("CONT").await;
    }

    /// Waits for its end.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let child = self.child.as_mut().unwrap_or_else(|| panic!("{} was killed", self.name));
        let status = tokio::time::timeout(limit, child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{} has not ended within {limit:?}", self.name));
        self.child = None;
        status.expect("a child of ours can be waited for")
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// The most memory that a running process has had resident so far, in bytes; 0 where the kernel doesn't tell.
pub(crate) fn peak_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing to do about a standard error that is closed.
            let _ = writeln!(std::io::stderr(), "---- the end of {}'s log\n{}\n----", self.name, self.tail());
        }
    }
}
