//! The operator's command line.

use std::{path::Path, pin::pin, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::process;

/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_mins(10);

/// How often its memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// The exit status; `None` after a signal.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it logged or complained about.
    pub stderr: String,
    /// The most memory that it was seen to have had resident, in bytes; 0 for one that ended before it was looked at.
    pub peak_memory: u64,
}

impl Finished {
    /// Asserts that it went well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "`{}` failed\n{}\n{}", self.command, self.stdout, self.stderr);
        self
    }

    /// Asserts that it ended with this status, and gives what it complained about.
    #[track_caller]
    pub fn fails_with(self, status: i32) -> String {
        let Self { command, status: found, stdout, stderr, .. } = self;
        assert_eq!(found, Some(status), "`{command}`\n{stdout}\n{stderr}");
        stderr
    }

    /// What it printed, as JSON; asserts that it went well.
    #[track_caller]
    pub fn json(self) -> Value {
        let done = self.ok();
        serde_json::from_str(&done.stdout)
            .unwrap_or_else(|error| panic!("`{}` printed no JSON: {error}\n{}", done.command, done.stdout))
    }
}

/// Runs the `leadmill` of a folder of binaries to its end.
pub(crate) async fn run(binaries: &Path, args: &[&str], env: Vec<(String, String)>, folder: &Path) -> Finished {
    let command = format!("leadmill {}", args.join(" "));
    let mut starting = process::command(binaries, "leadmill", env);
    starting.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = starting.spawn().unwrap_or_else(|error| panic!("`{command}` can't be started: {error}"));
    let id = child.id().expect("nobody has waited for it");
    let mut most = 0;
    let output = timeout(LIMIT, async {
        let mut output = pin!(child.wait_with_output());
        loop {
            tokio::select! {
                output = &mut output => return output,
                () = sleep(LOOK_EVERY) => most = process::peak_memory(id).max(most),
            }
        }
    });
    let output = output.await.unwrap_or_else(|_| panic!("`{command}` doesn't end"));
    let output = output.unwrap_or_else(|error| panic!("`{command}` can't be waited for: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    Finished { command, status: output.status.code(), stdout, stderr, peak_memory: most }
}
