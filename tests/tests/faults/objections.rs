//! 15: people who object while mails go out: before theirs is sent, while it is being sent, and after it.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use leadmill_tests::{
    creators,
    faults::{
        pages::Objections,
        verdict::Done,
        world::{Plan, World},
    },
    mail,
};
use test_support::smtp::{Action, Step};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use crate::short_or;

/// How long the server lets a mail wait: long enough for an objection.
const MEANWHILE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_to_who_has_objected_and_nothing_of_theirs_is_left_waiting() {
    let world = World::start(Plan { seed: 1501, replicas: 2, ..Plan::default() }).await;
    let count = short_or(300, 5_000);
    let mut people = creators::reachable(1501, "person", count);
    // Every third has the address of the one before it.
    for index in (2..people.len()).step_by(3) {
        people[index].email = people[index - 1].email.clone();
    }

    // Some object while their mail is offered, others while it is in its data phase, from which it is put off.
    let (tell, mut being_sent) = mpsc::unbounded_channel::<(Step, String)>();
    let seen = Mutex::new(HashSet::new());
    world.mailbox.set_script(move |event| {
        let address = event.argument.trim_start_matches("RCPT TO:<").split('>').next().unwrap_or_default();
        let nth = match event.step {
            Step::Rcpt => 11,
            Step::Dot => 7,
            _ => return Action::Proceed,
        };
        if !chosen(address, nth) || !seen.lock().expect("sound").insert((event.step, address.to_owned())) {
            return Action::Proceed;
        }
        // Nobody listens any more once the scenario is over.
        let _ = tell.send((event.step, address.to_owned()));
        match event.step {
            Step::Rcpt => Action::Delay(MEANWHILE),
            _ => Action::DelayedReply(MEANWHILE, "450 4.2.0 try again later".to_owned()),
        }
    });

    let over = short_or(Duration::from_secs(6), Duration::from_mins(1));
    let ends = Instant::now() + over + Duration::from_secs(2);
    let keys = world.stack.program_keys().await;
    let nobody = || Objections::new(&world.pages, &keys);
    let before_their_mail = async {
        let mut objections = nobody();
        let addresses = people.iter().filter_map(|person| person.email.as_deref());
        let addresses: Vec<&str> = addresses.filter(|address| chosen(address, 5)).collect();
        let pause = over / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        for address in addresses {
            objections.object(address, None).await;
            sleep(pause).await;
        }
        objections
    };
    let while_it_is_sent = async {
        let (mut offered, mut in_data) = (nobody(), nobody());
        while let Ok(Some((step, address))) = timeout_at(ends, being_sent.recv()).await {
            let objections = if step == Step::Dot { &mut in_data } else { &mut offered };
            objections.object(&address, None).await;
        }
        (offered, in_data)
    };
    let after_it = async {
        let mut objections = nobody();
        let mut read = 0;
        while Instant::now() < ends {
            let mails = world.mails();
            for got in mails[read..].iter().filter(|got| chosen(&got.rcpt_to[0], 3)) {
                let link = mail::lawful(&got.data).unsubscribe;
                objections.object(&got.rcpt_to[0], link.rsplit('/').next()).await;
            }
            read = mails.len();
            sleep(Duration::from_millis(100)).await;
        }
        objections
    };
    let kills = short_or(4, 40);
    let (fed, before, (offered, in_data), after, ()) = tokio::join!(
        world.post(&people, over),
        before_their_mail,
        while_it_is_sent,
        after_it,
        world.kill_in_turn("mailer", kills, over / kills)
    );

    let fault = "people object before, while and after they are written to";
    let while_sent = [offered.len(), in_data.len()];
    let mut objections = before;
    for others in [offered, in_data, after] {
        objections.join(others);
    }
    let runs = objections.len() as u64;
    let done = Done { row: 15, fault, runs, fed: Some(fed), in_doubt: u64::from(kills) * 4, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    verdict.add(objections.complaints(&world.stack).await);
    let tally = verdict.assert();
    assert!(!while_sent.contains(&0), "{tally}: nobody objected while their mail was offered, or in its data phase");
    assert!(tally.recorded > count / 3, "{tally}: few mails show little");
    world.end().await;
}

/// Every `nth` address, always the same.
fn chosen(address: &str, nth: usize) -> bool {
    address.bytes().map(usize::from).sum::<usize>() % nth == 0
}
