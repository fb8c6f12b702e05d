//! Every hold has a way out, and a decision follows what it rests on.

use std::time::Duration;

use domain::email::EmailAddress;
use store::{
    outreach::{
        plan::{self, PlanItem, Planned, Start},
        reevaluate,
    },
    programs::{self, Change, Changed},
};
use tokio::sync::Notify;

use crate::world::{NOW, World, profile};

fn threshold(threshold: i16) -> Change {
    Change { threshold: Some(threshold), ..Change::default() }
}

#[tokio::test]
async fn a_lead_that_qualifies_again_gets_its_mail() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    world.set(threshold(95)).await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
    world.set(threshold(70)).await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "queued");
    assert_eq!(world.claim(10).await.claimed.len(), 1);

    // The same by a newer enrichment.
    world
        .execute("UPDATE outreach SET state = 'cancelled', reason = 'no_longer_qualified', recipient_key = NULL")
        .await;
    world.execute("UPDATE enriched_leads SET enrichment_version = 2").await;
    assert_eq!(world.plan(&[world.plan_item(ann, 2, Start::Queued)]).await, [Planned::Existing]);
    assert_eq!(world.state(mail).await, "queued");
}

#[tokio::test]
async fn a_threshold_that_falls_releases_whom_it_had_kept_back() {
    let world = World::new().await;
    world.set(threshold(95)).await;
    let ann = world.enriched(profile("ann")).await;
    assert_eq!(world.plan(&[world.plan_item(ann, 1, Start::Queued)]).await, [Planned::Declined]);
    let lower = domain::program::ProgramSettings { threshold: 70, ..world.program.program.settings.clone() };
    let turned = reevaluate::preview(&world.db, world.id(), &lower, |_| ()).await.unwrap();
    assert_eq!((turned.decided, turned.to_planned, turned.changed()), (1, 1, 1));
    assert_eq!(world.count("SELECT count(*) FROM outreach").await, 0, "a preview changes nothing");
    world.set(threshold(70)).await;
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 1);
    assert_eq!(world.claim(10).await.claimed.len(), 1);
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 0, "done once");
}

#[tokio::test]
async fn decisions_made_while_the_settings_changed_are_made_again() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    world.planned(ann, 1).await;
    world.set(threshold(95)).await;
    reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap();
    // A transaction that had read the older settings commits only now.
    world.execute("UPDATE enriched_leads SET decision = 'planned', decision_reasons = '{}'").await;
    world
        .execute("UPDATE outreach SET state = 'queued', reason = NULL, due_at = now(), recipient_key = recipient_index")
        .await;
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 0, "not yet");
    world.let_time_pass().await;
    world.execute("UPDATE programs SET rules_applied_at = rules_changed_at").await;
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 1);
    assert_eq!(world.count("SELECT count(*) FROM outreach WHERE state = 'cancelled'").await, 1);
}

#[tokio::test]
async fn a_mail_that_is_planned_while_its_program_is_paused_waits_in_the_queue() {
    let world = World::new().await;
    world.set(Change { paused: Some(true), ..Change::default() }).await;
    let ann = world.enriched(profile("ann")).await;
    // A planner that believes an older cache would start it at once.
    let start = Start::Claimed {
        token: domain::id::LeaseToken::generate(),
        seconds: 60,
        recipient: world.program.keys.email_index(&"ann@studio.example.com".parse().unwrap()),
        ignores_cap: true,
    };
    let planned = world.plan(&[world.plan_item(ann, 1, start)]).await;
    let [Planned::Queued(mail)] = planned[..] else { panic!("{planned:?}") };
    assert_eq!(world.state(mail).await, "queued");
    assert_eq!(world.claim(10).await.seen(), 0);
    world.set(Change { paused: Some(false), ..Change::default() }).await;
    assert_eq!(world.claim(10).await.claimed.len(), 1);
}

#[tokio::test]
async fn mails_that_older_versions_hold_for_a_pause_are_queued_when_it_ends() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    world.execute("UPDATE outreach SET state = 'held', reason = 'program_paused', due_at = NULL").await;
    world.execute("UPDATE enriched_leads SET decision = 'held', decision_reasons = '{program_paused}'").await;
    world.set(Change { paused: Some(false), ..Change::default() }).await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "queued");
}

