//! 17: a program's settings that change while its mails go out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leadmill_tests::{
    creators,
    faults::{
        history::{self, Entry},
        verdict::{Complaint, Done},
        world::{Plan, World},
    },
    stack::{PROGRAM, SENDER},
    truth,
    wait::{PATIENCE, eventually},
};
use sqlx::{Connection as _, Executor as _};
use test_support::smtp::{Action, Step};
use tokio::time::sleep;

use crate::short_or;

/// What holds at the end. Lower than every threshold before it: whoever got a mail qualifies at the end, too.
const THRESHOLD: i64 = 20;
/// The day's mails, for a while.
const DAILY_CAP: usize = 10;
/// How long a mailer may believe older settings, and a little more.
const BELIEVED: Duration = Duration::from_millis(3_500);

/// From when to when something held, by the clock of this machine: from the end of one command to the start of the next.
type Span = (f64, f64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_change_under_load_hold_from_the_moment_they_are_set() {
    let mut world = World::start(Plan { seed: 1701, replicas: 2, ..Plan::default() }).await;
    world.feed.page = 10;
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = Arc::clone(&slow);
    world.mailbox.set_script(move |event| match event.step {
        Step::Rcpt if is_slow.load(Ordering::Relaxed) => Action::Delay(Duration::from_millis(1_500)),
        Step::Rcpt => Action::Delay(Duration::from_millis(30)),
        _ => Action::Proceed,
    });
    set(&world, &["--threshold", "70"]).await;
    let rounds = short_or(1, 10);
    let over = Duration::from_secs(12) * rounds;
    let people = creators::reachable(1701, "person", u64::from(rounds) * 400);
    let kills = 3 * rounds;
    let (fed, (paused, capped), ()) = tokio::join!(
        world.post(&people, over),
        changing(&world, rounds, &slow),
        world.kill_in_turn("mailer", kills, over / kills)
    );
    let last = two_at_once(&world).await;
    set(&world, &["--threshold", &THRESHOLD.to_string(), "--resume"]).await;

    let fault = "paused, resumed, thresholds, caps and sender changed";
    let runs = u64::from(rounds) * 8 + 2;
    let done = Done { row: 17, fault, runs, fed: Some(fed), in_doubt: u64::from(kills) * 4, ..Done::default() };
    let mut verdict = world.verdict(done).await;
    verdict.add(last);
    let entries = history::entries(&world.stack).await;
    verdict.add(begun_while_paused(&entries, &paused));
    verdict.add(claimed_beyond_the_cap(&entries, &capped));
    verdict.add(qualified_and_unwritten(&world).await);
    let tally = verdict.assert();
    assert!(tally.recorded > 50, "{tally}: few mails show little");
    world.end().await;
}

/// Changes settings by the command line; gives when it was started and when it had ended.
async fn set(world: &World, options: &[&str]) -> Span {
    let started = history::now();
    let args = [&["program", "set", PROGRAM], options].concat();
    world.stack.leadmill(&args).await.ok();
    (started, history::now())
}

/// One change after the other; gives the spans of the pauses, and those of the caps. The server is slow while a pause begins: some
/// recipients are accepted after it has, and then no body may follow.
async fn changing(world: &World, rounds: u32, slow: &AtomicBool) -> (Vec<Span>, Vec<Span>) {
    let (mut paused, mut capped) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        sleep(Duration::from_millis(500)).await;
        slow.store(true, Ordering::Relaxed);
        let named = || world.mailbox.commands().iter().filter(|line| line.starts_with("RCPT")).count();
        let before = named();
        eventually("recipients are named", PATIENCE, async || match named() - before {
            3.. => Ok(()),
            named => Err(format!("{named} are")),
        })
        .await;
        let (_, from) = set(world, &["--pause"]).await;
        sleep(Duration::from_millis(1_500)).await;
        slow.store(false, Ordering::Relaxed);
        let (until, _) = set(world, &["--resume"]).await;
        paused.push((from, until));
        set(world, &["--threshold", "30"]).await;
        set(world, &["--sender-email", ""]).await;
        sleep(Duration::from_millis(700)).await;
        set(world, &["--sender-email", SENDER]).await;
        set(world, &["--threshold", "60"]).await;
        let (_, from) = set(world, &["--daily-cap", &DAILY_CAP.to_string()]).await;
        sleep(BELIEVED + Duration::from_millis(1_500)).await;
        let (until, _) = set(world, &["--daily-cap", "0"]).await;
        capped.push((from + BELIEVED.as_secs_f64(), until));
    }
    (paused, capped)
}

