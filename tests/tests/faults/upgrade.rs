//! 21: an upgrade. A database of the previous release, with mails in every state, is migrated while that release's mailers
//! run; then its processes are replaced one by one.
//!
//! The previous release's binaries are built by `deploy/previous-release.sh`, which takes minutes: `make upgrade` does it
//! and names them in `TEST_PREVIOUS_RELEASE`. Without them this is skipped.

use std::{collections::BTreeMap, env, io::Write as _, path::PathBuf, time::Duration};

use domain::outreach::OutreachState;
use leadmill_tests::{
    creators,
    faults::{
        pages::Objections,
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
    mail,
    stack::{PROGRAM, binaries},
    truth,
    wait::{PATIENCE, eventually},
};
use serde_json::Value;
use sqlx::Row as _;
use test_support::{
    smtp::{Action, Step, StepEvent},
    witness,
};
use tokio::time::sleep;

use crate::short_or;

/// The longest that reads and writes may have to wait for the migration: its `lock_timeout` of 2 s, and the work of one
/// try.
const LONGEST_LOCK_MS: f64 = 2_500.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_previous_release_is_migrated_while_its_mailers_run_and_nothing_is_lost_or_doubled() {
    let Some(previous) = env::var_os("TEST_PREVIOUS_RELEASE").map(PathBuf::from) else {
        return witness::skipped("the previous release is not built: `make upgrade` does that");
    };
    let mut world = World::start_older(&previous, Plan { seed: 2101, replicas: 2, ..Plan::default() }).await;
    let count = short_or(400, 5_000);
    let people = people(count);
    let (early, later) = people.split_at(people.len() / 3);
    world.mailbox.set_script(moody);

    // Some are captured first: a release that is tried out before it sends.
    for mailer in world.replicas("mailer") {
        mailer.restart_with(&[("LEADMILL_MAILER_TRANSPORT", "capture")]).await;
    }
    let mut fed = world.post(&early[..early.len() / 3], Duration::ZERO).await;
    world.stack.settle(PATIENCE).await;
    for mailer in world.replicas("mailer") {
        mailer.restart_with(&[("LEADMILL_MAILER_TRANSPORT", "smtp")]).await;
    }
    fed.accepted += world.post(&early[early.len() / 3..], Duration::from_secs(2)).await.accepted;

    let keys = world.stack.program_keys().await;
    let mut objections = Objections::new(&world.pages, &keys);
    let over = short_or(Duration::from_secs(20), Duration::from_mins(2));
    let this_release = binaries();
    let upgrading = async {
        // Their mails are deferred, and are cancelled now.
        let put_off = early[early.len() / 3..].iter().filter_map(|person| person.email.as_deref());
        for person in put_off.filter(|address| address.contains("later")).take(3) {
            objections.object(person, None).await;
        }
        // More come in than go out.
        world.mailbox.set_script(|event| match (event.step, moody(event)) {
            (Step::Rcpt, Action::Delay(_)) => Action::Delay(Duration::from_millis(400)),
            (Step::Dot, Action::Proceed) => Action::TakeAndDelay(Duration::from_millis(600)),
            (_, action) => action,
        });
        stand_still_with_mails_in_every_state(&world).await;
        let migrate = world.stack.leadmill_of(&this_release, &["migrate", "--json"]);
        let (migrated, ()) = tokio::join!(migrate, signal_mailers(&world, "CONT"));
        let locks = longest_lock(&migrated.json());
        world.mailbox.set_script(moody);
        // The old release goes on for a while: a migration is not the moment of the upgrade.
        sleep(over / 8).await;
        for service in &world.services {
            service.restart_as(&this_release, &[mail::TEST_SINK]).await;
            service.ready().await;
            sleep(over / 20).await;
        }
        locks
    };
    let (fed_later, (lock, of)) = tokio::join!(world.post(later, over), upgrading);
    fed.accepted += fed_later.accepted;
    say(&format!("longest lock of the migration: {lock} ms ({of})"));
    assert!(lock < LONGEST_LOCK_MS, "reads and writes had to wait for {lock} ms ({of})");

    world.stack.use_this_release();
    for person in people.iter().step_by(11).filter_map(|person| person.email.as_deref()) {
        objections.object(person, None).await;
    }
    world.calm().await;
    world.stack.leadmill(&["mail", "release", "--captured", "--program", PROGRAM]).await.ok();

    let fault = "migrated from the previous release under load";
    // A stand-still of two mailers, one restart of each, and what the mail server answered to nothing.
    let unanswered = people.iter().filter(|person| is_unanswered(person.email.as_deref().unwrap_or_default())).count();
    let in_doubt = unanswered as u64 + 2 * 2 * 4;
    let done = Done { row: 21, fault, runs: 7, fed: Some(fed), in_doubt, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    verdict.add(objections.complaints(&world.stack).await);
    let captured = truth::count(&world.stack, "SELECT count(*) FROM outreach WHERE state = 'captured'").await;
    if captured > 0 {
        verdict.add([Complaint::new("a captured mail was not released", captured.to_string())]);
    }
    let tally = verdict.assert();
    assert!(tally.recorded > count / 2, "{tally}: few mails show little");
    world.end().await;
}

/// Creators whose addresses say what the mail server makes of them, some of which several have.
fn people(count: u64) -> Vec<collector::source::RawProfile> {
    let mut people = creators::reachable(2101, "person", count);
    for (index, person) in people.iter_mut().enumerate() {
        let label = match index % 20 {
            3 => "later",
            7 => "nobody",
            11 => "refused",
            13 => "unanswered",
            17 => "slow",
            _ => continue,
        };
        person.email = Some(format!("{label}{index}@people.example.com"));
    }
    for index in (9..people.len()).step_by(10) {
        let (before, rest) = people.split_at_mut(index);
        rest[0].email.clone_from(&before[index - 1].email);
    }
    // Nobody knows where they live: without a country there is no rule, and their mails are held.
    for person in people.iter_mut().skip(5).step_by(20) {
        person.country = None;
        person.location = None;
    }
    people
}

fn is_unanswered(address: &str) -> bool {
    address.contains("unanswered")
}

/// A mail server that does everything that it may.
fn moody(event: &StepEvent<'_>) -> Action {
    let is = |label: &str| event.argument.contains(label);
    match event.step {
        Step::Rcpt if is("later") => Action::Reply("450 4.2.0 try again later".to_owned()),
        Step::Rcpt if is("nobody") => Action::Reply("550 5.1.1 no such user here".to_owned()),
        Step::Dot if is("refused") => Action::Reply("554 5.6.0 not this message".to_owned()),
        Step::Dot if is_unanswered(event.argument) => Action::TakeAndClose,
        Step::Dot if is("slow") => Action::TakeAndDelay(Duration::from_secs(1)),
        Step::Rcpt => Action::Delay(Duration::from_millis(40)),
        _ => Action::Proceed,
    }
}

/// Stops the mailers at a moment at which there are mails in every state.
async fn stand_still_with_mails_in_every_state(world: &World) {
    eventually("there are mails in every state", PATIENCE, async || {
        signal_mailers(world, "STOP").await;
        let states = mails_by_state(world).await;
        let missing: Vec<&str> =
            OutreachState::ALL.iter().map(|state| state.name()).filter(|state| !states.contains_key(*state)).collect();
        if missing.is_empty() {
            say(&format!("when the migration began: {states:?}"));
            return Ok(());
        }
        signal_mailers(world, "CONT").await;
        Err(format!("none is {missing:?}: {states:?}"))
    })
    .await;
}

/// Shown where somebody runs it by hand with `--nocapture`, as `make upgrade` does.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

async fn signal_mailers(world: &World, signal: &str) {
    for mailer in world.replicas("mailer") {
        mailer.signal(signal).await;
    }
}

async fn mails_by_state(world: &World) -> BTreeMap<String, i64> {
    let rows = sqlx::query("SELECT state::text AS state, count(*) AS mails FROM outreach GROUP BY state")
        .fetch_all(&mut world.stack.connect().await)
        .await
        .expect("the mails can be counted");
    rows.iter().map(|row| (row.get("state"), row.get("mails"))).collect()
}

/// The longest lock of a migration, in milliseconds, and what held it.
fn longest_lock(report: &Value) -> (f64, String) {
    let migrations = report["migrations"].as_array().expect("the migrations that were applied");
    assert!(!migrations.is_empty(), "nothing was migrated: {report}");
    let lock = |migration: &Value| migration["longest_lock_ms"].as_f64().expect("a time");
    let longest = migrations.iter().max_by(|a, b| lock(a).total_cmp(&lock(b))).expect("there are some");
    (lock(longest), format!("{}: {}", longest["description"], longest["locks"]))
}
