//! 16: addresses that don't exist, some of which several leads have.

use std::{collections::BTreeMap, time::Duration};

use leadmill_tests::{
    creators,
    faults::{
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
    truth,
};
use test_support::smtp::{Action, Step};

use crate::short_or;

const NO_SUCH_MAILBOX: &str = "550 5.1.1 no such user here";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_does_not_exist_is_asked_for_once_and_nothing_for_it_is_left_waiting() {
    let world = World::start(Plan { seed: 1601, replicas: 2, ..Plan::default() }).await;
    let count = short_or(300, 5_000);
    let mut people = creators::reachable(1601, "person", count);
    // Every fourth doesn't exist, and each of these addresses is that of three leads.
    for index in (0..people.len()).step_by(4) {
        let address = format!("nobody{}@people.example.com", index / 12);
        people[index].email = Some(address);
    }
    // Some are refused when they are named, others only when the mail has come.
    world.mailbox.set_script(|event| {
        let nobody = event.argument.contains("nobody");
        let at_once = event.argument.len() % 2 == 0;
        match event.step {
            Step::Rcpt if nobody && at_once => {
                Action::DelayedReply(Duration::from_millis(50), NO_SUCH_MAILBOX.to_owned())
            }
            Step::Dot if nobody => Action::DelayedReply(Duration::from_millis(50), NO_SUCH_MAILBOX.to_owned()),
            _ => Action::Proceed,
        }
    });
    let over = short_or(Duration::from_secs(5), Duration::from_mins(1));
    let kills = short_or(4, 40);
    let (fed, ()) = tokio::join!(world.post(&people, over), world.kill_in_turn("mailer", kills, over / kills));

    let fault = "addresses that don't exist, of several leads each";
    let asked = asked_for(&world);
    let runs = asked.len() as u64;
    let in_doubt = u64::from(kills) * 4;
    let done = Done { row: 16, fault, runs, fed: Some(fed), in_doubt, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    // Each kill may take the answer to one question of each connection with it.
    let again: u64 = asked_for(&world).values().map(|times| times - 1).sum();
    if again > in_doubt {
        let detail = format!("{again} times, and at most {in_doubt} answers can be lost");
        verdict.add([Complaint::new("an address that does not exist is asked for again", detail)]);
    }
    let tally = verdict.assert();
    let suppressed = "SELECT count(*) FROM suppressions WHERE reason = 'hard_bounce'";
    let suppressed = truth::count(&world.stack, suppressed).await as u64;
    // What is uncertain is asked for never again.
    assert!(suppressed + tally.uncertain >= runs && suppressed > 5, "{tally}: {suppressed} of {runs} are suppressed");
    world.end().await;
}

/// How often each address that doesn't exist was asked for.
fn asked_for(world: &World) -> BTreeMap<String, u64> {
    let mut asked = BTreeMap::new();
    for line in world.mailbox.commands().iter().filter(|line| line.starts_with("RCPT") && line.contains("nobody")) {
        *asked.entry(line.clone()).or_default() += 1;
    }
    asked
}