/// The same for a command that may be told that somebody else was faster: then it is given once more.
async fn set_in_the_end(world: &World, options: &[&str]) {
    let args = [&["program", "set", PROGRAM], options].concat();
    if world.stack.leadmill(&args).await.status != Some(0) {
        world.stack.leadmill(&args).await.ok();
    }
}

/// Two commands that both read the settings before either writes: each changes what it names, and no more.
async fn two_at_once(world: &World) -> Vec<Complaint> {
    let mut connection = world.stack.connect().await;
    let mut holding = connection.begin().await.expect("a transaction");
    holding.execute("SELECT FROM programs FOR UPDATE").await.expect("the program's row can be locked");
    let both_wait = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE '%programs%'";
        eventually("both commands wait for the row", PATIENCE, async || {
            match truth::count(&world.stack, waiting).await {
                2.. => Ok(()),
                waiting => Err(format!("{waiting} do")),
            }
        })
        .await;
        holding.commit().await.expect("the row is let go");
    };
    tokio::join!(set_in_the_end(world, &["--pause"]), set_in_the_end(world, &["--threshold", "25"]), both_wait);
    let both = "SELECT count(*) FROM programs WHERE paused AND threshold = 25";
    match truth::count(&world.stack, both).await {
        1 => Vec::new(),
        _ => vec![Complaint::new("one command has undone what another had set", "a pause and a threshold")],
    }
}

/// Complains about each mail that was begun during a pause.
fn begun_while_paused(entries: &[Entry], pauses: &[Span]) -> Vec<Complaint> {
    let begun = entries.iter().filter(|entry| entry.state == "transmitting");
    begun
        .filter(|entry| pauses.iter().any(|(from, until)| (*from..*until).contains(&entry.statement_at)))
        .map(|entry| Complaint::new("a mail was begun while its program was paused", entry.outreach.to_string()))
        .collect()
}

/// Complains when more mails were claimed than a cap allows, while every mailer knew of it.
fn claimed_beyond_the_cap(entries: &[Entry], caps: &[Span]) -> Vec<Complaint> {
    let claims = |span: &Span| {
        let claims = entries.iter().filter(|entry| entry.state == "connecting");
        claims.filter(|entry| (span.0..span.1).contains(&entry.transaction_at)).count()
    };
    caps.iter()
        .map(claims)
        .filter(|claims| *claims > DAILY_CAP)
        .map(|claims| {
            Complaint::new("more mails were claimed than the day's cap allows", format!("{claims}, of {DAILY_CAP}"))
        })
        .collect()
}

/// Complains about leads that qualify by what is set now, and at whose address nothing was tried.
async fn qualified_and_unwritten(world: &World) -> Vec<Complaint> {
    let unwritten = "SELECT count(*) FROM leads l
                     JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id
                     JOIN programs p ON p.id = l.program_id
                     WHERE e.score >= p.threshold AND e.compliant AND l.email_index IS NOT NULL
                       AND NOT EXISTS (SELECT FROM outreach o WHERE o.program_id = l.program_id
                                       AND o.recipient_key = l.email_index
                                       AND o.state IN ('sent', 'uncertain', 'failed'))";
    match truth::count(&world.stack, unwritten).await {
        0 => Vec::new(),
        count => vec![Complaint::new("a lead that qualifies by the final settings got no mail", count.to_string())],
    }
}
