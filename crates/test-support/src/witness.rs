//! Writes down which tests talked to real servers, and which had to be skipped, so that a run of all tests can say how
//! many did and were.
//!
//! What hands out something on a real server ([`crate::postgres`], [`crate::amqp`]) calls [`talked_to`]. Where
//! `TEST_SERVER_LOG` names a file (`deploy/test.sh` does that), each call appends a line `binary TAB test TAB
//! server`; a test that asks twice has two equal lines. The test's name is its thread's, as libtest has it, which is why
//! the call belongs into a constructor and not into something spawned. [`skipped`] does the same with `TEST_SKIP_LOG`.

use std::{env, fs::OpenOptions, io::Write as _, thread};

/// Notes that the running test uses a real server, such as `postgres`, `rabbitmq` or `smtp`.
///
/// Does nothing unless `TEST_SERVER_LOG` is set, and nothing if the file can't be written: it is a statistic.
pub fn talked_to(server: &str) {
    note("TEST_SERVER_LOG", server);
}

/// Notes that the running test can't be run here, and why: libtest knows only passed and failed, and would count it as
/// passed. The test returns at once.
pub fn skipped(why: &str) {
    // Shown with the test's output, where somebody runs it by hand and looks.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    note("TEST_SKIP_LOG", why);
}

fn note(log: &str, what: &str) {
    let Some(file) = env::var_os(log) else { return };
    let binary = env::current_exe().ok();
    let binary = binary.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let thread = thread::current();
    let line = format!("{}\t{}\t{what}\n", binary.unwrap_or_default(), thread.name().unwrap_or_default());
    // One short write in append mode: lines of processes that run at the same time don't mix.
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(file) {
        let _ = file.write_all(line.as_bytes());
    }
}
