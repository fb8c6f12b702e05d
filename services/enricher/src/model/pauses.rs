//! When to try a request again: what the server asks for, or exponential backoff with jitter.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use retry::{Policy, Waits};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// The pauses between the tries of one request.
#[derive(Debug)]
pub(super) struct Pauses(Waits);

impl Pauses {
    /// Pauses from about `initial`, doubling up to about `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        // How often and how long to try is the caller's to decide.
        Self(Policy { initial, max }.start())
    }

    /// The next pause: our own one, or what the server asks for and a little more at random, so that clients that were
    /// sent away together don't come back together.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let own = self.0.next_wait();
        retry_after.map_or(own, |asked| asked.saturating_add(own / 4))
    }
}

/// Reads `retry-after`: seconds, or an HTTP date (RFC 9110 §10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        // Some servers send fractions, against the standard.
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some((at - now).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        retry_after(&headers, datetime!(1994-11-06 08:49:07 UTC))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(read("20"), Some(Duration::from_secs(20)));
        assert_eq!(read("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "a past date means now");
        for nonsense in ["", "soon", "-1", "NaN", "1e300"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn pauses_grow_up_to_the_limit_and_honour_the_server() {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_millis(300));
        for nominal in [100, 200, 300, 300] {
            let pause = pauses.next(None).as_millis();
            assert!((nominal / 2..=nominal * 3 / 2).contains(&pause), "{pause}");
        }
        let asked = Duration::from_secs(2);
        let pause = pauses.next(Some(asked));
        assert!((asked..=asked + Duration::from_millis(120)).contains(&pause), "{pause:?}");
    }
}
