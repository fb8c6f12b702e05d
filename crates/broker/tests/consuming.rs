//! The consumer against a real RabbitMQ.

mod common;

use std::{collections::BTreeSet, time::Duration};

use broker::{BrokerConfig, Consumer, Delivery, DeliveryTag, Publisher};
use common::{all_ok, config, created, soon};
use domain::event::Queue;
use test_support::{amqp::AmqpNamespace, proxy::TcpProxy};
use tokio_util::sync::CancellationToken;

fn consume(config: BrokerConfig) -> (Consumer, CancellationToken) {
    let cancel = CancellationToken::new();
    (Consumer::start(config, Queue::LeadCreated, "test-consumer", cancel.clone()), cancel)
}

async fn publish(namespace: &AmqpNamespace, count: usize) -> Vec<String> {
    let publisher = Publisher::new(config(namespace), "test-publisher");
    let batch = created(count);
    assert!(all_ok(&publisher.publish(&batch).await.unwrap()));
    publisher.close().await;
    batch.iter().map(|outgoing| outgoing.envelope.event_id.to_string()).collect()
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        taken.push(soon(consumer.next()).await.expect("another delivery"));
    }
    taken
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.message_id.clone().expect("an id")).collect()
}

fn tags(deliveries: &[Delivery]) -> Vec<DeliveryTag> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

/// Makes sure that everything published before is acknowledged: what isn't comes back before anything newer.
async fn assert_all_acknowledged(namespace: &AmqpNamespace) {
    let sentinel = publish(namespace, 1).await;
    let (mut consumer, _cancel) = consume(config(namespace));
    let delivery = take(&mut consumer, 1).await;
    assert_eq!(ids(&delivery), sentinel, "something wasn't acknowledged");
    consumer.close().await;
}

