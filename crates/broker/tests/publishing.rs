//! The publisher against a real RabbitMQ.

mod common;

use std::time::{Duration, Instant};

use broker::{Admin, BrokerConfig, BrokerError, Consumer, PublishFailure, Publisher};
use common::{all_ok, config, created, outgoing, soon};
use domain::{
    event::{Event, Queue, Route, TraceContext},
    id::OutreachId,
};
use lapin::types::AMQPValue;
use test_support::{amqp::AmqpNamespace, proxy::TcpProxy};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_confirmed_batch_of_a_thousand_arrives_complete_and_in_order() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    let batch = created(1000);
    assert!(all_ok(&publisher.publish(&batch).await.unwrap()));
    assert!(publisher.is_connected());
    let mut consumer =
        Consumer::start(config(&namespace), Queue::LeadCreated, "test-consumer", CancellationToken::new());
    for sent in &batch {
        let delivery = soon(consumer.next()).await.unwrap();
        assert_eq!(delivery.envelope().unwrap(), sent.envelope);
        consumer.acker().settle(delivery.tag);
    }
    consumer.close().await;
    namespace.wait_for_depth("lead.created", 0).await;
    publisher.close().await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_message_carries_what_the_envelope_and_the_trace_say() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    let mut sent = created(1).remove(0);
    sent.envelope.attempt = 3;
    sent.trace = TraceContext {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: None,
    };
    publisher.publish(std::slice::from_ref(&sent)).await.unwrap();
    let message = namespace.get("lead.created").await.unwrap();
    let properties = &message.properties;
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), sent.envelope.event_id.to_string());
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "lead.created");
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "leadmill");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!((*properties.delivery_mode(), *properties.timestamp()), (Some(2), Some(0)));
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["x-leadmill-attempt"], AMQPValue::LongLongInt(3));
    assert_eq!(headers["traceparent"], AMQPValue::LongString(sent.trace.traceparent.unwrap().into()));
    namespace.cleanup().await;
}

#[tokio::test]
async fn exactly_the_unroutable_message_of_a_batch_is_reported_and_the_next_batch_finds_its_queue_again() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    soon(publisher.ready()).await.unwrap();
    namespace.delete_queue("lead.enriched").await;
    let mut batch = created(200);
    batch[77] = outgoing(Event::LeadEnriched { enrichment_version: 1, score: 80 }, Route::Exchange);
    batch[150] = outgoing(Event::LeadCreated {}, Route::Queue(Queue::LeadEnriched));
    let results = publisher.publish(&batch).await.unwrap();
    for (index, result) in results.iter().enumerate() {
        let expected = if [77, 150].contains(&index) { Err(PublishFailure::Unroutable) } else { Ok(()) };
        assert_eq!(result, &expected, "message {index}");
    }
    assert_eq!(namespace.depth("lead.created").await, Some(198));

    assert!(all_ok(&publisher.publish(&[batch[77].clone(), batch[150].clone()]).await.unwrap()));
    assert_eq!(namespace.depth("lead.enriched").await, Some(2));
    namespace.cleanup().await;
}

#[tokio::test]
async fn an_event_that_nobody_needs_to_hear_is_published_without_a_queue() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    let contacted = Event::LeadContacted { outreach_id: OutreachId::generate(), campaign: "first".to_owned(), step: 1 };
    let batch = [outgoing(contacted, Route::Exchange)];
    assert!(all_ok(&publisher.publish(&batch).await.unwrap()));
    namespace.declare("somebody-listens", &["lead.contacted"]).await;
    assert!(all_ok(&publisher.publish(&batch).await.unwrap()));
    assert_eq!(namespace.depth("somebody-listens").await, Some(1));
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_retry_goes_to_its_own_queue_alone() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    soon(publisher.ready()).await.unwrap();
    namespace.declare("somebody-listens", &["lead.#"]).await;
    let batch = [outgoing(Event::LeadCreated {}, Route::Queue(Queue::LeadCreated))];
    assert!(all_ok(&publisher.publish(&batch).await.unwrap()));
    assert_eq!(namespace.depth("lead.created").await, Some(1));
    assert_eq!(namespace.depth("somebody-listens").await, Some(0));
    namespace.cleanup().await;
}

