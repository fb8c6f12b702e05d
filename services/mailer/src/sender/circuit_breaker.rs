//! The circuit breaker towards the SMTP server, as far as this process knows the server.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use retry::{Policy, Waits};
use service::readiness::ReadinessHandle;

/// How the breaks grow while the server can't be reached.
const POLICY: Policy = Policy { initial: Duration::from_secs(1), max: Duration::from_mins(1) };
/// The shortest break after the server refused our credentials: asked more often, some servers lock the account.
const CREDENTIALS_BREAK: Duration = Duration::from_mins(5);

/// Why the circuit breaker opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'a> {
    /// The server can't be reached or serves nobody: the process isn't ready. A short code says more.
    Unreachable(&'a str),
    /// It refuses our credentials. A person has to look; the process stays ready, so that its unsubscribe pages stay up.
    CredentialsRefused,
}

/// Open for a while after the server couldn't be reached or refused our credentials. It never loses a mail, it only keeps others
/// from being claimed in vain. Clones share it.
#[derive(Clone)]
pub struct CircuitBreaker {
    state: Arc<Mutex<State>>,
}

struct State {
    open_until: Option<Instant>,
    /// Whether it was opened since the server accepted an envelope last.
    failing: bool,
    waits: Waits,
    readiness: ReadinessHandle,
}

impl std::fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CircuitBreaker").field("allows", &self.allows()).finish()
    }
}

impl CircuitBreaker {
    /// A closed circuit breaker that reports to `readiness`.
    pub fn new(readiness: ReadinessHandle) -> Self {
        readiness.set_ready();
        Self {
            state: Arc::new(Mutex::new(State { open_until: None, failing: false, waits: POLICY.start(), readiness })),
        }
    }

    /// Whether mails may be started: it is closed, or half-open.
    pub fn allows(&self) -> bool {
        self.with(|state| state.open_until.is_none_or(|until| until <= Instant::now()))
    }

    /// Whether it was open, its time is over, and nobody has tried since.
    pub fn is_half_open(&self) -> bool {
        self.with(|state| state.open_until.is_some_and(|until| until <= Instant::now()))
    }

    /// How long it stays open.
    pub fn remaining(&self) -> Duration {
        self.with(|state| {
            state.open_until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
        })
    }

    /// Opens it for a while that grows from failure to failure; returns for how long. While it is open already (several mails
    /// failed for the same reason) nothing changes.
    pub fn trip(&self, cause: Cause<'_>) -> Duration {
        self.with(|state| {
            let now = Instant::now();
            if let Some(until) = state.open_until.filter(|until| *until > now) {
                return until - now;
            }
            let mut pause = state.waits.next_wait();
            match cause {
                Cause::Unreachable(reason) => {
                    state.readiness.set_not_ready(reason);
                    tracing::warn!(
                        reason,
                        seconds = pause.as_secs(),
                        "SMTP server is unreachable, circuit breaker opened"
                    );
                }
                Cause::CredentialsRefused => {
                    pause = pause.max(CREDENTIALS_BREAK);
                    state.readiness.set_ready();
                    tracing::error!(
                        seconds = pause.as_secs(),
                        "SMTP server refuses our credentials, circuit breaker opened"
                    );
                }
            }
            state.open_until = Some(now + pause);
            state.failing = true;
            pause
        })
    }

    /// The server is reachable again. Whether it accepts mails is for the next one to find out: should it not, the breaks go on
    /// growing. Where a mail has opened the circuit breaker anew meanwhile, it stays open.
    pub fn reached(&self) {
        self.with(|state| {
            if state.open_until.take_if(|until| *until <= Instant::now()).is_some() {
                state.readiness.set_ready();
                tracing::info!("SMTP server is reachable again");
            }
        });
    }

    /// The server accepted an envelope: everything is in order.
    pub fn close(&self) {
        self.with(|state| {
            if std::mem::take(&mut state.failing) {
                state.open_until = None;
                state.waits.reset();
                state.readiness.set_ready();
                tracing::info!("SMTP server accepts mails again, circuit breaker closed");
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use service::readiness::Readiness;

    use super::*;

    fn is_ready(readiness: &Readiness) -> bool {
        readiness.report().checks.iter().all(|check| check.ready)
    }

    #[test]
    fn an_open_circuit_breaker_stays_open_for_its_time_and_says_why() {
        let readiness = Readiness::new();
        let breaker = CircuitBreaker::new(readiness.register("smtp"));
        assert!(breaker.allows() && is_ready(&readiness));
        let pause = breaker.trip(Cause::Unreachable("smtp_unreachable"));
        assert!(!breaker.allows() && !is_ready(&readiness));
        assert!(breaker.trip(Cause::Unreachable("again")) <= pause, "one outage opens it once");
        breaker.close();
        assert!(breaker.allows() && breaker.remaining().is_zero() && is_ready(&readiness));
    }

    #[test]
    fn refused_credentials_stop_mails_and_leave_the_process_ready() {
        let readiness = Readiness::new();
        let breaker = CircuitBreaker::new(readiness.register("smtp"));
        assert!(breaker.trip(Cause::CredentialsRefused) >= CREDENTIALS_BREAK);
        assert!(!breaker.allows() && is_ready(&readiness));
    }

    #[test]
    fn a_server_that_lets_us_in_and_accepts_nothing_is_asked_less_and_less_often() {
        let breaker = CircuitBreaker::new(Readiness::new().register("smtp"));
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            longest = longest.max(breaker.trip(Cause::Unreachable("smtp_451")));
            breaker.reached();
            assert!(!breaker.allows(), "its time isn't over");
            breaker.with(|state| state.open_until = Some(Instant::now()));
            breaker.reached();
            assert!(breaker.allows() && !breaker.is_half_open());
        }
        assert!(longest > Duration::from_secs(30), "{longest:?}");
        breaker.close();
        let after = breaker.trip(Cause::Unreachable("smtp_451"));
        assert!(after < Duration::from_secs(3), "an envelope that was accepted ends it");
    }
}
