//! A mail goes to the recipient that it was planned for, once, and to nobody who objected.

use domain::id::{LeadId, LeaseToken};
use store::{
    outreach::{
        plan::{Planned, Start},
        recipients,
        release::{self, Filter, Released},
        settle::{self, Outcome, Settlement},
    },
    programs::Change,
    suppressions::{self, SuppressionReason},
};

use crate::world::{World, profile};

async fn object(world: &World, address: &str) {
    let (program, recipient) = (world.id(), [world.program.keys.email_index(&address.parse().unwrap())]);
    world
        .db
        .transact("test.object", |tx, _| {
            Box::pin(async move { suppressions::add(tx, program, &recipient, SuppressionReason::Unsubscribed).await })
        })
        .await
        .unwrap();
}

/// Sends the next due mail as far as the server's answer, and settles it.
async fn send(world: &World, outcome: Outcome) -> LeadId {
    let row = world.claim(1).await.claimed.remove(0);
    let lease = [(row.program_id, row.id, row.token)];
    let settlement = [Settlement {
        program_id: row.program_id,
        id: row.id,
        lead_id: row.lead_id,
        token: row.token,
        outcome,
        reply_code: None,
        reply: None,
    }];
    let settled = world
        .db
        .transact("test.send", |tx, _| {
            let settlement = &settlement;
            Box::pin(async move {
                assert_eq!(store::outreach::data_phase::begin_data(tx, &lease, 60).await?.len(), 1);
                settle::settle(tx, settlement).await
            })
        })
        .await
        .unwrap();
    assert_eq!(settled.rows.len(), 1);
    row.lead_id
}

fn deferred() -> Outcome {
    Outcome::Deferred { reason: "smtp_450".to_owned(), after: std::time::Duration::ZERO }
}

#[tokio::test]
async fn nobody_gets_a_campaign_twice_by_an_address_that_changes_hands() {
    let world = World::new().await;
    let (ann, bob) = (world.enriched(profile("ann")).await, world.enriched(profile("bob")).await);
    let ann_mail = world.planned(ann, 1).await;
    assert_eq!(send(&world, deferred()).await, ann);
    world.execute("UPDATE outreach SET due_at = now() + interval '1 hour'").await;
    let bob_mail = world.planned(bob, 1).await;
    assert_eq!(send(&world, Outcome::Sent).await, bob);

    world.change_address("ann", "bob@studio.example.com").await;
    world.let_time_pass().await;
    let claim = world.claim(10).await;
    assert_eq!((claim.claimed.len(), claim.moved.len()), (0, 1));
    assert_eq!(world.state(ann_mail).await, "held duplicate_recipient");
    // The other mail was sent: there is nothing to wait for.
    world.let_time_pass().await;
    world.run_jobs().await;
    assert_eq!(world.state(ann_mail).await, "cancelled duplicate_recipient");
    assert_eq!(world.state(bob_mail).await, "sent");
}

#[tokio::test]
async fn a_mail_goes_to_the_address_that_its_lead_has_when_it_is_claimed() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    world.change_address("ann", "ann@new.example").await;
    let claim = world.claim(10).await;
    assert_eq!((claim.claimed.len(), claim.moved.len()), (0, 1));
    assert_eq!(world.state(mail).await, "queued");
    let claim = world.claim(10).await;
    let new = world.program.keys.email_index(&"ann@new.example".parse().unwrap());
    assert_eq!((claim.claimed[0].id, claim.claimed[0].recipient), (mail, new));
    assert_eq!(world.count("SELECT count(*) FROM outreach WHERE recipient_key = recipient_index").await, 1);
}

#[tokio::test]
async fn a_mail_that_was_claimed_for_an_older_address_does_not_reach_the_data_phase() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    let row = world.claim(1).await.claimed.remove(0);
    world.change_address("ann", "ann@new.example").await;
    let lease = [(row.program_id, row.id, row.token)];
    world
        .db
        .transact("test.begin", |tx, _| {
            Box::pin(async move {
                assert!(store::outreach::data_phase::begin_data(tx, &lease, 60).await?.is_empty());
                store::outreach::data_phase::abort(tx, &lease).await
            })
        })
        .await
        .unwrap();
    assert_eq!(world.state(mail).await, "queued");
    assert_eq!(world.claim(10).await.moved.len(), 1);
}

