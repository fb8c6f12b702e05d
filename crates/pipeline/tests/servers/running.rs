//! The stage runner: what is acknowledged, when, and what becomes of the rest.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use broker::{Admin, Consumer, DeadInfo};
use domain::{
    event::{Envelope, Event, Outgoing, Queue, TraceContext},
    id::LeadId,
};
use pipeline::{OutboxConfig, RunnerConfig};
use test_support::proxy::TcpProxy;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::common::{Bench, Plan, Plans, Running, created, many_created, soon, without_retries};

const CREATED: &str = "lead.created";
const ENRICHED: &str = "lead.enriched";
const DEAD: &str = "lead.created.dead";
const EFFECTS: &str = "SELECT count(*) FROM effects";
const APPLICATIONS: &str = "SELECT count(*) FROM applications";
const ROWS: &str = "SELECT count(*) FROM outbox";

fn quick() -> OutboxConfig {
    OutboxConfig { sweep_every: Duration::from_millis(50), ..OutboxConfig::default() }
}

async fn bench() -> (Bench, Running) {
    let bench = Bench::new().await;
    let running = bench.outbox(quick());
    (bench, running)
}

async fn dead_letters(bench: &Bench) -> Vec<DeadInfo> {
    Admin::new(bench.broker.clone()).list_dead(Queue::LeadCreated, 100).await.unwrap()
}

