//! 10: SIGTERM in the middle of everything, a second one, and a rolling restart of all replicas under load.

use std::time::Duration;

use leadmill_tests::faults::{
    verdict::Done,
    world::{Plan, World},
};
use tokio::time::sleep;

use crate::short_or;

/// A second SIGTERM ends a process at once; on a busy machine that takes a moment.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_replicas_under_load_leaves_nothing_half_done() {
    let world = World::start(Plan { seed: 1001, replicas: 2, ..Plan::default() }).await;
    let (leads, rounds) = (short_or(1_000, 5_000), short_or(1, 10));
    let rolling = async {
        for _ in 0..rounds {
            for service in &world.services {
                sleep(Duration::from_millis(300)).await;
                service.restart().await;
                service.ready().await;
            }
        }
    };
    let (fed, ()) = tokio::join!(world.feed(leads, Duration::from_secs(5)), rolling);
    let runs = rounds * world.services.len() as u64;
    let done = Done { row: 10, fault: "SIGTERM, rolling restart", runs, fed: Some(fed), ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.uncertain, 0, "an orderly end leaves no mail of unknown fate: {tally}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_every_service_at_once_and_nothing_is_lost() {
    let world = World::start(Plan { seed: 1002, ..Plan::default() }).await;
    let ending = async {
        for service in &world.services {
            sleep(Duration::from_millis(500)).await;
            let took = service.terminate_twice().await;
            assert!(took < AT_ONCE, "{} took {took:?}", service.binary());
            service.revive().await;
        }
    };
    let (fed, ()) = tokio::join!(world.feed(500, Duration::from_secs(2)), ending);
    let runs = world.services.len() as u64;
    world.judge(Done { row: 10, fault: "a second SIGTERM", runs, fed: Some(fed), ..Done::default() }).await;
    world.end().await;
}
