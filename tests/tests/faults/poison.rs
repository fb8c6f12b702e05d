//! 7: what can't be handled ends as a dead letter, and nothing else does. (A handler that panics is a matter of
//! `crates/pipeline/tests`: the real services have none to show.)

use std::time::Duration;

use domain::{
    clock::{Clock as _, SystemClock},
    event::{Envelope, Event, Queue},
    id::{LeadId, ProgramId},
};
use leadmill_tests::{
    audit::Planted,
    faults::{
        verdict::Done,
        world::{Plan, World},
    },
};

use crate::short_or;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_becomes_dead_letters_and_stops_nobody() {
    let world = World::start(Plan { seed: 701, ..Plan::default() }).await;
    let each = short_or(5, 100);
    let stack = &world.stack;
    let planting = async {
        for _ in 0..each {
            for queue in Queue::ALL {
                let event = match queue {
                    Queue::LeadCreated => Event::LeadCreated {},
                    Queue::LeadEnriched => Event::LeadEnriched { enrichment_version: 1, score: 50 },
                };
                let nobody = Envelope::new(stack.program(), LeadId::generate(), 1, SystemClock.now(), event.clone());
                let nowhere = Envelope::new(ProgramId::generate(), LeadId::generate(), 1, SystemClock.now(), event);
                let mut newer: serde_json::Value = serde_json::from_slice(&nobody.encode()).expect("an event is JSON");
                newer["schema_version"] = 99.into();
                let bodies =
                    [b"\xff\x00 no JSON".to_vec(), newer.to_string().into(), nobody.encode(), nowhere.encode()];
                for body in bodies {
                    stack.amqp().publish(queue.name(), &body, None).await;
                }
            }
        }
    };
    let (fed, ()) = tokio::join!(world.feed(200, Duration::from_secs(1)), planting);
    let dead = each * 4;
    let planted = Planted { dead_created: dead, dead_enriched: dead, stuck: &[] };
    let fault = "poison: undecodable, unknown version, no such lead or program";
    let done = Done { row: 7, fault, runs: u64::from(dead) * 2, fed: Some(fed), in_doubt: 0, planted };
    world.judge(done).await;
    world.end().await;
}
