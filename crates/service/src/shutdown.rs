//! An orderly end.
//!
//! The first SIGTERM or SIGINT asks every task to finish what it has begun (*soft*). A second one, or the end of the grace
//! period, tells them to stop where they are (*hard*); what that interrupts is safe, because every effect is idempotent and
//! everything unfinished is taken up again by the next process. A task that crashes ends the process softly and makes it fail.
//!
//! ```text
//! Running ──first signal, request(), a crash──► Stopping ──second signal, abort(), grace──► Aborting
//! ```
//!
//! A task watches [`Shutdown::soft`] between units of work and [`Shutdown::hard`] around anything long. It is spawned with
//! [`Shutdown::spawn`], under a name, so that an operator learns which one crashed or doesn't end.

mod signals;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to notice the hard token by themselves, before they are dropped where they wait.
const NOTICE: Duration = Duration::from_secs(2);
/// How long dropping them may take; only a task that blocks its thread needs that long, and it is left behind.
const DROP_LIMIT: Duration = Duration::from_secs(3);

/// Where in its life a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// At work.
    Running,
    /// Finishing what it has begun.
    Stopping,
    /// Stopping where it is.
    Aborting,
}

/// The end of a process, shared by all its tasks. Clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    soft: CancellationToken,
    hard: CancellationToken,
    grace: Duration,
    tracker: TaskTracker,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    running: Vec<&'static str>,
    failures: Vec<TaskFailure>,
}

/// A task that didn't end well.
#[derive(Debug)]
pub struct TaskFailure {
    /// The task's name.
    pub task: &'static str,
    /// Its error; for a panic, what it said.
    pub error: anyhow::Error,
}

/// How a process ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Tasks that failed, in order.
    pub failures: Vec<TaskFailure>,
    /// Whether it took a hard shutdown.
    pub aborted: bool,
}

impl Shutdown {
    /// `grace` is the time between the soft and the hard request.
    pub fn new(grace: Duration) -> Self {
        let soft = CancellationToken::new();
        let inner =
            Inner { hard: CancellationToken::new(), soft, grace, tracker: TaskTracker::new(), tasks: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Cancelled when tasks should take no new work.
    pub fn soft(&self) -> &CancellationToken {
        &self.inner.soft
    }

    /// Cancelled when tasks should stop where they are.
    pub fn hard(&self) -> &CancellationToken {
        &self.inner.hard
    }

    /// Where the process is.
    pub fn stage(&self) -> Stage {
        if self.inner.hard.is_cancelled() {
            Stage::Aborting
        } else if self.inner.soft.is_cancelled() {
            Stage::Stopping
        } else {
            Stage::Running
        }
    }

    /// Asks all tasks to finish.
    pub fn request(&self) {
        self.inner.soft.cancel();
    }

    /// Tells all tasks to stop.
    pub fn abort(&self) {
        self.inner.soft.cancel();
        self.inner.hard.cancel();
    }

    /// What a signal does: the first asks, the second tells.
    pub fn signal(&self) {
        match self.stage() {
            Stage::Running => {
                tracing::info!(grace.seconds = self.inner.grace.as_secs_f64(), "shutting down; a second signal aborts");
                self.request();
            }
            Stage::Stopping | Stage::Aborting => {
                tracing::warn!("second signal: aborting");
                self.abort();
            }
        }
    }

    /// Makes SIGTERM and SIGINT call [`Shutdown::signal`] from now on, until the process ends. Needs a runtime.
    ///
    /// # Errors
    /// When the handlers can't be installed.
    pub fn listen_for_signals(&self) -> std::io::Result<()> {
        signals::listen(self.clone())
    }

    /// Runs a task that the end of the process waits for. If it fails or panics, the error is logged, the process shuts down,
    /// and fails. Ending with `Ok` early is fine: the work was finite.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.track(name, task, |name, error| {
            tracing::error!(task = name, error = format!("{error:#}"), "task failed");
        });
    }

    /// [`Shutdown::spawn`] with a say in how a failure is reported.
    pub(crate) fn track<F>(&self, name: &'static str, task: F, report: fn(&'static str, &anyhow::Error))
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks().running.push(name);
        // A task within a task: the outer one sees how the inner one ends, be it by a panic.
        let mut work = tokio::spawn(task);
        let shutdown = self.clone();
        self.inner.tracker.spawn(async move {
            let ended = tokio::select! {
                ended = &mut work => ended,
                () = shutdown.noticed() => {
                    work.abort();
                    work.await
                }
            };
            let outcome = match ended {
                Ok(outcome) => outcome,
                Err(ended) if ended.is_panic() => Err(anyhow::anyhow!("panicked: {}", panic_message(ended))),
                Err(_) => Err(anyhow::anyhow!("aborted, because it did not end by itself")),
            };
            if let Err(error) = &outcome {
                report(name, error);
            }
            shutdown.settle(name, outcome);
        });
    }

    /// Waits until the end was asked for and every task has ended, by force if need be.
    pub async fn ended(&self) -> Ended {
        self.inner.soft.cancelled().await;
        self.inner.tracker.close();
        let all_ended = self.inner.tracker.wait();
        tokio::pin!(all_ended);
        tokio::select! {
            () = &mut all_ended => {}
            () = self.inner.hard.cancelled() => {}
            () = tokio::time::sleep(self.inner.grace) => {
                tracing::warn!(tasks = self.running().join(", "), "the grace period is over: aborting");
                self.abort();
            }
        }
        if tokio::time::timeout(NOTICE + DROP_LIMIT, all_ended).await.is_err() {
            tracing::error!(tasks = self.running().join(", "), "tasks left behind");
        }
        let failures = std::mem::take(&mut self.tasks().failures);
        Ended { failures, aborted: self.stage() == Stage::Aborting }
    }

    /// The first task that failed, if any.
    pub fn crashed_task(&self) -> Option<&'static str> {
        self.tasks().failures.first().map(|failure| failure.task)
    }

    /// The names of the tasks that haven't ended.
    pub fn running(&self) -> Vec<&'static str> {
        self.tasks().running.clone()
    }

    /// Completes when tasks have had time to notice the hard token.
    async fn noticed(&self) {
        self.inner.hard.cancelled().await;
        tokio::time::sleep(NOTICE).await;
    }

    fn settle(&self, name: &'static str, outcome: anyhow::Result<()>) {
        {
            let mut tasks = self.tasks();
            if let Some(index) = tasks.running.iter().position(|running| *running == name) {
                tasks.running.swap_remove(index);
            }
            let Err(error) = outcome else { return };
            tasks.failures.push(TaskFailure { task: name, error });
        }
        self.request();
    }

    /// Two lists that are only pushed to and removed from, so a panic elsewhere can't have left them half done.
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    /// Whether everything ended by itself and without an error.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && !self.aborted
    }
}

fn panic_message(ended: tokio::task::JoinError) -> String {
    let payload = ended.into_panic();
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
