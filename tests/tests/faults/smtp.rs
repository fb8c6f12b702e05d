//! 8: a mail server that refuses, hangs, hangs up, drips, forgets STARTTLS or shows a wrong certificate.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leadmill_tests::{
    faults::{
        mood::misbehaviours,
        verdict::Done,
        world::{Plan, World},
    },
    truth,
    wait::{PATIENCE, eventually},
};
use test_support::smtp::{Action, Encryption, Step};

use crate::short_or;

const STEPS: [Step; 9] =
    [Step::Connect, Step::Ehlo, Step::StartTls, Step::Auth, Step::Mail, Step::Rcpt, Step::Data, Step::Body, Step::Dot];

/// Those before the first mail of a connection.
const GREETING: [Step; 4] = [Step::Connect, Step::Ehlo, Step::StartTls, Step::Auth];

/// Of all misbehaviours, those that leave a mail's fate unknown: two in the middle of a body; at its end silence, a hang-up,
/// an answer that is none or doesn't end, and both ways to take the mail without a word.
const IN_DOUBT: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_mail_server_does_at_whatever_step_nobody_gets_a_mail_twice() {
    for round in 0..short_or(1, 10) {
        everything_goes_wrong_once(801 + 10 * round).await;
    }
}

async fn everything_goes_wrong_once(seed: u64) {
    // Few mails each: what goes wrong before the first one needs connections to go wrong on.
    let env = [
        ("LEADMILL_MAILER_SMTP_MAILS_PER_CONNECTION", "2"),
        ("LEADMILL_MAILER_SMTP_TLS", "starttls"),
        ("LEADMILL_MAILER_SMTP_HOST", "localhost"),
    ];
    let (encryption, login) = (Encryption::StartTls, Some(("zoe", "s3cret")));
    let world = World::start(Plan { seed, env: &env, encryption, login, ..Plan::default() }).await;
    let authority = world.authority_file();
    for mailer in world.replicas("mailer") {
        mailer.restart_with(&[("LEADMILL_MAILER_SMTP_CA_FILE", &authority)]).await;
        mailer.ready().await;
    }
    let mut due: Vec<(Step, Action)> = Vec::new();
    for step in STEPS {
        due.extend(misbehaviours(step).into_iter().map(|action| (step, action)));
        if step != Step::Body {
            due.push((step, Action::Drip("250-slow as can be".to_owned())));
        }
    }
    let runs = due.len();
    let due = Arc::new(Mutex::new(due));
    let script = Arc::clone(&due);
    // A mailer that is not even greeted time after time asks less and less often; an envelope that is taken ends that.
    let envelope_taken = AtomicBool::new(true);
    world.mailbox.set_script(move |event| {
        match event.step {
            Step::Data => envelope_taken.store(true, Ordering::Relaxed),
            step if GREETING.contains(&step) && !envelope_taken.load(Ordering::Relaxed) => return Action::Proceed,
            _ => {}
        }
        let mut due = script.lock().expect("nobody panics with it");
        match due.iter().position(|(step, _)| *step == event.step) {
            Some(next) => {
                if GREETING.contains(&event.step) {
                    envelope_taken.store(false, Ordering::Relaxed);
                }
                due.swap_remove(next).1
            }
            None => Action::Proceed,
        }
    });
    // Between two greetings that fail, four connections may each take both their mails: 248 for the 31 greetings, and the
    // 36 other misbehaviours want theirs.
    let fed = world.feed(1_000, Duration::from_secs(2)).await;
    eventually("everything has gone wrong once", PATIENCE * 2, async || {
        let rest = due.lock().expect("sound").clone();
        let mails = world.mails().len();
        if rest.is_empty() { Ok(()) } else { Err(format!("of {runs}, still due after {mails} mails: {rest:?}")) }
    })
    .await;
    let fault = "mail server refuses, hangs, closes, drips at every step";
    // A busy machine may bring one or the other answer too late.
    let in_doubt = IN_DOUBT + 4;
    let done = Done { row: 8, fault, runs: runs as u64, fed: Some(fed), in_doubt, ..Done::default() };
    let tally = world.judge(done).await;
    assert!(tally.uncertain >= IN_DOUBT, "what the server took without a word is of unknown fate: {tally}");
    world.end().await;
}

/// Feeds leads, makes sure that nothing goes out while the server isn't as it should be, and everything afterwards.
async fn nothing_goes_out_until(world: World, row_name: &str, mended: &[(&str, &str)]) {
    let fed = world.feed(50, Duration::ZERO).await;
    world.stack.settle_at(waiting(&world).await, PATIENCE).await;
    eventually("the mailer has tried", PATIENCE, async || {
        let tries = world.mailbox.connections();
        if tries >= 2 { Ok(()) } else { Err(format!("{tries} connections")) }
    })
    .await;
    assert_eq!(world.mailbox.messages(), [], "not one mail in the open");
    assert!(!world.mailbox.commands().iter().any(|line| line.starts_with("MAIL")), "no envelope in the open");
    for mailer in world.replicas("mailer") {
        mailer.restart_with(mended).await;
    }
    let done = Done { row: 8, fault: row_name, runs: 1, fed: Some(fed), ..Done::default() };
    let tally = world.judge(done).await;
    assert!(tally.recorded > 10, "{tally}");
    world.end().await;
}

/// What is under way once everything is decided and nothing can go out.
async fn waiting(world: &World) -> leadmill_tests::stack::Unfinished {
    let undecided = "SELECT count(*) FROM leads l WHERE NOT EXISTS
                     (SELECT FROM enriched_leads e WHERE e.lead_id = l.id AND e.decided_version IS NOT NULL)";
    eventually("all leads are decided about", PATIENCE, async || match truth::count(&world.stack, undecided).await {
        0 => Ok(()),
        rest => Err(format!("{rest} are not")),
    })
    .await;
    let mails = "SELECT count(*) FROM outreach WHERE state IN ('queued', 'connecting', 'transmitting')";
    let sending = truth::count(&world.stack, mails).await;
    leadmill_tests::stack::Unfinished { sending, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_starttls_gets_no_mail_until_that_is_mended() {
    let env = [("LEADMILL_MAILER_SMTP_TLS", "starttls")];
    let world = World::start(Plan { seed: 802, env: &env, ..Plan::default() }).await;
    nothing_goes_out_until(world, "mail server forgets STARTTLS", &[("LEADMILL_MAILER_SMTP_TLS", "none")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_wrong_certificate_gets_no_mail_until_that_is_mended() {
    let env = [("LEADMILL_MAILER_SMTP_TLS", "starttls"), ("LEADMILL_MAILER_SMTP_HOST", "localhost")];
    let plan = Plan { seed: 803, env: &env, encryption: Encryption::StartTls, ..Plan::default() };
    let world = World::start(plan).await;
    let authority = world.authority_file();
    let mended = [("LEADMILL_MAILER_SMTP_CA_FILE", authority.as_str())];
    nothing_goes_out_until(world, "mail server's certificate is wrong", &mended).await;
}
