//! Planning, claiming, sending and settling.

use std::time::Duration;

use crate::world::{NOW, World, profile};
use domain::{
    id::{LeadId, LeaseToken, OutreachId},
    qualification::{Blocker, Decision},
};
use store::{
    Db, DbConfig, captured,
    outreach::{
        claim::{self, Claimed, Expired, Span},
        plan::{self, PlanItem, Planned, Start},
        settle::{self, Outcome, Settlement},
    },
    suppressions::{self, SuppressionReason},
};

const LEASE: i32 = 60;

async fn plan_all(world: &World, items: &[PlanItem]) -> Vec<Planned> {
    world.db.transact("test.plan", |tx, _| Box::pin(async move { plan::plan(tx, items, LEASE).await })).await.unwrap()
}

async fn claim_some(world: &World, limit: i64) -> Vec<Claimed> {
    let (program, token) = (world.id(), LeaseToken::generate());
    world
        .db
        .transact("test.claim", |tx, _| Box::pin(async move { claim::claim(tx, program, limit, token, LEASE).await }))
        .await
        .unwrap()
}

async fn begin(world: &World, claimed: &Claimed) -> bool {
    let lease = [(claimed.program_id, claimed.id, claimed.token)];
    world
        .db
        .with_kept_plans()
        .transact("test.begin", |tx, _| Box::pin(async move { claim::begin_data(tx, &lease, LEASE).await }))
        .await
        .unwrap()
        .contains(&claimed.id)
}

async fn abort(world: &World, claimed: &Claimed) {
    let lease = [(claimed.program_id, claimed.id, claimed.token)];
    world
        .db
        .with_kept_plans()
        .transact("test.abort", |tx, _| Box::pin(async move { claim::abort(tx, &lease).await }))
        .await
        .unwrap();
}

async fn settle_one(world: &World, claimed: &Claimed, outcome: Outcome) -> Option<String> {
    let settlement = [Settlement {
        program_id: claimed.program_id,
        id: claimed.id,
        lead_id: claimed.lead_id,
        token: claimed.token,
        outcome,
        reply_code: None,
        reply: None,
    }];
    let settled = world
        .db
        .with_kept_plans()
        .transact("test.settle", |tx, _| {
            let settlement = &settlement;
            Box::pin(async move { settle::settle(tx, settlement, NOW).await })
        })
        .await
        .unwrap();
    settled.first().map(|settled| settled.state.clone())
}

async fn expire(world: &World) -> Expired {
    let program = world.id();
    world.execute("UPDATE outreach SET due_at = now() - interval '1 second' WHERE due_at IS NOT NULL").await;
    world.db.transact("test.expire", |tx, _| Box::pin(async move { claim::expire(tx, program).await })).await.unwrap()
}

async fn suppress(world: &World, address: &str) {
    let recipient = [world.program.keys.email_index(&address.parse().unwrap())];
    let program = world.id();
    world
        .db
        .transact("test.suppress", |tx, _| {
            Box::pin(
                async move { suppressions::add(tx, program, &recipient, SuppressionReason::Unsubscribed, NOW).await },
            )
        })
        .await
        .unwrap();
}

async fn state(world: &World, id: OutreachId) -> String {
    world.text(&format!("SELECT concat_ws(' ', state, reason) FROM outreach WHERE id = '{id}'")).await
}

/// Plans a mail for a new lead and claims it.
async fn claimed(world: &World, name: &str) -> Claimed {
    let lead = world.enriched(profile(name)).await;
    let item = world.plan_item(lead, 1, &format!("{name}@studio.example.com"), Start::Queued);
    assert!(matches!(plan_all(world, &[item]).await[..], [Planned::Queued(_)]));
    claim_some(world, 1).await.remove(0)
}

#[tokio::test]
async fn a_mail_goes_from_plan_to_sent_and_marks_its_lead() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert!(begin(&world, &claimed).await);
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await.as_deref(), Some("sent"));
    assert_eq!(world.count("SELECT count(*) FROM enriched_leads WHERE sent AND contacted").await, 1);
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await, None);
    assert!(claim_some(&world, 10).await.is_empty());
}

#[tokio::test]
async fn the_same_decision_twice_plans_one_mail() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let item = || world.plan_item(lead, 1, "ann@studio.example.com", Start::Queued);
    let (one, two) = (item(), item());
    assert!(matches!(plan_all(&world, &[one]).await[..], [Planned::Queued(_)]));
    assert_eq!(plan_all(&world, &[two]).await, [Planned::Stale]);
    assert_eq!(world.count("SELECT count(*) FROM outreach").await, 1);
}

