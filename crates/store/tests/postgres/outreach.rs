//! Planning, claiming, sending and settling.

use std::time::Duration;

use crate::world::{World, profile};
use domain::{
    id::{LeadId, LeaseToken, OutreachId},
    outreach::OutreachState,
};
use store::{
    Db, DbConfig, captured,
    outreach::{
        budget::{self, Span},
        claim::{self, Claimed, Expired},
        data_phase,
        plan::{self, PlanItem, Planned, Start},
        recipients,
        release::{self, Filter},
        settle::{self, Outcome, Settlement},
    },
    programs::Change,
    suppressions::{self, SuppressionReason},
};

const LEASE: i32 = 60;

async fn claim_some(world: &World, limit: i64) -> Vec<Claimed> {
    world.claim(limit).await.claimed
}

/// The planner's right to start a mail at once.
fn at_once(world: &World, token: LeaseToken) -> Start {
    let recipient = world.program.keys.email_index(&"ann@studio.example.com".parse().unwrap());
    Start::Claimed { token, seconds: LEASE, recipient, ignores_cap: true }
}

async fn begin(world: &World, claimed: &Claimed) -> bool {
    let lease = [(claimed.program_id, claimed.id, claimed.token)];
    world
        .db
        .with_kept_plans()
        .transact("test.begin", |tx, _| Box::pin(async move { data_phase::begin_data(tx, &lease, LEASE).await }))
        .await
        .unwrap()
        .contains(&claimed.id)
}

async fn abort(world: &World, claimed: &Claimed) {
    let lease = [(claimed.program_id, claimed.id, claimed.token)];
    world
        .db
        .with_kept_plans()
        .transact("test.abort", |tx, _| Box::pin(async move { data_phase::abort(tx, &lease).await }))
        .await
        .unwrap();
}

async fn settle_one(world: &World, claimed: &Claimed, outcome: Outcome) -> Option<OutreachState> {
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
            Box::pin(async move {
                settle::lock_keys(tx, settlement).await?;
                settle::settle(tx, settlement).await
            })
        })
        .await
        .unwrap();
    settled.rows.first().map(|settled| settled.state)
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
            Box::pin(async move {
                suppressions::add(tx, program, &recipient, SuppressionReason::Unsubscribed).await?;
                recipients::cancel_suppressed(tx, program, &recipient).await
            })
        })
        .await
        .unwrap();
}

/// Plans a mail for a new lead and claims it.
async fn claimed(world: &World, name: &str) -> Claimed {
    let lead = world.enriched(profile(name)).await;
    world.planned(lead, 1).await;
    claim_some(world, 1).await.remove(0)
}

#[tokio::test]
async fn a_mail_goes_from_plan_to_sent_and_marks_its_lead() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert!(begin(&world, &claimed).await);
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await, Some(OutreachState::Sent));
    assert_eq!(world.count("SELECT count(*) FROM enriched_leads WHERE sent AND contacted").await, 1);
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await, None);
    assert!(claim_some(&world, 10).await.is_empty());
}

#[tokio::test]
async fn the_same_decision_twice_plans_one_mail() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let item = || world.plan_item(lead, 1, Start::Queued);
    let (one, two) = (item(), item());
    assert!(matches!(world.plan(&[one]).await[..], [Planned::Queued(_)]));
    assert_eq!(world.plan(&[two]).await, [Planned::Stale]);
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
    let items = [world.plan_item(ann, 1, Start::Queued), world.plan_item(bob, 2, Start::Queued)];
    let planned = world.plan(&items).await;
    let [Planned::Queued(winner), Planned::Held(loser)] = planned[..] else { panic!("{planned:?}") };
    assert_eq!(world.state(loser).await, "held duplicate_recipient");

    // A newer enrichment speaks against the winner: it lets go of the recipient, and the other one follows.
    world
        .execute(&format!("UPDATE enriched_leads SET enrichment_version = 2, score = 3 WHERE lead_id = '{ann}'"))
        .await;
    assert_eq!(world.plan(&[world.plan_item(ann, 2, Start::Queued)]).await, [Planned::Declined]);
    assert_eq!(world.state(winner).await, "cancelled no_longer_qualified");
    assert_eq!(world.state(loser).await, "queued");
}

