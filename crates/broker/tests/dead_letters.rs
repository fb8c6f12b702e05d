//! Dead letters against a real RabbitMQ.

mod common;

use broker::{Admin, BrokerError, Consumer, DeadLetter, DeadSelector, Delivery, Publisher, Replayed};
use common::{all_ok, config, created, soon};
use domain::event::{Envelope, Outgoing, Queue, TraceContext};
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use test_support::amqp::AmqpNamespace;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

const DIED_AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::milliseconds(1_234_567));

fn letter(outgoing: &Outgoing, reason: &str) -> DeadLetter {
    DeadLetter {
        queue: Queue::LeadCreated,
        body: outgoing.envelope.encode(),
        message_id: Some(outgoing.envelope.event_id.to_string()),
        reason: reason.to_owned(),
        attempt: outgoing.envelope.attempt,
        trace: TraceContext { traceparent: Some("00-trace-01".to_owned()), tracestate: None },
        died_at: DIED_AT,
    }
}

/// `count` dead letters of `lead.created`, each tried four times.
async fn bury(namespace: &AmqpNamespace, count: usize) -> Vec<Outgoing> {
    let publisher = Publisher::new(config(namespace), "test-publisher");
    let mut buried = created(count);
    for outgoing in &mut buried {
        outgoing.envelope.attempt = 4;
    }
    let letters: Vec<_> = buried.iter().map(|outgoing| letter(outgoing, "the model is on strike")).collect();
    assert!(all_ok(&publisher.publish_dead(&letters).await.unwrap()));
    publisher.close().await;
    buried
}

async fn consume_one(namespace: &AmqpNamespace) -> (Consumer, Delivery) {
    let mut consumer =
        Consumer::start(config(namespace), Queue::LeadCreated, "test-consumer", CancellationToken::new());
    let delivery = soon(consumer.next()).await.unwrap();
    (consumer, delivery)
}