#[tokio::test]
async fn batches_from_many_tasks_dont_disturb_one_another() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let publisher = publisher.clone();
            tokio::spawn(async move { publisher.publish(&created(100)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert!(all_ok(&task.await.unwrap()));
    }
    assert_eq!(namespace.depth("lead.created").await, Some(1600));
    namespace.cleanup().await;
}

#[tokio::test]
async fn an_exchange_that_was_deleted_costs_one_batch_and_is_declared_again() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    soon(publisher.ready()).await.unwrap();
    namespace.delete_exchange().await;
    let batch = created(3);
    let results = publisher.publish(&batch).await.unwrap();
    for result in results {
        let Err(PublishFailure::Unconfirmed(why)) = result else { panic!("{result:?}") };
        assert!(why.contains("no exchange") || why.contains("NOT_FOUND") || why.contains("channel"), "{why}");
    }
    assert!(all_ok(&publisher.publish(&batch).await.unwrap()));
    assert_eq!(namespace.depth("lead.created").await, Some(3));
    namespace.cleanup().await;
}

#[tokio::test]
async fn it_reconnects_after_the_connection_was_cut() {
    let namespace = AmqpNamespace::new().await;
    let proxy = TcpProxy::start(namespace.server()).await.unwrap();
    let publisher =
        Publisher::new(BrokerConfig { url: proxy.through(namespace.url()), ..config(&namespace) }, "test-publisher");
    assert!(all_ok(&publisher.publish(&created(10)).await.unwrap()));

    proxy.cut();
    let while_cut = async {
        // lapin may still think itself connected, so the first batches can fail message by message.
        while let Ok(results) = publisher.publish(&created(10)).await {
            assert!(results.iter().all(|result| matches!(result, Err(PublishFailure::Unconfirmed(_)))), "{results:?}");
        }
    };
    soon(while_cut).await;
    assert!(!publisher.is_connected());
    let error = publisher.publish(&created(1)).await.unwrap_err();
    assert!(!error.is_permanent(), "{error:?}");

    proxy.restore();
    soon(publisher.ready()).await.unwrap();
    assert!(publisher.is_connected());
    namespace.purge("lead.created").await;
    assert!(all_ok(&publisher.publish(&created(10)).await.unwrap()));
    assert_eq!(namespace.depth("lead.created").await, Some(10));
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_costs_no_more_than_the_timeout() {
    let namespace = AmqpNamespace::new().await;
    let proxy = TcpProxy::start(namespace.server()).await.unwrap();
    let patience = Duration::from_millis(300);
    let silent = BrokerConfig {
        url: proxy.through(namespace.url()),
        confirm_timeout: patience,
        connect_timeout: patience,
        ..config(&namespace)
    };
    let publisher = Publisher::new(silent, "test-publisher");
    // With the patience of this test the first attempt may be too slow on a busy machine.
    soon(publisher.ready()).await.unwrap();
    let connections = proxy.counts().open;
    assert_eq!(connections, 1);

    proxy.freeze();
    let start = Instant::now();
    let results = publisher.publish(&created(5)).await;
    // Opening a channel or awaiting the confirms: either is cut short.
    match results {
        Ok(results) => assert!(results.iter().all(Result::is_err), "{results:?}"),
        Err(error) => assert!(matches!(error, BrokerError::Timeout { .. }), "{error:?}"),
    }
    let error = publisher.publish(&created(5)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Timeout { .. } | BrokerError::Connect(_)), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    // Neither the silent connection nor the one that never got a word stays behind.
    proxy.thaw();
    proxy.wait_for(|counts| counts.open == 0).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn while_the_server_is_away_a_batch_fails_at_once_and_nothing_is_sent() {
    let namespace = AmqpNamespace::new().await;
    let proxy = TcpProxy::start(namespace.server()).await.unwrap();
    proxy.cut();
    let publisher =
        Publisher::new(BrokerConfig { url: proxy.through(namespace.url()), ..config(&namespace) }, "test-publisher");
    assert!(matches!(publisher.publish(&created(1)).await, Err(BrokerError::Connect(_))));
    let refused = proxy.counts().refused;
    let error = publisher.publish(&created(1)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Away { .. }), "{error:?}");
    assert_eq!(proxy.counts().refused, refused, "the backoff was not kept");
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_queue_with_other_settings_is_named_with_what_differs() {
    let namespace = AmqpNamespace::new().await;
    Admin::new(config(&namespace)).declare_topology().await.unwrap();
    Admin::new(config(&namespace)).declare_topology().await.expect("declaring again changes nothing");
    let other = Admin::new(BrokerConfig { delivery_limit: 7, ..config(&namespace) });
    let error = other.declare_topology().await.unwrap_err();
    assert!(error.is_permanent());
    let BrokerError::TopologyMismatch { entity, detail } = error else { panic!("{error:?}") };
    assert_eq!(entity, format!("the queue `{}`", namespace.name("lead.created")));
    assert!(detail.contains("x-delivery-limit"), "{detail}");
    namespace.cleanup().await;
}

#[tokio::test]
async fn depths_name_every_queue_and_say_which_are_missing() {
    let namespace = AmqpNamespace::new().await;
    let admin = Admin::new(config(&namespace));
    assert!(admin.depths().await.unwrap().iter().all(|queue| queue.depth.is_none()));
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    publisher.publish(&created(4)).await.unwrap();
    let depths = admin.depths().await.unwrap();
    let seen: Vec<_> =
        depths.iter().map(|queue| (queue.queue, queue.dead, queue.depth.map(|depth| depth.ready))).collect();
    assert_eq!(
        seen,
        [
            (Queue::LeadCreated, false, Some(4)),
            (Queue::LeadCreated, true, Some(0)),
            (Queue::LeadEnriched, false, Some(0)),
            (Queue::LeadEnriched, true, Some(0)),
        ]
    );
    admin.delete_topology().await.unwrap();
    assert!(admin.depths().await.unwrap().iter().all(|queue| queue.depth.is_none()));
    namespace.cleanup().await;
}

#[tokio::test]
async fn publisher_and_consumer_move_to_another_node_when_theirs_goes_away() {
    let namespace = AmqpNamespace::new().await;
    let upstream = namespace.server();
    let nodes = [TcpProxy::start(upstream).await.unwrap(), TcpProxy::start(upstream).await.unwrap()];
    let url = nodes.each_ref().map(|node| node.through(namespace.url())).join(",");
    let config = BrokerConfig { url, ..config(&namespace) };

    // One node is away from the beginning; whoever begins with it goes on to the other.
    nodes[0].cut();
    assert!(Admin::new(config.clone()).server_version().await.unwrap().is_some());
    let publisher = Publisher::new(config.clone(), "test-publisher");
    soon(publisher.ready()).await.unwrap();
    let mut consumer = Consumer::start(config, Queue::LeadCreated, "test-consumer", CancellationToken::new());
    let mut all = created(20);
    let later = all.split_off(10);
    assert!(all_ok(&publisher.publish(&all).await.unwrap()));
    for sent in &all {
        let delivery = soon(consumer.next()).await.unwrap();
        assert_eq!(delivery.envelope().unwrap(), sent.envelope);
        consumer.acker().settle(delivery.tag);
    }
    namespace.wait_for_depth("lead.created", 0).await;

    // Now that one goes, and the first is back.
    nodes[0].restore();
    nodes[1].cut();
    soon(async {
        while !publisher.publish(&later).await.is_ok_and(|results| all_ok(&results)) {
            publisher.ready().await.unwrap();
        }
    })
    .await;
    let mut missing: Vec<_> = later.iter().map(|sent| sent.envelope.event_id).collect();
    while !missing.is_empty() {
        let delivery = soon(consumer.next()).await.unwrap();
        let id = delivery.envelope().unwrap().event_id;
        missing.retain(|wanted| *wanted != id);
        consumer.acker().settle(delivery.tag);
    }
    assert!(nodes[0].counts().open >= 2 && nodes[1].counts().open == 0);
    consumer.close().await;
    publisher.close().await;
    namespace.cleanup().await;
}