#[tokio::test]
async fn a_decision_is_recorded_with_all_its_reasons() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    world.execute("UPDATE enriched_leads SET score = 10").await;
    world.execute("UPDATE leads SET country = 'DE'").await;
    assert_eq!(world.plan(&[world.plan_item(lead, 1, Start::Queued)]).await, [Planned::Declined]);
    let reasons =
        world.text("SELECT decision || ' ' || array_to_string(decision_reasons, ' ') FROM enriched_leads").await;
    assert_eq!(reasons, "declined score_below_threshold:10<70 legal_denied:v2/email/de/opt_in/no_consent");
}

#[tokio::test]
async fn a_held_mail_waits_with_its_reason_and_is_released_with_it() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    world.set(Change { postal_address: Some(None), ..Change::default() }).await;
    let planned = world.plan(&[world.plan_item(lead, 1, at_once(&world, LeaseToken::generate()))]).await;
    let [Planned::Held(id)] = planned[..] else { panic!("{planned:?}") };
    assert_eq!(world.state(id).await, "held incomplete_sender");
    assert!(claim_some(&world, 10).await.is_empty());
    world.set(Change { postal_address: Some(Some("1 Main Street".to_owned())), ..Change::default() }).await;
    world.run_jobs().await;
    assert_eq!(claim_some(&world, 10).await.len(), 1);
}

#[tokio::test]
async fn two_mailers_never_claim_the_same_row() {
    let world = World::new().await;
    let mut items = Vec::new();
    for n in 0..40 {
        let lead = world.enriched(profile(&format!("user{n}"))).await;
        items.push(world.plan_item(lead, 1, Start::Queued));
    }
    world.plan(&items).await;
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
    world.plan(&[world.plan_item(lead, 1, Start::Queued)]).await;
    world
        .execute(
            "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                                   state, message_id, enrichment_version, due_at, created_at, updated_at, law_version)
             SELECT program_id, gen_random_uuid(), lead_id, campaign, n, recipient_index, recipient_key, index_version,
                    state, message_id, enrichment_version, due_at, created_at, updated_at, law_version
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
        assert_eq!(settle_one(&world, mail, Outcome::Sent).await, Some(OutreachState::Sent));
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
        world.planned(lead, 1).await;
        claimed.extend(claim_some(&world, 1).await);
    }
    for mail in &claimed {
        assert!(begin(&world, mail).await);
        assert_eq!(settle_one(&world, mail, Outcome::Sent).await, Some(OutreachState::Sent));
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
    assert_eq!(world.state(claimed.id).await, "uncertain lease_expired");
    assert!(claim_some(&world, 10).await.is_empty());
    let stranger = Claimed { token: LeaseToken::generate(), ..claimed.clone() };
    assert_eq!(settle_one(&world, &stranger, Outcome::Sent).await, None);
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await, Some(OutreachState::Sent));
}

#[tokio::test]
async fn nobody_is_written_to_who_objected_between_claim_and_body() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    suppress(&world, "ann@studio.example.com").await;
    assert!(!begin(&world, &claimed).await);
    abort(&world, &claimed).await;
    assert_eq!(world.state(claimed.id).await, "cancelled suppressed");
}

#[tokio::test]
async fn an_objection_cancels_what_waits() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let planned = world.plan(&[world.plan_item(lead, 1, Start::Queued)]).await;
    let [Planned::Queued(id)] = planned[..] else { panic!("{planned:?}") };
    suppress(&world, "ann@studio.example.com").await;
    assert_eq!(world.state(id).await, "cancelled suppressed");
    assert!(claim_some(&world, 10).await.is_empty());
}

