//! Which leads are unfinished, and what it costs to find them.

use std::time::Duration;

use crate::world::{NOW, World, profile};
use domain::{
    event::Queue,
    id::{LeadId, ProgramId},
};
use sqlx::Connection as _;
use store::{
    enrichments::Written,
    intake::Dedupe,
    reconcile::{self, Checked, Page},
};
use time::OffsetDateTime;
use uuid::Uuid;

const START: LeadId = LeadId::from_uuid(Uuid::nil());
const LATER: OffsetDateTime = time::macros::datetime!(2100-01-01 00:00 UTC);

/// A page of what a queue's consumer should have handled.
async fn page(world: &World, queue: Queue, before: OffsetDateTime) -> Page {
    let program = world.id();
    let reading = world.db.transact("test.page", |tx, _| {
        Box::pin(async move {
            match queue {
                Queue::LeadCreated => reconcile::unenriched(tx, program, START, before, 500, NOW).await,
                Queue::LeadEnriched => reconcile::undecided(tx, program, START, before, 500, NOW).await,
            }
        })
    });
    reading.await.unwrap()
}

async fn lost(world: &World, queue: Queue) -> Vec<(LeadId, i32)> {
    let page = page(world, queue, LATER).await;
    page.lost.iter().map(|outgoing| (outgoing.envelope.lead_id, outgoing.envelope.revision)).collect()
}

async fn check(world: &World) -> Checked {
    let program = world.id();
    let checking = world.db.transact("test.check", |tx, _| {
        Box::pin(async move { reconcile::check_waiting(tx, program, START, 500).await })
    });
    checking.await.unwrap()
}

async fn awaited(world: &World, lead: LeadId) -> i64 {
    world.count(&format!("SELECT coalesce(awaited_revision, 0)::bigint FROM lead_keys WHERE lead_id = '{lead}'")).await
}

fn changed(name: &str, bio: &str) -> domain::lead::Profile {
    domain::lead::Profile { bio: Some(bio.to_owned()), ..profile(name) }
}

