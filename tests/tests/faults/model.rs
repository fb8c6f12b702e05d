//! 9: a model's API that misbehaves in every way.

use std::time::Duration;

use leadmill_tests::faults::{
    verdict::Done,
    world::{Plan, World, asking_model},
};
use test_support::llm::{Behaviour, FakeLlm};

use crate::short_or;

/// More than this, and the 100 MB of a hostile answer were kept.
const MEMORY_LIMIT: u64 = 160 << 20;

/// The request from which on there is money again.
const QUOTA_BACK: usize = 60;

fn behaviours() -> Vec<Behaviour> {
    vec![
        Behaviour::Good,
        Behaviour::RateLimited(None),
        Behaviour::RateLimited(Some("1".to_owned())),
        Behaviour::Status(500),
        Behaviour::Status(503),
        Behaviour::Hang,
        Behaviour::TruncatedBody,
        Behaviour::HugeBody,
        Behaviour::HtmlPage,
        Behaviour::Prose,
        Behaviour::HalfJson,
        Behaviour::Score250,
        Behaviour::CompliantMaybe,
        Behaviour::ForeignLink,
        Behaviour::InsufficientQuota,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_models_api_does_every_lead_is_enriched_once() {
    let api = FakeLlm::start(|request| {
        let all = behaviours();
        match all[request.number % all.len()].clone() {
            // Whoever has no money left isn't ready until an answer has come again, so this can't be the last word.
            Behaviour::InsufficientQuota if request.number >= QUOTA_BACK => Behaviour::Good,
            behaviour => behaviour,
        }
    })
    .await
    .expect("the stand-in starts");
    let base_url = api.base_url();
    let mut env = asking_model(&base_url);
    env.extend([
        ("LEADMILL_ENRICHER_MODEL_TIMEOUT", "1s"),
        ("LEADMILL_ENRICHER_MODEL_CONCURRENCY", "16"),
        ("LEADMILL_ENRICHER_MODEL_INITIAL_BACKOFF", "20ms"),
        ("LEADMILL_ENRICHER_MODEL_MAX_BACKOFF", "100ms"),
        ("LEADMILL_ENRICHER_MODEL_BREAKER_FAILURE_RATE", "0.9"),
        ("LEADMILL_ENRICHER_MODEL_BREAKER_PAUSE", "1s"),
    ]);
    let world = World::start(Plan { seed: 901, env: &env, ..Plan::default() }).await;
    let leads = short_or(200, 2_000);
    let fed = world.feed(leads, Duration::from_secs(1)).await;
    let fault = "model API: 429, 5xx, hang, truncated, 100 MB, wrong JSON";
    world.stack.settle(Duration::from_mins(3)).await;
    let peak = world.replicas("enricher").next().expect("an enricher").peak_memory().await;
    assert!(peak < MEMORY_LIMIT, "the enricher took {} MiB", peak >> 20);
    let runs = api.requests().len() as u64;
    assert!(runs > 30, "only {runs} requests");
    let tally = world.judge(Done { row: 9, fault, runs, fed: Some(fed), ..Done::default() }).await;
    assert_eq!(tally.leads, leads);
    world.end().await;
}
