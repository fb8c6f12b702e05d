//! Says so loudly when the model's API refuses us: a wrong key or an unknown model must not look like a quiet day.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use service::readiness::ReadinessHandle;

use crate::model::Refusal;

/// At most one line in this time.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Raised by a refusal, cleared by the next answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RefusalAlarm {
    readiness: Option<ReadinessHandle>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    raised: bool,
    logged: Option<Instant>,
}

impl RefusalAlarm {
    /// An alarm that also switches a readiness check.
    pub fn new(readiness: ReadinessHandle) -> Self {
        readiness.set_ready();
        Self { readiness: Some(readiness), state: Arc::default() }
    }

    /// The API refused a request with this status, for this reason.
    pub fn raise(&self, status: u16, refusal: Refusal) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.raised = true;
        let message = format!(
            "the model's API refuses {refusal} with status {status}; {}. Until then the built-in analyser does the leads",
            refusal.advice()
        );
        if state.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            state.logged = Some(Instant::now());
            tracing::error!(http.status = status, enricher.refused = refusal.name(), "{message}");
        }
        if let Some(readiness) = &self.readiness {
            readiness.set_not_ready(message);
        }
    }

    /// The API answered.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.raised {
            *state = State::default();
            tracing::info!("the model's API takes requests again");
            if let Some(readiness) = &self.readiness {
                readiness.set_ready();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use service::readiness::Readiness;

    use super::*;

    #[test]
    fn a_refusal_makes_the_process_unready_until_the_api_answers_again() {
        let readiness = Readiness::new();
        let alarm = RefusalAlarm::new(readiness.register("model"));
        assert!(readiness.report().ready);
        alarm.raise(400, Refusal::MaxTokens);
        let report = readiness.report();
        let missing = report.checks[0].missing.as_deref().unwrap();
        assert!(missing.contains("parameter max_tokens with status 400"), "{missing}");
        assert!(missing.contains("max_tokens_parameter = \"max_completion_tokens\""), "{missing}");
        alarm.clear();
        assert!(readiness.report().ready);
    }
}
