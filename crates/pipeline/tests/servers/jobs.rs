//! Jobs: due or asked for, one process at a time, recorded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pipeline::{
    Job,
    jobs::{self, CatchUp, Completed, RequestProgress, Schedule, Stopped, run_on_request},
};
use store::jobs::{Claimant, Claimed, RunOutcome};
use test_support::postgres::text;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::common::{Bench, soon};

const OFTEN: Schedule = Schedule::every(Duration::from_millis(20));
const NEVER: Schedule = Schedule::every(Duration::from_hours(1_000));

/// A process that runs jobs.
struct Process {
    cancel: CancellationToken,
    ended: JoinHandle<()>,
}

impl Process {
    fn start(bench: &Bench, jobs: Vec<Job>) -> Self {
        let cancel = CancellationToken::new();
        Self { ended: tokio::spawn(jobs::run(bench.db.clone(), jobs, cancel.clone())), cancel }
    }

    async fn stop(self) {
        self.cancel.cancel();
        soon(self.ended).await.unwrap();
    }
}

/// A job that counts its runs and handles a row in each.
fn counting(runs: &Arc<AtomicUsize>) -> Job {
    let runs = Arc::clone(runs);
    Job::of_rows("counting", "Counts its runs", move |_| {
        runs.fetch_add(1, Ordering::SeqCst);
        async { Ok(1) }
    })
}

