//! 20: leads that are erased while their mails are on their way.

use std::{collections::HashMap, time::Duration};

use leadmill_tests::{
    audit::Planted,
    creators,
    faults::{
        history,
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
};
use test_support::smtp::{Action, Step};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::short_or;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_begun_for_a_lead_that_has_been_erased() {
    let world = World::start(Plan { seed: 2001, replicas: 2, ..Plan::default() }).await;
    let count = short_or(300, 5_000);
    let people = creators::reachable(2001, "person", count);
    // Long enough that some are erased while their mail is offered.
    world.mailbox.set_script(|event| match event.step {
        Step::Rcpt => Action::Delay(Duration::from_millis(100)),
        _ => Action::Proceed,
    });
    let over = short_or(Duration::from_secs(5), Duration::from_mins(1));
    let kills = short_or(2, 20);
    let (fed, erased, ()) = tokio::join!(
        world.post(&people, over),
        erasing(&world, Instant::now() + over),
        world.kill_in_turn("mailer", kills, over / kills)
    );

    let stuck: Vec<Uuid> = erased.keys().copied().collect();
    let done = Done {
        row: 20,
        fault: "leads erased while their mails are offered",
        runs: erased.len() as u64,
        fed: Some(fed),
        in_doubt: u64::from(kills) * 4,
        planted: Planted { stuck: &stuck, ..Planted::default() },
    };
    let mut verdict = world.verdict(done).await;
    let entries = history::entries(&world.stack).await;
    let begun = entries.iter().filter(|entry| entry.state == "transmitting");
    verdict.add(
        begun
            .filter(|entry| erased.get(&entry.lead).is_some_and(|at| entry.statement_at > *at))
            .map(|entry| Complaint::new("a mail was begun for a lead that was erased", entry.outreach.to_string())),
    );
    let tally = verdict.assert();
    assert!(erased.len() > 10, "{tally}: few were erased");
    world.end().await;
}

/// Erases leads whose mails are in hand, as an erasure begins: the key goes. Gives when each was gone.
async fn erasing(world: &World, until: Instant) -> HashMap<Uuid, f64> {
    let mut connection = world.stack.connect().await;
    let mut erased = HashMap::new();
    while Instant::now() < until {
        let gone: Vec<Uuid> = sqlx::query_scalar(
            "DELETE FROM lead_keys
             WHERE lead_id IN (SELECT lead_id FROM outreach WHERE state = 'connecting' ORDER BY due_at DESC LIMIT 1)
             RETURNING lead_id",
        )
        .fetch_all(&mut connection)
        .await
        .expect("a key can be deleted");
        let at = history::now();
        erased.extend(gone.into_iter().map(|lead| (lead, at)));
        sleep(Duration::from_millis(50)).await;
    }
    erased
}
