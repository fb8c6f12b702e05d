//! Finds leads that lost their message, and tells of them again.
//!
//! Queues are disposable: they can be deleted, with everything in them, and PostgreSQL still knows which leads wait for
//! an enrichment or a decision. One replica at a time, by lease, looks whether a work queue is empty. What was changed
//! well before that moment, is unfinished, and has no row in the outbox can't be in the queue: it is emitted again, to
//! that queue alone. Being wrong about it costs a redelivery that changes nothing.
//!
//! RabbitMQ tells how many messages are *ready*; what consumers have in hand isn't counted. Hence the grace, longer than
//! a consumer takes for what it has in hand. A lead whose message is a dead letter is unfinished too; so that it isn't
//! buried once a minute, each lead is told of ever more seldom.

mod memory;
mod walk;

use std::time::Duration;

use broker::Admin;
use domain::event::Queue;
use retry::News;
use store::{Db, StoreError, outbox::Depth, reconcile};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::walk::{Allowance, Walk};
use crate::{error::chain, outbox::Outbox};

/// The lease's name.
const LEASE: &str = "reconciler";
/// The life of the lease.
const LEASE_LIFE: Duration = Duration::from_mins(1);
/// All walks together may take this part of the time at most, so that huge tables aren't read all the time.
const SHARE: u32 = 20;

/// How eager the reconciler is.
#[derive(Debug, Clone)]
pub struct ReconcilerConfig {
    /// How often to look at the queues, give or take a fifth. At most half a minute, or the lease changes hands for
    /// nothing. A walk over all leads is made in slices, one each time.
    pub observe_every: Duration,
    /// How long to rest after all leads were looked at. A queue that was missing ends the rest.
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

/// Reconciles until it is cancelled, for as long as this replica has the lease. Outages are waited out; whoever watches
/// [`Health`](crate::Health) learns of them from the outbox.
pub async fn run(db: Db, outbox: Outbox, admin: Admin, config: ReconcilerConfig, cancel: CancellationToken) {
    let mut reconciler = Reconciler {
        db,
        outbox,
        admin,
        config,
        holder: Uuid::now_v7(),
        queues_seen: false,
        rounds: Queue::ALL.map(|queue| Round {
            walk: Walk::new(queue),
            under_way: false,
            urgent: false,
            rest_until: None,
        }),
    };
    let mut news = News::default();
    let working = async {
        loop {
            match reconciler.round().await {
                Ok(()) => _ = news.reset(),
                Err(error) if news.is_due() => {
                    tracing::warn!(error = %chain(&*error), "reconciling was interrupted");
                }
                Err(_) => {}
            }
            sleep(retry::jittered(reconciler.config.observe_every)).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = working => {}
    }
    reconciler.release().await;
}

/// Whatever got in the way; the next round tries again.
type Interruption = Box<dyn std::error::Error + Send + Sync>;

struct Reconciler {
    db: Db,
    outbox: Outbox,
    admin: Admin,
    config: ReconcilerConfig,
    holder: Uuid,
    /// Whether all queues were there once: then it is no first start when they aren't.
    queues_seen: bool,
    rounds: [Round; Queue::ALL.len()],
}

/// Where the reconciler stands with one queue.
struct Round {
    walk: Walk,
    /// Whether the walk has begun and not come to its end.
    under_way: bool,
    /// Whether its queue was missing: there is much to be found, and no time to lose.
    urgent: bool,
    rest_until: Option<Instant>,
}

impl Reconciler {
    async fn round(&mut self) -> Result<(), Interruption> {
        if !self.hold_lease().await? {
            for round in &mut self.rounds {
                round.under_way = false;
            }
            return Ok(());
        }
        let mut depths = self.admin.depths().await?;
        let missing: Vec<Queue> =
            depths.iter().filter(|depth| !depth.dead && depth.depth.is_none()).map(|depth| depth.queue).collect();
        if !missing.is_empty() {
            if self.queues_seen {
                let names: Vec<&str> = missing.into_iter().map(Queue::name).collect();
                tracing::warn!(queues = names.join(", "), "work queues are missing; declaring them again");
            }
            self.admin.declare_topology().await?;
            depths = self.admin.depths().await?;
            // Another one may have vanished, and be back, in between: where one is missing, none is to be trusted.
            for round in &mut self.rounds {
                round.walk.forget();
                // What lies behind a walk that is under way is lost as well.
                round.under_way = false;
                round.urgent = true;
                round.rest_until = None;
            }
        }
        self.queues_seen = true;
        let waiting: Depth = self.db.transact("outbox.depth", |tx, _| Box::pin(store::outbox::depth(tx))).await?;
        if waiting.due > 0 {
            // What is on its way to a queue isn't lost, and there may be much of it.
            return Ok(());
        }
        for index in 0..self.rounds.len() {
            let queue = Queue::ALL[index];
            let ready = depths
                .iter()
                .find(|depth| depth.queue == queue && !depth.dead)
                .and_then(|depth| depth.depth)
                .map(|depth| depth.ready);
            let Some(ready) = ready else { continue };
            if ready == 0 {
                self.saw_empty(index).await?;
            }
            self.walk(index, ready).await?;
        }
        Ok(())
    }

    async fn hold_lease(&self) -> Result<bool, StoreError> {
        let holder = self.holder;
        self.db
            .transact("reconciler.lease", |tx, _| Box::pin(reconcile::take_lease(tx, LEASE, holder, LEASE_LIFE)))
            .await
    }

    /// Takes note of an empty queue, and begins a walk if it is time for one.
    async fn saw_empty(&mut self, index: usize) -> Result<(), StoreError> {
        let queue = Queue::ALL[index];
        let empty_at: Option<OffsetDateTime> = self
            .db
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
            round.walk.begin(empty_at - self.config.grace);
            round.under_way = true;
        }
        Ok(())
    }

    /// Goes on with a walk, for a slice of time, as far as the queue may be filled.
    async fn walk(&mut self, index: usize, ready: u32) -> Result<(), StoreError> {
        let round = &mut self.rounds[index];
        if !round.under_way {
            return Ok(());
        }
        let allowance = Allowance {
            events: self.config.max_depth.saturating_sub(ready) as usize,
            time: (!round.urgent).then_some(self.config.observe_every / SHARE / Queue::ALL.len() as u32),
        };
        let at_the_end = round.walk.go_on(&self.db, &self.outbox, &self.config, self.holder, allowance).await?;
        if at_the_end {
            round.under_way = false;
            round.urgent = false;
            round.rest_until = Some(Instant::now() + self.config.rest);
        }
        Ok(())
    }

    async fn release(&self) {
        let holder = self.holder;
        let releasing =
            self.db.transact("reconciler.release", |tx, _| Box::pin(reconcile::release_lease(tx, LEASE, holder)));
        // If it fails, the lease ends by itself.
        let _ = tokio::time::timeout(Duration::from_secs(2), releasing).await;
    }
}