#[tokio::test]
async fn a_duplicate_keeps_its_reason_through_a_newer_enrichment_and_takes_over_later() {
    let world = World::new().await;
    let (ann, bob) = (world.enriched(profile("ann")).await, world.enriched(profile("bob")).await);
    let first = world.planned(ann, 1).await;
    world.change_address("bob", "ann@studio.example.com").await;
    world.enrich(&world.open_lead(bob).await, 90).await;
    let second = world.planned(bob, 2).await;
    assert_eq!(world.state(second).await, "held duplicate_recipient");
    // Bob is analysed once more, and something else stands in the way for a while.
    world.execute(&format!("UPDATE enriched_leads SET enrichment_version = 3 WHERE lead_id = '{bob}'")).await;
    world.set(Change { postal_address: Some(None), ..Change::default() }).await;
    world.plan(&[world.plan_item(bob, 3, Start::Queued)]).await;
    assert_eq!(world.state(second).await, "held duplicate_recipient");
    world.set(Change { postal_address: Some(Some("1 Main Street".to_owned())), ..Change::default() }).await;
    world.run_jobs().await;
    assert_eq!(world.state(second).await, "held duplicate_recipient");
    // The first lets go.
    world
        .execute(&format!("UPDATE enriched_leads SET enrichment_version = 2, score = 1 WHERE lead_id = '{ann}'"))
        .await;
    world.plan(&[world.plan_item(ann, 2, Start::Queued)]).await;
    assert_eq!(world.state(first).await, "cancelled no_longer_qualified");
    assert_eq!(world.state(second).await, "queued");
}

#[tokio::test]
async fn a_duplicate_that_was_written_while_the_other_mail_was_cancelled_takes_over_by_the_job() {
    let world = World::new().await;
    let (ann, bob) = (world.enriched(profile("ann")).await, world.enriched(profile("bob")).await);
    world.planned(ann, 1).await;
    world.change_address("bob", "ann@studio.example.com").await;
    world.enrich(&world.open_lead(bob).await, 90).await;
    let second = world.planned(bob, 2).await;
    // As if the two transactions had not seen each other.
    world
        .execute(&format!(
            "UPDATE outreach SET state = 'cancelled', reason = 'no_longer_qualified', due_at = NULL, recipient_key = NULL
             WHERE lead_id = '{ann}'"
        ))
        .await;
    world
        .execute(&format!(
            "UPDATE enriched_leads SET decision = 'declined', decision_reasons = '{{not_compliant}}', compliant = false
             WHERE lead_id = '{ann}'"
        ))
        .await;
    world.run_jobs().await;
    assert_eq!(world.state(second).await, "held duplicate_recipient", "not due yet");
    world.let_time_pass().await;
    world.run_jobs().await;
    assert_eq!(world.state(second).await, "queued");
}

#[tokio::test]
async fn a_duplicate_of_an_erased_lead_takes_over() {
    let world = World::new().await;
    let (ann, bob) = (world.enriched(profile("ann")).await, world.enriched(profile("bob")).await);
    let first = world.planned(ann, 1).await;
    world.change_address("bob", "ann@studio.example.com").await;
    world.enrich(&world.open_lead(bob).await, 90).await;
    let second = world.planned(bob, 2).await;
    world.erase(ann).await;
    assert_eq!(world.claim(10).await.cancelled, 1);
    assert_eq!(world.state(first).await, "cancelled erased");
    assert_eq!(world.state(second).await, "queued");
}

#[tokio::test]
async fn a_mail_that_could_not_be_made_is_tried_again() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    world
        .execute("UPDATE outreach SET state = 'held', reason = 'compose_failed', due_at = now() + interval '1 day'")
        .await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "held compose_failed");
    world.let_time_pass().await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "queued");
}

#[tokio::test]
async fn held_mails_of_older_versions_have_no_time_and_are_looked_at_too() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    // An older mailer held it for a threshold that has fallen since.
    world.execute("UPDATE outreach SET state = 'held', reason = 'score_below_threshold:90<95', due_at = NULL").await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "queued");
}

