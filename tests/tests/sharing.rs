//! Replicas of a service share its work, evenly as long as each keeps up, and none keeps more from the others than its
//! prefetch.

use std::time::Duration;

use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    process::Process,
    stack::Stack,
    truth,
    wait::{PATIENCE, eventually},
};
use tokio::time::{MissedTickBehavior, interval};

const LIMIT: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_of_each_service_share_a_steady_load_evenly() {
    let stack = Stack::start().await;
    let services = stack.fleet(&["collector", "enricher", "mailer"], 2, &[]).await;
    let key = stack.api_key().await;
    let profiles = creators::creators(11, 2_000);
    // The load, not a wait: 400 leads a second, far below what they can do.
    let mut pace = interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (index, page) in profiles.chunks(20).enumerate() {
        pace.tick().await;
        creators::post(services[index % 2].address("ingest.address").await, &key, page).await;
    }
    stack.settle(LIMIT).await;

    for (replicas, counter) in [
        (&services[..2], "leadmill_outbox_publishes_total"),
        (&services[2..4], "leadmill_stage_handled_total"),
        (&services[4..], "leadmill_stage_handled_total"),
    ] {
        let shares = counted(replicas, counter, profiles.len() as u64).await;
        let all: u64 = shares.iter().sum();
        assert!(shares.iter().all(|share| (30..=70).contains(&(share * 100 / all))), "{counter}: {shares:?}");
    }
    audit(&stack, Planted::default()).await;
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_still_keeps_its_prefetch_from_the_others_and_no_more() {
    const LEADS: u64 = 400;
    const PREFETCH: u32 = 100;
    let stack = Stack::start().await;
    let prefetch = PREFETCH.to_string();
    let enricher = || stack.service("enricher").envs(&[("LEADMILL_AMQP_PREFETCH", &prefetch)]);
    let still = enricher().start().await;
    let collector = stack.service("collector").start().await;
    let ingest = collector.address("ingest.address").await;
    still.freeze().await;

    creators::post(ingest, &stack.api_key().await, &creators::creators(12, LEADS)).await;
    stack.amqp().wait_for_depth("lead.created", LEADS as u32 - PREFETCH).await;
    let other = enricher().start().await;
    let rest = LEADS - u64::from(PREFETCH);
    eventually("the other does the rest", PATIENCE, async || {
        let done = truth::count(&stack, "SELECT count(*) FROM enriched_leads").await as u64;
        if done == rest { Ok(()) } else { Err(format!("{done} of {rest}")) }
    })
    .await;
    let other = [other];
    assert_eq!(counted(&other, "leadmill_stage_handled_total", rest).await, [rest]);

    still.thaw().await;
    let mailer = stack.service("mailer").start().await;
    stack.settle(LIMIT).await;
    let [other] = other;
    let shares = counted(&[still, other], "leadmill_stage_handled_total", LEADS).await;
    assert_eq!(shares, [u64::from(PREFETCH), rest]);
    audit(&stack, Planted::default()).await;
    drop(mailer);
    stack.cleanup().await;
}

/// What each replica has counted, once it is `least` in all: a counter follows the commit.
async fn counted(replicas: &[Process], counter: &str, least: u64) -> Vec<u64> {
    eventually(&format!("{least} are counted"), PATIENCE, async || {
        let mut shares = Vec::new();
        for replica in replicas {
            shares.push(replica.counted(counter, &[]).await);
        }
        if shares.iter().sum::<u64>() >= least { Ok(shares) } else { Err(format!("{counter}: {shares:?}")) }
    })
    .await
}
