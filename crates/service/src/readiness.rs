//! Whether the process can do its work: named checks that its parts switch on and off.
//!
//! A process with no checks yet, or one that is shutting down, isn't ready. Switching is cheap and never blocks, so that a
//! reconnect loop may do it as often as it likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// The registry of a process's checks. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Check>>>,
}

#[derive(Debug)]
struct Check {
    name: String,
    /// `None` when ready.
    missing: Option<String>,
    since: Instant,
}

/// Switches one check.
#[derive(Debug, Clone)]
pub struct ReadinessHandle {
    checks: Arc<Mutex<Vec<Check>>>,
    index: usize,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// Whether there are checks and all of them are ready.
    pub ready: bool,
    /// Every check, in the order of registration.
    pub checks: Vec<CheckReport>,
}

/// One check as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// What is checked, such as `database`.
    pub name: String,
    /// Whether it is as it should be.
    pub ready: bool,
    /// What is missing, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// For how many seconds it has been like this.
    pub for_seconds: u64,
}

impl Readiness {
    /// A registry without checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which isn't ready until its handle says so. The name is shown to operators: `database`, `broker`, and
    /// with the service before it where several run in one process (`mailer.broker`).
    pub fn register(&self, name: impl Into<String>) -> ReadinessHandle {
        let mut checks = lock(&self.checks);
        checks.push(Check { name: name.into(), missing: Some("starting".to_owned()), since: Instant::now() });
        ReadinessHandle { checks: Arc::clone(&self.checks), index: checks.len() - 1 }
    }

    /// The state of all checks.
    pub fn report(&self) -> ReadinessReport {
        let checks: Vec<CheckReport> = lock(&self.checks)
            .iter()
            .map(|check| CheckReport {
                name: check.name.clone(),
                ready: check.missing.is_none(),
                missing: check.missing.clone(),
                for_seconds: check.since.elapsed().as_secs(),
            })
            .collect();
        ReadinessReport { ready: !checks.is_empty() && checks.iter().all(|check| check.ready), checks }
    }
}

impl ReadinessHandle {
    /// It is as it should be.
    pub fn set_ready(&self) {
        self.switch(None);
    }

    /// It isn't, for a reason that is shown to operators: name the thing and what is wrong with it, no secrets and nothing personal.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.switch(Some(reason.into()));
    }

    fn switch(&self, missing: Option<String>) {
        let check = &mut lock(&self.checks)[self.index];
        if check.missing.is_none() != missing.is_none() {
            check.since = Instant::now();
        }
        check.missing = missing;
    }
}

/// A check is one assignment, so a panic elsewhere can't have left it half done.
fn lock(checks: &Mutex<Vec<Check>>) -> MutexGuard<'_, Vec<Check>> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn a_process_without_checks_is_not_ready() {
        assert!(!Readiness::new().report().ready);
    }

    #[test]
    fn one_missing_part_makes_the_process_unready_and_says_which() {
        let readiness = Readiness::new();
        let database = readiness.register("database");
        let broker = readiness.register("broker");
        assert_eq!(readiness.report().checks[1].missing.as_deref(), Some("starting"));
        database.set_ready();
        broker.set_ready();
        assert!(readiness.report().ready);

        broker.set_not_ready("connection refused by 127.0.0.1:5672");
        let report = readiness.report();
        assert!(!report.ready);
        assert!(report.checks[0].ready);
        assert_eq!(report.checks[1].missing.as_deref(), Some("connection refused by 127.0.0.1:5672"));

        broker.set_ready();
        assert!(readiness.report().ready);
    }
}