#[tokio::test]
async fn a_lead_waits_from_its_change_until_that_revision_is_enriched_and_then_for_a_decision() {
    let world = World::new().await;
    let ann = world.accept_one(profile("ann")).await;
    assert_eq!(lost(&world, Queue::LeadCreated).await, [(ann, 1)]);
    assert!(page(&world, Queue::LeadCreated, NOW).await.lost.is_empty(), "it changed too late");
    let first = world.open_lead(ann).await;
    assert_eq!(world.enrich(&first, 90).await, Written::New { version: 1 });
    assert!(lost(&world, Queue::LeadCreated).await.is_empty());
    assert_eq!(lost(&world, Queue::LeadEnriched).await, [(ann, 1)]);
    world.execute("UPDATE enriched_leads SET decision = 'declined', decided_version = 1").await;
    assert!(lost(&world, Queue::LeadEnriched).await.is_empty());

    world.accept(vec![changed("ann", "I bake cakes")], Dedupe::Update).await;
    assert_eq!(lost(&world, Queue::LeadCreated).await, [(ann, 2)]);
    // A late answer about the revision before doesn't end the wait.
    assert_eq!(world.enrich(&first, 10).await, Written::Stale);
    assert_eq!(awaited(&world, ann).await, 2);
    assert_eq!(world.enrich(&world.open_lead(ann).await, 80).await, Written::New { version: 2 });
    assert!(lost(&world, Queue::LeadCreated).await.is_empty());
    assert_eq!(lost(&world, Queue::LeadEnriched).await, [(ann, 2)]);

    world.erase(ann).await;
    assert!(lost(&world, Queue::LeadEnriched).await.is_empty());
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_lead_that_changes_while_it_is_enriched_goes_on_waiting() {
    let world = World::new().await;
    let ann = world.accept_one(profile("ann")).await;
    let first = world.open_lead(ann).await;
    let mut change = world.database.connect().await;
    let mut change = change.begin().await.unwrap();
    // What taking a change in does, not committed yet.
    let update = format!("UPDATE lead_keys SET awaited_revision = 2 WHERE lead_id = '{ann}'");
    sqlx::query(&update).execute(&mut *change).await.unwrap();
    let enriching = world.enrich(&first, 90);
    let committing = async {
        while world.count("SELECT count(*) FROM pg_locks WHERE NOT granted").await == 0 {
            // Nobody tells of a lock that is waited for, so there is nothing to wait for but the next look.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        change.commit().await.unwrap();
    };
    let (written, ()) = tokio::join!(enriching, committing);
    assert_eq!(written, Written::New { version: 1 });
    assert_eq!(awaited(&world, ann).await, 2);
    world.database.cleanup().await;
}

#[tokio::test]
async fn what_older_versions_wrote_is_set_right_in_both_directions() {
    let world = World::new().await;
    let ann = world.enriched(profile("ann")).await;
    let bob = world.enriched(profile("bob")).await;
    let eve = world.accept_one(profile("eve")).await;
    // An older enricher doesn't end the wait, an older collector doesn't begin one, and who was there before neither waits.
    world.execute(&format!("UPDATE lead_keys SET awaited_revision = 1 WHERE lead_id = '{ann}'")).await;
    world.execute(&format!("UPDATE leads SET revision = 2 WHERE id = '{bob}'")).await;
    world.execute(&format!("UPDATE lead_keys SET awaited_revision = NULL WHERE lead_id = '{eve}'")).await;
    assert!(lost(&world, Queue::LeadCreated).await.is_empty());
    assert_eq!(awaited(&world, ann).await, 0, "the scan sees that it is enriched");

    assert_eq!(check(&world).await, Checked { leads: 3, marked: 2, next: None });
    assert_eq!(lost(&world, Queue::LeadCreated).await, [(bob, 2), (eve, 1)]);
    assert_eq!(check(&world).await.marked, 0);
    world.database.cleanup().await;
}

/// Leads of a program that are enriched and decided about.
async fn finished_leads(world: &World, count: u32) {
    let program: ProgramId = world.id();
    world
        .execute(&format!(
            "INSERT INTO leads (program_id, id, source, username_index, index_version, created_at, updated_at)
             SELECT '{program}', gen_random_uuid(), 'instagram', decode(md5(n::text), 'hex'), 1, now(), now()
             FROM generate_series(1, {count}) AS n;
             INSERT INTO lead_keys (program_id, lead_id, wrapped_key, awaited_revision)
             SELECT program_id, id, '', NULL FROM leads;
             INSERT INTO enriched_leads (program_id, lead_id, id, niche, score, compliant, ai_confidence, provider,
                                         lead_revision, decision, decided_version, decided_at, created_at, updated_at)
             SELECT program_id, id, id, 'food', 80, true, 0.9, 'local', 1, 'declined', 1, now(), now(), now() FROM leads"
        ))
        .await;
}

#[tokio::test]
async fn a_scan_reads_the_unfinished_leads_and_nothing_of_a_hundred_thousand_finished_ones() {
    let mut world = World::new().await;
    finished_leads(&world, 100_000).await;
    let unfinished = world.accept((0..20).map(|n| profile(&format!("c{n}"))).collect(), Dedupe::Skip).await;
    for lead in &unfinished.items[10..] {
        let store::intake::Accepted::New(lead) = lead else { panic!("{lead:?}") };
        assert_eq!(world.enrich(&world.open_lead(*lead).await, 90).await, Written::New { version: 1 });
    }
    // Neither what the statistics don't know nor what they do makes a plan that reads more.
    for analysed in [false, true] {
        if analysed {
            world.execute("ANALYZE").await;
        }
        for queue in Queue::ALL {
            let tables = ["leads", "lead_keys", "enriched_leads"];
            let mut before = Vec::new();
            for table in tables {
                before.push(world.entries_read(table).await);
            }
            assert_eq!(lost(&world, queue).await.len(), 10);
            for (table, before) in tables.into_iter().zip(before) {
                let read = world.entries_read(table).await - before;
                assert!(read < 100, "{queue}: {read} index entries of {table}, analysed: {analysed}");
            }
        }
    }
    let scanned =
        "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname IN ('lead_keys', 'enriched_leads')";
    assert!(world.count(scanned).await < 300_000, "a scan read a whole table");
    world.database.cleanup().await;
}
