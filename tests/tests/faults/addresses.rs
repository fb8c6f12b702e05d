//! 14: addresses that change while their mails wait, some to an address that has had its mail already.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use collector::source::RawProfile;
use leadmill_tests::{
    creators,
    faults::{
        history,
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
    wait::{PATIENCE, eventually},
};
use test_support::smtp::{Action, Step};
use tokio::time::sleep;

use crate::short_or;

/// Leads of a group: `holder` gets its mail at once; `taker` takes the holder's address afterwards; `left` and `right`
/// change places; `mover` goes to an address that nobody has had.
const LABELS: [&str; 5] = ["holder", "taker", "left", "right", "mover"];
/// Most mails are deferred for a while: tried again every other second, in the long form they would keep both mailers busy, and
/// the holders' mails waiting.
const PATIENT_RETRIES: &[(&str, &str)] =
    &[("LEADMILL_MAILER_RETRY_FIRST", "4s"), ("LEADMILL_MAILER_RETRY_LONGEST", "8s")];
/// Updates come in as so many files.
const FILES: usize = 3;

/// What a lead's address became, and when.
struct Change {
    /// The blind index of the new address.
    recipient: Vec<u8>,
    /// When the import was started, and when it had ended; see [`history::now`].
    started: f64,
    ended: f64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_changes_while_its_mail_waits_gets_the_campaign_once_and_only_while_it_is_the_leads() {
    let world = World::start(Plan { seed: 1401, replicas: 2, env: PATIENT_RETRIES, ..Plan::default() }).await;
    let groups = short_or(40, 400);
    let mut people = creators::reachable(1401, "person", groups * LABELS.len() as u64);
    let mut of_label: HashMap<&str, Vec<RawProfile>> = HashMap::new();
    for label in LABELS {
        let rest = people.split_off(groups as usize);
        let renamed = people.iter().enumerate();
        let renamed = renamed.map(|(n, profile)| creators::moved(profile, &format!("{label}{n}@people.example.com")));
        of_label.insert(label, renamed.collect());
        people = rest;
    }
    let server_is_busy = Arc::new(AtomicBool::new(true));
    let busy = Arc::clone(&server_is_busy);
    world.mailbox.set_script(move |event| match event.step {
        Step::Rcpt if busy.load(Ordering::Relaxed) && !event.argument.contains("<holder") => {
            Action::reply("450 4.3.2 busy, try again later")
        }
        _ => Action::Proceed,
    });
    let everybody: Vec<RawProfile> = LABELS.iter().flat_map(|label| of_label[label].clone()).collect();
    let fed = world.post(&everybody, Duration::from_secs(2)).await;
    eventually("the holders have their mails", short_or(PATIENCE, 3 * PATIENCE), async || {
        let mails = world.mails().len() as u64;
        if mails > groups * 9 / 10 { Ok(()) } else { Err(format!("{mails} of {groups} have")) }
    })
    .await;

    let address = |profile: &RawProfile| profile.email.clone().expect("everybody has one");
    let exchanged = |label: &str, with: &str| -> Vec<RawProfile> {
        let pairs = of_label[label].iter().zip(&of_label[with]);
        pairs.map(|(profile, other)| creators::moved(profile, &address(other))).collect()
    };
    let movers = of_label["mover"].iter().map(|profile| creators::moved(profile, &format!("new-{}", address(profile))));
    let updates: Vec<RawProfile> =
        [exchanged("taker", "holder"), exchanged("left", "right"), exchanged("right", "left")]
            .into_iter()
            .flatten()
            .chain(movers)
            .collect();
    let kills = short_or(3, 20);
    let updating = async {
        let mut times = Vec::new();
        for (index, file) in updates.chunks(updates.len().div_ceil(FILES)).enumerate() {
            if index == 1 {
                // From now on mails go out while addresses change.
                server_is_busy.store(false, Ordering::Relaxed);
            }
            let started = history::now();
            world.update(file).await;
            times.extend(file.iter().map(|_| (started, history::now())));
            sleep(Duration::from_millis(500)).await;
        }
        times
    };
    // Not so fast that events are delivered ten times to mailers that die before they have begun: those are dead letters then.
    let pause = short_or(Duration::from_millis(700), Duration::from_secs(3));
    let (times, ()) = tokio::join!(updating, world.kill_in_turn("mailer", kills, pause));

    let fault = "addresses changed while their mails wait";
    let runs = updates.len() as u64;
    let done = Done { row: 14, fault, runs, fed: Some(fed), in_doubt: u64::from(kills) * 4, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    let changes = changes(&world, &updates, &times).await;
    verdict.add(mails_to_former_addresses(&world, &changes).await);
    let tally = verdict.assert();
    assert!(tally.recorded > groups * 3, "{tally}: few mails show little");
    world.end().await;
}

/// The changes of each lead.
async fn changes(world: &World, updates: &[RawProfile], times: &[(f64, f64)]) -> HashMap<Vec<u8>, Change> {
    let keys = world.stack.program_keys().await;
    let index = |address: &str| keys.email_index(&address.parse().expect("an address")).to_vec();
    updates
        .iter()
        .zip(times)
        .map(|(profile, (started, ended))| {
            let username = profile.username.as_deref().unwrap_or_default().parse().expect("a handle");
            let recipient = index(profile.email.as_deref().expect("everybody has one"));
            (keys.username_index(&username).to_vec(), Change { recipient, started: *started, ended: *ended })
        })
        .collect()
}

/// Complains about each mail that was begun for an address that wasn't its lead's any more, or not yet.
async fn mails_to_former_addresses(world: &World, changes: &HashMap<Vec<u8>, Change>) -> Vec<Complaint> {
    let usernames: HashMap<uuid::Uuid, Vec<u8>> = sqlx::query_as("SELECT id, username_index FROM leads")
        .fetch_all(&mut world.stack.connect().await)
        .await
        .expect("the leads can be read")
        .into_iter()
        .collect();
    let entries = history::entries(&world.stack).await;
    let begun = entries.iter().filter(|entry| entry.state == "transmitting");
    begun
        .filter(|entry| {
            let change = usernames.get(&entry.lead).and_then(|username| changes.get(username));
            change.is_some_and(|change| {
                let to_new = entry.recipient == change.recipient;
                entry.statement_at > change.ended && !to_new || entry.statement_at < change.started && to_new
            })
        })
        .map(|entry| {
            Complaint::new("a mail was begun for an address that is not its lead's", entry.outreach.to_string())
        })
        .collect()
}
