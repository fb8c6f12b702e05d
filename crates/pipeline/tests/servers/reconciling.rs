//! The reconciler: leads whose message is gone are told of again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::Admin;
use domain::id::{LeadId, ProgramId};
use pipeline::{OutboxConfig, ReconcilerConfig, jobs, reconciler};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::{Bench, Running, created, soon};

const CREATED: &str = "lead.created";
const ENRICHED: &str = "lead.enriched";

fn hasty() -> ReconcilerConfig {
    ReconcilerConfig {
        observe_every: Duration::from_millis(50),
        rest: Duration::ZERO,
        grace: Duration::ZERO,
        page: 7,
        ..ReconcilerConfig::default()
    }
}

fn start(bench: &Bench, running: &Running, config: ReconcilerConfig) -> (CancellationToken, JoinHandle<()>) {
    let cancel = CancellationToken::new();
    let admin = Admin::new(bench.broker.clone());
    let job = reconciler::job(config, running.outbox.clone(), admin);
    let reconciling = jobs::run(bench.db.clone(), vec![job], cancel.clone());
    (cancel, tokio::spawn(reconciling))
}

async fn program(bench: &Bench, slug: &str) -> ProgramId {
    let id = ProgramId::generate();
    bench
        .execute(&format!(
            "INSERT INTO programs (id, slug, name, sender_name, wrapped_keys, created_at, updated_at)
             VALUES ('{id}', '{slug}', 'x', 'x', '', now(), now())"
        ))
        .await;
    id
}

/// Leads that were accepted an hour ago, with nothing in the outbox.
async fn leads(bench: &Bench, program: ProgramId, count: usize) -> Vec<LeadId> {
    let ids: Vec<LeadId> = (0..count).map(|_| LeadId::generate()).collect();
    let rows = |row: &dyn Fn(&LeadId) -> String| ids.iter().map(row).collect::<Vec<_>>().join(", ");
    let lead = |id: &LeadId| {
        let index = id.as_uuid().simple().to_string();
        format!("('{program}', '{id}', 'test', '\\x{index}', 1, now() - interval '1 hour', now() - interval '1 hour')")
    };
    bench
        .execute(&format!(
            "INSERT INTO leads (program_id, id, source, username_index, index_version, created_at, updated_at) VALUES {}",
            rows(&lead)
        ))
        .await;
    let key = |id: &LeadId| format!("('{program}', '{id}', '')");
    bench.execute(&format!("INSERT INTO lead_keys VALUES {}", rows(&key))).await;
    ids
}

async fn enrich_all(bench: &Bench) {
    bench
        .execute(
            "INSERT INTO enriched_leads
                 (program_id, lead_id, id, niche, score, compliant, ai_confidence, provider, lead_revision,
                  created_at, updated_at)
             SELECT program_id, id, id, 'fitness', 80, true, 0.9, 'local', revision, updated_at, updated_at FROM leads",
        )
        .await;
}

