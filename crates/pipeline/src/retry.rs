//! How long to wait before trying again; the policies themselves are [`store::retry`]'s.

use std::{error::Error, fmt::Write as _, time::Duration};

pub use store::retry::{Delays, Policy};

/// Growing waits, with jitter, for a server that is away; they go on for as long as it takes.
pub(crate) struct Waits(Delays);

impl Waits {
    pub(crate) fn new() -> Self {
        Self(Policy::OUTAGE.start())
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0.next().unwrap_or(Policy::OUTAGE.max)).await;
    }
}

/// `duration`, give or take a fifth, so that replicas don't act all at the same moment.
pub(crate) fn jittered(duration: Duration) -> Duration {
    // The process-wide generator will do: nothing but the spread depends on it.
    duration.mul_f64(rand::random_range(0.8..=1.2))
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
