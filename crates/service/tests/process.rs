//! A whole process over the runner: exit status, what it prints, and real signals.
//!
//! The process is this test binary again: [`child`] is its `main` when [`CHILD`] is set.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use service::config::{Defaults, VaultConfig};
use service::run::{Program, execute};

const CHILD: &str = "SERVICE_TEST_CHILD";

const DEFAULTS: Defaults =
    Defaults { name: "example", text: "[mailer]\nadmin_listen = \"127.0.0.1:0\"\nsmtp_host = \"\"\n", secrets: &[] };

const PROGRAM: Program = Program {
    name: "example",
    version: "1.2.3",
    about: "Does what the tests need.",
    defaults: &[DEFAULTS],
    admin: Some("mailer.admin_listen"),
};

/// Not a test of its own: the process that the tests start.
#[test]
fn child() {
    let Ok(behaviour) = std::env::var(CHILD) else { return };
    let loader = service::config::Loader::new().defaults(PROGRAM.defaults).env(service::config::process_environment());
    let code = match loader.load() {
        Ok(config) => execute(&PROGRAM, config, move |config, shutdown, readiness| async move {
            match behaviour.as_str() {
                "serve" => {
                    readiness.register("example").set_ready();
                    shutdown.soft().cancelled().await;
                    tracing::info!("child: asked to finish");
                }
                "stubborn" => {
                    shutdown.soft().cancelled().await;
                    tracing::info!("child: asked to finish");
                    shutdown.hard().cancelled().await;
                    tracing::info!("child: told to stop");
                }
                "crash" => {
                    shutdown.spawn("broken", async { panic!("on purpose") });
                    shutdown.soft().cancelled().await;
                }
                "no-key" => {
                    config.section::<VaultConfig>("vault")?.require_master_key()?;
                }
                "finite" => {}
                other => anyhow::bail!("no behaviour {other}"),
            }
            Ok(())
        }),
        Err(error) => {
            let error = error.into();
            service::run::print_error(PROGRAM.name, &error);
            service::run::exit_code(&error)
        }
    };
    // ExitCode has no getter; the harness would turn any of them into its own.
    let status = [0, 1, 2].into_iter().find(|status| code == std::process::ExitCode::from(*status)).unwrap();
    std::process::exit(status.into());
}

fn command(behaviour: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEADMILL_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env(CHILD, behaviour).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A started process whose log can be awaited.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    seen: String,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, seen: String::new() }
    }

    /// Reads the log up to a line that contains `text`, and gives that line.
    fn until(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "no {text:?} in:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; gives the status and the whole log.
    fn end(mut self) -> (Option<i32>, String) {
        self.log.read_to_string(&mut self.seen).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Process {
    /// A failed test leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_first_sigterm_ends_a_service_cleanly() {
    let mut process = Process::start(command("serve"));
    process.until("example is starting");
    process.signal("TERM");
    let (status, log) = process.end();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("child: asked to finish") && log.contains("example has ended"), "{log}");
}

#[test]
fn a_second_signal_aborts_what_does_not_finish() {
    let mut process = Process::start(command("stubborn"));
    process.until("example is starting");
    process.signal("TERM");
    process.until("child: asked to finish");
    process.signal("INT");
    let (status, log) = process.end();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("second signal: aborting") && log.contains("child: told to stop"), "{log}");
}

#[test]
fn the_end_of_the_grace_period_aborts_too() {
    let mut command = command("stubborn");
    command.env("LEADMILL_RUNTIME_SHUTDOWN_GRACE", "100ms");
    let mut process = Process::start(command);
    process.until("example is starting");
    process.signal("TERM");
    let (status, log) = process.end();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("the grace period is over: aborting") && log.contains("child: told to stop"), "{log}");
}

#[test]
fn a_crashed_task_ends_the_process_with_status_1_and_is_named() {
    let (status, log) = output(command("crash"));
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("task failed") && log.contains("task=\"broken\"") && log.contains("on purpose"), "{log}");
}

#[test]
fn finite_work_ends_with_status_0() {
    let (status, log) = output(command("finite"));
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn a_missing_master_key_ends_with_status_2_and_says_how_to_make_one() {
    let (status, log) = output(command("no-key"));
    assert_eq!(status, Some(2), "{log}");
    assert!(log.contains("example: `vault.master_key` is not set") && log.contains("leadmill keys generate"), "{log}");
}

#[test]
fn an_unknown_variable_ends_with_status_2_before_anything_starts() {
    let mut command = command("serve");
    command.env("LEADMILL_MAILER_SMTP_HOTS", "x");
    let (status, log) = output(command);
    assert_eq!(status, Some(2), "{log}");
    assert_eq!(
        log,
        "example: unknown environment variable LEADMILL_MAILER_SMTP_HOTS; did you mean `LEADMILL_MAILER_SMTP_HOST`?\n"
    );
}

#[test]
fn json_lines_stay_json_lines_even_for_errors_and_panics() {
    for behaviour in ["crash", "no-key", "nonsense"] {
        let mut command = command(behaviour);
        command.env("LEADMILL_LOG_FORMAT", "json");
        let (_, log) = output(command);
        assert!(!log.is_empty());
        for line in log.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            assert!(value["level"].is_string() && value["timestamp"].is_string(), "{line}");
        }
    }
}

#[test]
fn an_admin_address_in_use_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = command("serve");
    command.env("LEADMILL_MAILER_ADMIN_LISTEN", &address);
    let (status, log) = output(command);
    assert_eq!(status, Some(1), "{log}");
    assert!(
        log.contains(&format!("example: binding the admin address {address} (`mailer.admin_listen`)\n  because: ")),
        "{log}"
    );
}

#[test]
fn the_admin_server_answers_on_the_port_that_the_log_names() {
    let mut process = Process::start(command("serve"));
    let line = process.until("admin server is listening");
    let address = line.split("admin.address=").nth(1).unwrap().trim();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut connection, b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    process.signal("INT");
    assert_eq!(process.end().0, Some(0));
}
