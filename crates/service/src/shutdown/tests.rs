//! The state machine on a paused clock; real signals are tested in `tests/process.rs`.

use std::future::pending;
use std::time::Duration;

use super::{Ended, Shutdown, Stage};

const GRACE: Duration = Duration::from_mins(1);

/// Fails instead of hanging when the end never comes.
async fn end_of(shutdown: &Shutdown) -> Ended {
    tokio::time::timeout(GRACE * 60, shutdown.ended()).await.expect("the process ends")
}

#[tokio::test(start_paused = true)]
async fn the_first_signal_asks_and_the_second_tells() {
    let shutdown = Shutdown::new(GRACE);
    assert_eq!(shutdown.stage(), Stage::Running);
    shutdown.signal();
    assert_eq!(shutdown.stage(), Stage::Stopping);
    assert!(shutdown.soft().is_cancelled() && !shutdown.hard().is_cancelled());
    shutdown.signal();
    assert_eq!(shutdown.stage(), Stage::Aborting);
    assert!(end_of(&shutdown).await.aborted);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_finishes_when_asked_ends_the_process_cleanly() {
    let shutdown = Shutdown::new(GRACE);
    let soft = shutdown.soft().clone();
    shutdown.spawn("polite", async move {
        soft.cancelled().await;
        Ok(())
    });
    assert_eq!(shutdown.running(), ["polite"]);
    shutdown.signal();
    assert!(end_of(&shutdown).await.is_clean());
    assert!(shutdown.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_finish_is_dropped_after_the_grace_period_and_named() {
    let shutdown = Shutdown::new(GRACE);
    shutdown.spawn("stubborn", pending());
    let began = tokio::time::Instant::now();
    shutdown.signal();
    let ended = end_of(&shutdown).await;
    assert!(ended.aborted && !ended.is_clean());
    assert_eq!(ended.failures[0].task, "stubborn");
    assert!(began.elapsed() >= GRACE && began.elapsed() < GRACE + Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_shuts_the_process_down_and_is_remembered() {
    let shutdown = Shutdown::new(GRACE);
    let soft = shutdown.soft().clone();
    shutdown.spawn("bystander", async move {
        soft.cancelled().await;
        Ok(())
    });
    shutdown.spawn("broken", async { Err(anyhow::anyhow!("the wheel came off")) });
    let ended = end_of(&shutdown).await;
    assert!(!ended.aborted);
    assert_eq!(ended.failures.len(), 1);
    assert_eq!(ended.failures[0].task, "broken");
    assert_eq!(ended.failures[0].error.to_string(), "the wheel came off");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_task_counts_as_a_failure() {
    let shutdown = Shutdown::new(GRACE);
    shutdown.spawn("panicking", async { panic!("on purpose") });
    let ended = end_of(&shutdown).await;
    assert_eq!(ended.failures[0].task, "panicking");
    assert_eq!(ended.failures[0].error.to_string(), "panicked: on purpose");
}

#[tokio::test(start_paused = true)]
async fn finite_work_that_ends_well_leaves_the_process_running() {
    let shutdown = Shutdown::new(GRACE);
    shutdown.spawn("finite", async { Ok(()) });
    while !shutdown.running().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(shutdown.stage(), Stage::Running);
    assert_eq!(shutdown.crashed_task(), None);
}