#[tokio::test]
async fn a_delivery_that_was_given_up_is_listed_with_its_reason() {
    let namespace = AmqpNamespace::new().await;
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    let sent = created(1);
    publisher.publish(&sent).await.unwrap();
    let (consumer, delivery) = consume_one(&namespace).await;
    let dead = DeadLetter::from_delivery(&delivery, "lead 17 was never known", DIED_AT);
    assert!(all_ok(&publisher.publish_dead(&[dead]).await.unwrap()));
    consumer.acker().settle(delivery.tag);
    consumer.close().await;

    let listed = Admin::new(config(&namespace)).list_dead(Queue::LeadCreated, 10).await.unwrap();
    let [info] = listed.as_slice() else { panic!("{listed:?}") };
    let envelope = &sent[0].envelope;
    assert_eq!(info.reason, "lead 17 was never known");
    assert_eq!((info.event_id, info.lead_id), (Some(envelope.event_id), Some(envelope.lead_id)));
    assert_eq!(info.message_id.as_deref(), Some(envelope.event_id.to_string().as_str()));
    assert_eq!((info.died_at, info.attempt), (Some(DIED_AT), 0));
    assert_eq!((info.bytes, &info.body), (envelope.encode().len(), &envelope.encode()));
    namespace.wait_for_depth("lead.created", 0).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn looking_changes_neither_number_nor_order_however_often() {
    let namespace = AmqpNamespace::new().await;
    let buried = bury(&namespace, 12).await;
    let admin = Admin::new(config(&namespace));
    // More often than the delivery limit that RabbitMQ 4 sets by itself.
    for _ in 0..25 {
        let listed = admin.list_dead(Queue::LeadCreated, 10).await.unwrap();
        let seen: Vec<_> = listed.iter().map(|info| info.event_id.unwrap()).collect();
        let expected: Vec<_> = buried.iter().take(10).map(|outgoing| outgoing.envelope.event_id).collect();
        assert_eq!(seen, expected);
    }
    namespace.wait_for_depth("lead.created.dead", 12).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_replay_keeps_the_event_id_and_the_trace_and_starts_over() {
    let namespace = AmqpNamespace::new().await;
    let buried = bury(&namespace, 3).await;
    let admin = Admin::new(config(&namespace));
    let wanted = &buried[1].envelope;
    let selector = DeadSelector::Id(wanted.event_id.to_string());
    let replayed = admin.replay_dead(Queue::LeadCreated, &selector, 100).await.unwrap();
    assert_eq!(replayed, Replayed { replayed: 1, left: 2 });

    let (consumer, delivery) = consume_one(&namespace).await;
    let envelope = delivery.envelope().unwrap();
    assert_eq!(envelope, Envelope { attempt: 0, ..wanted.clone() });
    assert_eq!(delivery.message_id, Some(wanted.event_id.to_string()));
    assert_eq!(delivery.trace.traceparent.as_deref(), Some("00-trace-01"));
    consumer.close().await;
    let left: Vec<_> = admin.list_dead(Queue::LeadCreated, 10).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|info| info.event_id.unwrap()).collect();
    assert_eq!(left, [buried[0].envelope.event_id, buried[2].envelope.event_id]);
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_replay_of_all_goes_page_by_page_and_stops_at_the_limit() {
    let namespace = AmqpNamespace::new().await;
    bury(&namespace, 600).await;
    let admin = Admin::new(config(&namespace));
    let some = admin.replay_dead(Queue::LeadCreated, &DeadSelector::All, 10).await.unwrap();
    assert_eq!(some, Replayed { replayed: 10, left: 0 });
    namespace.wait_for_depth("lead.created.dead", 590).await;
    let rest = admin.replay_dead(Queue::LeadCreated, &DeadSelector::All, usize::MAX).await.unwrap();
    assert_eq!(rest, Replayed { replayed: 590, left: 0 });
    assert_eq!(admin.drop_dead(Queue::LeadCreated, &DeadSelector::All).await.unwrap(), 0);
    namespace.wait_for_depth("lead.created.dead", 0).await;
    namespace.wait_for_depth("lead.created", 600).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn a_replay_makes_the_work_queue_if_it_is_gone() {
    let namespace = AmqpNamespace::new().await;
    bury(&namespace, 2).await;
    namespace.delete_queue("lead.created").await;
    let admin = Admin::new(config(&namespace));
    let replayed = admin.replay_dead(Queue::LeadCreated, &DeadSelector::All, 10).await.unwrap();
    assert_eq!(replayed.replayed, 2);
    namespace.wait_for_depth("lead.created", 2).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn dropping_takes_the_chosen_ones_only() {
    let namespace = AmqpNamespace::new().await;
    let buried = bury(&namespace, 5).await;
    let admin = Admin::new(config(&namespace));
    let one = DeadSelector::Id(buried[3].envelope.event_id.to_string());
    assert_eq!(admin.drop_dead(Queue::LeadCreated, &one).await.unwrap(), 1);
    assert_eq!(admin.drop_dead(Queue::LeadCreated, &one).await.unwrap(), 0);
    namespace.wait_for_depth("lead.created.dead", 4).await;
    assert_eq!(admin.drop_dead(Queue::LeadCreated, &DeadSelector::All).await.unwrap(), 4);
    namespace.wait_for_depth("lead.created.dead", 0).await;
    namespace.wait_for_depth("lead.created", 0).await;
    namespace.cleanup().await;
}

#[tokio::test]
async fn noise_is_kept_listed_and_replayed_as_it_is() {
    let namespace = AmqpNamespace::new().await;
    let admin = Admin::new(config(&namespace));
    admin.declare_topology().await.unwrap();
    namespace.publish("lead.created", b"\xff\x00 no event", None).await;
    let (consumer, delivery) = consume_one(&namespace).await;
    assert!(delivery.envelope().is_err());
    let publisher = Publisher::new(config(&namespace), "test-publisher");
    let dead = DeadLetter::from_delivery(&delivery, "no event", DIED_AT);
    assert!(all_ok(&publisher.publish_dead(&[dead.clone(), dead]).await.unwrap()));
    consumer.acker().settle(delivery.tag);
    consumer.close().await;

    let listed = admin.list_dead(Queue::LeadCreated, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].event_id, listed[0].message_id.as_ref()), (None, None));
    assert_eq!(listed[0].body, b"\xff\x00 no event");
    admin.replay_dead(Queue::LeadCreated, &DeadSelector::All, 10).await.unwrap();
    assert_eq!(namespace.get("lead.created").await.unwrap().data, b"\xff\x00 no event");
    namespace.cleanup().await;
}

#[tokio::test]
async fn what_rabbitmq_itself_gives_up_lands_in_the_same_place() {
    let namespace = AmqpNamespace::new().await;
    let admin = Admin::new(config(&namespace));
    admin.declare_topology().await.unwrap();
    let sent = created(1).remove(0).envelope;
    namespace.publish("lead.created", &sent.encode(), None).await;
    let channel = namespace.channel().await;
    let queue = namespace.name("lead.created").into();
    let message = channel.basic_get(queue, BasicGetOptions::default()).await.unwrap().unwrap();
    message.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    namespace.wait_for_depth("lead.created.dead", 1).await;
    let listed = admin.list_dead(Queue::LeadCreated, 10).await.unwrap();
    assert_eq!(listed[0].reason, "broker: rejected");
    assert_eq!(listed[0].lead_id, Some(sent.lead_id));
    assert!(listed[0].died_at.is_some());
    namespace.cleanup().await;
}

#[tokio::test]
async fn asking_for_the_dead_letters_of_a_queue_that_doesnt_exist_says_so() {
    let namespace = AmqpNamespace::new().await;
    let error = Admin::new(config(&namespace)).list_dead(Queue::LeadEnriched, 1).await.unwrap_err();
    assert!(matches!(&error, BrokerError::NoSuchQueue { name } if *name == namespace.name("lead.enriched.dead")));
    namespace.cleanup().await;
}
