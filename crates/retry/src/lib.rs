//! How long to wait before trying again, and how often to say that it failed.
//!
//! - [`Policy`] says how waits grow; [`Policy::OUTAGE`] is the one for PostgreSQL and RabbitMQ.
//! - [`Waits`] are the waits of one piece of work: exponential backoff with jitter, for as long as it takes.
//! - [`News`] lets an outage of an hour be a few lines in the log, and not thousands.
//!
//! **Architecture invariant:** only this crate uses `backoff`, which is unmaintained (RUSTSEC-2025-0012), so that it can be
//! replaced here. Who has to give up after a time, or a number of tries, counts for itself.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};
use tokio::time::{Instant, sleep};

/// How far a wait may be from its nominal length, to both sides, as a part of it: enough that replicas which lost the same
/// server at the same moment don't come back together.
const SPREAD: f64 = 0.5;

/// How often to say again that something still fails.
const AGAIN: Duration = Duration::from_mins(1);

/// How the time between two tries grows; it doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Before the second try.
    pub initial: Duration,
    /// At most.
    pub max: Duration,
}

impl Policy {
    /// For PostgreSQL or RabbitMQ being away: from 100 ms to 400 ms, each give or take half.
    ///
    /// As short as it is so that a program works within a second of its servers being back, however long they were away. A
    /// server that isn't there costs a refused connection to ask, and one that is there is soon done with a few dozen.
    pub const OUTAGE: Self = Self { initial: Duration::from_millis(100), max: Duration::from_millis(400) };

    /// How long to wait after this many failures in a row, for who keeps the count elsewhere: between half and one and a
    /// half of the nominal length.
    pub fn wait_after(self, failures: u32) -> Duration {
        let doubled = self.initial.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.max).mul_f64(rand::random_range(1.0 - SPREAD..=1.0 + SPREAD))
    }

    /// Begins to count.
    pub fn start(self) -> Waits {
        Waits {
            backoff: ExponentialBackoffBuilder::new()
                .with_initial_interval(self.initial)
                .with_max_interval(self.max)
                .with_multiplier(2.0)
                .with_randomization_factor(SPREAD)
                .with_max_elapsed_time(None)
                .build(),
            longest: self.max,
            news: News::default(),
        }
    }
}

/// The waits of one piece of work, each between half and one and a half of its nominal length; they never end.
#[derive(Debug)]
pub struct Waits {
    backoff: ExponentialBackoff,
    longest: Duration,
    news: News,
}

impl Waits {
    /// How long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        self.backoff.next_backoff().unwrap_or(self.longest)
    }

    /// Waits.
    pub async fn pause(&mut self) {
        sleep(self.next_wait()).await;
    }

    /// Whether the failure that is to be waited out is worth a line in the log, see [`News::is_due`].
    pub fn is_news(&mut self) -> bool {
        self.news.is_due()
    }

    /// Starts again from the first wait, after a success; returns what [`News::reset`] does.
    pub fn reset(&mut self) -> bool {
        self.backoff.reset();
        self.news.reset()
    }
}

/// Tells which of many failures in a row are worth a line in the log.
#[derive(Debug, Default)]
pub struct News {
    said: Option<Instant>,
}

impl News {
    /// Whether to say so: at the first failure, and once a minute as long as it goes on.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.said.is_none_or(|said| now - said >= AGAIN);
        if due {
            self.said = Some(now);
        }
        due
    }

    /// Notes a success; returns whether a failure had been told of, so that its end is to be told of as well.
    pub fn reset(&mut self) -> bool {
        self.said.take().is_some()
    }
}

/// `duration`, give or take a fifth, so that replicas don't act all at the same moment.
pub fn jittered(duration: Duration) -> Duration {
    // The process-wide generator will do: nothing but the spread depends on it.
    duration.mul_f64(rand::random_range(0.8..=1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_limit_and_start_over_after_a_success() {
        let mut waits = Policy { initial: Duration::from_secs(1), max: Duration::from_secs(4) }.start();
        for nominal in [1.0, 2.0, 4.0, 4.0, 4.0] {
            let wait = waits.next_wait().as_secs_f64();
            assert!((0.5 * nominal..=1.5 * nominal).contains(&wait), "{wait} s instead of about {nominal} s");
        }
        waits.reset();
        assert!(waits.next_wait() <= Duration::from_millis(1500));
    }

    #[test]
    fn a_wait_for_a_count_of_failures_is_the_wait_that_counting_here_would_give() {
        let policy = Policy { initial: Duration::from_secs(1), max: Duration::from_secs(4) };
        for (failures, nominal) in [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0), (u32::MAX, 4.0)] {
            let wait = policy.wait_after(failures).as_secs_f64();
            assert!((0.5 * nominal..=1.5 * nominal).contains(&wait), "{wait} s instead of about {nominal} s");
        }
    }

    #[test]
    fn in_an_outage_the_next_try_is_never_far() {
        let mut waits = Policy::OUTAGE.start();
        let longest = (0..10_000).map(|_| waits.next_wait()).max().unwrap();
        assert!(longest <= Duration::from_millis(600), "{longest:?}");
    }

    #[test]
    fn the_waits_of_several_are_spread() {
        let first: std::collections::BTreeSet<_> = (0..20).map(|_| Policy::OUTAGE.start().next_wait()).collect();
        assert!(first.len() > 10, "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_of_once_a_minute_and_its_end_once() {
        let mut news = News::default();
        assert!(!news.reset(), "nothing has happened yet");
        let mut told = 0;
        for _ in 0..=150 {
            told += u32::from(news.is_due());
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(told, 3, "at 0 s, 60 s and 120 s");
        assert!(news.reset() && !news.reset());
        assert!(news.is_due(), "the next outage is another one");
    }
}