#[tokio::test]
async fn what_is_settled_is_gone_and_what_isnt_comes_back() {
    let namespace = AmqpNamespace::new().await;
    let sent = publish(&namespace, 10).await;
    let (mut consumer, _cancel) = consume(config(&namespace));
    let deliveries = take(&mut consumer, 10).await;
    assert_eq!(ids(&deliveries), sent);
    assert!(deliveries.iter().all(|delivery| !delivery.redelivered && delivery.delivery_count == 0));
    // In any order, with a gap at 4, across which no `multiple` may reach.
    let acker = consumer.acker();
    for index in [2, 9, 0, 1, 3, 7] {
        acker.settle(deliveries[index].tag);
    }
    consumer.close().await;

    let (mut consumer, _cancel) = consume(config(&namespace));
    // Of those settled behind the gap it is only known that they may come again.
    let again: BTreeSet<_> = ids(&take(&mut consumer, 6).await).into_iter().collect();
    assert_eq!(again, [4, 5, 6, 7, 8, 9].map(|index| sent[index].clone()).into());
    consumer.close().await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn all_of_a_long_stream_is_acknowledged_in_the_end() {
    let namespace = AmqpNamespace::new().await;
    publish(&namespace, 1000).await;
    let (mut consumer, cancel) = consume(BrokerConfig { prefetch: 50, ..config(&namespace) });
    let acker = consumer.acker();
    for _ in 0..100 {
        let mut page = take(&mut consumer, 10).await;
        page.reverse();
        acker.settle_all(tags(&page));
    }
    cancel.cancel();
    assert_eq!(soon(consumer.next()).await, None);
    consumer.close().await;
    assert_all_acknowledged(&namespace).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn one_slow_delivery_doesnt_stop_the_queue() {
    let namespace = AmqpNamespace::new().await;
    publish(&namespace, 100).await;
    let (mut consumer, _cancel) = consume(BrokerConfig { prefetch: 4, ..config(&namespace) });
    let slow = take(&mut consumer, 1).await.remove(0);
    for _ in 0..99 {
        let delivery = take(&mut consumer, 1).await.remove(0);
        consumer.acker().settle(delivery.tag);
    }
    consumer.acker().settle(slow.tag);
    consumer.close().await;
    assert_all_acknowledged(&namespace).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_released_delivery_comes_again_and_is_counted() {
    let namespace = AmqpNamespace::new().await;
    publish(&namespace, 3).await;
    let (mut consumer, _cancel) = consume(config(&namespace));
    let acker = consumer.acker();
    let deliveries = take(&mut consumer, 3).await;
    // The last tag of the prefix is a released one, which an acknowledgement must not name.
    acker.settle_all(tags(&deliveries[..2]));
    acker.release(deliveries[2].tag);
    for count in 1..=3 {
        let again = take(&mut consumer, 1).await.remove(0);
        assert_eq!(again.message_id, deliveries[2].message_id);
        assert!(again.redelivered);
        assert_eq!(again.delivery_count, count);
        if count < 3 {
            acker.release(again.tag);
        } else {
            acker.settle(again.tag);
        }
    }
    assert!(consumer.is_connected(), "{:?}", consumer.status());
    consumer.close().await;
    assert_all_acknowledged(&namespace).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn it_declares_a_deleted_queue_again_and_goes_on() {
    let namespace = AmqpNamespace::new().await;
    publish(&namespace, 1).await;
    let (mut consumer, _cancel) =
        consume(BrokerConfig { idle_refresh: Duration::from_millis(500), ..config(&namespace) });
    let first = take(&mut consumer, 1).await;
    // The publisher declares the queue anew within milliseconds, and RabbitMQ may forget to tell the consumer.
    namespace.delete_all_queues().await;
    let mut missing: BTreeSet<_> = publish(&namespace, 5).await.into_iter().collect();
    consumer.acker().settle_all(tags(&first));
    while !missing.is_empty() {
        let again = take(&mut consumer, 1).await;
        missing.remove(&ids(&again)[0]);
        consumer.acker().settle_all(tags(&again));
    }
    consumer.close().await;
    assert_all_acknowledged(&namespace).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn an_idle_consumer_that_subscribes_anew_misses_nothing() {
    let namespace = AmqpNamespace::new().await;
    let (mut consumer, _cancel) =
        consume(BrokerConfig { idle_refresh: Duration::from_millis(20), ..config(&namespace) });
    for _ in 0..20 {
        let sent = publish(&namespace, 2).await;
        for id in sent {
            let delivery = take(&mut consumer, 1).await;
            assert_eq!(ids(&delivery), [id]);
            consumer.acker().settle_all(tags(&delivery));
        }
    }
    consumer.close().await;
    assert_all_acknowledged(&namespace).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn it_outlives_a_cut_connection_and_ignores_tags_from_before() {
    let namespace = AmqpNamespace::new().await;
    let sent = publish(&namespace, 6).await;
    let proxy = TcpProxy::start(namespace.server()).await.unwrap();
    let (mut consumer, _cancel) = consume(BrokerConfig { url: proxy.through(namespace.url()), ..config(&namespace) });
    let before = take(&mut consumer, 3).await;

    proxy.cut();
    proxy.wait_for(|counts| counts.refused > 0).await;
    assert!(!consumer.is_connected());
    assert!(consumer.status().error.is_some());
    assert_eq!(consumer.try_next(), None, "a delivery from before the cut was handed out");
    proxy.restore();

    let after = take(&mut consumer, 6).await;
    assert_eq!(ids(&after), sent);
    assert!(after.iter().all(|delivery| delivery.redelivered));
    assert!(after.iter().all(|delivery| delivery.delivery_count == 1));
    // The same numbers on another channel: nothing may come of it.
    consumer.acker().settle_all(tags(&before));
    consumer.acker().release_all(tags(&before));
    consumer.acker().settle_all(tags(&after[..1]));
    consumer.close().await;
    namespace.wait_for_depth("lead.created", 5).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn it_notices_a_server_that_falls_silent() {
    let namespace = AmqpNamespace::new().await;
    let proxy = TcpProxy::start(namespace.server()).await.unwrap();
    let (mut consumer, _cancel) = consume(BrokerConfig {
        url: proxy.through(namespace.url()),
        heartbeat: Duration::from_secs(1),
        ..config(&namespace)
    });
    publish(&namespace, 1).await;
    take(&mut consumer, 1).await;
    proxy.freeze();
    // The second connection is the one that it makes when the first has missed its heartbeats.
    proxy.wait_for(|counts| counts.total == 2).await;
    proxy.thaw();
    take(&mut consumer, 1).await;
    consumer.close().await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn it_waits_for_a_server_that_isnt_there_yet() {
    let namespace = AmqpNamespace::new().await;
    let proxy = TcpProxy::start(namespace.server()).await.unwrap();
    proxy.cut();
    let (mut consumer, _cancel) = consume(BrokerConfig { url: proxy.through(namespace.url()), ..config(&namespace) });
    proxy.wait_for(|counts| counts.refused >= 3).await;
    proxy.restore();
    let sent = publish(&namespace, 1).await;
    assert_eq!(ids(&take(&mut consumer, 1).await), sent);
    consumer.close().await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_cancelled_consumer_hands_out_what_had_arrived_and_takes_acknowledgements_to_the_end() {
    let namespace = AmqpNamespace::new().await;
    publish(&namespace, 20).await;
    let (mut consumer, cancel) = consume(BrokerConfig { prefetch: 8, ..config(&namespace) });
    let mut handled = take(&mut consumer, 2).await;
    namespace.wait_for_depth("lead.created", 12).await;
    cancel.cancel();
    while let Some(delivery) = soon(consumer.next()).await {
        handled.push(delivery);
    }
    assert_eq!(handled.len(), 8);
    assert_eq!(soon(consumer.next()).await, None);
    consumer.acker().settle_all(tags(&handled));
    consumer.close().await;
    namespace.wait_for_depth("lead.created", 12).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_dropped_consumer_gives_everything_back() {
    let namespace = AmqpNamespace::new().await;
    publish(&namespace, 20).await;
    let (mut consumer, _cancel) = consume(BrokerConfig { prefetch: 8, ..config(&namespace) });
    take(&mut consumer, 2).await;
    drop(consumer);
    namespace.wait_for_depth("lead.created", 20).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_consumer_of_a_queue_with_other_settings_says_what_is_wrong() {
    let namespace = AmqpNamespace::new().await;
    broker::Admin::new(config(&namespace)).declare_topology().await.unwrap();
    let (consumer, _cancel) = consume(BrokerConfig { delivery_limit: 7, ..config(&namespace) });
    let waiting = async {
        loop {
            if let Some(error) = consumer.status().error {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let error = soon(waiting).await;
    assert!(error.contains("exists with other settings") && error.contains("x-delivery-limit"), "{error}");
    consumer.close().await;
    namespace.cleanup().await;
}