#[tokio::test]
async fn one_address_on_two_networks_gets_one_mail_and_the_other_waits_for_its_end() {
    let world = World::new().await;
    let (ann, bob) = (world.enriched(profile("ann")).await, world.enriched(profile("bob")).await);
    let mut other = profile("bob");
    other.email = profile("ann").email;
    world.accept(vec![other], store::intake::Dedupe::Update).await;
    assert!(matches!(
        world.enrich(&world.open_lead(bob).await, 90).await,
        store::enrichments::Written::New { version: 2 }
    ));
    let items = [
        world.plan_item(ann, 1, "ann@studio.example.com", Start::Queued),
        world.plan_item(bob, 2, "Ann@studio.example.com", Start::Queued),
    ];
    let planned = plan_all(&world, &items).await;
    let [Planned::Queued(winner), Planned::Held(loser)] = planned[..] else { panic!("{planned:?}") };
    assert_eq!(state(&world, loser).await, "held duplicate_recipient");

    // A newer enrichment speaks against the winner: it lets go of the recipient, and the other one follows.
    world.execute(&format!("UPDATE enriched_leads SET enrichment_version = 2 WHERE lead_id = '{ann}'")).await;
    let decline = PlanItem {
        decision: Decision::Decline(vec![Blocker::NotCompliant]),
        mail: None,
        ..world.plan_item(ann, 2, "ann@studio.example.com", Start::Queued)
    };
    assert_eq!(plan_all(&world, &[decline]).await, [Planned::Declined]);
    assert_eq!(state(&world, winner).await, "cancelled no_longer_qualified");
    assert_eq!(state(&world, loser).await, "queued");
}

#[tokio::test]
async fn a_decision_is_recorded_with_all_its_reasons() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let mut item = world.plan_item(lead, 1, "ann@studio.example.com", Start::Queued);
    item.decision = Decision::Decline(vec![
        Blocker::ScoreBelowThreshold { score: 10, threshold: 70 },
        Blocker::LegalDenied { rule: "v1/email/de/legitimate_interest".to_owned() },
    ]);
    item.mail = None;
    assert_eq!(plan_all(&world, &[item]).await, [Planned::Declined]);
    let reasons =
        world.text("SELECT decision || ' ' || array_to_string(decision_reasons, ' ') FROM enriched_leads").await;
    assert_eq!(reasons, "declined score_below_threshold:10<70 legal_denied:v1/email/de/legitimate_interest");
}

#[tokio::test]
async fn a_held_mail_waits_with_its_reason_and_is_released_with_it() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let mut item = world.plan_item(lead, 1, "ann@studio.example.com", Start::Claimed(LeaseToken::generate()));
    item.decision = Decision::Hold(vec![Blocker::Paused]);
    let planned = plan_all(&world, &[item]).await;
    let [Planned::Held(id)] = planned[..] else { panic!("{planned:?}") };
    assert_eq!(state(&world, id).await, "held program_paused");
    assert!(claim_some(&world, 10).await.is_empty());
    let program = world.id();
    let released = world
        .db
        .transact("test.release", |tx, _| {
            Box::pin(async move { store::outreach::release_held(tx, program, &["program_paused"]).await })
        })
        .await
        .unwrap();
    assert_eq!(released, 1);
    assert_eq!(claim_some(&world, 10).await.len(), 1);
}

#[tokio::test]
async fn two_mailers_never_claim_the_same_row() {
    let world = World::new().await;
    let mut items = Vec::new();
    for n in 0..40 {
        let lead = world.enriched(profile(&format!("user{n}"))).await;
        items.push(world.plan_item(lead, 1, &format!("user{n}@studio.example.com"), Start::Queued));
    }
    plan_all(&world, &items).await;
    let (one, two) = tokio::join!(claim_some(&world, 25), claim_some(&world, 25));
    let mut ids: Vec<_> = one.iter().chain(&two).map(|row| row.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), one.len() + two.len());
    assert_eq!(ids.len() + claim_some(&world, 40).await.len(), 40);
}

#[tokio::test]
async fn sending_reads_no_more_than_it_writes_of_a_program_that_the_statistics_do_not_know() {
    let mut world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    plan_all(&world, &[world.plan_item(lead, 1, "ann@studio.example.com", Start::Queued)]).await;
    world
        .execute(
            "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                                   state, message_id, enrichment_version, due_at, created_at, updated_at)
             SELECT program_id, gen_random_uuid(), lead_id, campaign, n, recipient_index, recipient_key, index_version,
                    state, message_id, enrichment_version, due_at, created_at, updated_at
             FROM outreach, generate_series(2, 3000) n",
        )
        .await;
    let before = world.entries_read("outreach").await;
    let mut claimed = Vec::new();
    for _ in 0..10 {
        claimed.extend(claim_some(&world, 5).await);
    }
    assert_eq!(claimed.len(), 50);
    let after_claims = world.entries_read("outreach").await;
    for mail in &claimed {
        assert!(begin(&world, mail).await);
    }
    let after_begins = world.entries_read("outreach").await;
    for mail in &claimed {
        assert_eq!(settle_one(&world, mail, Outcome::Sent).await.as_deref(), Some("sent"));
    }
    let after_settlements = world.entries_read("outreach").await;
    // Each finds the places of those before it as well, until they are cleaned up.
    for (what, read) in [
        ("claims", after_claims - before),
        ("moves to the data phase", after_begins - after_claims),
        ("settlements", after_settlements - after_begins),
    ] {
        assert!(read < 1_000, "{what}: {read} index entries for 50 mails out of 3,000");
    }
    world.database.cleanup().await;
}

