//! A PostgreSQL and a RabbitMQ of a scenario's own, which it may stop and break: private servers of `deploy/local-stack.sh`.

use std::{path::Path, process::Output};

use tempfile::TempDir;
use test_support::amqp;
use tokio::process::Command;

use crate::faults::clock::SettableClock;

/// The servers; they end, and their data goes, when this is dropped.
#[derive(Debug)]
pub struct Servers {
    folder: TempDir,
    /// What goes before the C library in them.
    preloaded: Option<String>,
    /// Where PostgreSQL is.
    pub database_url: String,
    /// Where RabbitMQ is.
    pub amqp_url: String,
}

/// Which of both, by the script's names.
pub const POSTGRES: &str = "postgres";
/// The other.
pub const RABBITMQ: &str = "rabbitmq";

impl Servers {
    /// Starts them.
    ///
    /// # Panics
    /// When this machine can't run servers of its own.
    pub async fn start() -> Self {
        Self::start_with(&[POSTGRES, RABBITMQ], None).await
    }

    /// Starts a PostgreSQL that runs by this clock; RabbitMQ is the one that other scenarios use, too.
    ///
    /// # Panics
    /// When this machine can't run a server of its own.
    pub async fn start_postgres_by(clock: &SettableClock) -> Self {
        Self::start_with(&[POSTGRES], Some(clock.library().to_owned())).await
    }

    async fn start_with(servers: &[&str], preloaded: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let usual = amqp::server_url();
        let mut all = Self { folder, preloaded, database_url: String::new(), amqp_url: usual };
        let output = all.script(&[&["up"], servers].concat()).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let url = |variable: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(variable)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {variable} in `{text}`")).to_owned()
        };
        all.database_url = url("DATABASE_URL");
        if servers.contains(&RABBITMQ) {
            all.amqp_url = url("AMQP_URL");
        }
        all
    }

    /// Stops one: `fast`, in order, or `immediate`, as a power cut would.
    pub async fn stop(&self, server: &str, mode: &str) {
        self.script(&["stop", server, mode]).await;
    }

    /// Starts it again, where it was.
    pub async fn start_again(&self, server: &str) {
        self.script(&["up", server]).await;
    }

    /// Runs RabbitMQ's own tool.
    pub async fn rabbitmqctl(&self, args: &[&str]) {
        self.script(&[&["rabbitmqctl"], args].concat()).await;
    }

    async fn script(&self, args: &[&str]) -> Output {
        let mut command = command(self.folder.path(), args);
        if let Some(library) = &self.preloaded {
            command.env("LD_PRELOAD", library);
        }
        let output = command.output().await.expect("the script runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Whoever drops it may have no runtime left to wait in.
        let _ = command(self.folder.path(), &["clean"]).into_std().output();
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local-stack.sh"));
    command.args(args).env("STACK_DIR", folder.join("stack")).env("STACK_PROBE", "0");
    command.env_remove("DATABASE_URL").env_remove("AMQP_URL").stdin(std::process::Stdio::null());
    command
}
