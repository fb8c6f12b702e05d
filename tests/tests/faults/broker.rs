//! 3: RabbitMQ stopped, killed, without its queues, under a memory alarm.

use std::time::Duration;

use domain::event::Queue;
use leadmill_tests::faults::{
    servers::{RABBITMQ, Servers},
    verdict::Done,
    world::{Plan, World, asking_model},
};
use test_support::llm::{Behaviour, FakeLlm};
use tokio::time::sleep;

use crate::short_or;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rabbitmq_that_stops_dies_or_blocks_loses_nothing_that_it_confirmed() {
    let world = World::start_on(Servers::start().await, Plan { seed: 301, ..Plan::default() }).await;
    let servers = world.servers();
    let a_while = short_or(Duration::from_secs(3), Duration::from_secs(30));
    let breaking = async {
        sleep(Duration::from_secs(1)).await;
        servers.stop(RABBITMQ, "fast").await;
        sleep(Duration::from_secs(1)).await;
        servers.start_again(RABBITMQ).await;
        sleep(Duration::from_secs(2)).await;
        servers.stop(RABBITMQ, "immediate").await;
        sleep(a_while).await;
        servers.start_again(RABBITMQ).await;
        sleep(Duration::from_secs(2)).await;
        servers.rabbitmqctl(&["set_vm_memory_high_watermark", "0.000001"]).await;
        sleep(a_while).await;
        servers.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    };
    let leads = short_or(2_000, 10_000);
    let (fed, ()) = tokio::join!(world.feed(leads, Duration::from_secs(20) + 2 * a_while), breaking);
    let fault = "RabbitMQ stopped, killed, under a memory alarm";
    let tally = world.judge(Done { row: 3, fault, runs: 3, fed: Some(fed), ..Done::default() }).await;
    assert_eq!(tally.leads, leads, "{tally}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_are_deleted_while_consumers_run_cost_no_lead() {
    // A slow model, so that the queue holds most leads when it goes.
    let api = FakeLlm::start(|_| Behaviour::After(Duration::from_millis(100), Box::new(Behaviour::Good)))
        .await
        .expect("the stand-in starts");
    let base_url = api.base_url();
    let mut env = asking_model(&base_url);
    env.extend([("LEADMILL_ENRICHER_MODEL_CONCURRENCY", "10"), ("LEADMILL_AMQP_PREFETCH", "20")]);
    let world = World::start(Plan { seed: 302, reconciling: true, env: &env, ..Plan::default() }).await;
    let (leads, runs) = (short_or(600, 5_000), short_or(3, 30));
    let deleting = async {
        for _ in 0..runs {
            sleep(Duration::from_secs(1)).await;
            world.stack.amqp().delete_all_queues().await;
        }
    };
    let over = Duration::from_secs(1) * runs;
    let (fed, ()) = tokio::join!(world.feed(leads, over), deleting);
    let fault = "queues deleted while consumers run";
    let done = Done { row: 3, fault, runs: u64::from(runs), fed: Some(fed), ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.leads, leads, "{tally}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_are_there_by_name_only_are_replaced() {
    let plan = Plan { seed: 303, replicas: 2, reconciling: true, ..Plan::default() };
    let world = World::start_on(Servers::start().await, plan).await;
    for queue in Queue::ALL {
        let process = format!("'%2F_{}'", world.stack.amqp().name(queue.name()));
        // Matched, so that a name that RabbitMQ no longer gives its processes fails here and not as a test of nothing.
        let kill = format!(
            "true = is_pid(whereis({process})), ok = ra:force_delete_server(quorum_queues, {{{process}, node()}})."
        );
        world.servers().rabbitmqctl(&["eval", &kill]).await;
    }
    let leads = short_or(600, 5_000);
    let fed = world.feed(leads, Duration::from_secs(4)).await;
    let fault = "the processes behind the queues gone";
    let tally = world.judge(Done { row: 3, fault, runs: 2, fed: Some(fed), ..Done::default() }).await;
    assert_eq!(tally.leads, leads, "{tally}");
    world.end().await;
}