#[tokio::test]
async fn kept_plans_are_made_once() {
    let mut world = World::new().await;
    world.db = Db::new(&DbConfig { max_connections: 1, ..DbConfig::new(world.database.url()) }).unwrap();
    let mut claimed = Vec::new();
    for n in 0..10 {
        let name = format!("ann{n}");
        let lead = world.enriched(profile(&name)).await;
        let address = format!("{name}@studio.example.com");
        plan_all(&world, &[world.plan_item(lead, 1, &address, Start::Queued)]).await;
        claimed.extend(claim_some(&world, 1).await);
    }
    for mail in &claimed {
        assert!(begin(&world, mail).await);
        assert_eq!(settle_one(&world, mail, Outcome::Sent).await.as_deref(), Some("sent"));
    }
    let of_updates = "SELECT statement, custom_plans, generic_plans FROM pg_prepared_statements
                      WHERE statement ~ '^UPDATE (outreach|enriched_leads) .*UNNEST' AND generic_plans > 5";
    let kept: Vec<(String, i64, i64)> = world
        .db
        .transact("test.plans", |tx, _| Box::pin(async move { Ok(sqlx::query_as(of_updates).fetch_all(tx).await?) }))
        .await
        .unwrap();
    assert_eq!(kept.len(), 3, "of the move to the data phase, the settlement and the note at the lead: {kept:?}");
    assert!(kept.iter().all(|(_, custom, generic)| (*custom, *generic) == (0, 10)), "{kept:?}");
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_lease_that_ran_out_before_the_body_returns_to_the_queue_and_its_owner_may_not_send() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert_eq!(expire(&world).await, Expired { requeued: 1, uncertain: 0 });
    assert!(!begin(&world, &claimed).await);
    let again = claim_some(&world, 1).await.remove(0);
    assert!(!begin(&world, &claimed).await);
    assert!(begin(&world, &again).await);
}

#[tokio::test]
async fn a_lease_that_ran_out_during_the_body_is_uncertain_and_only_its_owner_may_resolve_it() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert!(begin(&world, &claimed).await);
    assert_eq!(expire(&world).await, Expired { requeued: 0, uncertain: 1 });
    assert_eq!(state(&world, claimed.id).await, "uncertain lease_expired");
    assert!(claim_some(&world, 10).await.is_empty());
    let stranger = Claimed { token: LeaseToken::generate(), ..claimed.clone() };
    assert_eq!(settle_one(&world, &stranger, Outcome::Sent).await, None);
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await.as_deref(), Some("sent"));
}

#[tokio::test]
async fn nobody_is_written_to_who_objected_between_claim_and_body() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    suppress(&world, "ann@studio.example.com").await;
    assert!(!begin(&world, &claimed).await);
    abort(&world, &claimed).await;
    assert_eq!(state(&world, claimed.id).await, "cancelled suppressed");
}

#[tokio::test]
async fn an_objection_cancels_what_waits() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let planned = plan_all(&world, &[world.plan_item(lead, 1, "ann@studio.example.com", Start::Queued)]).await;
    let [Planned::Queued(id)] = planned[..] else { panic!("{planned:?}") };
    suppress(&world, "ann@studio.example.com").await;
    assert_eq!(state(&world, id).await, "cancelled suppressed");
    assert!(claim_some(&world, 10).await.is_empty());
}

#[tokio::test]
async fn nobody_is_written_to_who_was_erased_or_whose_program_is_paused() {
    let world = World::new().await;
    let (ann, bob) = (claimed(&world, "ann").await, claimed(&world, "bob").await);
    world.erase(ann.lead_id).await;
    assert!(!begin(&world, &ann).await);
    abort(&world, &ann).await;
    assert_eq!(state(&world, ann.id).await, "cancelled erased");
    world.execute("UPDATE programs SET paused = true").await;
    assert!(!begin(&world, &bob).await);
    abort(&world, &bob).await;
    assert_eq!(state(&world, bob.id).await, "queued");
    world.execute("UPDATE outreach SET due_at = now() WHERE due_at IS NOT NULL").await;
    assert!(claim_some(&world, 10).await.is_empty());
}

