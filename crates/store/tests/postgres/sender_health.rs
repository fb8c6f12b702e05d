//! Rests and pauses, by what mail servers refuse.

use std::time::Duration;

use domain::{
    id::{LeaseToken, OutreachId},
    smtp_reply::Limit,
};
use store::{
    Connection,
    outreach::{claim, mailbox_full, plan::Planned, plan::Start},
    sender_health::{self, Reaction, Refusal},
};

use crate::world::{NOW, World, profile};

const CODE: &str = "smtp_550_5.7.1";
const LONGEST: Duration = Duration::from_hours(6);

/// Mails that wait, one per name.
async fn mails(world: &World, names: &[&str]) -> Vec<OutreachId> {
    let mut items = Vec::new();
    for name in names {
        let lead = world.enriched(profile(name)).await;
        items.push(world.plan_item(lead, 1, Start::Queued));
    }
    let items = &items;
    let planned = world
        .db
        .transact("test.plan", |tx, _| Box::pin(async move { store::outreach::plan::plan(tx, items).await }))
        .await
        .unwrap();
    planned
        .into_iter()
        .map(|planned| if let Planned::Queued(id) = planned { id } else { panic!("{planned:?}") })
        .collect()
}

fn refusal(world: &World, mail: OutreachId) -> Refusal<'static> {
    Refusal { program_id: world.id(), outreach_id: mail, reason: CODE }
}

async fn policy(world: &World, mail: OutreachId) -> Reaction {
    let refusal = refusal(world, mail);
    let refused = world.db.transact("test.policy", |tx: &mut Connection, _| {
        Box::pin(async move { sender_health::policy_refused(tx, refusal, NOW).await })
    });
    refused.await.unwrap()
}

async fn sender(world: &World, mail: OutreachId) -> Reaction {
    let refusal = refusal(world, mail);
    let refused = world.db.transact("test.sender", |tx: &mut Connection, _| {
        Box::pin(async move { sender_health::sender_refused(tx, refusal, true, NOW).await })
    });
    refused.await.unwrap()
}

async fn limited(world: &World, mail: OutreachId, limit: Limit) -> Reaction {
    let refusal = refusal(world, mail);
    let refused = world.db.transact("test.limited", |tx: &mut Connection, _| {
        Box::pin(async move { sender_health::account_limited(tx, refusal, limit, LONGEST).await })
    });
    refused.await.unwrap()
}

async fn resume(world: &World) {
    let program = world.id();
    world
        .db
        .transact("test.resume", |tx, _| Box::pin(async move { sender_health::resume(tx, program, NOW).await }))
        .await
        .unwrap();
}

/// The pause and its reason.
async fn paused(world: &World) -> String {
    world.text("SELECT concat_ws(' ', paused, paused_reason) FROM programs").await
}

/// As many mails sent at this moment.
async fn send(world: &World, count: usize) {
    let profiles = (0..count).map(|n| profile(&format!("sent{n}"))).collect();
    world.accept(profiles, store::intake::Dedupe::Skip).await;
    world
        .execute(
            "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                                   state, message_id, enrichment_version, sent_at, created_at, updated_at)
             SELECT program_id, gen_random_uuid(), id, 'intro', 1, email_index, email_index, index_version, 'sent', '<' || id || '>',
                    1, clock_timestamp(), now(), now()
             FROM leads l WHERE NOT EXISTS (SELECT FROM outreach o WHERE o.lead_id = l.id)",
        )
        .await;
}

#[tokio::test]
async fn three_different_recipients_pause_a_program_and_one_that_comes_back_does_not() {
    let world = World::new().await;
    let mails = mails(&world, &["ann", "bob", "cy"]).await;
    for _ in 0..5 {
        assert_eq!(policy(&world, mails[0]).await, Reaction::Noted);
    }
    assert_eq!(policy(&world, mails[1]).await, Reaction::Noted);
    assert_eq!(paused(&world).await, "f");
    assert_eq!(policy(&world, mails[2]).await, Reaction::Paused { recipients: 3 });
    assert_eq!(paused(&world).await, format!("t policy_refused:{CODE}"));
    assert_eq!(policy(&world, mails[0]).await, Reaction::Noted, "it is paused already");

    resume(&world).await;
    for mail in &mails {
        assert_eq!(policy(&world, *mail).await, Reaction::Noted);
    }
    assert_eq!(paused(&world).await, "f", "a person has seen these");
    world.database.cleanup().await;
}

