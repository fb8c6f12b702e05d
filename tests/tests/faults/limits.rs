//! 19: limits that two replicas share, over outages and over midnight.

use std::time::Duration;

use leadmill_tests::{
    creators,
    faults::{
        clock::SettableClock,
        limits::{self, Limits},
        servers::Servers,
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
    stack::PROGRAM,
    truth,
    wait::{PATIENCE, eventually},
};
use test_support::smtp::{Action, Step};
use tokio::time::{Instant, sleep, sleep_until};

use crate::short_or;

const PER_MINUTE: u64 = 12;
const PER_DAY: u64 = 16;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * 60;

/// Longer than mailers wait between two looks for what is due.
const QUIET: Duration = Duration::from_secs(3);

/// Long enough that no connection and no lease gives up while the server keeps mails waiting for its greeting.
const PATIENT: &[(&str, &str)] = &[
    ("LEADMILL_MAILER_SMTP_PER_MINUTE", "12"),
    ("LEADMILL_MAILER_SMTP_CONNECT_TIMEOUT", "15s"),
    ("LEADMILL_MAILER_LEASE_SLACK", "30s"),
    ("LEADMILL_MAILER_SMTP_MAILS_PER_CONNECTION", "1"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_hold_a_limit_over_outages_and_over_midnight() {
    let clock = SettableClock::new().await;
    let servers = Servers::start_postgres_by(&clock).await;
    let plan = Plan { seed: 1901, replicas: 2, env: PATIENT, daily_cap: Some(PER_DAY as i32), ..Plan::default() };
    let world = World::start_on(servers, plan).await;
    let days = short_or(2, 4);
    let people = creators::reachable(1901, "person", 60);

    let mut runs = 0;
    let mut fed = None;
    for day in 0..days {
        // An outage over the turn of the day, and of a minute.
        outage(&world, &clock, DAY, async || {
            if day == 0 {
                fed = Some(world.post(&people, Duration::ZERO).await);
            }
        })
        .await;
        all_are_out(&world).await;
        // An outage over the turn of a minute; while PostgreSQL is out of one mailer's reach, and the other one is killed.
        let [one, other] = world.replicas("mailer").collect::<Vec<_>>()[..] else { panic!("two mailers") };
        outage(&world, &clock, MINUTE, async || {
            sleep(Duration::from_secs(1)).await;
            one.network().postgres.cut();
            other.kill().await;
            sleep(Duration::from_secs(2)).await;
            one.network().postgres.restore();
        })
        .await;
        all_are_out(&world).await;
        runs += 4;
    }
    let until = limits::clock(&world.stack).await;
    let began = world.mails().len() as u64;
    // The leases of who was killed run out.
    clock.set_before_a_turn(5 * MINUTE, Duration::from_secs(1), until);
    lift(&world).await;

    let fault = "limits of two replicas over outages and midnight";
    let fed = fed.expect("leads came in on the first day");
    let done = Done { row: 19, fault, runs, fed: Some(fed), in_doubt: days * 4, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    let held = Limits { per_minute: Some(PER_MINUTE), per_day: Some(PER_DAY) };
    verdict.add(limits::complaints(&world.stack, held, until).await);
    // What was claimed on the day before the first midnight may still have gone out after it.
    let most = (days + 1) * PER_DAY;
    if began > most {
        let detail = format!("{began}, and at most {most} may have been claimed");
        verdict.add([Complaint::new("the server got more mails than the days' limits allow", detail)]);
    }
    verdict.assert();
    assert!(began > PER_MINUTE, "only {began} mails went out within the limits");
    world.end().await;
}

/// Lets the clock come to the turn of a window while the server greets nobody, and all mails that may be claimed are in hand.
/// Some of them come back right after the turn, the others when the new window's mails are on their way.
async fn outage(world: &World, clock: &SettableClock, window: u64, meanwhile: impl AsyncFnOnce()) {
    let before_the_turn = Duration::from_secs(6);
    let turn = Instant::now() + before_the_turn;
    world.mailbox.set_script(move |event| {
        let left = turn.saturating_duration_since(Instant::now());
        if event.step != Step::Connect || left.is_zero() {
            return Action::Proceed;
        }
        let after_the_turn = if event.connection % 2 == 0 { 1 } else { 4 };
        Action::DelayedReply(left + Duration::from_secs(after_the_turn), "421 4.3.2 not now".to_owned())
    });
    clock.set_before_a_turn(window, before_the_turn, limits::clock(&world.stack).await);
    meanwhile().await;
    sleep_until(turn + Duration::from_secs(5)).await;
}

/// Waits until the window's mails are out: none is in its data phase, and for a while none is begun.
async fn all_are_out(world: &World) {
    let (mut last, mut since) = (0, Instant::now());
    eventually("the window's mails are out", PATIENCE, async || {
        let begun = "SELECT count(*) FROM outreach WHERE state = 'transmitting'";
        let in_data_phase = truth::count(&world.stack, begun).await;
        let used = limits::used(&world.stack).await.len();
        if used != last || in_data_phase > 0 {
            (last, since) = (used, Instant::now());
        }
        if since.elapsed() > QUIET { Ok(()) } else { Err(format!("{used} are begun, {in_data_phase} not yet out")) }
    })
    .await;
}

/// Takes both limits away, so that everything can go out.
async fn lift(world: &World) {
    world.stack.leadmill(&["program", "set", PROGRAM, "--daily-cap", "0"]).await.ok();
    for mailer in world.replicas("mailer") {
        mailer.restart_with(&[("LEADMILL_MAILER_SMTP_PER_MINUTE", "0")]).await;
    }
}
