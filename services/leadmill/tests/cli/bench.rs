//! The real binary, with a database, queues, a master key and a folder of its own.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use test_support::amqp::AmqpNamespace;
use test_support::postgres::{TestDatabase, number};

/// What the binary under test runs on.
pub struct Bench {
    pub database: TestDatabase,
    pub broker: AmqpNamespace,
    pub folder: tempfile::TempDir,
    key: String,
}

impl Bench {
    /// With a migrated database.
    pub async fn new() -> Self {
        Self::on(TestDatabase::create().await).await
    }

    /// On this database.
    pub async fn on(database: TestDatabase) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let key = vault::MasterKey::generate().to_text().to_string();
        Self { database, broker: AmqpNamespace::new().await, folder, key }
    }

    /// The binary, with nothing of this process's environment that would configure it.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = bare(args);
        command
            .current_dir(self.folder.path())
            .env("DATABASE_URL", self.database.url())
            .env("AMQP_URL", self.broker.url())
            .env("LEADMILL_AMQP_NAMESPACE", self.broker.prefix())
            .env("LEADMILL_MASTER_KEY", &self.key)
            // Ports of their own: several tests run at the same time.
            .env("LEADMILL_ADMIN_LISTEN", "127.0.0.1:0")
            .env("LEADMILL_COLLECTOR_LISTEN", "127.0.0.1:0")
            .env("LEADMILL_MAILER_LISTEN", "127.0.0.1:0");
        command
    }

    /// Runs it to its end.
    pub async fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args)).await
    }

    /// Runs it, and expects it to succeed; returns what it printed.
    pub async fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert_eq!(output.status.code(), Some(0), "leadmill {args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("the output is text")
    }

    /// Runs it with `--json`, and expects it to succeed.
    pub async fn json(&self, args: &[&str]) -> Value {
        let text = self.succeed(&[args, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("leadmill {args:?} printed no JSON: {error}: {text}"))
    }

    /// Runs it, and expects it to fail with this status; returns what it said.
    pub async fn fail(&self, status: i32, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert_eq!(output.status.code(), Some(status), "leadmill {args:?}: {}", stderr(&output));
        stderr(&output)
    }

    /// Writes a file into the test's folder and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the test's folder can be written to");
        path.to_str().expect("the path is text").to_owned()
    }

    /// A number that SQL counts.
    pub async fn count(&self, query: &'static str) -> i64 {
        number(&mut self.database.connect().await, query).await.expect("the query counts")
    }

    /// Takes everything away.
    pub async fn cleanup(self) {
        self.broker.cleanup().await;
        self.database.cleanup().await;
    }
}

/// The binary without any configuration.
pub fn bare<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leadmill"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("LEADMILL_") || name_text.starts_with("OTEL_") || name_text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.env_remove("DATABASE_URL").env_remove("DATABASE_DIRECT_URL").env_remove("AMQP_URL");
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a command to its end, without holding up the test's runtime.
pub async fn finish(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.expect("the command runs").expect("the binary starts")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What only the owner can read has no bits for others.
#[cfg(unix)]
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;

    std::fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}
