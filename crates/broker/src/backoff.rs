//! How long to wait before connecting again.

use std::time::Duration;

/// The first wait, at most.
const BASE: Duration = Duration::from_millis(100);
/// The longest wait.
const CAP: Duration = Duration::from_secs(15);

/// Exponential backoff with jitter: each wait is drawn from the upper half of a range that doubles, so that the
/// replicas of a service don't come back all at the same moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and says how long to wait now.
    pub(crate) fn failed(&mut self) -> Duration {
        let ceiling = BASE.saturating_mul(1 << self.failures.min(16)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        // The process-wide generator will do: nothing but the spread of reconnects depends on it.
        ceiling.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Forgets the failures.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let first = backoff.failed();
        assert!(first >= BASE / 2 && first <= BASE);
        for _ in 0..40 {
            assert!(backoff.failed() <= CAP);
        }
        assert!(backoff.failed() >= CAP / 2);
        backoff.succeeded();
        assert!(backoff.failed() <= BASE);
    }
}
