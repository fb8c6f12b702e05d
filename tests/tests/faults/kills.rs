//! 1: kill -9 of every service at random moments, restarted at once.

use std::time::Duration;

use leadmill_tests::faults::{
    verdict::Done,
    world::{Plan, World, asking_model},
};
use rand::{RngExt as _, seq::IndexedRandom as _};
use test_support::llm::{Behaviour, FakeLlm};
use tokio::time::sleep;

use crate::short_or;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_every_service_at_random_moments_loses_and_doubles_nothing() {
    let (leads, kills) = (short_or(1_000, 5_000), short_or(8, 50));
    let world = World::start(Plan { seed: 101, ..Plan::default() }).await;
    let mut rng = world.rng();
    let killing = async {
        let mut left = vec![kills; world.services.len()];
        while left.iter().any(|kills| *kills > 0) {
            sleep(Duration::from_millis(rng.random_range(10..400))).await;
            let victims: Vec<usize> = (0..left.len()).filter(|index| left[*index] > 0).collect();
            let victim = *victims.choose(&mut rng).expect("somebody is left");
            left[victim] -= 1;
            world.services[victim].kill().await;
        }
    };
    let over = Duration::from_millis(200) * kills * 3;
    let (fed, ()) = tokio::join!(world.feed(leads, over), killing);
    let runs = u64::from(kills) * world.services.len() as u64;
    // The mailer has four connections.
    let in_doubt = u64::from(kills) * 4;
    let fault = "kill -9 at random moments";
    let tally = world.judge(Done { row: 1, fault, runs, fed: Some(fed), in_doubt, ..Done::default() }).await;
    assert_eq!(tally.leads, leads);
    assert!(tally.recorded > leads / 3, "{tally}: few mails show little");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_an_enricher_whose_answers_come_out_of_order_loses_nothing() {
    // Later deliveries are done earlier: what is acknowledged too much is lost with the process.
    let api = FakeLlm::start(|request| {
        let wait = Duration::from_millis(if request.number % 5 == 0 { 700 } else { 20 });
        Behaviour::After(wait, Box::new(Behaviour::Good))
    })
    .await
    .expect("the stand-in starts");
    let base_url = api.base_url();
    let mut env = asking_model(&base_url);
    // Whom a killed process had asked about is asked about again once its claim has ended.
    env.extend([
        ("LEADMILL_ENRICHER_MODEL_CONCURRENCY", "32"),
        ("LEADMILL_ENRICHER_MODEL_TOTAL_TIME", "8s"),
        ("LEADMILL_ENRICHER_MODEL_CLAIM_SLACK", "2s"),
    ]);
    let world = World::start(Plan { seed: 102, env: &env, ..Plan::default() }).await;
    let (leads, kills) = (short_or(500, 2_000), short_or(4, 20));
    let enricher = world.replicas("enricher").next().expect("an enricher");
    let killing = async {
        for _ in 0..kills {
            sleep(Duration::from_millis(1_500)).await;
            enricher.kill().await;
        }
    };
    let (fed, ()) = tokio::join!(world.feed(leads, Duration::from_secs(1) * kills), killing);
    let fault = "kill -9 of the enricher, answers out of order";
    let done = Done { row: 1, fault, runs: u64::from(kills), fed: Some(fed), ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.leads, leads, "{tally}");
    world.end().await;
}
