//! 18: captured mails that are released while people object and the mailers begin to send.

use std::time::Duration;

use collector::source::RawProfile;
use leadmill_tests::{
    creators,
    faults::{
        pages::Objections,
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
    stack::PROGRAM,
    truth,
    wait::PATIENCE,
};
use test_support::smtp::{Action, Step};
use tokio::time::sleep;

use crate::short_or;

const CAPTURED: &str = "SELECT count(*) FROM outreach WHERE state = 'captured'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captured_mails_that_are_released_go_out_once_and_never_to_who_has_objected() {
    let env = [("LEADMILL_MAILER_TRANSPORT", "capture")];
    let world = World::start(Plan { seed: 1801, replicas: 2, env: &env, ..Plan::default() }).await;
    let count = short_or(300, 5_000);
    let mut people = creators::reachable(1801, "person", count);
    for index in (2..people.len()).step_by(3) {
        people[index].email = people[index - 1].email.clone();
    }
    let (first, later) = people.split_at(people.len() * 2 / 3);
    let mut fed = world.post(first, Duration::ZERO).await;
    world.stack.settle(PATIENCE).await;
    world.mailbox.set_script(|event| match event.step {
        Step::Rcpt => Action::Delay(Duration::from_millis(20)),
        _ => Action::Proceed,
    });

    let keys = world.stack.program_keys().await;
    let mut objections = Objections::new(&world.pages, &keys);
    // While their mails are captured, and while these are released.
    for person in every(first, 0) {
        objections.object(person, None).await;
    }
    let objecting = async {
        let mut objections = Objections::new(&world.pages, &keys);
        for person in every(&people, 1) {
            objections.object(person, None).await;
            sleep(Duration::from_millis(40)).await;
        }
        objections
    };
    let kills = short_or(3, 30);
    let releasing = async {
        release_some_by_id(&world).await;
        release_all(&world).await;
        for mailer in world.replicas("mailer") {
            mailer.restart_with(&[("LEADMILL_MAILER_TRANSPORT", "smtp")]).await;
        }
        release_all(&world).await;
        world.kill_in_turn("mailer", kills, Duration::from_millis(400)).await;
        release_all(&world).await;
    };
    let (fed_later, objected, ()) = tokio::join!(world.post(later, Duration::from_secs(3)), objecting, releasing);
    objections.join(objected);
    fed.accepted += fed_later.accepted;
    // What the last of the capturing mailers had in hand.
    world.stack.settle(PATIENCE).await;
    release_all(&world).await;

    let fault = "captured mails released while people object";
    let runs = objections.len() as u64;
    let done = Done { row: 18, fault, runs, fed: Some(fed), in_doubt: u64::from(kills) * 4, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    verdict.add(objections.complaints(&world.stack).await);
    let captured = truth::count(&world.stack, CAPTURED).await;
    if captured > 0 {
        verdict.add([Complaint::new("a captured mail was not released", captured.to_string())]);
    }
    let tally = verdict.assert();
    assert!(tally.recorded > count / 3, "{tally}: few mails show little");
    world.end().await;
}

/// The addresses of every fifth, beginning at one of them.
fn every(people: &[RawProfile], first: usize) -> impl Iterator<Item = &str> {
    people.iter().skip(first).step_by(5).filter_map(|person| person.email.as_deref())
}

/// Releases a few, named by their ids; the others stay.
async fn release_some_by_id(world: &World) {
    let before = truth::count(&world.stack, CAPTURED).await;
    let listed = world.stack.leadmill(&["mail", "list", "--program", PROGRAM, "--limit", "5", "--json"]).await.json();
    let ids: Vec<&str> = listed.as_array().expect("a list").iter().filter_map(|mail| mail["id"].as_str()).collect();
    let args = [&["mail", "release", "--program", PROGRAM, "--json"], &ids[..]].concat();
    world.stack.leadmill(&args).await.ok();
    // The mailers still capture: what was released is captured again, or was cancelled.
    world.stack.settle(PATIENCE).await;
    let after = truth::count(&world.stack, CAPTURED).await;
    assert!(before - after <= 5, "{before} were captured, {after} are: more than five were touched");
}

async fn release_all(world: &World) {
    world.stack.leadmill(&["mail", "release", "--captured", "--program", PROGRAM, "--json"]).await.ok();
}
