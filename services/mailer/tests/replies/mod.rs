//! What servers' replies do to mails, programs and the process.

use domain::{clock::Clock as _, program::ProgramSettings};
use store::sender_health;
use test_support::smtp::{Action, FakeSmtp, Step, StepEvent};

use crate::world::{Creator, World, creator, settings};

/// One mail after the other, so that the order of replies is known.
const ONE_BY_ONE: [(&str, &str); 1] = [("mailer.smtp.connections", "1")];
const PAUSED: &str = "SELECT concat_ws(' ', paused, paused_reason) FROM programs";
const RESTS: &str = "SELECT concat_ws(' ', rest_until > now(), rest_reason) FROM programs";

/// Answers RCPT of addresses that begin with `prefix`.
fn at_recipients(prefix: &'static str, reply: &'static str) -> impl Fn(&StepEvent<'_>) -> Action + Send + Sync {
    move |event| match event.step {
        Step::Rcpt if event.argument.contains(&format!("<{prefix}")) => Action::reply(reply),
        _ => Action::Proceed,
    }
}

async fn refusing(prefix: &'static str, reply: &'static str) -> FakeSmtp {
    FakeSmtp::builder().script(at_recipients(prefix, reply)).start().await
}

fn creators(names: &[&str]) -> Vec<Creator> {
    names.iter().map(|name| creator(name)).collect()
}