/// Nothing waits, nothing is in hand, nothing is on its way.
async fn nothing_is_left(bench: &Bench) {
    bench.namespace.wait_for_depth(CREATED, 0).await;
    bench.wait_for_number(ROWS, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_has_its_effect_and_is_told_of_once() {
    let (bench, running) = bench().await;
    bench.publish(&running, &many_created(500)).await;
    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.wait_for_number(EFFECTS, 500).await;
    bench.namespace.wait_for_depth(ENRICHED, 500).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    assert_eq!(bench.number(APPLICATIONS).await, 500);
    assert!(bench.number("SELECT max(batch_size)::bigint FROM effects").await > 10, "nothing was applied in sets");
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_effect_isnt_committed_comes_again() {
    let (bench, running) = bench().await;
    let (reached, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    bench.publish(&running, &[created()]).await;
    let plan = Plan::CommitBehind { reached: Arc::clone(&reached), gate };
    let runner = bench.runner(&running, Plans::always(plan), RunnerConfig::default());
    soon(reached.acquire()).await.unwrap().forget();
    runner.hard.cancel();
    soon(runner.ended).await.unwrap();
    bench.namespace.wait_for_depth(CREATED, 1).await;
    assert_eq!(bench.number(EFFECTS).await, 0);

    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.wait_for_number(EFFECTS, 1).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_leads_to_a_second_delivery_and_no_second_effect() {
    let (bench, running) = bench().await;
    let proxy = TcpProxy::start(bench.namespace.server()).await.unwrap();
    let mut broker = bench.broker.clone();
    broker.url = proxy.through(&broker.url);
    let (reached, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    bench.publish(&running, &[created()]).await;
    let plan = Plan::CommitBehind { reached: Arc::clone(&reached), gate: Arc::clone(&gate) };
    let runner = bench.runner_through(&broker, &running, Plans::always(plan), RunnerConfig::default());
    soon(reached.acquire()).await.unwrap().forget();
    proxy.cut();
    gate.add_permits(1);
    bench.wait_for_number(EFFECTS, 1).await;
    proxy.restore();
    gate.add_permits(1);
    bench.wait_for_number(APPLICATIONS, 2).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    assert_eq!(bench.namespace.depth(ENRICHED).await, Some(1), "it was told of twice");
    running.stop().await;
    bench.cleanup().await;
}

/// Twenty events in one batch, one of them with `bad`; what becomes of them.
async fn one_of_twenty_goes_wrong(bad: Plan, reason: &str) {
    let (bench, running) = bench().await;
    let events = many_created(20);
    let poisoned = events[13].envelope.clone();
    bench.publish(&running, &events).await;
    let gate = Arc::new(Semaphore::new(20));
    let unlucky = poisoned.lead_id;
    let plan = move |envelope: &Envelope| {
        if envelope.lead_id == unlucky { bad.clone() } else { Plan::WriteBehind(Arc::clone(&gate)) }
    };
    let runner = bench.runner(&running, Plans::new(plan), without_retries());
    bench.wait_for_number(EFFECTS, 19).await;
    bench.namespace.wait_for_depth(DEAD, 1).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    let dead = dead_letters(&bench).await;
    assert_eq!(dead[0].event_id, Some(poisoned.event_id));
    assert!(dead[0].reason.contains(reason), "{:?}", dead[0].reason);
    assert_eq!(bench.number(APPLICATIONS).await, 19, "what failed left something behind");
    assert_eq!(bench.namespace.depth(ENRICHED).await, Some(19));
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_fails_a_batch_is_found_and_the_others_pass() {
    one_of_twenty_goes_wrong(Plan::FailInApply, "division by zero").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_panics_while_applying_costs_that_delivery_alone() {
    one_of_twenty_goes_wrong(Plan::PanicInApply, "panicked while applying").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_panics_while_preparing_costs_that_delivery_alone() {
    one_of_twenty_goes_wrong(Plan::PanicInPrepare, "panicked while preparing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stage_rejects_becomes_a_dead_letter_with_its_reason() {
    one_of_twenty_goes_wrong(Plan::Reject("no such lead"), "no such lead").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_keeps_the_event_id_counts_the_attempt_and_bothers_nobody_else() {
    let (bench, running) = bench().await;
    bench.namespace.declare("audit", &["lead.created"]).await;
    let event = created();
    let seen: Arc<Mutex<Vec<Envelope>>> = Arc::default();
    let log = Arc::clone(&seen);
    let plan = move |envelope: &Envelope| {
        log.lock().unwrap().push(envelope.clone());
        if envelope.attempt < 2 { Plan::Later(Duration::from_millis(300)) } else { Plan::Write }
    };
    let runner = bench.runner(&running, Plans::new(plan), RunnerConfig::default());
    let began = std::time::Instant::now();
    bench.publish(&running, std::slice::from_ref(&event)).await;
    bench.wait_for_number(EFFECTS, 1).await;
    assert!(began.elapsed() >= Duration::from_millis(600), "the delays weren't kept");
    runner.stop().await;
    nothing_is_left(&bench).await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|envelope| envelope.attempt).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(seen.iter().all(|envelope| envelope.event_id == event.envelope.event_id));
    assert_eq!(bench.namespace.depth("audit").await, Some(1), "another queue saw the retries");
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_put_off_too_often_becomes_a_dead_letter() {
    let (bench, running) = bench().await;
    bench.publish(&running, &[created()]).await;
    let config = RunnerConfig { max_attempts: 3, ..RunnerConfig::default() };
    let runner = bench.runner(&running, Plans::always(Plan::Later(Duration::ZERO)), config);
    bench.namespace.wait_for_depth(DEAD, 1).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    let dead = dead_letters(&bench).await;
    assert_eq!(dead[0].reason, "tried 3 times, at last: not yet");
    assert_eq!(dead[0].attempt, 2);
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_somebody_else_counts_as_no_attempt() {
    let (bench, running) = bench().await;
    let event = created();
    let waits = 5;
    let seen: Arc<Mutex<Vec<Envelope>>> = Arc::default();
    let log = Arc::clone(&seen);
    let plan = move |envelope: &Envelope| {
        let mut seen = log.lock().unwrap();
        seen.push(envelope.clone());
        if seen.len() <= waits { Plan::InProgress(Duration::from_millis(20)) } else { Plan::Write }
    };
    bench.publish(&running, std::slice::from_ref(&event)).await;
    let config = RunnerConfig { max_attempts: 2, ..RunnerConfig::default() };
    let runner = bench.runner(&running, Plans::new(plan), config);
    bench.wait_for_number(EFFECTS, 1).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    assert_eq!(bench.namespace.depth(DEAD).await, Some(0));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), waits + 1);
    assert!(seen.iter().all(|envelope| (envelope.event_id, envelope.attempt) == (event.envelope.event_id, 0)));
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cant_be_read_becomes_a_dead_letter_and_the_queue_goes_on() {
    let (bench, running) = bench().await;
    let mut newer: String = String::from_utf8(created().envelope.encode()).unwrap();
    newer = newer.replace("\"schema_version\":1", "\"schema_version\":9");
    for body in [
        &b"\xff not json"[..],
        br#"{"schema_version":1,"type":"lead.created","lead_id":"ann@example.com"}"#,
        newer.as_bytes(),
    ] {
        bench.namespace.publish(CREATED, body, None).await;
    }
    bench.publish(&running, &[created()]).await;
    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.wait_for_number(EFFECTS, 1).await;
    bench.namespace.wait_for_depth(DEAD, 3).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    let reasons: BTreeSet<_> = dead_letters(&bench).await.into_iter().map(|letter| letter.reason).collect();
    assert!(reasons.iter().any(|reason| reason.contains("it isn't JSON")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("it isn't an envelope")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("schema version 9")), "{reasons:?}");
    assert!(!format!("{reasons:?}").contains("ann@"), "a reason quotes the message: {reasons:?}");
    running.stop().await;
    bench.cleanup().await;
}

/// Takes a message and gives it back, so often.
async fn bounce(bench: &Bench, times: u32) {
    let cancel = CancellationToken::new();
    let mut consumer = Consumer::start(bench.broker.clone(), Queue::LeadCreated, "bouncer", cancel);
    for count in 0..times {
        let delivery = soon(consumer.next()).await.unwrap();
        assert_eq!(delivery.delivery_count, count);
        consumer.acker().release(delivery.tag);
    }
    let last = soon(consumer.next()).await.unwrap();
    assert_eq!(last.delivery_count, times);
    soon(consumer.close()).await;
    bench.namespace.wait_for_depth(CREATED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_crashed_too_many_processes_isnt_handled_any_more() {
    let (bench, running) = bench().await;
    bench.publish(&running, &[created()]).await;
    // Closing counts once more.
    bounce(&bench, pipeline::runner::DEAD_ABOVE).await;
    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.namespace.wait_for_depth(DEAD, 1).await;
    runner.stop().await;
    assert_eq!(dead_letters(&bench).await[0].reason, "came back 11 times without being acknowledged");
    assert_eq!(bench.number(APPLICATIONS).await, 0);
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_is_handled_by_itself() {
    let (bench, running) = bench().await;
    let suspect = created();
    let lead = suspect.envelope.lead_id;
    bench.publish(&running, &[suspect]).await;
    bounce(&bench, pipeline::runner::ALONE_ABOVE).await;
    bench.publish(&running, &many_created(100)).await;
    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.wait_for_number(EFFECTS, 101).await;
    runner.stop().await;
    let query = format!("SELECT batch_size::bigint FROM effects WHERE lead_id = '{lead}'");
    assert_eq!(bench.number(&query).await, 1);
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_events_of_one_lead_never_share_a_batch() {
    let (bench, running) = bench().await;
    let lead = LeadId::generate();
    let program = created().envelope.program_id;
    let events: Vec<Outgoing> = (0..50)
        .map(|_| {
            let mut event = created();
            event.envelope.lead_id = lead;
            event.envelope.program_id = program;
            event
        })
        .collect();
    bench.publish(&running, &events).await;
    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.wait_for_number(APPLICATIONS, 50).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    assert_eq!(bench.number("SELECT batch_size::bigint FROM effects").await, 1);
    assert_eq!(bench.namespace.depth(ENRICHED).await, Some(1));
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_shutdown_finishes_what_is_in_hand_and_leaves_the_rest() {
    let (bench, running) = bench().await;
    bench.publish(&running, &many_created(50)).await;
    let begun = Arc::new(AtomicU32::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let (counter, closed) = (Arc::clone(&begun), Arc::clone(&gate));
    let plan = move |_: &Envelope| {
        counter.fetch_add(1, Ordering::SeqCst);
        Plan::WriteBehind(Arc::clone(&closed))
    };
    let config = RunnerConfig { concurrency: 10, ..RunnerConfig::default() };
    let runner = bench.runner(&running, Plans::new(plan), config);
    soon(async {
        while begun.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    runner.soft.cancel();
    gate.add_permits(50);
    soon(runner.ended).await.unwrap();
    assert_eq!(bench.number(EFFECTS).await, 10);
    bench.namespace.wait_for_depth(CREATED, 40).await;
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_waited_out_and_costs_no_attempt() {
    let bench = Bench::new().await;
    let authority = bench.database.url().split('/').nth(2).unwrap();
    let postgres = authority.rsplit('@').next().unwrap().to_owned();
    let proxy = TcpProxy::start(postgres).await.unwrap();
    let direct = bench.db.clone();
    let config = store::DbConfig::new(proxy.through(bench.database.url()));
    let bench = Bench { db: store::Db::new(&config).unwrap(), ..bench };
    let running = bench.outbox(quick());
    let (reached, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let plan = Plan::CommitBehind { reached: Arc::clone(&reached), gate: Arc::clone(&gate) };
    let runner = bench.runner(&running, Plans::always(plan), without_retries());
    bench.publish(&running, &[created()]).await;
    soon(reached.acquire()).await.unwrap().forget();
    // The COMMIT finds no server.
    proxy.cut();
    gate.add_permits(2);
    proxy.wait_for(|counts| counts.refused > 1).await;
    proxy.restore();
    bench.wait_for_number(EFFECTS, 1).await;
    runner.stop().await;
    nothing_is_left(&bench).await;
    assert_eq!(bench.namespace.depth(DEAD).await, Some(0));
    assert_eq!(bench.namespace.depth(ENRICHED).await, Some(1));
    running.stop().await;
    direct.close().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_of_an_event_belongs_to_its_trace() {
    let (bench, running) = bench().await;
    let mut event = created();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    event.trace = TraceContext { traceparent: Some(traceparent.clone()), tracestate: None };
    bench.publish(&running, &[event]).await;
    let runner = bench.runner(&running, Plans::always(Plan::Write), RunnerConfig::default());
    bench.namespace.wait_for_depth(ENRICHED, 1).await;
    runner.stop().await;
    let cancel = CancellationToken::new();
    let mut consumer = Consumer::start(bench.broker.clone(), Queue::LeadEnriched, "witness", cancel);
    let told = soon(consumer.next()).await.unwrap();
    assert_eq!(told.trace.traceparent, Some(traceparent));
    assert!(matches!(told.envelope().unwrap().event, Event::LeadEnriched { .. }));
    soon(consumer.close()).await;
    running.stop().await;
    bench.cleanup().await;
}
