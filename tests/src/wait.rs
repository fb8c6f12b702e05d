//! Waiting for a condition, with a deadline.
//!
//! What happens in another process can't be awaited, only looked at again and again; the pause between two looks is the
//! one sleep of the end-to-end tests, and none of them depends on its length.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

/// How long anything may take that takes a moment: generous, since it costs nothing unless it fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The least pause between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// How much longer than a look the pause after it is, at least: looking may not slow down what is looked at.
const LESS_OFTEN: u32 = 4;

/// Looks until `look` finds what it wants, and gives that; panics after `limit` with what it said last.
///
/// # Panics
/// After `limit`.
pub async fn eventually<T, E: Display>(what: &str, limit: Duration, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(limit, look).await.unwrap_or_else(|reason| panic!("not within {limit:?}: {what}: {reason}"))
}

/// The same for what may not come: gives what `look` said last.
pub async fn within<T, E>(limit: Duration, mut look: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + limit;
    loop {
        let began = Instant::now();
        match look().await {
            Err(_) if Instant::now() < deadline => sleep(PAUSE.max(LESS_OFTEN * began.elapsed())).await,
            result => return result,
        }
    }
}
