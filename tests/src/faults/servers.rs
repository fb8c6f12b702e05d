//! A PostgreSQL and a RabbitMQ of a scenario's own, which it may stop and break: private servers of `deploy/local-stack.sh`.

use std::{path::Path, process::Output};

use tempfile::TempDir;
use tokio::process::Command;

/// The servers; they end, and their data goes, when this is dropped.
#[derive(Debug)]
pub struct Servers {
    folder: TempDir,
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
        let folder = tempfile::tempdir().expect("a folder");
        let output = script(folder.path(), &["up"]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let url = |variable: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(variable)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {variable} in `{text}`")).to_owned()
        };
        Self { database_url: url("DATABASE_URL"), amqp_url: url("AMQP_URL"), folder }
    }

    /// Stops one: `fast`, in order, or `immediate`, as a power cut would.
    pub async fn stop(&self, server: &str, mode: &str) {
        script(self.folder.path(), &["stop", server, mode]).await;
    }

    /// Starts it again, where it was.
    pub async fn start_again(&self, server: &str) {
        script(self.folder.path(), &["up", server]).await;
    }

    /// Runs RabbitMQ's own tool.
    pub async fn rabbitmqctl(&self, args: &[&str]) {
        script(self.folder.path(), &[&["rabbitmqctl"], args].concat()).await;
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

async fn script(folder: &Path, args: &[&str]) -> Output {
    let output = command(folder, args).output().await.expect("the script runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
