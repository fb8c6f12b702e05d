//! Finds leads whose message was lost, and emits their events again.
//!
//! Queues are disposable: they can be deleted, with everything in them, and PostgreSQL still knows which leads wait for
//! an enrichment or a decision. One replica at a time, by lease, looks whether a work queue is empty. What was changed
//! well before that moment, is unfinished, and has no row in the outbox can't be in the queue: it is emitted again, to
//! that queue alone. Being wrong about it costs a redelivery that changes nothing.
//!
//! RabbitMQ tells how many messages are *ready*; what consumers have in hand isn't counted. Hence the grace, longer than
//! a consumer takes for what it has in hand. A lead whose message is a dead letter is unfinished too; so that it doesn't
//! become one once a minute, each lead's event is emitted with backoff.
//!
//! It runs as a job ([`job`]): each run looks at the queues once and reads a slice of the unfinished leads, by indexes that
//! hold no others. What a version that doesn't know these indexes has changed is found by a second job, which looks at all
//! leads at night ([`full_scan_job`]).

mod emission_history;
mod full_scan;
mod scan;

use std::{sync::Arc, time::Duration};

use broker::Admin;
use domain::event::Queue;
use store::{Db, StoreError, outbox::Depth, reconcile};
use time::OffsetDateTime;
use tokio::{sync::Mutex, time::Instant};

pub use self::full_scan::full_scan_job;
use self::scan::{Allowance, Scan};
use crate::{
    jobs::{Completed, Job, JobError, Schedule, Stopped},
    outbox::Outbox,
};

/// The job's name, and its lease's: processes of versions without jobs take the same lease, so that an older one and a newer
/// one don't reconcile at the same time.
const NAME: &str = "reconciler";
/// The life of the lease; older versions count on the same.
const LEASE_LIFE: Duration = Duration::from_mins(1);
/// All scans together may take this part of the time at most, so that huge tables aren't read all the time.
const SHARE: u32 = 20;

/// How eager the reconciler is.
#[derive(Debug, Clone)]
pub struct ReconcilerConfig {
    /// How often to look at the queues, give or take a fifth. At most half a minute, or the lease changes hands for
    /// nothing. A scan is made in slices, one each time.
    pub observe_every: Duration,
    /// How long to rest after a scan came to its end. A queue that was missing ends the rest.
    pub rest: Duration,
    /// How much older than the moment when its queue was seen empty a change has to be. Longer than consumers keep a
    /// message in hand, and than the outbox's lease of 15 s.
    pub grace: Duration,
    /// How long to wait before the same event of the same lead is emitted again; twice as long each time, up to a day.
    pub again_after: Duration,
    /// A queue isn't filled beyond this many messages.
    pub max_depth: u32,
    /// How many leads are looked at in one transaction.
    pub page: u16,
}

impl Default for ReconcilerConfig {
    fn default() -> Self {
        Self {
            observe_every: Duration::from_secs(10),
            rest: Duration::from_mins(1),
            grace: Duration::from_mins(1),
            again_after: Duration::from_mins(1),
            max_depth: 20_000,
            page: 500,
        }
    }
}

/// The job that reconciles. A process keeps the lease between two runs, since where a scan stands and what was emitted before
/// is in its memory alone.
pub fn job(config: ReconcilerConfig, outbox: Outbox, admin: Admin) -> Job {
    let observe_every = config.observe_every;
    let reconciler = Arc::new(Mutex::new(Reconciler::new(config, outbox, admin)));
    Job::new(NAME, "Emits events again whose message was lost", move |context| {
        let reconciler = Arc::clone(&reconciler);
        async move {
            let mut reconciler = reconciler.lock().await;
            let round = context.cancel.run_until_cancelled(reconciler.run(&context.db)).await;
            round.unwrap_or(Err(Stopped.into()))
        }
    })
    .scheduled(Schedule::every(observe_every))
    .lease_life(LEASE_LIFE)
    .keeping_lease(NAME)
}

struct Reconciler {
    outbox: Outbox,
    admin: Admin,
    config: ReconcilerConfig,
    /// When the last run ended: long ago, another process may have had the lease since.
    ended_at: Option<Instant>,
    /// Whether all queues were there once: then it is no first start when they aren't.
    queues_seen: bool,
    rounds: [Round; Queue::ALL.len()],
}

