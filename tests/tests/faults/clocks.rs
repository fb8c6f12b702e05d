//! 12: clocks that disagree, and leases that end while their owners still work.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use leadmill_tests::{
    faults::{
        limits::{self, Limits},
        service::Service,
        verdict::Done,
        world::{Plan, World},
    },
    truth,
    wait::{PATIENCE, eventually, within},
};
use test_support::smtp::{Action, Step};
use tokio::{sync::Notify, time::sleep};

use crate::short_or;

/// Longer than the lease of a mail whose body is on its way.
const LEASES_END: Duration = Duration::from_secs(20);
/// Longer than an owner waits between two tries to write down what it knows.
const LATE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_whose_clocks_are_five_minutes_apart_share_leases_and_limits() {
    let ahead = Duration::from_mins(5);
    let per_minute = ("LEADMILL_MAILER_SMTP_PER_MINUTE", "60");
    let plan = Plan { seed: 1201, replicas: 2, clock_ahead: ahead, env: &[per_minute], ..Plan::default() };
    let world = World::start(plan).await;
    let mut killed = 0;
    let killing = async {
        for mailer in world.replicas("mailer") {
            eventually("mails go out", PATIENCE, async || {
                let sent = truth::count(&world.stack, "SELECT count(*) FROM outreach WHERE state = 'sent'").await;
                if sent > 20 * (killed + 1) { Ok(()) } else { Err(format!("{sent} are out")) }
            })
            .await;
            // Their leases are the other's to judge.
            mailer.kill().await;
            killed += 1;
        }
    };
    let (fed, ()) = tokio::join!(world.feed(short_or(400, 5_000), Duration::from_secs(2)), killing);
    // A mailer that took its windows from its own clock would begin a second minute's mails now.
    eventually("the minute's mails are out", PATIENCE, async || {
        let used = limits::used(&world.stack).await.len();
        if used >= 60 { Ok(()) } else { Err(format!("{used} are")) }
    })
    .await;
    sleep(Duration::from_secs(3)).await;
    let limited_until = limits::clock(&world.stack).await;
    for mailer in world.replicas("mailer") {
        mailer.restart_with(&[("LEADMILL_MAILER_SMTP_PER_MINUTE", "0")]).await;
    }
    let fault = "one clock five minutes ahead";
    // Both mailers were killed, each with four connections.
    let done = Done { row: 12, fault, runs: 2, fed: Some(fed), in_doubt: 2 * 4, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    let held = Limits { per_minute: Some(60), per_day: None };
    verdict.add(limits::complaints(&world.stack, held, limited_until).await);
    verdict.assert();
    let apart = "SELECT (extract(epoch FROM max(created_at) - min(created_at)))::bigint FROM leads";
    assert!(truth::count(&world.stack, apart).await >= 290, "the clocks agreed: this showed nothing");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_whose_lease_ends_while_it_still_sends_sends_nothing_twice() {
    let env = [("LEADMILL_MAILER_SMTP_CONNECTIONS", "2")];
    let world = World::start(Plan { seed: 1202, replicas: 2, env: &env, ..Plan::default() }).await;
    // Slow enough that both always wait for an answer to a body.
    world.mailbox.set_script(|event| match event.step {
        Step::Dot => Action::Delay(Duration::from_secs(1)),
        _ => Action::Proceed,
    });
    let mut runs = 0;
    let suspending = async {
        for owner in world.replicas("mailer") {
            while !suspended_too_long(&world, owner).await {
                runs += 1;
                assert!(runs < 10, "it never had a mail in hand");
            }
            runs += 1;
        }
    };
    let (fed, ()) = tokio::join!(world.feed(300, Duration::from_secs(1)), suspending);
    let fault = "a lease that ends while its owner still sends";
    // Each of the two connections may have a mail in hand whenever its mailer is suspended.
    world.judge(Done { row: 12, fault, runs, fed: Some(fed), in_doubt: runs * 2, ..Done::default() }).await;
    world.end().await;
}

/// Suspends a mailer until the leases of what it had in hand have ended; whether it had anything.
async fn suspended_too_long(world: &World, owner: &Service) -> bool {
    let expired = "SELECT count(*) FROM outreach WHERE state = 'uncertain'";
    eventually("mails of both are on their way", PATIENCE, async || {
        let under_way = "SELECT count(*) FROM outreach WHERE state = 'transmitting'";
        if truth::count(&world.stack, under_way).await > 2 { Ok(()) } else { Err("none is") }
    })
    .await;
    let before = truth::count(&world.stack, expired).await;
    owner.signal("STOP").await;
    let ended =
        within(LEASES_END, async || if truth::count(&world.stack, expired).await > before { Ok(()) } else { Err(()) })
            .await;
    owner.signal("CONT").await;
    ended.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_word_of_an_old_owner_changes_nothing_for_the_new_one() {
    let env = [("LEADMILL_MAILER_SMTP_BODY_TIMEOUT", "30s")];
    let world = World::start(Plan { seed: 1203, replicas: 2, env: &env, ..Plan::default() }).await;
    let [old, new] = world.replicas("mailer").collect::<Vec<_>>()[..] else { panic!("two mailers") };
    new.crash().await;

    // The old owner is told to come back later, and can't write that down: PostgreSQL is out of its reach.
    let (asked, sending) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let recipient = Arc::new(Mutex::new(None::<String>));
    let (tell_asked, tell_sending, chosen) = (Arc::clone(&asked), Arc::clone(&sending), Arc::clone(&recipient));
    world.mailbox.set_script(move |event| {
        let mut chosen = chosen.lock().expect("nobody panics with it");
        match (event.step, chosen.as_deref()) {
            (Step::Rcpt, None) => {
                let address = event.argument.split(['<', '>']).nth(1).unwrap_or_default();
                *chosen = Some(address.to_owned());
                tell_asked.notify_one();
                Action::DelayedReply(Duration::from_millis(700), "451 4.3.0 later".to_owned())
            }
            // The new owner has sent the same mail, and waits for its answer.
            (Step::Dot, Some(address)) if event.argument == address => {
                tell_sending.notify_one();
                Action::TakeAndDelay(LATE)
            }
            _ => Action::Proceed,
        }
    });
    let meeting = async {
        asked.notified().await;
        old.network().postgres.cut();
        new.revive().await;
        sending.notified().await;
        old.network().postgres.restore();
    };
    let (fed, ()) = tokio::join!(world.feed(60, Duration::ZERO), meeting);
    let fault = "a late word of an owner whose lease has ended";
    world.judge(Done { row: 12, fault, runs: 1, fed: Some(fed), ..Done::default() }).await;
    world.end().await;
}