async fn at_least(runs: &AtomicUsize, wanted: usize) {
    let waiting = async {
        while runs.load(Ordering::SeqCst) < wanted {
            // Nobody tells of runs, so there is nothing to wait for but the next look.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(waiting).await;
}

async fn ask(bench: &Bench, query: &str) -> String {
    text(&mut bench.database.connect().await, query).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_each_time_it_is_due_and_each_run_that_did_something_is_recorded() {
    let bench = Bench::new().await;
    let runs = Arc::default();
    let process = Process::start(&bench, vec![counting(&runs).scheduled(OFTEN)]);
    at_least(&runs, 3).await;
    process.stop().await;
    let recorded = "SELECT count(*) FROM job_runs WHERE job = 'counting' AND outcome = 'done' AND rows = 1
                    AND trigger = 'schedule' AND ended_at >= started_at";
    assert_eq!(bench.number(recorded).await, runs.load(Ordering::SeqCst) as i64);
    assert_eq!(bench.number("SELECT count(*) FROM leases").await, 0, "leases outlive their process");
    assert_eq!(bench.number("SELECT count(*) FROM jobs WHERE run_id IS NOT NULL").await, 0);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_found_nothing_to_do_leaves_no_record_but_the_time_of_its_end() {
    let bench = Bench::new().await;
    let runs: Arc<AtomicUsize> = Arc::default();
    let idle = {
        let runs = Arc::clone(&runs);
        Job::of_rows("idle", "Finds nothing", move |_| {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok(0) }
        })
    };
    let process = Process::start(&bench, vec![idle.scheduled(OFTEN)]);
    at_least(&runs, 3).await;
    process.stop().await;
    assert_eq!(bench.number("SELECT count(*) FROM job_runs").await, 0);
    assert_eq!(bench.number("SELECT count(*) FROM jobs WHERE last_ended_at IS NOT NULL").await, 1);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_processes_one_at_a_time_runs_a_job() {
    let bench = Bench::new().await;
    let (runs, at_once, most): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let job = {
        let (runs, at_once, most) = (Arc::clone(&runs), Arc::clone(&at_once), Arc::clone(&most));
        Job::of_rows("alone", "Is alone", move |db| {
            let (runs, at_once, most) = (Arc::clone(&runs), Arc::clone(&at_once), Arc::clone(&most));
            async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                db.transact("test.work", |tx, _| Box::pin(store::jobs::now(tx))).await?;
                at_once.fetch_sub(1, Ordering::SeqCst);
                runs.fetch_add(1, Ordering::SeqCst);
                Ok(1)
            }
        })
    };
    let often = job.scheduled(Schedule::every(Duration::from_millis(1)));
    let processes = [(); 3].map(|()| Process::start(&bench, vec![often.clone()]));
    at_least(&runs, 30).await;
    for process in processes {
        process.stop().await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(bench.number("SELECT count(*) FROM job_runs WHERE outcome <> 'done'").await, 0);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_runs_are_tried_again_and_those_in_a_row_are_one_record() {
    let bench = Bench::new().await;
    let runs: Arc<AtomicUsize> = Arc::default();
    let job = {
        let runs = Arc::clone(&runs);
        Job::new("failing", "Fails three times", move |_| {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => panic!("planned"),
                    1 | 2 => Err(format!("failure {run}").into()),
                    _ => Ok(Completed { rows: 7, detail: Some("at last".to_owned()) }),
                }
            }
        })
    };
    let process = Process::start(&bench, vec![job.scheduled(OFTEN)]);
    at_least(&runs, 5).await;
    process.stop().await;
    let records =
        "SELECT string_agg(outcome || ' ' || attempts || ' ' || rows || ' ' || detail, ', ' ORDER BY started_at)
                   FROM (SELECT * FROM job_runs ORDER BY started_at LIMIT 2) r";
    assert_eq!(ask(&bench, records).await, "failed 3 0 failure 2, done 1 7 at last");
    assert_eq!(bench.number("SELECT failures::bigint FROM jobs").await, 0);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_process_died_is_recorded_as_interrupted_and_followed_when_its_lease_has_ended() {
    let bench = Bench::new().await;
    let runs = Arc::default();
    let job = counting(&runs).scheduled(NEVER);
    jobs::register(&bench.db, [&job]).await.unwrap();
    let (holder, run) = (Uuid::now_v7(), Uuid::now_v7());
    let life = Duration::from_hours(1);
    let claimant = Claimant { job: "counting", lease: "job:counting", life, holder, run };
    let claimed = bench
        .db
        .transact("test.claim", |tx, _| {
            Box::pin(async move { store::jobs::claim(tx, claimant, Duration::from_mins(1)).await })
        })
        .await
        .unwrap();
    assert!(matches!(claimed, Claimed::Run { .. }), "{claimed:?}");

    let process = Process::start(&bench, vec![job]);
    let other = Arc::default();
    let witness = Process::start(
        &bench,
        vec![
            Job::of_rows("witness", "Shows that time passes", {
                let other = Arc::clone(&other);
                move |_| {
                    AtomicUsize::fetch_add(&other, 1, Ordering::SeqCst);
                    async { Ok(0) }
                }
            })
            .scheduled(OFTEN),
        ],
    );
    at_least(&other, 10).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0, "the lease still belongs to the process that died");
    bench.execute("UPDATE leases SET expires_at = now() WHERE name = 'job:counting'").await;
    at_least(&runs, 1).await;
    witness.stop().await;
    process.stop().await;
    let records = "SELECT string_agg(outcome || ' ' || trigger, ', ' ORDER BY started_at) FROM job_runs";
    assert_eq!(ask(&bench, records).await, "interrupted schedule, done catch_up");
    assert_eq!(bench.number(&format!("SELECT count(*) FROM job_runs WHERE id = '{run}'")).await, 1);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_answers_a_request_has_begun_after_it() {
    let bench = Bench::new().await;
    let job = counting(&Arc::default()).scheduled(NEVER);
    jobs::register(&bench.db, [&job]).await.unwrap();
    let life = Duration::from_hours(1);
    let claimant =
        Claimant { job: "counting", lease: "job:counting", life, holder: Uuid::now_v7(), run: Uuid::now_v7() };
    let asking = &bench.db;
    let (requested_at, claimed) = bench
        .db
        .transact("test.claim", |tx, _| {
            Box::pin(async move {
                // The transaction has begun when somebody asks for a run.
                store::jobs::now(tx).await?;
                let requested_at =
                    asking.transact("test.request", |tx, _| Box::pin(store::jobs::request(tx, "counting"))).await?;
                Ok((requested_at, store::jobs::claim(tx, claimant, Duration::from_mins(1)).await?))
            })
        })
        .await
        .unwrap();
    let Claimed::Run { started_at, .. } = claimed else { panic!("{claimed:?}") };
    assert!(started_at >= requested_at.expect("the job is known"));
    bench.cleanup().await;
}

/// Adds a permit when it is dropped.
struct Dropped(Arc<Semaphore>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// A job that says when it begins and when it is dropped, and never ends by itself.
fn endless(began: &Arc<Semaphore>, dropped: &Arc<Semaphore>) -> Job {
    let (began, dropped) = (Arc::clone(began), Arc::clone(dropped));
    Job::new("endless", "Never ends", move |context| {
        let (began, dropped) = (Arc::clone(&began), Dropped(Arc::clone(&dropped)));
        async move {
            let _dropped = dropped;
            context.progress.add(3);
            began.add_permits(1);
            std::future::pending().await
        }
    })
    .lease_life(Duration::from_secs(1))
    .scheduled(NEVER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_cancelled_when_its_lease_is_lost() {
    let bench = Bench::new().await;
    let (began, dropped) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let process = Process::start(&bench, vec![endless(&began, &dropped)]);
    soon(began.acquire()).await.unwrap().forget();
    // It is renewed: for longer than the lease's life nobody takes it away.
    bench.wait_for_number("SELECT run_rows FROM jobs", 3).await;
    assert_eq!(dropped.available_permits(), 0);
    bench.execute("UPDATE leases SET holder = gen_random_uuid(), expires_at = now() + interval '1 hour'").await;
    soon(dropped.acquire()).await.unwrap().forget();
    process.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_a_run_to_stop_and_leaves_it_due() {
    let bench = Bench::new().await;
    let began = Arc::new(Semaphore::new(0));
    let job = {
        let began = Arc::clone(&began);
        Job::new("patient", "Waits until it is told to stop", move |context| {
            began.add_permits(1);
            async move {
                context.progress.add(2);
                context.cancel.cancelled().await;
                Err(Stopped.into())
            }
        })
    };
    let process = Process::start(&bench, vec![job.scheduled(NEVER)]);
    soon(began.acquire()).await.unwrap().forget();
    process.stop().await;
    let left = "SELECT count(*) FROM jobs WHERE run_id IS NULL AND next_due_at <= now() AND failures = 0";
    assert_eq!(bench.number(left).await, 1);
    assert_eq!(bench.number("SELECT count(*) FROM leases").await, 0);
    assert_eq!(ask(&bench, "SELECT outcome || ' ' || rows FROM job_runs").await, "interrupted 2");
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_run_is_made_up_for_once_or_left_out_as_its_policy_says() {
    let bench = Bench::new().await;
    let (made_up, left_out): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let job = |name, runs: &Arc<AtomicUsize>, policy| {
        let runs = Arc::clone(runs);
        Job::of_rows(name, "Counts its runs", move |_| {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok(1) }
        })
        .scheduled(Schedule::cron("0 0 1 1 *").unwrap())
        .catching_up(policy)
    };
    let jobs = || vec![job("made-up", &made_up, CatchUp::RunOnce), job("left-out", &left_out, CatchUp::Skip)];
    jobs::register(&bench.db, &jobs()).await.unwrap();
    assert_eq!(
        bench.number("SELECT count(*) FROM jobs WHERE next_due_at > now()").await,
        1,
        "what never ran was missed"
    );
    bench.execute("UPDATE jobs SET next_due_at = now() - interval '1 hour'").await;
    let process = Process::start(&bench, jobs());
    at_least(&made_up, 1).await;
    bench.wait_for_number("SELECT count(*) FROM jobs WHERE next_due_at > now()", 2).await;
    process.stop().await;
    assert_eq!((made_up.load(Ordering::SeqCst), left_out.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(ask(&bench, "SELECT string_agg(job || ' ' || trigger, ', ') FROM job_runs").await, "made-up catch_up");
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_asked_for_runs_at_once_and_its_run_is_recorded_whatever_it_found() {
    let bench = Bench::new().await;
    let job = Job::of_rows("idle", "Finds nothing", |_| async { Ok(0) }).scheduled(NEVER).catching_up(CatchUp::Skip);
    let mut seen = Vec::new();
    let cancel = CancellationToken::new();
    let ended = soon(run_on_request(&bench.db, &job, &cancel, |progress| seen.push(progress))).await.unwrap();
    assert_eq!((ended.outcome, ended.rows), (RunOutcome::Done, 0));
    assert!(seen.iter().all(|progress| matches!(progress, RequestProgress::Running { .. })), "{seen:?}");
    assert_eq!(ask(&bench, "SELECT trigger || ' ' || outcome FROM job_runs").await, "manual done");
    assert_eq!(bench.number("SELECT count(*) FROM leases").await, 0);

    let failing = Job::of_rows("failing", "Fails", |_| async { Err(store::StoreError::Stale) }).scheduled(NEVER);
    let ended = soon(run_on_request(&bench.db, &failing, &cancel, |_| {})).await.unwrap();
    assert_eq!(ended.outcome, RunOutcome::Failed);
    assert!(ended.detail.unwrap().contains("changed since"));
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_lease_another_process_keeps_is_run_by_that_process_when_it_is_asked_for() {
    let bench = Bench::new().await;
    let runs = Arc::default();
    let kept = || counting(&runs).scheduled(NEVER).keeping_lease("kept");
    let process = Process::start(&bench, vec![kept()]);
    at_least(&runs, 1).await;
    bench.wait_for_number("SELECT count(*) FROM jobs WHERE run_id IS NULL AND next_due_at > now()", 1).await;
    assert_eq!(bench.number("SELECT count(*) FROM leases WHERE name = 'kept'").await, 1);
    let here: Arc<AtomicUsize> = Arc::default();
    let asked = counting(&here).scheduled(NEVER).keeping_lease("kept");
    let cancel = CancellationToken::new();
    let ended = soon(run_on_request(&bench.db, &asked, &cancel, |_| {})).await.unwrap();
    assert_eq!((ended.outcome, ended.rows), (RunOutcome::Done, 1));
    assert_eq!((runs.load(Ordering::SeqCst), here.load(Ordering::SeqCst)), (2, 0));
    process.stop().await;
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_wait_takes_the_request_back() {
    let bench = Bench::new().await;
    let runs = Arc::default();
    let job = counting(&runs).scheduled(NEVER).catching_up(CatchUp::Skip);
    bench.execute("INSERT INTO leases VALUES ('job:counting', gen_random_uuid(), now() + interval '1 hour')").await;
    let cancel = CancellationToken::new();
    let told = cancel.clone();
    let ended = soon(run_on_request(&bench.db, &job, &cancel, move |_| told.cancel())).await.unwrap();
    assert_eq!(ended.outcome, RunOutcome::Interrupted);
    assert_eq!(bench.number("SELECT count(*) FROM jobs WHERE requested_at IS NOT NULL").await, 0);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    bench.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_go_and_the_last_thousand_of_each_job_stay() {
    let bench = Bench::new().await;
    bench
        .execute(
            "INSERT INTO job_runs (id, job, trigger, holder, started_at, ended_at, rows, outcome)
             SELECT gen_random_uuid(), job, 'schedule', gen_random_uuid(), at, at, 1, 'done'
             FROM (SELECT 'often' AS job, now() - n * interval '1 minute' AS at FROM generate_series(1, 1100) n
                   UNION ALL SELECT 'rare', now() - n * interval '60 days' FROM generate_series(1, 3) n) r",
        )
        .await;
    assert_eq!(store::jobs::prune(bench.db.clone()).await.unwrap(), 102);
    assert_eq!(bench.number("SELECT count(*) FROM job_runs WHERE job = 'often'").await, 1_000);
    assert_eq!(bench.number("SELECT count(*) FROM job_runs WHERE job = 'rare'").await, 1);
    bench.cleanup().await;
}
