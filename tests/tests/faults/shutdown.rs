//! 10: SIGTERM in the middle of everything, a second one, and a rolling restart of all replicas under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leadmill_tests::{
    faults::{
        verdict::Done,
        world::{Plan, World, asking_model},
    },
    wait::{PATIENCE, eventually},
};
use test_support::{
    llm::{Behaviour, FakeLlm},
    smtp::{Action, Step},
};
use tokio::{sync::Notify, time::sleep};

use crate::short_or;

/// A second SIGTERM ends a process at once; on a busy machine that takes a moment. Less than the two seconds after which
/// tasks that don't notice it are dropped.
const AT_ONCE: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_replicas_under_load_leaves_nothing_half_done() {
    let world = World::start(Plan { seed: 1001, replicas: 2, ..Plan::default() }).await;
    let (leads, rounds) = (short_or(1_000, 5_000), short_or(1, 10));
    let rolling = async {
        for _ in 0..rounds {
            for service in &world.services {
                sleep(Duration::from_millis(300)).await;
                service.restart().await;
                service.ready().await;
            }
        }
    };
    let (fed, ()) = tokio::join!(world.feed(leads, Duration::from_secs(5)), rolling);
    let runs = rounds * world.services.len() as u64;
    let done = Done { row: 10, fault: "SIGTERM, rolling restart", runs, fed: Some(fed), ..Done::default() };
    // An orderly end leaves no mail of unknown fate.
    world.judge(done).await;
    world.end().await;
}

/// Every service has work in hand that doesn't end: a request, a question to the model, a mail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_every_service_at_once_and_nothing_is_lost() {
    let silent = Arc::new(AtomicBool::new(false));
    let hangs = Arc::clone(&silent);
    let api = FakeLlm::start(move |_| if hangs.load(Ordering::Relaxed) { Behaviour::Hang } else { Behaviour::Good })
        .await
        .expect("the stand-in starts");
    let base_url = api.base_url();
    let mut env = asking_model(&base_url);
    env.extend([("LEADMILL_ENRICHER_MODEL_TIMEOUT", "20s"), ("LEADMILL_MAILER_SMTP_BODY_TIMEOUT", "20s")]);
    let world = World::start(Plan { seed: 1002, env: &env, ..Plan::default() }).await;
    let mail_in_hand = Arc::new(Notify::new());
    let told = Arc::clone(&mail_in_hand);
    world.mailbox.set_script(move |event| match event.step {
        Step::Dot => {
            told.notify_one();
            Action::Hang
        }
        _ => Action::Proceed,
    });
    let ending = async {
        mail_in_hand.notified().await;
        silent.store(true, Ordering::Relaxed);
        let asked = api.requests().len();
        eventually("a question hangs", PATIENCE, async || {
            if api.requests().len() > asked { Ok(()) } else { Err("none was asked") }
        })
        .await;
        let request = world.feed.stalled().await;
        for service in &world.services {
            let took = service.terminate_twice().await;
            assert!(took < AT_ONCE, "{} took {took:?}", service.binary());
        }
        drop(request);
        silent.store(false, Ordering::Relaxed);
        world.mailbox.set_script(|_| Action::Proceed);
        for service in &world.services {
            service.revive().await;
        }
    };
    let (fed, ()) = tokio::join!(world.feed(500, Duration::from_secs(4)), ending);
    let runs = world.services.len() as u64;
    // Each of the four connections had a mail in hand.
    let done = Done { row: 10, fault: "a second SIGTERM", runs, fed: Some(fed), in_doubt: 4, ..Done::default() };
    let tally = world.judge(done).await;
    assert!(tally.uncertain > 0, "{tally}: no mail was in hand");
    world.end().await;
}
