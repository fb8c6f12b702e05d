//! The outbox.

use std::time::Duration;

use crate::world::{NOW, World};
use domain::{
    event::{Envelope, Event, Outgoing, Queue, Route, TraceContext},
    id::LeadId,
};
use store::{
    outbox::{self, Claimed, Leased},
    reconcile,
};

fn event(world: &World, route: Route) -> Outgoing {
    let trace = TraceContext { traceparent: Some("00-1-2-01".to_owned()), tracestate: None };
    Outgoing { envelope: Envelope::new(world.id(), LeadId::generate(), 1, NOW, Event::LeadCreated {}), route, trace }
}

async fn insert(world: &World, events: Vec<Outgoing>) -> Vec<Leased> {
    world
        .db
        .transact("test.insert", |tx, _| {
            let events = events.clone();
            Box::pin(async move { outbox::insert(tx, events).await })
        })
        .await
        .unwrap()
}

async fn claim(world: &World, limit: i64) -> Vec<Leased> {
    claim_and_skip(world, limit).await.rows
}

async fn claim_and_skip(world: &World, limit: i64) -> Claimed {
    world.db.transact("test.claim", |tx, _| Box::pin(async move { outbox::claim_due(tx, limit).await })).await.unwrap()
}

async fn delete(world: &World, rows: &[Leased]) -> u64 {
    world.db.transact("test.delete", |tx, _| Box::pin(async move { outbox::delete(tx, rows).await })).await.unwrap()
}

#[tokio::test]
async fn a_row_belongs_to_its_writer_until_its_lease_ends() {
    let world = World::new().await;
    let written = insert(&world, vec![event(&world, Route::Exchange), event(&world, Route::Exchange)]).await;
    assert!(claim(&world, 10).await.is_empty());
    world.execute("UPDATE outbox SET available_at = now() - interval '1 second'").await;
    let claimed = claim(&world, 10).await;
    assert_eq!(claimed.len(), 2);
    assert!(claim(&world, 10).await.is_empty());
    // The writer comes too late: the rows are the sweeper's now.
    assert_eq!(delete(&world, &written).await, 0);
    assert_eq!(delete(&world, &claimed).await, 2);
}

#[tokio::test]
async fn a_claimed_row_is_the_event_that_was_written() {
    let world = World::new().await;
    let sent = event(&world, Route::Queue(Queue::LeadEnriched));
    world
        .db
        .transact("test.schedule", |tx, _| {
            let sent = sent.clone();
            Box::pin(async move { outbox::schedule(tx, &[(sent, Duration::ZERO)]).await })
        })
        .await
        .unwrap();
    let claimed = claim(&world, 10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].outgoing, sent);
}

#[tokio::test]
async fn a_retry_waits_for_its_due_time_and_shows_as_scheduled() {
    let world = World::new().await;
    let sent = event(&world, Route::Queue(Queue::LeadCreated));
    let depth = world
        .db
        .transact("test.schedule", |tx, _| {
            let sent = sent.clone();
            Box::pin(async move {
                outbox::schedule(tx, &[(sent, Duration::from_hours(1))]).await?;
                outbox::depth(tx).await
            })
        })
        .await
        .unwrap();
    assert_eq!((depth.due, depth.scheduled), (0, 1));
    assert!(claim(&world, 10).await.is_empty());
}

#[tokio::test]
async fn two_sweepers_share_the_due_rows() {
    two_sweepers_share(&World::new().await).await;
}

async fn two_sweepers_share(world: &World) {
    insert(world, (0..200).map(|_| event(world, Route::Exchange)).collect()).await;
    world.execute("UPDATE outbox SET available_at = now() - interval '1 second'").await;
    let (one, two) = tokio::join!(claim(world, 200), claim(world, 200));
    let mut ids: Vec<_> = one.iter().chain(&two).map(|row| row.outgoing.envelope.event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), one.len() + two.len());
    assert_eq!(ids.len() as u64, delete(world, &[one, two].concat()).await);
}

#[tokio::test]
async fn a_row_with_an_unknown_queue_or_an_unreadable_envelope_is_skipped_and_the_others_are_claimed() {
    let world = World::new().await;
    // As a newer version's migration would have it.
    world.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_queue_check").await;
    let written = insert(&world, (0..6).map(|_| event(&world, Route::Queue(Queue::LeadCreated))).collect()).await;
    let id = |index: usize| written[index].outgoing.envelope.event_id;
    world.execute(&format!("UPDATE outbox SET queue = 'lead.replied' WHERE id = '{}'", id(1))).await;
    world.execute(&format!("UPDATE outbox SET envelope = 'nonsense' WHERE id = '{}'", id(3))).await;
    world.execute(&format!("UPDATE outbox SET envelope = '\\xff00' WHERE id = '{}'", id(4))).await;
    world.execute("UPDATE outbox SET available_at = now() - interval '1 second'").await;
    let claimed = claim_and_skip(&world, 10).await;
    let mut found: Vec<_> = claimed.rows.iter().map(|row| row.outgoing.envelope.event_id).collect();
    found.sort_unstable();
    assert_eq!((found, claimed.skipped), (vec![id(0), id(2), id(5)], 3));
    assert_eq!(delete(&world, &claimed.rows).await, 3);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 3, "what can't be read stays for who can");
}