#[tokio::test]
async fn a_change_writes_what_was_named_and_does_not_undo_an_automatic_pause() {
    let world = World::new().await;
    let slug = &world.program.program.slug;
    let read = world
        .db
        .transact("test.read", |tx, _| Box::pin(programs::by_slug_with_version(tx, slug)))
        .await
        .unwrap()
        .unwrap();
    let (program, version) = &read;
    // Between the look and the change, a mail server refuses the sender.
    let id = program.id;
    world
        .db
        .transact("test.pause", |tx, _| Box::pin(programs::pause(tx, id, "sender_refused:smtp_550_5.7.1", NOW)))
        .await
        .unwrap();
    let change = Change { paused: Some(false), ..Change::default() };
    let change = &change;
    let changed = world
        .db
        .transact("test.set", |tx, _| Box::pin(programs::set(tx, program, *version, change, NOW)))
        .await
        .unwrap();
    assert_eq!(changed, Changed::Conflict);
    assert_eq!(world.count("SELECT count(*) FROM programs WHERE paused").await, 1);

    world.set(Change { product: Some("coffee".to_owned()), ..Change::default() }).await;
    assert_eq!(world.count("SELECT count(*) FROM programs WHERE paused AND product = 'coffee'").await, 1);
}

#[tokio::test]
async fn a_new_sender_gives_unsent_mails_a_message_id_of_its_domain() {
    let world = World::new().await;
    world.set(Change { sender_email: Some(None), ..Change::default() }).await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    assert_eq!(world.state(mail).await, "held incomplete_sender");
    let sender = EmailAddress::parse("zoe@tea.example").ok();
    world.set(Change { sender_email: Some(sender), ..Change::default() }).await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "queued");
    assert!(world.text("SELECT message_id FROM outreach").await.ends_with("@tea.example>"));
}

#[tokio::test]
async fn a_mail_that_stays_held_is_looked_at_once_a_day() {
    let world = World::new().await;
    world.set(Change { postal_address: Some(None), ..Change::default() }).await;
    let (ann, bob) = (world.enriched(profile("ann")).await, world.enriched(profile("bob")).await);
    world.planned(ann, 1).await;
    world.change_address("bob", "ann@studio.example.com").await;
    world.enrich(&world.open_lead(bob).await, 90).await;
    world.planned(bob, 2).await;
    world.let_time_pass().await;
    world.run_jobs().await;
    let held = "SELECT count(*) FROM outreach WHERE state = 'held' AND due_at > now() + interval '23 hours'";
    assert_eq!(world.count(held).await, 2);
    assert_eq!(world.count("SELECT count(*) FROM outreach WHERE reason = 'duplicate_recipient'").await, 1);
}

#[tokio::test]
async fn of_two_decisions_about_one_lead_at_the_same_time_the_last_one_knows_the_newest_settings() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    let again = [PlanItem::again(world.id(), ann)];
    world.set(threshold(95)).await;
    // The first has decided by the higher threshold and hasn't committed when the second begins.
    let (decided, second_waits) = (Notify::new(), Notify::new());
    let (again, events) = (&again, (&decided, &second_waits));
    let declining = world.db.transact("test.decline", |tx, _| {
        Box::pin(async move {
            plan::plan(tx, again).await?;
            events.0.notify_one();
            events.1.notified().await;
            Ok(())
        })
    });
    let planning = async {
        decided.notified().await;
        world.set(threshold(70)).await;
        world.db.transact("test.plan", |tx, _| Box::pin(plan::plan(tx, again))).await.unwrap();
    };
    let watching = async {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while world.count(waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        second_waits.notify_one();
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(declining, planning, watching).0.unwrap() })
        .await
        .expect("the second decision waits for the first");
    assert_eq!(world.text("SELECT decision FROM enriched_leads").await, "planned");
    assert_eq!(world.state(mail).await, "queued");
}

#[tokio::test]
async fn a_lead_that_was_written_to_counts_for_no_change_of_settings() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    world.planned(ann, 1).await;
    world.execute("UPDATE enriched_leads SET sent = true").await;
    let higher = domain::program::ProgramSettings { threshold: 95, ..world.program.program.settings.clone() };
    let turned = reevaluate::preview(&world.db, world.id(), &higher, |_| ()).await.unwrap();
    assert_eq!((turned.decided, turned.changed()), (0, 0));
    world.set(threshold(95)).await;
    assert_eq!(reevaluate::program(&world.db, world.id(), |_| ()).await.unwrap(), 0);
    assert_eq!(world.text("SELECT decision FROM enriched_leads").await, "planned");
}