/// Where the reconciler stands with one queue.
struct Round {
    scan: Scan,
    /// Whether the scan has begun and not come to its end.
    under_way: bool,
    /// Whether its queue was missing: there is much to be found, and no time to lose.
    urgent: bool,
    rest_until: Option<Instant>,
}

impl Reconciler {
    fn new(config: ReconcilerConfig, outbox: Outbox, admin: Admin) -> Self {
        let rounds =
            Queue::ALL.map(|queue| Round { scan: Scan::new(queue), under_way: false, urgent: false, rest_until: None });
        Self { outbox, admin, config, ended_at: None, queues_seen: false, rounds }
    }

    /// Looks at the queues once, and goes on with the scans.
    async fn run(&mut self, db: &Db) -> Result<Completed, JobError> {
        if self.ended_at.is_none_or(|ended_at| ended_at.elapsed() >= LEASE_LIFE) {
            for round in &mut self.rounds {
                round.under_way = false;
            }
        }
        let emitted = self.round(db).await;
        self.ended_at = Some(Instant::now());
        Ok(Completed::rows(emitted?))
    }

    /// Returns how many events were emitted.
    async fn round(&mut self, db: &Db) -> Result<u64, JobError> {
        let mut depths = self.admin.depths().await?;
        let missing: Vec<Queue> =
            depths.iter().filter(|depth| !depth.dead && depth.depth.is_none()).map(|depth| depth.queue).collect();
        if !missing.is_empty() {
            if self.queues_seen {
                let names: Vec<&str> = missing.into_iter().map(Queue::name).collect();
                tracing::warn!(queues = names.join(", "), "work queues are missing, declaring them again");
            }
            self.admin.declare_topology().await?;
            depths = self.admin.depths().await?;
            // Another one may have vanished, and be back, in between: where one is missing, none is to be trusted.
            for round in &mut self.rounds {
                round.scan.forget();
                // What lies behind a scan that is under way is lost as well.
                round.under_way = false;
                round.urgent = true;
                round.rest_until = None;
            }
        }
        self.queues_seen = true;
        let waiting: Depth = db.transact("outbox.depth", |tx, _| Box::pin(store::outbox::depth(tx))).await?;
        if waiting.due > 0 {
            // What is on its way to a queue isn't lost, and there may be much of it.
            return Ok(0);
        }
        let mut emitted = 0;
        for index in 0..self.rounds.len() {
            let queue = Queue::ALL[index];
            let ready = depths
                .iter()
                .find(|depth| depth.queue == queue && !depth.dead)
                .and_then(|depth| depth.depth)
                .map(|depth| depth.ready);
            let Some(ready) = ready else { continue };
            if ready == 0 {
                self.saw_empty(db, index).await?;
            }
            emitted += self.scan(db, index, ready).await?;
        }
        Ok(emitted)
    }

    /// Takes note of an empty queue, and begins a scan if it is time for one.
    async fn saw_empty(&mut self, db: &Db, index: usize) -> Result<(), StoreError> {
        let queue = Queue::ALL[index];
        let empty_at: Option<OffsetDateTime> = db
            .transact("reconciler.empty", |tx, _| {
                Box::pin(async move {
                    reconcile::saw_empty(tx, queue).await?;
                    reconcile::empty_at(tx, queue).await
                })
            })
            .await?;
        let round = &mut self.rounds[index];
        let rested = round.rest_until.is_none_or(|until| until <= Instant::now());
        if let Some(empty_at) = empty_at
            && !round.under_way
            && rested
        {
            round.scan.begin(empty_at - self.config.grace);
            round.under_way = true;
        }
        Ok(())
    }

    /// Goes on with a scan, for a slice of time, as far as the queue may be filled; returns how many events were emitted.
    async fn scan(&mut self, db: &Db, index: usize, ready: u32) -> Result<u64, StoreError> {
        let round = &mut self.rounds[index];
        if !round.under_way {
            return Ok(0);
        }
        let allowance = Allowance {
            events: self.config.max_depth.saturating_sub(ready) as usize,
            time: (!round.urgent).then_some(self.config.observe_every / SHARE / Queue::ALL.len() as u32),
        };
        let slice = round.scan.go_on(db, &self.outbox, &self.config, allowance).await?;
        if slice.at_the_end {
            round.under_way = false;
            round.urgent = false;
            round.rest_until = Some(Instant::now() + self.config.rest);
        }
        Ok(slice.emitted as u64)
    }
}