async fn resume(world: &World) {
    let (program, now) = (world.program.program.id, domain::clock::SystemClock.now());
    world
        .db
        .transact("test.resume", |tx, _| Box::pin(async move { sender_health::resume(tx, program, now).await }))
        .await
        .unwrap();
    world.execute("UPDATE outreach SET due_at = now() WHERE state IN ('queued', 'deferred')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_recipients_policy_fails_one_mail_and_the_program_goes_on() {
    let world = World::new().await;
    let reply = "550 5.7.1 : Recipient address rejected: Inactive MailBox, not poped for more than 6 months";
    let server = refusing("ainactive@", reply).await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&creators(&["ainactive", "binactive", "cinactive", "dinactive", "einactive"])).await;
    world.wait_for_states("failed:smtp_550_5.7.1=1 sent=4").await;
    world.enrich(&creators(&["finactive", "ginactive", "hinactive"])).await;
    world.wait_for_states("failed:smtp_550_5.7.1=1 sent=7").await;
    assert_eq!(world.text(PAUSED).await, "f");
    assert!(replica.readiness.report().checks.iter().all(|check| check.ready));
    replica.stop().await;
    assert_eq!(world.text("SELECT count(*)::text FROM suppressions").await, "0", "the address stays usable");
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_recipients_policies_pause_the_program_once_and_say_why() {
    let world = World::new().await;
    let server = refusing("r", "550 5.7.1 blocked").await;
    let replica = world.start_smtp(&server, &ONE_BY_ONE);
    world.enrich(&creators(&["r1", "r2"])).await;
    world.wait_for_states("failed:smtp_550_5.7.1=2").await;
    assert_eq!(world.text(PAUSED).await, "f");
    world.enrich(&creators(&["r3"])).await;
    world.wait_for(PAUSED, "t policy_refused:smtp_550_5.7.1").await;
    world.wait_for_states("failed:smtp_550_5.7.1=3").await;
    assert_eq!(world.text("SELECT (paused_at IS NOT NULL)::text FROM programs").await, "true");
    replica.stop().await;

    // Resumed, the refusals of before don't count any more.
    resume(&world).await;
    let replica = world.start_smtp(&server, &ONE_BY_ONE);
    world.enrich(&creators(&["r4", "good"])).await;
    world.wait_for_states("failed:smtp_550_5.7.1=4 sent=1").await;
    assert_eq!(world.text(PAUSED).await, "f");
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sender_costs_no_lead_and_the_same_mail_pauses_a_program_once() {
    let world = World::new().await;
    let reply = "553 5.7.1 <zoe@acme.example>: Sender address rejected: not owned by user zoe";
    let server = refusing("r", reply).await;
    let replica = world.start_smtp(&server, &ONE_BY_ONE);
    world.enrich(&creators(&["r1"])).await;
    world.wait_for_states("queued=1").await;
    world.wait_for("SELECT count(*)::text FROM sender_refusals WHERE kind = 'sender'", "1").await;
    assert_eq!(world.text(PAUSED).await, "f", "one recipient pauses nobody");
    world.enrich(&creators(&["r2"])).await;
    world.wait_for(PAUSED, "t sender_refused:smtp_553_5.7.1").await;
    world.wait_for_states("queued=2").await;
    replica.stop().await;
    assert_eq!(world.text("SELECT count(*)::text FROM suppressions").await, "0");

    // Nothing was put right: each mail fails by itself, and the program isn't paused by the same mails again.
    resume(&world).await;
    let replica = world.start_smtp(&server, &ONE_BY_ONE);
    world.wait_for_states("failed:sender_refused:smtp_553_5.7.1=2").await;
    assert_eq!(world.text(PAUSED).await, "f");
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_who_is_refused_before_any_recipient_is_named_pauses_the_program() {
    let world = World::new().await;
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Mail => Action::reply("550 5.7.1 your domain is not welcome"),
            _ => Action::Proceed,
        })
        .start()
        .await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&creators(&["ann", "bob", "cy"])).await;
    world.wait_for(PAUSED, "t sender_refused:smtp_550_5.7.1").await;
    world.wait_for_states("queued=3").await;
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_marks_no_lead_and_the_program_rests() {
    let world = World::with(ProgramSettings { daily_cap: Some(10), ..settings() }).await;
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Dot => Action::reply("550 5.4.5 Daily user sending limit exceeded."),
            _ => Action::Proceed,
        })
        .start()
        .await;
    let replica = world.start_smtp(&server, &ONE_BY_ONE);
    world.enrich(&creators(&["ann", "bob", "cy"])).await;
    world.wait_for(RESTS, "t smtp_550_5.4.5").await;
    world.wait_for_states("deferred:account_limited:smtp_550_5.4.5=1 queued=2").await;
    let length = "SELECT extract(epoch FROM rest_until - rest_from)::int::text FROM programs";
    assert_eq!(world.text(length).await, "3600");
    world.wait_for("SELECT used::text FROM send_budgets WHERE span = 'day'", "0").await;
    let waits =
        "SELECT bool_and(o.due_at >= p.rest_until)::text FROM outreach o, programs p WHERE o.state = 'deferred'";
    assert_eq!(world.text(waits).await, "true");
    assert_eq!(world.text(PAUSED).await, "f");
    replica.stop().await;

    // While it rests, a mailer that knows nothing of it doesn't ask the server.
    let asked = server.connections();
    let replica = world.start_smtp(&server, &ONE_BY_ONE);
    world.execute("UPDATE outreach SET due_at = now()").await;
    world.enrich(&creators(&["dee"])).await;
    world.wait_for_decisions().await;
    world.wait_for_states("deferred:account_limited:smtp_550_5.4.5=1 queued=3").await;
    replica.stop().await;
    assert_eq!(server.connections(), asked);

    // Once the rest is over, everything goes out.
    server.set_script(|_| Action::Proceed);
    world.execute("UPDATE outreach SET due_at = now()").await;
    world.execute("UPDATE programs SET rest_from = now() - interval '2 hours', rest_until = now()").await;
    let replica = world.start_smtp(&server, &[]);
    world.wait_for_states("sent=4").await;
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_a_rest_do_not_count_for_a_mail_that_waits() {
    let world = World::new().await;
    let server = FakeSmtp::builder()
        .script(|event| match event.step {
            Step::Dot => Action::reply("550 5.4.5 Daily user sending limit exceeded."),
            _ => Action::Proceed,
        })
        .start()
        .await;
    world.execute("UPDATE programs SET rest_from = now(), rest_until = now() + interval '1 hour'").await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&creators(&["ann"])).await;
    world.wait_for_states("queued=1").await;
    replica.stop().await;
    world.execute("UPDATE outreach SET created_at = now() - interval '5 days'").await;
    resume(&world).await;
    let replica = world.start_smtp(&server, &[]);
    world.wait_for_states("deferred:account_limited:smtp_550_5.4.5=1").await;
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greylisting_defers_one_mail_and_nobody_rests() {
    let world = World::new().await;
    let server = refusing("grey@", "451 4.7.1 Greylisted, please come back later").await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&creators(&["ann", "grey", "bob"])).await;
    world.wait_for_states("deferred:smtp_451_4.7.1=1 sent=2").await;
    assert_eq!(world.text(RESTS).await, "");
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_pause_the_program_and_leave_lead_and_process_as_they_are() {
    let world = World::new().await;
    let server = FakeSmtp::builder().login("zoe", "s3cret").start().await;
    let wrong = [("mailer.smtp.username", "zoe"), ("mailer.smtp.password", "other")];
    let replica = world.start_smtp(&server, &wrong);
    world.enrich(&creators(&["ann"])).await;
    world.wait_for(PAUSED, "t credentials_refused:smtp_535_5.7.8").await;
    world.wait_for_states("queued=1").await;
    assert!(replica.readiness.report().checks.iter().all(|check| check.ready), "the unsubscribe pages stay up");
    assert_eq!(server.connections(), 1, "the server isn't asked again and again");
    replica.stop().await;

    // With the right password, and resumed, it goes out.
    resume(&world).await;
    let right = [("mailer.smtp.username", "zoe"), ("mailer.smtp.password", "s3cret")];
    let replica = world.start_smtp(&server, &right);
    world.wait_for_states("sent=1").await;
    replica.stop().await;
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_is_tried_once_more_after_a_week() {
    let world = World::new().await;
    let server = refusing("full@", "552 5.2.2 mailbox full").await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&creators(&["full"])).await;
    world.wait_for_states("deferred:smtp_552_5.2.2=1").await;
    let days = "SELECT round(extract(epoch FROM due_at - now()) / 86400)::text FROM outreach";
    assert_eq!(world.text(days).await, "7");
    world.execute("UPDATE outreach SET due_at = now(), mailbox_full_at = now() - interval '7 days'").await;
    world.wait_for_states("failed:smtp_552_5.2.2=1").await;
    replica.stop().await;
    assert_eq!(world.text("SELECT count(*)::text FROM suppressions").await, "0");
    world.cleanup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeliverable_address_fails_without_another_attempt_and_is_not_suppressed() {
    let world = World::new().await;
    let server = refusing("nowhere@", "556 5.1.10 Recipient address has a null MX").await;
    let replica = world.start_smtp(&server, &[]);
    world.enrich(&creators(&["nowhere"])).await;
    world.wait_for_states("failed:undeliverable:smtp_556_5.1.10=1").await;
    replica.stop().await;
    assert_eq!(world.text("SELECT count(*)::text FROM suppressions").await, "0");
    world.cleanup().await;
}
