//! 6: the same event ten times, out of order, to two replicas at once.

use std::time::Duration;

use domain::event::Queue;
use leadmill_tests::faults::{
    verdict::Done,
    world::{Plan, World},
};
use rand::seq::SliceRandom as _;

use crate::short_or;

const TIMES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_comes_ten_times_and_out_of_order_has_one_effect() {
    let world = World::start(Plan { seed: 601, replicas: 2, ..Plan::default() }).await;
    for queue in Queue::ALL {
        let keys: Vec<&str> = queue.bindings().iter().map(|kind| kind.name()).collect();
        world.stack.amqp().declare(&copy_of(queue), &keys).await;
    }
    let stages = [(Queue::LeadCreated, "enricher"), (Queue::LeadEnriched, "mailer")];
    for (_, service) in stages {
        for replica in world.replicas(service) {
            replica.crash().await;
        }
    }
    let fed = world.feed(short_or(200, 1_000), Duration::ZERO).await;
    let mut rng = world.rng();
    let mut runs = 0;
    for (queue, service) in stages {
        // Nobody takes them yet: both replicas find all copies at once.
        let mut events = copies(&world, queue, fed.accepted).await;
        events.shuffle(&mut rng);
        for body in &events {
            world.stack.amqp().publish(queue.name(), body, None).await;
        }
        runs += events.len() as u64;
        for replica in world.replicas(service) {
            replica.revive().await;
        }
    }
    let done = Done { row: 6, fault: "each event ten times, out of order", runs, fed: Some(fed), ..Done::default() };
    world.judge(done).await;
    world.end().await;
}

fn copy_of(queue: Queue) -> String {
    format!("copy.{}", queue.name())
}

/// Nine copies of each event that the queue got, once it got one for each lead.
async fn copies(world: &World, queue: Queue, leads: u64) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    world.stack.amqp().wait_for_depth(&copy_of(queue), u32::try_from(leads).expect("few")).await;
    while let Some(message) = world.stack.amqp().get(&copy_of(queue)).await {
        events.extend(std::iter::repeat_n(message.data.clone(), TIMES - 1));
    }
    events
}