#[tokio::test]
async fn the_move_to_the_data_phase_waits_for_nobody_and_so_knows_what_holds_when_it_is_made() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    let mut holding = world.database.connect().await;
    for statement in ["BEGIN", "SELECT FROM outreach FOR NO KEY UPDATE"] {
        sqlx::raw_sql(statement).execute(&mut holding).await.unwrap();
    }
    let moved = tokio::time::timeout(Duration::from_secs(10), begin(&world, &claimed)).await;
    assert!(!moved.expect("it doesn't wait for the row"));
    sqlx::raw_sql("COMMIT").execute(&mut holding).await.unwrap();
    assert!(begin(&world, &claimed).await, "the row is as it was");
}

#[tokio::test]
async fn a_new_decision_locks_no_mail_that_a_mailer_has_in_hand() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    let again = [PlanItem::again(world.id(), claimed.lead_id)];
    world.set(Change { threshold: Some(95), ..Change::default() }).await;
    let world = &world;
    let (again, claimed) = (&again, &claimed);
    world
        .db
        .transact("test.decline", |tx, _| {
            Box::pin(async move {
                assert_eq!(plan::plan(tx, again).await?, [Planned::Declined]);
                // Not committed yet: so far, the mail is to be sent.
                assert!(begin(world, claimed).await, "the row isn't locked");
                Ok(())
            })
        })
        .await
        .unwrap();
    assert_eq!(world.state(claimed.id).await, "transmitting");
}

#[tokio::test]
async fn a_new_decision_waits_for_no_settlement_of_the_same_lead() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert!(begin(&world, &claimed).await);
    world.execute("UPDATE enriched_leads SET enrichment_version = 2").await;
    let mut settling = world.database.connect().await;
    for statement in ["BEGIN", "UPDATE outreach SET updated_at = now()"] {
        sqlx::raw_sql(statement).execute(&mut settling).await.unwrap();
    }
    let item = [world.plan_item(claimed.lead_id, 2, Start::Queued)];
    let planned = tokio::time::timeout(Duration::from_secs(10), world.plan(&item)).await;
    assert_eq!(planned.expect("it doesn't wait for the row").len(), 1);
    sqlx::raw_sql("COMMIT").execute(&mut settling).await.unwrap();
    assert_eq!(world.state(claimed.id).await, "transmitting");
}

#[tokio::test]
async fn nobody_is_written_to_who_was_erased_or_whose_program_is_paused() {
    let world = World::new().await;
    let (ann, bob) = (claimed(&world, "ann").await, claimed(&world, "bob").await);
    world.erase(ann.lead_id).await;
    assert!(!begin(&world, &ann).await);
    abort(&world, &ann).await;
    assert_eq!(world.state(ann.id).await, "cancelled erased");
    world.execute("UPDATE programs SET paused = true").await;
    assert!(!begin(&world, &bob).await);
    abort(&world, &bob).await;
    assert_eq!(world.state(bob.id).await, "queued");
    world.execute("UPDATE outreach SET due_at = now() WHERE due_at IS NOT NULL").await;
    assert!(claim_some(&world, 10).await.is_empty());
}

#[tokio::test]
async fn a_mail_that_is_in_hand_when_its_program_begins_to_rest_goes_back_without_an_attempt() {
    let world = World::new().await;
    let ann = claimed(&world, "ann").await;
    world.execute("UPDATE programs SET rest_from = now(), rest_until = now() + interval '1 hour'").await;
    assert!(!begin(&world, &ann).await);
    abort(&world, &ann).await;
    assert_eq!(world.state(ann.id).await, "queued");
    assert_eq!(world.text("SELECT concat(attempts, ' ', due_at <= now()) FROM outreach").await, "0 t");
}

#[tokio::test]
async fn a_hard_bounce_suppresses_the_address() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert!(begin(&world, &claimed).await);
    let outcome = Outcome::Failed { reason: "no_such_mailbox".to_owned(), hard_bounce: true };
    assert_eq!(settle_one(&world, &claimed, outcome).await, Some(OutreachState::Failed));
    assert_eq!(world.count("SELECT count(*) FROM suppressions WHERE reason = 'hard_bounce'").await, 1);
}