#[tokio::test]
async fn an_objection_from_the_new_address_is_heard_and_a_bounce_hits_the_address_that_was_written_to() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    world.change_address("ann", "ann@new.example").await;
    world.claim(10).await;
    let bounced = Outcome::Failed { reason: "smtp_550_5.1.1".to_owned(), hard_bounce: true };
    send(&world, bounced).await;
    let new = world.program.keys.email_index(&"ann@new.example".parse().unwrap());
    let suppressed = format!("SELECT count(*) FROM suppressions WHERE recipient_index = '\\x{}'", hex(&new.to_vec()));
    assert_eq!(world.count(&suppressed).await, 1);
    assert_eq!(world.state(mail).await, "failed smtp_550_5.1.1");

    let bob = world.enriched(profile("bob")).await;
    let mail = world.planned(bob, 1).await;
    world.change_address("bob", "bob@new.example").await;
    object(&world, "bob@new.example").await;
    // Planned again for the new address, which objected: the mail ends, and no claim meets it again.
    assert_eq!(world.claim(10).await.moved.len(), 1);
    assert_eq!(world.state(mail).await, "cancelled suppressed");
    assert_eq!(world.claim(10).await.seen(), 0);
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[tokio::test]
async fn due_mails_to_suppressed_recipients_are_cancelled_by_the_claim_that_meets_them() {
    let world = World::new().await;
    let mut mails = Vec::new();
    for name in ["ann", "bob", "eve"] {
        let lead = world.enriched(profile(name)).await;
        mails.push(world.planned(lead, 1).await);
    }
    object(&world, "ann@studio.example.com").await;
    object(&world, "bob@studio.example.com").await;
    let claim = world.claim(10).await;
    assert_eq!((claim.claimed.len(), claim.cancelled), (1, 2));
    assert_eq!(world.state(mails[0]).await, "cancelled suppressed");
    assert_eq!(world.claim(10).await.seen(), 0);
}

#[tokio::test]
async fn an_objection_also_ends_a_mail_that_is_settled_or_planned_at_the_same_time() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let mail = world.planned(ann, 1).await;
    object(&world, "bob@studio.example.com").await;
    let row = world.claim(1).await.claimed.remove(0);
    let lease = [(row.program_id, row.id, row.token)];
    let begun = world
        .db
        .transact("test.begin", |tx, _| {
            Box::pin(async move { store::outreach::data_phase::begin_data(tx, &lease, 60).await })
        })
        .await
        .unwrap();
    assert_eq!(begun.len(), 1);
    // The server says "later" after the recipient has objected.
    object(&world, "ann@studio.example.com").await;
    let settlement = [Settlement {
        program_id: row.program_id,
        id: row.id,
        lead_id: row.lead_id,
        token: row.token,
        outcome: deferred(),
        reply_code: None,
        reply: None,
    }];
    world
        .db
        .transact("test.settle", |tx, _| {
            let settlement = &settlement;
            Box::pin(async move { settle::settle(tx, settlement).await })
        })
        .await
        .unwrap();
    assert_eq!(world.state(mail).await, "cancelled suppressed");

    // Who objected before is not planned for, whatever the planner saw.
    let bob = world.enriched(profile("bob")).await;
    let start = Start::Claimed {
        token: LeaseToken::generate(),
        seconds: 60,
        recipient: world.program.keys.email_index(&"bob@studio.example.com".parse().unwrap()),
        ignores_cap: true,
    };
    assert_eq!(world.plan(&[world.plan_item(bob, 1, start)]).await, [Planned::Declined]);
}

#[tokio::test]
async fn what_was_planned_while_somebody_objected_is_cancelled_by_the_job() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    world.execute("UPDATE leads SET country = NULL").await;
    let mail = world.planned(ann, 1).await;
    assert!(world.state(mail).await.starts_with("held legal_unknown"));
    object(&world, "ann@studio.example.com").await;
    world.let_time_pass().await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "cancelled suppressed");
    assert_eq!(world.count("SELECT count(*) FROM suppressions WHERE applied_at IS NULL").await, 0);
}

