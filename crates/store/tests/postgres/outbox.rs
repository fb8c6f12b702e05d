//! The outbox.

use std::time::Duration;

use crate::world::{NOW, World};
use domain::{
    event::{Envelope, Event, Outgoing, Queue, Route, TraceContext},
    id::LeadId,
};
use store::outbox::{self, Leased};

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
    let world = World::new().await;
    insert(&world, (0..200).map(|_| event(&world, Route::Exchange)).collect()).await;
    world.execute("UPDATE outbox SET available_at = now() - interval '1 second'").await;
    let (one, two) = tokio::join!(claim(&world, 200), claim(&world, 200));
    let mut ids: Vec<_> = one.iter().chain(&two).map(|row| row.outgoing.envelope.event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), one.len() + two.len());
    assert_eq!(ids.len() as u64, delete(&world, &[one, two].concat()).await);
}