#[tokio::test]
async fn a_deferred_mail_comes_back_until_four_days_have_passed() {
    let world = World::new().await;
    let deferred = || Outcome::Deferred { reason: "greylisted".to_owned(), after: Duration::ZERO };
    let first = claimed(&world, "ann").await;
    assert!(begin(&world, &first).await);
    assert_eq!(settle_one(&world, &first, deferred()).await, Some(OutreachState::Deferred));
    let second = claim_some(&world, 1).await.remove(0);
    assert_eq!(second.attempts, 2);
    assert!(begin(&world, &second).await);
    world.execute("UPDATE outreach SET first_attempt_at = now() - interval '5 days'").await;
    assert_eq!(settle_one(&world, &second, deferred()).await, Some(OutreachState::Failed));
}

#[tokio::test]
async fn four_days_count_from_the_first_attempt_that_reached_a_server() {
    let world = World::new().await;
    let by_us = || Outcome::Postponed { reason: "not_committed".to_owned(), after: Duration::ZERO };
    let by_server = || Outcome::Deferred { reason: "later".to_owned(), after: Duration::ZERO };
    let first = claimed(&world, "ann").await;
    world.execute("UPDATE outreach SET created_at = now() - interval '30 days'").await;
    assert!(begin(&world, &first).await);
    // Our own database failed: nothing of the mail was sent, and no server was asked for it.
    assert_eq!(settle_one(&world, &first, by_us()).await, Some(OutreachState::Deferred));
    assert_eq!(world.count("SELECT count(*) FROM outreach WHERE first_attempt_at IS NULL").await, 1);
    let second = claim_some(&world, 1).await.remove(0);
    assert!(begin(&world, &second).await);
    assert_eq!(settle_one(&world, &second, by_server()).await, Some(OutreachState::Deferred));
    world.execute("UPDATE outreach SET first_attempt_at = now() - interval '5 days'").await;
    let third = claim_some(&world, 1).await.remove(0);
    assert!(begin(&world, &third).await);
    assert_eq!(settle_one(&world, &third, by_us()).await, Some(OutreachState::Deferred), "not a server's word");
    let fourth = claim_some(&world, 1).await.remove(0);
    assert!(begin(&world, &fourth).await);
    assert_eq!(settle_one(&world, &fourth, by_server()).await, Some(OutreachState::Failed));
}

#[tokio::test]
async fn nothing_counts_as_sent_that_never_reached_the_data_phase() {
    let world = World::new().await;
    let claimed = claimed(&world, "ann").await;
    assert_eq!(settle_one(&world, &claimed, Outcome::Sent).await, None);
    assert_eq!(world.state(claimed.id).await, "connecting");
}

#[tokio::test]
async fn a_captured_mail_is_kept_complete_and_can_be_released() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let token = LeaseToken::generate();
    let planned = world.plan(&[world.plan_item(lead, 1, at_once(&world, token))]).await;
    let [Planned::Claimed(id)] = planned[..] else { panic!("{planned:?}") };
    let key = world.open_lead(lead).await.key;
    let claimed = row(&world, id, lead, token);
    let mail = captured::seal(&key, id, b"Subject: hello\r\n\r\nhello\r\n");
    assert_eq!(settle_one(&world, &claimed, Outcome::Captured(mail)).await, Some(OutreachState::Captured));
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
    let released = release::release(&world.db, program, &Filter::Captured, |_| ()).await.unwrap();
    assert_eq!(released.queued, 1);
    assert_eq!(world.count("SELECT count(*) FROM captured_mails").await, 0);
    assert_eq!(claim_some(&world, 10).await.len(), 1);
}

fn row(world: &World, id: OutreachId, lead: LeadId, token: LeaseToken) -> Claimed {
    Claimed {
        program_id: world.id(),
        id,
        lead_id: lead,
        recipient: world.program.keys.email_index(&"ann@studio.example.com".parse().unwrap()),
        step: domain::outreach::CampaignStep::first(),
        message_id: String::new(),
        attempts: 1,
        token,
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
        assert_eq!(settle_one(&world, claimed, outcome).await, Some(OutreachState::Cancelled));
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
                Box::pin(async move { budget::take(tx, program, Span::Day, 10, wanted).await })
            })
            .await
            .unwrap()
            .1
        }
    };
    let (one, two, three) = tokio::join!(take(4), take(4), take(4));
    assert_eq!(one + two + three, 10);
    assert_eq!(take(1).await, 0);
}