#[tokio::test]
async fn an_envelope_that_nobody_can_read_does_not_hide_the_leads_that_wait_in_the_outbox() {
    let world = World::new().await;
    let written = insert(&world, (0..4).map(|_| event(&world, Route::Exchange)).collect()).await;
    for (row, envelope) in written.iter().zip(["nonsense", "\\xff00", r#"{"lead_id": "nobody"}"#]) {
        let id = row.outgoing.envelope.event_id;
        world.execute(&format!("UPDATE outbox SET envelope = '{envelope}' WHERE id = '{id}'")).await;
    }
    let leads: Vec<LeadId> = written.iter().map(|row| row.outgoing.envelope.lead_id).collect();
    let asked = leads.as_slice();
    let waiting = world
        .db
        .transact("test.waiting", |tx, _| Box::pin(async move { reconcile::still_in_outbox(tx, asked).await }))
        .await
        .unwrap();
    assert_eq!(waiting, [leads[3]].into());
}

/// The outbox as an operator with many cores may have it.
const PARTITIONS: &str = include_str!("../../../../deploy/outbox-partitions.sql");

#[tokio::test]
async fn a_row_of_a_partitioned_outbox_is_claimed_once_and_no_other_in_its_place() {
    let world = World::new().await;
    let before = insert(&world, vec![event(&world, Route::Exchange)]).await;
    world.execute(PARTITIONS).await;
    assert_eq!(delete(&world, &before).await, 1, "what waited is still there, and still its writer's");
    insert(&world, (0..100).map(|_| event(&world, Route::Exchange)).collect()).await;
    // Rows at the same place in several partitions are what a claim could mix up.
    assert!(world.count("SELECT count(DISTINCT tableoid) FROM outbox WHERE ctid = '(0,1)'").await > 1);
    world.execute("UPDATE outbox SET available_at = now() - interval '1 second'").await;

    let depth = async || world.db.transact("test.depth", |tx, _| Box::pin(outbox::depth(tx))).await.unwrap();
    let mut claimed = Vec::new();
    for left in (0..100).rev() {
        let row = claim(&world, 1).await;
        assert_eq!(row.len(), 1);
        assert_eq!(depth().await.due, left);
        claimed.extend(row);
    }
    assert!(claim(&world, 1).await.is_empty());
    assert_eq!(depth().await.scheduled, 100);
    assert_eq!(delete(&world, &claimed).await, 100);
    assert_eq!(depth().await.scheduled, 0);
}

#[tokio::test]
async fn two_sweepers_share_the_due_rows_of_a_partitioned_outbox() {
    let world = World::new().await;
    world.execute(PARTITIONS).await;
    two_sweepers_share(&world).await;
}

#[tokio::test]
async fn the_reconciler_finds_what_waits_in_a_partitioned_outbox() {
    let world = World::new().await;
    world.execute(PARTITIONS).await;
    let waiting = event(&world, Route::Exchange);
    let lead = waiting.envelope.lead_id;
    insert(&world, vec![waiting]).await;
    let asking = world.db.transact("test.waiting", |tx, _| {
        Box::pin(async move { reconcile::still_in_outbox(tx, &[lead, LeadId::generate()]).await })
    });
    assert_eq!(asking.await.unwrap(), [lead].into());
}

#[tokio::test]
async fn a_claim_reads_what_is_due_and_not_the_whole_outbox_partitioned_or_not() {
    let world = World::new().await;
    for partitioned in [false, true] {
        if partitioned {
            world.execute(PARTITIONS).await;
        }
        insert(&world, (0..5_000).map(|_| event(&world, Route::Exchange)).collect()).await;
        world.execute("UPDATE outbox SET available_at = now() - interval '1 second'").await;
        let reading = world.db.transact("test.claim", |tx, _| {
            Box::pin(async move {
                assert_eq!(outbox::claim_due(tx, 10).await?.rows.len(), 10);
                let read =
                    "SELECT sum(seq_tup_read)::bigint FROM pg_stat_xact_user_tables WHERE relname LIKE 'outbox%'";
                Ok(sqlx::query_scalar::<_, i64>(read).fetch_one(tx).await?)
            })
        });
        assert_eq!(reading.await.unwrap(), 0, "partitioned: {partitioned}");
    }
}
