//! When a job is due.

use std::{fmt, str::FromStr as _, time::Duration};

use croner::Cron;
use jiff::{Timestamp, tz::TimeZone};
use retry::Policy;
use time::OffsetDateTime;

/// The wait before a failed run is tried again: the first, and the longest.
const FIRST_RETRY: Duration = Duration::from_secs(10);
const LAST_RETRY: Duration = Duration::from_mins(15);

/// When a job is due.
#[derive(Debug, Clone)]
pub struct Schedule(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Every(Duration),
    Cron(Box<Cron>),
}

/// What becomes of a run that no process was there to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// It runs as soon as a process is there, once, however often it was missed.
    RunOnce,
    /// It is left out; the next one comes at its time.
    Skip,
}

/// A cron expression that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("`{expression}` is no cron expression: {reason}")]
pub struct InvalidCron {
    expression: String,
    reason: String,
}

impl Schedule {
    /// So long after the end of the run before, give or take a fifth.
    pub const fn every(interval: Duration) -> Self {
        Self(Kind::Every(interval))
    }

    /// At the times of a cron expression of five fields, in UTC.
    ///
    /// # Errors
    /// When it isn't one, or names a time that never comes.
    pub fn cron(expression: &str) -> Result<Self, InvalidCron> {
        let invalid = |error: croner::errors::CronError| InvalidCron {
            expression: expression.to_owned(),
            reason: error.to_string(),
        };
        let cron = Cron::from_str(expression).map_err(invalid)?;
        cron.find_next_occurrence(&Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), false).map_err(invalid)?;
        Ok(Self(Kind::Cron(Box::new(cron))))
    }

    /// The next due time after a run that ended, or was left out, at this time.
    pub(super) fn next(&self, after: OffsetDateTime) -> OffsetDateTime {
        match &self.0 {
            Kind::Every(interval) => after + retry::jittered(*interval),
            Kind::Cron(cron) => next_occurrence(cron, after).unwrap_or(after + LAST_RETRY),
        }
    }

    /// The latest due time that this schedule can give at this time.
    pub(super) fn latest(&self, now: OffsetDateTime) -> OffsetDateTime {
        match &self.0 {
            Kind::Every(interval) => now + *interval * 2,
            Kind::Cron(_) => self.next(now),
        }
    }

    /// How long to wait after this many failed runs in a row; never longer than the time between two runs.
    pub(super) fn retry_wait(&self, failures: u32) -> Duration {
        let longest = match &self.0 {
            Kind::Every(interval) => LAST_RETRY.min(*interval),
            Kind::Cron(_) => LAST_RETRY,
        };
        Policy { initial: FIRST_RETRY.min(longest), max: longest }.wait_after(failures)
    }

    /// How often it is worth to look whether another process has given the job up.
    pub(super) fn interval(&self) -> Option<Duration> {
        match &self.0 {
            Kind::Every(interval) => Some(*interval),
            Kind::Cron(_) => None,
        }
    }
}

/// As a person reads it: `every 10 s`, `0 3 * * * (UTC)`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Every(interval) if interval.subsec_nanos() != 0 => write!(f, "every {} s", interval.as_secs_f64()),
            Kind::Every(interval) => {
                let seconds = interval.as_secs();
                let (count, unit) = match seconds {
                    0 => (0, "s"),
                    _ if seconds % 86_400 == 0 => (seconds / 86_400, "d"),
                    _ if seconds % 3_600 == 0 => (seconds / 3_600, "h"),
                    _ if seconds % 60 == 0 => (seconds / 60, "min"),
                    _ => (seconds, "s"),
                };
                write!(f, "every {count} {unit}")
            }
            Kind::Cron(cron) => write!(f, "{} (UTC)", cron.as_str()),
        }
    }
}

/// The first time of a cron expression after `after`; `None` where the search gives up, hundreds of years ahead.
fn next_occurrence(cron: &Cron, after: OffsetDateTime) -> Option<OffsetDateTime> {
    let after = Timestamp::from_second(after.unix_timestamp()).ok()?.to_zoned(TimeZone::UTC);
    let next = cron.find_next_occurrence(&after, false).ok()?;
    OffsetDateTime::from_unix_timestamp(next.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_cron_schedule_is_due_at_its_next_time_in_utc() {
        let nightly = Schedule::cron("30 3 * * *").unwrap();
        assert_eq!(nightly.next(datetime!(2026-03-28 03:29:59.5 UTC)), datetime!(2026-03-28 03:30 UTC));
        assert_eq!(nightly.next(datetime!(2026-03-28 03:30 UTC)), datetime!(2026-03-29 03:30 UTC));
        // Another offset means the same instant; clocks that are put forward elsewhere make no difference.
        assert_eq!(nightly.next(datetime!(2026-03-29 05:00 +2)), datetime!(2026-03-29 03:30 UTC));
        let on_mondays = Schedule::cron("0 8 * * MON").unwrap();
        assert_eq!(on_mondays.next(datetime!(2026-12-31 12:00 UTC)), datetime!(2027-01-04 08:00 UTC));
    }

    #[test]
    fn a_cron_expression_that_is_none_or_never_comes_is_refused() {
        for expression in ["", "nightly", "61 * * * *", "0 0 30 2 *"] {
            let refused = Schedule::cron(expression).unwrap_err().to_string();
            assert!(refused.contains(expression), "{refused}");
        }
    }

    #[test]
    fn an_interval_is_kept_give_or_take_a_fifth() {
        let schedule = Schedule::every(Duration::from_secs(100));
        for _ in 0..100 {
            let wait = schedule.next(OffsetDateTime::UNIX_EPOCH) - OffsetDateTime::UNIX_EPOCH;
            assert!((80..=120).contains(&wait.whole_seconds()), "{wait}");
        }
    }

    #[test]
    fn a_failed_run_is_never_put_off_for_longer_than_its_interval() {
        let often = Schedule::every(Duration::from_millis(50));
        assert!(often.retry_wait(100) <= Duration::from_millis(75));
        let nightly = Schedule::cron("0 3 * * *").unwrap();
        assert!(nightly.retry_wait(1) <= Duration::from_secs(15));
        assert!((450..=1350).contains(&nightly.retry_wait(100).as_secs()));
    }

    #[test]
    fn a_schedule_shows_as_a_person_would_write_it() {
        for (schedule, text) in [
            (Schedule::every(Duration::from_secs(10)), "every 10 s"),
            (Schedule::every(Duration::from_millis(1_500)), "every 1.5 s"),
            (Schedule::every(Duration::from_mins(5)), "every 5 min"),
            (Schedule::every(Duration::from_hours(48)), "every 2 d"),
            (Schedule::cron("0 3 * * *").unwrap(), "0 3 * * * (UTC)"),
        ] {
            assert_eq!(schedule.to_string(), text);
        }
    }
}
