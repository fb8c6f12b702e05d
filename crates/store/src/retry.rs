//! Exponential backoff with jitter; the one place that uses the `backoff` crate, which is unmaintained
//! (RUSTSEC-2025-0012), so that it can be replaced here.

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff as _};

/// How the time between two tries grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Before the second try.
    pub initial: Duration,
    /// At most.
    pub max: Duration,
    /// From try to try.
    pub multiplier: f64,
    /// No further try once this much time has passed since the first; `None` tries for ever.
    pub max_elapsed: Option<Duration>,
}

impl Policy {
    /// For a server that is away: from 100 ms to 10 s, for ever.
    pub const OUTAGE: Self =
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(10), multiplier: 2.0, max_elapsed: None };

    /// Starts to count.
    pub fn start(self) -> Delays {
        Delays(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(self.initial)
                .with_max_interval(self.max)
                .with_multiplier(self.multiplier)
                .with_randomization_factor(0.5)
                .with_max_elapsed_time(self.max_elapsed)
                .build(),
        )
    }
}

/// The delays of one piece of work, each between half and one and a half of its nominal length; ends when the policy
/// gives up.
#[derive(Debug)]
pub struct Delays(backoff::ExponentialBackoff);

impl Delays {
    /// Starts again from the first delay, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next_backoff()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_limit_and_never_end_in_an_outage() {
        let delays: Vec<_> = Policy::OUTAGE.start().take(30).collect();
        assert_eq!(delays.len(), 30);
        assert!(delays[0] <= Duration::from_millis(150));
        assert!(delays[29] >= Duration::from_secs(5) && delays[29] <= Duration::from_secs(15));
    }

    #[test]
    fn a_policy_gives_up_when_it_says_so() {
        let policy = Policy { max_elapsed: Some(Duration::ZERO), ..Policy::OUTAGE };
        assert_eq!(policy.start().next(), None);
    }
}