#[tokio::test]
async fn captured_mails_are_released_by_id_and_whoever_objected_gets_nothing() {
    let world = World::new().await;
    let mut mails = Vec::new();
    for name in ["ann", "bob", "eve"] {
        let lead = world.enriched(profile(name)).await;
        mails.push(world.planned(lead, 1).await);
    }
    world.execute("UPDATE outreach SET state = 'connecting', lease_token = gen_random_uuid()").await;
    world.execute("UPDATE outreach SET state = 'captured', due_at = NULL, lease_token = NULL").await;
    world.execute("INSERT INTO captured_mails SELECT program_id, id, lead_id, '\\x00', now() FROM outreach").await;
    object(&world, "bob@studio.example.com").await;
    let unknown = domain::id::OutreachId::generate();
    let filter = Filter::Ids(vec![mails[0], mails[1], unknown]);
    let released = release::release(&world.db, world.id(), &filter, |_| ()).await.unwrap();
    let expected = Released { queued: 1, cancelled: 1, unknown: vec![unknown], ..Released::default() };
    assert_eq!(released, expected);
    assert_eq!(world.state(mails[1]).await, "cancelled suppressed");
    assert_eq!(world.state(mails[2]).await, "captured");
    assert_eq!(world.count("SELECT count(*) FROM captured_mails").await, 1);
    let again = release::release(&world.db, world.id(), &Filter::Ids(vec![mails[0]]), |_| ()).await.unwrap();
    assert_eq!(again.others, [(mails[0], domain::outreach::OutreachState::Queued)]);
}

#[tokio::test]
async fn a_captured_mail_whose_lead_does_not_qualify_any_more_is_cancelled_when_it_is_released() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let mail = world.planned(lead, 1).await;
    world.execute("UPDATE outreach SET state = 'connecting', lease_token = gen_random_uuid(), attempts = 7").await;
    world.execute("UPDATE outreach SET state = 'captured', due_at = NULL, lease_token = NULL").await;
    world.execute("INSERT INTO captured_mails SELECT program_id, id, lead_id, '\\x00', now() FROM outreach").await;
    world.set(Change { threshold: Some(95), ..Change::default() }).await;
    world.run_jobs().await;
    assert_eq!(world.state(mail).await, "captured");
    let released = release::release(&world.db, world.id(), &Filter::Captured, |_| ()).await.unwrap();
    assert_eq!(released, Released { cancelled: 1, ..Released::default() });
    assert_eq!(world.state(mail).await, "cancelled no_longer_qualified");
    assert_eq!(world.count("SELECT attempts::bigint FROM outreach").await, 0, "to capture is no try");
}

#[tokio::test]
async fn an_objection_reads_only_the_mails_of_its_recipient() {
    let mut world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    world.planned(lead, 1).await;
    world
        .execute(
            "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                                   state, message_id, enrichment_version, due_at, created_at, updated_at)
             SELECT program_id, gen_random_uuid(), lead_id, campaign, n, substr(sha256(n::text::bytea), 1, 16),
                    substr(sha256(n::text::bytea), 1, 16), index_version, state, message_id, enrichment_version, due_at,
                    created_at, updated_at
             FROM outreach, generate_series(2, 3000) n",
        )
        .await;
    let before = world.entries_read("outreach").await;
    let (program, recipient) =
        (world.id(), [world.program.keys.email_index(&"ann@studio.example.com".parse().unwrap())]);
    object(&world, "ann@studio.example.com").await;
    let cancelled = world
        .db
        .transact("test.cancel", |tx, _| {
            Box::pin(async move { recipients::cancel_suppressed(tx, program, &recipient).await })
        })
        .await
        .unwrap();
    assert_eq!(cancelled, 1);
    let read = world.entries_read("outreach").await - before;
    assert!(read < 50, "{read} index entries for one mail out of 3,000");
}
