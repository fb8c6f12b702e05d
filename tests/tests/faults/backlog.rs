//! 11: leads come in while nobody enriches them; memory stays bounded, then all drain.

use std::time::Duration;

use leadmill_tests::{
    faults::{
        verdict::Done,
        world::{Plan, World},
    },
    stack::PROGRAM,
    truth,
    wait::eventually,
};

use crate::short_or;

/// What a process may take, whatever waits for it. The promise is 48 MiB for a release build.
const MEMORY_LIMIT: u64 = if cfg!(debug_assertions) { 96 << 20 } else { 48 << 20 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_takes_no_memory_and_drains() {
    let env = [("LEADMILL_MAILER_TRANSPORT", "capture")];
    let world = World::start(Plan { seed: 1101, env: &env, ..Plan::default() }).await;
    for enricher in world.replicas("enricher") {
        enricher.crash().await;
    }
    let count = short_or(10_000, 1_000_000).to_string();
    let simulated = world.stack.leadmill(&["simulate", "--program", PROGRAM, "--leads", &count, "--json"]).await;
    let mut most = simulated.peak_memory;
    assert!((1..MEMORY_LIMIT).contains(&most), "the import took {} MiB", most >> 20);
    let accepted = simulated.json()["accepted"].as_u64().expect("a count");
    for enricher in world.replicas("enricher") {
        enricher.revive().await;
    }
    let left = "SELECT count(*) FROM leads l WHERE NOT EXISTS
                (SELECT FROM enriched_leads e WHERE e.program_id = l.program_id AND e.lead_id = l.id)";
    eventually("all are enriched", short_or(Duration::from_mins(3), Duration::from_hours(1)), async || {
        match truth::count(&world.stack, left).await {
            0 => Ok(()),
            rest => Err(format!("{rest} are not")),
        }
    })
    .await;
    world.stack.settle(short_or(Duration::from_mins(3), Duration::from_hours(1))).await;
    for service in &world.services {
        let peak = service.peak_memory().await;
        assert!(peak < MEMORY_LIMIT, "the {} took {} MiB", service.binary(), peak >> 20);
        most = most.max(peak);
    }
    let fault = format!("a backlog while the enricher is stopped; at most {} MiB", most.div_ceil(1 << 20));
    let done = Done { row: 11, fault: &fault, runs: 1, ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.leads, accepted);
    world.end().await;
}