#[tokio::test]
async fn a_hard_bounce_suppresses_the_address() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert!(begin(&world, &claimed).await);
    let outcome = Outcome::Failed { reason: "no_such_mailbox".to_owned(), hard_bounce: true };
    assert_eq!(settle_one(&world, &claimed, outcome).await.as_deref(), Some("failed"));
    assert_eq!(world.count("SELECT count(*) FROM suppressions WHERE reason = 'hard_bounce'").await, 1);
}

#[tokio::test]
async fn a_deferred_mail_comes_back_until_four_days_have_passed() {
    let world = World::new().await;
    let deferred = || Outcome::Deferred { reason: "greylisted".to_owned(), after: Duration::ZERO };
    let first = claimed(&world, "ann").await;
    assert!(begin(&world, &first).await);
    assert_eq!(settle_one(&world, &first, deferred()).await.as_deref(), Some("deferred"));
    let second = claim_some(&world, 1).await.remove(0);
    assert_eq!(second.attempts, 2);
    assert!(begin(&world, &second).await);
    world.execute("UPDATE outreach SET created_at = now() - interval '5 days'").await;
    assert_eq!(settle_one(&world, &second, deferred()).await.as_deref(), Some("failed"));
}

#[tokio::test]
async fn nothing_counts_as_sent_that_never_reached_the_data_phase() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await, None);
    assert_eq!(state(&world, claimed.id).await, "connecting");
}

#[tokio::test]
async fn a_captured_mail_is_kept_complete_and_can_be_released() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let token = LeaseToken::generate();
    let planned = plan_all(&world, &[world.plan_item(lead, 1, "ann@studio.example.com", Start::Claimed(token))]).await;
    let [Planned::Claimed(id)] = planned[..] else { panic!("{planned:?}") };
    let key = world.open_lead(lead).await.key;
    let claimed = row(&world, id, lead, token);
    let mail = captured::seal(&key, id, b"Subject: hello\r\n\r\nhello\r\n");
    assert_eq!(settle_one(&world, &claimed, Outcome::Captured(mail)).await.as_deref(), Some("captured"));
    assert_eq!(world.count("SELECT count(*) FROM enriched_leads WHERE sent OR contacted").await, 0);
    let (program, vault) = (world.id(), &world.vault);
    let mails = world
        .db
        .transact("test.mails", |tx, _| {
            Box::pin(async move { captured::page(tx, vault, program, None, None, 10).await })
        })
        .await
        .unwrap();
    assert_eq!(mails[0].message, b"Subject: hello\r\n\r\nhello\r\n");
    let requeued = world
        .db
        .transact("test.requeue", |tx, _| Box::pin(async move { store::outreach::requeue_captured(tx, program).await }))
        .await
        .unwrap();
    assert_eq!(requeued, 1);
    assert_eq!(world.count("SELECT count(*) FROM captured_mails").await, 0);
    assert_eq!(claim_some(&world, 10).await.len(), 1);
}

fn row(world: &World, id: OutreachId, lead: LeadId, token: LeaseToken) -> Claimed {
    Claimed {
        program_id: world.id(),
        id,
        lead_id: lead,
        step: domain::outreach::CampaignStep::first(),
        message_id: String::new(),
        attempts: 1,
        token,
        created_at: NOW,
    }
}

#[tokio::test]
async fn nothing_is_captured_for_somebody_who_objected_or_was_erased() {
    let world = World::new().await;
    let (ann, bob) = (claimed(&world, "ann").await, claimed(&world, "bob").await);
    let (ann_key, bob_key) = (world.open_lead(ann.lead_id).await.key, world.open_lead(bob.lead_id).await.key);
    suppress(&world, "ann@studio.example.com").await;
    world.erase(bob.lead_id).await;
    for (claimed, key) in [(&ann, ann_key), (&bob, bob_key)] {
        let outcome = Outcome::Captured(captured::seal(&key, claimed.id, b"x"));
        assert_eq!(settle_one(&world, claimed, outcome).await.as_deref(), Some("cancelled"));
    }
    assert_eq!(world.count("SELECT count(*) FROM captured_mails").await, 0);
}

#[tokio::test]
async fn replicas_share_one_budget() {
    let world = World::new().await;
    let program = world.id();
    let take = |wanted| {
        let db = world.db.clone();
        async move {
            db.transact("test.budget", |tx, _| {
                Box::pin(async move { claim::take_budget(tx, program, Span::Day, 10, wanted).await })
            })
            .await
            .unwrap()
        }
    };
    let (one, two, three) = tokio::join!(take(4), take(4), take(4));
    assert_eq!(one + two + three, 10);
    assert_eq!(take(1).await, 0);
}