/// Waits until the reconciler has found both queues empty, and looked at all leads, more than once: at a page at least each
/// time.
async fn look_again(bench: &Bench) {
    const TIMES: usize = 2 * (60 / 7 + 3);
    let observed = "SELECT count(*) FROM queue_observations WHERE empty_at > clock_timestamp() - interval '1 minute'";
    for _ in 0..TIMES {
        bench.execute("UPDATE queue_observations SET empty_at = empty_at - interval '1 hour'").await;
        bench.wait_for_number(observed, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_without_a_message_are_told_of_once_until_queues_vanish_again() {
    let bench = Bench::new().await;
    let running = bench.outbox(OutboxConfig::default());
    for slug in ["one", "two"] {
        let program = program(&bench, slug).await;
        leads(&bench, program, 30).await;
    }
    let (cancel, ended) = start(&bench, &running, hasty());
    bench.namespace.wait_for_depth(CREATED, 60).await;

    // As if they had been handled without success: they aren't told of again so soon.
    bench.namespace.purge(CREATED).await;
    look_again(&bench).await;
    assert_eq!(bench.namespace.depth(CREATED).await, Some(0));
    cancel.cancel();
    soon(ended).await.unwrap();

    enrich_all(&bench).await;
    let (cancel, ended) = start(&bench, &running, hasty());
    bench.namespace.wait_for_depth(ENRICHED, 60).await;
    assert_eq!(bench.namespace.depth(CREATED).await, Some(0));

    bench.namespace.delete_all_queues().await;
    bench.namespace.wait_for_depth(ENRICHED, 60).await;
    assert_eq!(bench.namespace.depth(CREATED).await, Some(0), "leads that are enriched were told of");
    cancel.cancel();
    soon(ended).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_in_many_slices_comes_to_the_last_lead() {
    let bench = Bench::new().await;
    for slug in ["one", "two", "three"] {
        let program = program(&bench, slug).await;
        leads(&bench, program, 10).await;
    }
    enrich_all(&bench).await;
    bench.execute("UPDATE enriched_leads SET decision = 'declined', decided_version = 1, decided_at = now()").await;
    let last = "(SELECT program_id, lead_id FROM enriched_leads ORDER BY program_id DESC, lead_id DESC LIMIT 1)";
    bench.execute(&format!("DELETE FROM enriched_leads WHERE (program_id, lead_id) = {last}")).await;
    let running = bench.outbox(OutboxConfig::default());
    // Each slice ends after its first page.
    let config = ReconcilerConfig { observe_every: Duration::from_millis(1), page: 2, ..hasty() };
    let (cancel, ended) = start(&bench, &running, config);
    bench.namespace.wait_for_depth(CREATED, 1).await;
    cancel.cancel();
    soon(ended).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_erased_or_still_in_the_outbox_is_left_alone() {
    let bench = Bench::new().await;
    let program = program(&bench, "one").await;
    let ids = leads(&bench, program, 4).await;
    bench.execute(&format!("DELETE FROM lead_keys WHERE lead_id = '{}'", ids[0])).await;
    let mut waiting = created();
    waiting.envelope.program_id = program;
    waiting.envelope.lead_id = ids[1];
    bench.insert(vec![waiting]).await;
    bench.execute("UPDATE outbox SET available_at = now() + interval '1 hour'").await;
    let running = bench.outbox(OutboxConfig::default());
    let (cancel, ended) = start(&bench, &running, hasty());
    bench.namespace.wait_for_depth(CREATED, 2).await;
    for id in &ids[2..] {
        let message = bench.namespace.get(CREATED).await.unwrap();
        assert!(String::from_utf8_lossy(&message.data).contains(&id.to_string()));
    }

    enrich_all(&bench).await;
    bench.namespace.wait_for_depth(ENRICHED, 2).await;
    bench.execute("UPDATE enriched_leads SET decision = 'declined', decided_version = 1, decided_at = now()").await;
    bench.namespace.delete_all_queues().await;
    // The reconciler has declared them again.
    bench.namespace.wait_for_depth(ENRICHED, 0).await;
    look_again(&bench).await;
    assert_eq!(bench.namespace.depth(ENRICHED).await, Some(0));
    assert_eq!(bench.namespace.depth(CREATED).await, Some(0));
    cancel.cancel();
    soon(ended).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_reconciles_and_another_takes_over_and_queues_arent_overfilled() {
    let bench = Bench::new().await;
    let program = program(&bench, "one").await;
    leads(&bench, program, 100).await;
    let running = bench.outbox(OutboxConfig::default());
    let config = ReconcilerConfig { max_depth: 40, ..hasty() };
    let (cancel_first, first) = start(&bench, &running, config.clone());
    bench.namespace.wait_for_depth(CREATED, 40).await;
    let (cancel_second, second) = start(&bench, &running, config);
    assert_eq!(bench.number("SELECT count(*) FROM leases").await, 1);
    cancel_first.cancel();
    soon(first).await.unwrap();
    bench.namespace.purge(CREATED).await;
    // The second begins anew, with the first forty: nothing was written for them.
    bench.namespace.wait_for_depth(CREATED, 40).await;
    bench.namespace.purge(CREATED).await;
    bench.namespace.wait_for_depth(CREATED, 40).await;
    bench.namespace.purge(CREATED).await;
    bench.namespace.wait_for_depth(CREATED, 20).await;
    cancel_second.cancel();
    soon(second).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_an_older_versions_reconciler_keeps_this_one_from_running() {
    let bench = Bench::new().await;
    let program = program(&bench, "one").await;
    leads(&bench, program, 3).await;
    bench.execute("INSERT INTO leases VALUES ('reconciler', gen_random_uuid(), now() + interval '1 hour')").await;
    let running = bench.outbox(OutboxConfig::default());
    let runs = Arc::new(AtomicUsize::new(0));
    let witness = {
        let runs = Arc::clone(&runs);
        jobs::Job::of_rows("witness", "Shows that time passes", move |_| {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok(0) }
        })
    };
    let admin = Admin::new(bench.broker.clone());
    let jobs = vec![
        reconciler::job(hasty(), running.outbox.clone(), admin),
        witness.scheduled(jobs::Schedule::every(Duration::from_millis(20))),
    ];
    let cancel = CancellationToken::new();
    let ended = tokio::spawn(jobs::run(bench.db.clone(), jobs, cancel.clone()));
    let passing = async {
        while runs.load(Ordering::SeqCst) < 20 {
            // Nobody tells of runs, so there is nothing to wait for but the next look.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(passing).await;
    assert_eq!(bench.number("SELECT count(*) FROM queue_observations").await, 0, "it ran beside the older one");
    bench.execute("UPDATE leases SET expires_at = now() WHERE name = 'reconciler'").await;
    bench.namespace.wait_for_depth(CREATED, 3).await;
    cancel.cancel();
    soon(ended).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_envelope_in_the_outbox_does_not_stop_the_reconciler() {
    let bench = Bench::new().await;
    let program = program(&bench, "one").await;
    leads(&bench, program, 3).await;
    bench.insert(vec![created()]).await;
    bench.execute("UPDATE outbox SET envelope = '\\xff00', available_at = now() + interval '1 hour'").await;
    let running = bench.outbox(OutboxConfig::default());
    let (cancel, ended) = start(&bench, &running, hasty());
    bench.namespace.wait_for_depth(CREATED, 3).await;
    cancel.cancel();
    soon(ended).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_that_an_older_version_changed_are_found_by_the_full_scan() {
    let bench = Bench::new().await;
    let program = program(&bench, "one").await;
    leads(&bench, program, 5).await;
    enrich_all(&bench).await;
    bench.execute("UPDATE enriched_leads SET decision = 'declined', decided_version = 1, decided_at = now()").await;
    bench.execute("UPDATE lead_keys SET awaited_revision = NULL").await;
    bench.execute("UPDATE leads SET revision = 2 WHERE id = (SELECT max(id::text)::uuid FROM leads)").await;
    let running = bench.outbox(OutboxConfig::default());
    let (cancel, ended) = start(&bench, &running, hasty());
    look_again(&bench).await;
    assert_eq!(bench.namespace.depth(CREATED).await, Some(0));
    let full_scan = reconciler::full_scan_job().unwrap();
    let ran = jobs::run_on_request(&bench.db, &full_scan, &CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!((ran.rows, ran.detail.as_deref()), (1, Some("5 leads checked")));
    bench.namespace.wait_for_depth(CREATED, 1).await;
    cancel.cancel();
    soon(ended).await.unwrap();
    running.stop().await;
    bench.cleanup().await;
}
