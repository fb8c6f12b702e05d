//! The last words of a process: its error, and the exit status that goes with it.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::shutdown::Ended;

const FAILED: u8 = 1;
/// Wrong arguments or configuration.
pub(super) const USAGE: Status = Status(2);

/// An exit status other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(u8);

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        status.0.into()
    }
}

/// 2 when a wrong configuration is at the bottom of an error, 1 otherwise.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    status(error).into()
}

fn status(error: &anyhow::Error) -> Status {
    if error.chain().any(<dyn Error>::is::<ConfigError>) { USAGE } else { Status(FAILED) }
}

/// Prints an error with its causes to standard error, one a line.
pub fn print_error(program: &str, error: &anyhow::Error) {
    // Where standard error is closed there is nobody to tell.
    let _ = io::stderr().write_all(in_lines(program, error).as_bytes());
}

fn in_lines(program: &str, error: &anyhow::Error) -> String {
    let mut lines = vec![format!("{program}: {error}")];
    lines.extend(error.chain().skip(1).map(|cause| format!("  because: {cause}")));
    lines.join("\n") + "\n"
}

/// For an error before there is a log.
pub(super) fn failed(program: &str, error: &anyhow::Error) -> ExitCode {
    print_error(program, error);
    exit_code(error)
}

/// For a process that ran: its `main`'s error in full (the tasks' are in the log already), and the status.
pub(super) fn ended(program: &'static str, json: bool, ended: &Ended) -> ExitCode {
    if ended.is_clean() {
        tracing::info!("{program} has ended");
        return ExitCode::SUCCESS;
    }
    let mut code = Status(FAILED);
    for failure in &ended.failures {
        if failure.task == program {
            code = status(&failure.error);
            if json {
                tracing::error!(error = format!("{:#}", failure.error), "{program} failed");
            } else {
                print_error(program, &failure.error);
            }
        }
    }
    tracing::warn!(
        aborted = ended.aborted,
        failed = ended.failures.iter().map(|failure| failure.task).collect::<Vec<_>>().join(", "),
        "{program} has ended badly"
    );
    code.into()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_prints_with_its_causes_one_a_line() {
        let error = anyhow::anyhow!("connection refused").context("connecting to 127.0.0.1:1").context("starting");
        assert_eq!(
            in_lines("mailer", &error),
            "mailer: starting\n  because: connecting to 127.0.0.1:1\n  because: connection refused\n"
        );
    }

    #[test]
    fn a_wrong_configuration_gives_status_2_wherever_it_is_in_the_chain() {
        let wrong = ConfigError::Missing { key: "vault.master_key".to_owned(), hint: "make one".to_owned() };
        let error = Err::<(), _>(wrong).context("opening the vault").unwrap_err();
        assert_eq!(status(&error), USAGE);
        assert_eq!(status(&anyhow::anyhow!("the wheel came off")), Status(FAILED));
    }
}