#[tokio::test]
async fn a_limit_that_is_set_in_the_course_of_a_day_counts_the_mails_that_have_gone_out_before() {
    let world = World::new().await;
    let program = world.id();
    let first = claimed(&world, "ann").await;
    assert!(begin(&world, &first).await);
    assert_eq!(settle_one(&world, &first, Outcome::Sent).await, Some(OutreachState::Sent));
    let in_hand = claimed(&world, "bob").await;
    let take = async |limit| {
        world
            .db
            .transact("test.budget", |tx, _| Box::pin(budget::take(tx, program, Span::Day, limit, 10)))
            .await
            .unwrap()
            .1
    };
    world.set(Change { daily_cap: Some(Some(3)), ..Change::default() }).await;
    assert_eq!(take(3).await, 1, "one was sent, and one is in hand");
    assert_eq!(take(3).await, 0);
    // Without a limit no token is taken.
    world.set(Change { daily_cap: Some(None), ..Change::default() }).await;
    assert!(begin(&world, &in_hand).await);
    assert_eq!(settle_one(&world, &in_hand, Outcome::Sent).await, Some(OutreachState::Sent));
    world.set(Change { daily_cap: Some(Some(5)), ..Change::default() }).await;
    assert_eq!(take(5).await, 2, "tokens that were taken stay taken, whatever came of them");
}

#[tokio::test]
async fn a_limit_that_is_set_while_mails_are_claimed_forgets_none_of_their_tokens() {
    let world = World::new().await;
    let program = world.id();
    let take = || {
        let db = world.db.clone();
        async move {
            db.transact("test.budget", |tx, _| Box::pin(budget::take(tx, program, Span::Day, 10, 1))).await.unwrap().1
        }
    };
    assert_eq!(take().await, 1);
    let mut claiming = world.database.connect().await;
    for statement in ["BEGIN", "UPDATE send_budgets SET used = used + 5"] {
        sqlx::raw_sql(statement).execute(&mut claiming).await.unwrap();
    }
    let set = world.set(Change { daily_cap: Some(Some(10)), ..Change::default() });
    let claim = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        sqlx::raw_sql("COMMIT").execute(&mut claiming).await.unwrap();
    };
    tokio::join!(set, claim);
    assert_eq!(world.count("SELECT used::bigint FROM send_budgets").await, 6);
}

#[tokio::test]
async fn a_token_goes_back_to_the_window_that_it_was_taken_from() {
    let world = World::new().await;
    let program = world.id();
    let taken = world
        .db
        .transact("test.budget", |tx, _| Box::pin(async move { budget::take(tx, program, Span::Minute, 10, 10).await }))
        .await
        .unwrap();
    let (window, tokens) = taken;
    assert_eq!(tokens, 10);
    // The clock has gone on: the tokens of the window before are another row's.
    world
        .execute(
            "INSERT INTO send_budgets SELECT program_id, span, window_start + interval '1 minute', 4 FROM send_budgets",
        )
        .await;
    world
        .db
        .transact("test.budget", |tx, _| Box::pin(async move { budget::give_back(tx, program, window, 3).await }))
        .await
        .unwrap();
    let used = "SELECT string_agg(used::text, ' ' ORDER BY window_start) FROM send_budgets";
    assert_eq!(world.text(used).await, "7 4");
}

#[tokio::test]
async fn a_mail_that_is_planned_for_another_address_than_the_planner_read_is_not_started_by_it() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    let start = at_once(&world, LeaseToken::generate());
    // The planner has read ann@studio.example.com; since then the lead has got another address.
    world.change_address("ann", "ann@new.example").await;
    let planned = world.plan(&[world.plan_item(lead, 1, start)]).await;
    let [Planned::Queued(id)] = planned[..] else { panic!("{planned:?}") };
    let new = world.program.keys.email_index(&"ann@new.example".parse().unwrap());
    let claimed = claim_some(&world, 1).await.remove(0);
    assert_eq!((claimed.id, claimed.recipient), (id, new));
}