#[tokio::test]
async fn refusals_that_are_more_than_fifty_mails_apart_pause_nobody() {
    for (sent, expected) in [(47, Reaction::Paused { recipients: 3 }), (48, Reaction::Noted)] {
        let world = World::new().await;
        let mails = mails(&world, &["ann", "bob", "cy"]).await;
        policy(&world, mails[0]).await;
        policy(&world, mails[1]).await;
        send(&world, sent).await;
        assert_eq!(policy(&world, mails[2]).await, expected, "{sent} mails were sent in between");
        world.database.cleanup().await;
    }
}

#[tokio::test]
async fn counting_the_last_mails_reads_no_more_of_them_in_a_table_that_nobody_has_analysed() {
    let mut world = World::new().await;
    let mails = mails(&world, &["ann", "bob", "cy"]).await;
    send(&world, 400).await;
    let before = world.entries_read("outreach").await;
    for mail in mails {
        policy(&world, mail).await;
    }
    let read = world.entries_read("outreach").await - before;
    assert!(read < 100, "{read} entries were read");
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_refused_sender_pauses_by_two_recipients_and_its_mails_fail_when_nothing_was_put_right() {
    let world = World::new().await;
    let mails = mails(&world, &["ann", "bob", "cy"]).await;
    assert_eq!(sender(&world, mails[0]).await, Reaction::Noted);
    assert_eq!(sender(&world, mails[0]).await, Reaction::Noted, "one recipient pauses nobody");
    assert_eq!(sender(&world, mails[1]).await, Reaction::Paused { recipients: 2 });
    assert_eq!(paused(&world).await, format!("t authentication_refused:{CODE}"));

    resume(&world).await;
    assert_eq!(sender(&world, mails[0]).await, Reaction::GiveUp);
    assert_eq!(sender(&world, mails[1]).await, Reaction::GiveUp);
    assert_eq!(sender(&world, mails[2]).await, Reaction::Noted);
    assert_eq!(paused(&world).await, "f");
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_sender_refused_for_one_recipient_alone_is_given_up_after_four_days_of_attempts() {
    let world = World::new().await;
    let mail = mails(&world, &["ann"]).await[0];
    sender(&world, mail).await;
    let since = |days: &str| format!("UPDATE sender_refusals SET first_refused_at = now() - interval '{days}'");
    world.execute(&since("3 days")).await;
    assert_eq!(sender(&world, mail).await, Reaction::Noted);
    world.execute(&since("5 days")).await;
    assert_eq!(sender(&world, mail).await, Reaction::GiveUp);
    // A refusal of weeks ago isn't an attempt of today.
    world.execute("UPDATE sender_refusals SET refused_at = now() - interval '9 days'").await;
    assert_eq!(sender(&world, mail).await, Reaction::Noted);
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_limited_account_rests_longer_each_time_and_one_mail_begins_one_rest() {
    let world = World::new().await;
    let mails = mails(&world, &["ann", "bob", "cy", "dee"]).await;
    let minutes = |count| Duration::from_mins(count);
    let began = |count| Reaction::Rest { remaining: minutes(count), began: true };
    let over = "UPDATE programs SET rest_from = now() - (rest_until - rest_from), rest_until = now()";

    assert_eq!(limited(&world, mails[0], Limit::Rate).await, began(1));
    let Reaction::Rest { remaining, began: false } = limited(&world, mails[1], Limit::Rate).await else {
        panic!("it rests already")
    };
    assert!(remaining <= minutes(1));
    world.execute(over).await;
    assert_eq!(limited(&world, mails[0], Limit::Rate).await, Reaction::Defer, "this mail began one already");
    assert_eq!(limited(&world, mails[1], Limit::Rate).await, began(2), "the last one was over just now");
    world.execute(over).await;
    assert_eq!(limited(&world, mails[2], Limit::Quota).await, began(60));
    world
        .execute("UPDATE programs SET rest_from = now() - interval '9 hours', rest_until = now() - interval '8 hours'")
        .await;
    assert_eq!(limited(&world, mails[3], Limit::Rate).await, began(1), "that was long ago");
    world.execute(over).await;
    world.execute("UPDATE sender_refusals SET refused_at = now() - interval '25 hours'").await;
    assert_eq!(limited(&world, mails[0], Limit::Rate).await, began(2), "a day later it may begin another");
    world.database.cleanup().await;
}

#[tokio::test]
async fn nothing_is_claimed_while_a_program_rests() {
    let world = World::new().await;
    mails(&world, &["ann"]).await;
    let claim = async || {
        let (program, token) = (world.id(), LeaseToken::generate());
        let claimed = world
            .db
            .transact("test.claim", |tx, _| Box::pin(async move { claim::claim(tx, program, 10, token, 60).await }))
            .await;
        claimed.unwrap()
    };
    world.execute("UPDATE programs SET rest_from = now(), rest_until = now() + interval '1 minute'").await;
    assert!(claim().await.claimed.is_empty());
    world.execute("UPDATE programs SET rest_until = now()").await;
    assert_eq!(claim().await.claimed.len(), 1);
    world.database.cleanup().await;
}

#[tokio::test]
async fn what_waits_for_the_end_of_a_rest_is_due_when_a_person_resumes_the_program() {
    let world = World::new().await;
    let mails = mails(&world, &["ann", "bob", "eve"]).await;
    let [ann, bob, eve] = mails[..] else { panic!("three mails") };
    world.execute("UPDATE outreach SET due_at = now() + interval '1 hour'").await;
    for (mail, reason) in [(bob, "account_limited:smtp_450_4.7.0"), (eve, "smtp_450_4.2.0")] {
        world.execute(&format!("UPDATE outreach SET state = 'connecting', lease_token = id WHERE id = '{mail}'")).await;
        world
            .execute(&format!("UPDATE outreach SET state = 'deferred', reason = '{reason}' WHERE id = '{mail}'"))
            .await;
    }
    resume(&world).await;
    let due =
        format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM outreach WHERE due_at <= now() AND id <> '{eve}'");
    let mut expected = [ann.to_string(), bob.to_string()];
    expected.sort();
    assert_eq!(world.text(&due).await, expected.join(" "));
    let waits = format!("SELECT count(*) FROM outreach WHERE due_at > now() AND id = '{eve}'");
    assert_eq!(world.count(&waits).await, 1, "its recipient's server asked for that");
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_full_mailbox_is_known_at_the_next_attempt_and_not_at_one_that_nobody_settled() {
    let world = World::new().await;
    mails(&world, &["ann"]).await;
    let (program, token) = (world.id(), LeaseToken::generate());
    let claimed = world
        .db
        .transact("test.claim", |tx, _| Box::pin(async move { claim::claim(tx, program, 1, token, 60).await }))
        .await
        .unwrap();
    let lease = (program, claimed.claimed[0].id, token);
    let full = async || {
        let found = world
            .db
            .transact("test.full", |tx, _| Box::pin(async move { mailbox_full::found_full(tx, lease).await }))
            .await;
        found.unwrap()
    };
    assert!(!full().await);
    assert!(!full().await, "its process may have died before it was settled");
    world.execute("UPDATE outreach SET mailbox_full_at = mailbox_full_at - interval '7 days'").await;
    assert!(full().await);
    world.database.cleanup().await;
}

#[tokio::test]
async fn refusals_of_more_than_a_month_ago_are_forgotten() {
    let world = World::new().await;
    let mails = mails(&world, &["ann", "bob"]).await;
    policy(&world, mails[0]).await;
    world.execute("UPDATE sender_refusals SET refused_at = now() - interval '31 days'").await;
    policy(&world, mails[1]).await;
    assert_eq!(world.count("SELECT count(*) FROM sender_refusals").await, 1);
    world.database.cleanup().await;
}

#[tokio::test]
async fn refusals_at_the_same_moment_are_counted_one_after_the_other() {
    let world = World::new().await;
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mails = mails(&world, &names).await;
    let reactions = futures_util::future::join_all(mails.iter().map(|mail| policy(&world, *mail))).await;
    let pauses = reactions.iter().filter(|reaction| matches!(reaction, Reaction::Paused { .. })).count();
    assert_eq!(pauses, 1, "{reactions:?}");
    assert_eq!(world.count("SELECT count(*) FROM sender_refusals").await, 8);
    world.database.cleanup().await;
}
