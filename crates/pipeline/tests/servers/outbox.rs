//! The outbox, against a real PostgreSQL and a real RabbitMQ.

use std::{collections::BTreeSet, time::Duration};

use crate::common::{Bench, many_created, soon};
use pipeline::OutboxConfig;
use test_support::proxy::TcpProxy;

const QUEUE: &str = "lead.created";
const ROWS: &str = "SELECT count(*) FROM outbox";

/// Leaves everything to the sweeper.
fn without_memory() -> OutboxConfig {
    OutboxConfig { buffer: 0, sweep_every: Duration::from_millis(50), ..OutboxConfig::default() }
}

/// The ids of all messages in the queue, after making sure that none is there twice.
async fn drain(bench: &Bench) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    while let Some(message) = bench.namespace.get(QUEUE).await {
        let id = message.delivery.properties.message_id().as_ref().unwrap().to_string();
        assert!(ids.insert(id), "a message is in the queue twice");
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_offered_is_published_once_and_its_rows_are_deleted() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig::default());
    let events = many_created(600);
    let expected: BTreeSet<_> = events.iter().map(|event| event.envelope.event_id.to_string()).collect();
    running.outbox.offer(bench.insert(events).await);
    bench.namespace.wait_for_depth(QUEUE, 600).await;
    bench.wait_for_number(ROWS, 0).await;
    running.stop().await;
    assert_eq!(drain(&bench).await, expected);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_event_doesnt_wait_for_company() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig::default());
    soon(running.publisher.ready()).await.unwrap();
    let rows = bench.insert(many_created(1)).await;
    let began = std::time::Instant::now();
    running.outbox.offer(rows);
    bench.namespace.wait_for_depth(QUEUE, 1).await;
    // Far below any timer of the outbox but above what a busy machine adds to a confirm.
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_buffer_is_published_when_rabbitmq_comes_back() {
    let bench = Bench::new().await;
    let proxy = TcpProxy::start(bench.namespace.server()).await.unwrap();
    let mut broker = bench.broker.clone();
    broker.url = proxy.through(&broker.url);
    let running =
        bench.outbox_through(&broker, OutboxConfig { fresh: Duration::from_mins(1), ..OutboxConfig::default() });
    soon(running.publisher.ready()).await.unwrap();
    proxy.cut();
    running.outbox.offer(bench.insert(many_created(300)).await);
    proxy.wait_for(|counts| counts.refused > 1).await;
    assert_eq!(bench.namespace.depth(QUEUE).await, Some(0));
    proxy.restore();
    bench.wait_for_number(ROWS, 0).await;
    running.stop().await;
    assert_eq!(drain(&bench).await.len(), 300);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_longer_than_the_buffers_patience_the_sweeper_delivers() {
    let bench = Bench::new().await;
    let proxy = TcpProxy::start(bench.namespace.server()).await.unwrap();
    let mut broker = bench.broker.clone();
    broker.url = proxy.through(&broker.url);
    proxy.cut();
    let running = bench.outbox_through(&broker, OutboxConfig { fresh: Duration::ZERO, ..without_memory() });
    running.outbox.offer(bench.insert(many_created(300)).await);
    bench.end_all_leases().await;
    proxy.wait_for(|counts| counts.refused > 1).await;
    assert_eq!(bench.number(ROWS).await, 300);
    assert_eq!(bench.number("SELECT count(*) FROM outbox WHERE available_at > now()").await, 0, "claimed in vain");
    proxy.restore();
    bench.wait_for_number(ROWS, 0).await;
    running.stop().await;
    assert_eq!(drain(&bench).await.len(), 300);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_in_the_buffer_is_the_sweepers() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig { buffer: 10, ..without_memory() });
    running.outbox.offer(bench.insert(many_created(100)).await);
    bench.wait_for_number(ROWS, 90).await;
    bench.end_all_leases().await;
    bench.wait_for_number(ROWS, 0).await;
    running.stop().await;
    assert_eq!(drain(&bench).await.len(), 100);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_leaves_nothing_to_the_sweeper() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig { buffer: 200, ..OutboxConfig::default() });
    soon(running.publisher.ready()).await.unwrap();
    for _ in 0..30 {
        let rows = bench.insert(many_created(100)).await;
        soon(running.outbox.room()).await;
        running.outbox.offer(rows);
    }
    bench.namespace.wait_for_depth(QUEUE, 3_000).await;
    running.stop().await;
    assert_eq!(bench.number(ROWS).await, 0);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_room_while_rabbitmq_is_away() {
    let bench = Bench::new().await;
    let proxy = TcpProxy::start(bench.namespace.server()).await.unwrap();
    let mut broker = bench.broker.clone();
    broker.url = proxy.through(&broker.url);
    let running = bench.outbox_through(&broker, OutboxConfig { buffer: 10, ..OutboxConfig::default() });
    soon(running.publisher.ready()).await.unwrap();
    proxy.cut();
    running.outbox.offer(bench.insert(many_created(100)).await);
    soon(running.outbox.room()).await;
    assert_eq!(bench.number(ROWS).await, 100);
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweepers_of_two_replicas_publish_each_row_once() {
    let bench = Bench::new().await;
    bench.insert(many_created(3_000)).await;
    bench.end_all_leases().await;
    let replicas = [bench.outbox(without_memory()), bench.outbox(without_memory())];
    bench.wait_for_number(ROWS, 0).await;
    bench.namespace.wait_for_depth(QUEUE, 3_000).await;
    for replica in replicas {
        replica.stop().await;
    }
    assert_eq!(bench.namespace.depth(QUEUE).await, Some(3_000));
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_buffer_is_published_before_a_shutdown_ends() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig::default());
    soon(running.publisher.ready()).await.unwrap();
    running.outbox.offer(bench.insert(many_created(2_000)).await);
    running.stop().await;
    assert_eq!(bench.number(ROWS).await, 0);
    assert_eq!(bench.namespace.depth(QUEUE).await, Some(2_000));
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_vanished_is_declared_again_and_gets_its_events() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig::default());
    soon(running.publisher.ready()).await.unwrap();
    bench.namespace.delete_queue(QUEUE).await;
    running.outbox.offer(bench.insert(many_created(50)).await);
    bench.wait_for_number(ROWS, 0).await;
    running.stop().await;
    assert_eq!(drain(&bench).await.len(), 50);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_for_a_queue_of_a_newer_version_stays_and_the_others_are_published() {
    let bench = Bench::new().await;
    bench.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_queue_check").await;
    bench.insert(many_created(10)).await;
    let unknown = "UPDATE outbox SET queue = 'lead.replied' WHERE id = (SELECT id FROM outbox ORDER BY id LIMIT 1)";
    assert_eq!(bench.execute(unknown).await, 1);
    bench.end_all_leases().await;
    // So few at once that the row is in the way of each claim.
    let running = bench.outbox(OutboxConfig { sweep: 1, ..OutboxConfig::default() });
    bench.namespace.wait_for_depth(QUEUE, 9).await;
    bench.wait_for_number(ROWS, 1).await;
    running.stop().await;
    bench.cleanup().await;
}
