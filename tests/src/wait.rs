//! Waiting for a condition, with a deadline.
//!
//! What happens in another process can't be awaited, only looked at again and again; the pause between two looks is the
//! one sleep of the end-to-end tests, and none of them depends on its length.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

/// How long anything may take that takes a moment: generous, since it costs nothing unless it fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// Looks until `look` finds what it wants, and gives that; panics after `limit` with what it said last.
///
/// # Panics
/// After `limit`.
pub async fn eventually<T, E: Display>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= deadline => panic!("not within {limit:?}: {what}: {reason}"),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
