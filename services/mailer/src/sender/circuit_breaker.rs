//! Whether the mail server lets us send at all, as far as this process knows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use retry::{Policy, Waits};
use service::readiness::ReadinessHandle;

/// How the pauses grow while the server can't be reached.
const POLICY: Policy = Policy { initial: Duration::from_secs(1), max: Duration::from_mins(1) };

/// Closed for a while after the server couldn't be reached or refused our credentials; it never loses a mail, it only
/// keeps others from being claimed in vain. Clones share it.
#[derive(Clone)]
pub struct Gate {
    state: Arc<Mutex<State>>,
}

struct State {
    closed_until: Option<Instant>,
    /// Whether it was closed since the server took an envelope last.
    failing: bool,
    waits: Waits,
    readiness: ReadinessHandle,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("open", &self.is_open()).finish()
    }
}

impl Gate {
    /// An open gate that reports to `readiness`.
    pub fn new(readiness: ReadinessHandle) -> Self {
        readiness.set_ready();
        Self {
            state: Arc::new(Mutex::new(State { closed_until: None, failing: false, waits: POLICY.start(), readiness })),
        }
    }

    /// Whether mails may be started.
    pub fn is_open(&self) -> bool {
        self.with(|state| state.closed_until.is_none_or(|until| until <= Instant::now()))
    }

    /// Whether it was closed, its time is over, and nobody has tried since.
    pub fn is_untried(&self) -> bool {
        self.with(|state| state.closed_until.is_some_and(|until| until <= Instant::now()))
    }

    /// How long it stays closed.
    pub fn remaining(&self) -> Duration {
        self.with(|state| {
            state.closed_until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
        })
    }

    /// Closes it for a moment that grows from failure to failure, at least for `at_least`; returns how long. While it is
    /// closed already (several mails failed for the same reason) nothing changes.
    pub fn close(&self, reason: &str, at_least: Duration) -> Duration {
        self.with(|state| {
            let now = Instant::now();
            if let Some(until) = state.closed_until.filter(|until| *until > now) {
                return until - now;
            }
            let pause = state.waits.next_wait().max(at_least);
            state.closed_until = Some(now + pause);
            state.failing = true;
            state.readiness.set_not_ready(reason);
            tracing::warn!(reason, seconds = pause.as_secs(), "the mail server lets nothing through; waiting");
            pause
        })
    }

    /// The server lets us in again. Whether it takes mails is for the next one to find out: should it not, the pauses go on
    /// growing. Where a mail has closed the gate anew meanwhile, it stays closed.
    pub fn reached(&self) {
        self.with(|state| {
            if state.closed_until.take_if(|until| *until <= Instant::now()).is_some() {
                state.readiness.set_ready();
                tracing::info!("the mail server lets us in again");
            }
        });
    }

    /// The server took an envelope: everything is in order.
    pub fn open(&self) {
        self.with(|state| {
            if std::mem::take(&mut state.failing) {
                state.closed_until = None;
                state.waits.reset();
                state.readiness.set_ready();
                tracing::info!("the mail server takes mails again");
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

    #[test]
    fn a_closed_gate_stays_closed_for_its_time_and_says_why() {
        let readiness = Readiness::new();
        let gate = Gate::new(readiness.register("smtp"));
        assert!(gate.is_open());
        let pause = gate.close("smtp_unreachable", Duration::from_mins(5));
        assert!(pause >= Duration::from_mins(5) && !gate.is_open());
        assert!(gate.close("again", Duration::from_hours(1)) <= pause, "one outage closes it once");
        gate.open();
        assert!(gate.is_open() && gate.remaining().is_zero());
    }

    #[test]
    fn a_server_that_lets_us_in_and_takes_nothing_is_asked_less_and_less_often() {
        let gate = Gate::new(Readiness::new().register("smtp"));
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            longest = longest.max(gate.close("smtp_451", Duration::ZERO));
            gate.reached();
            assert!(!gate.is_open(), "its time isn't over");
            gate.with(|state| state.closed_until = Some(Instant::now()));
            gate.reached();
            assert!(gate.is_open() && !gate.is_untried());
        }
        assert!(longest > Duration::from_secs(30), "{longest:?}");
        gate.open();
        assert!(gate.close("smtp_451", Duration::ZERO) < Duration::from_secs(3), "an envelope that was taken ends it");
    }
}
