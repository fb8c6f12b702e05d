//! Runs a stage: takes deliveries, prepares them side by side, applies them in batches, acknowledges what is committed.
//!
//! ```text
//!  Consumer ─► prepare (concurrent) ─► shelf ─► apply + COMMIT (in batches) ─► ack ─► committed
//!                 │ RetryLater, InProgress, panic │ failed: split down to single messages
//!                 ├──────────► put off: outbox row with a due time, COMMIT ─► ack
//!                 │ Reject, undecodable, tried or delivered too often
//!                 └──────────► dead letter, confirmed ─► ack
//! ```
//!
//! **Acknowledged means committed.** A delivery is settled only after the COMMIT of its effect, or of its retry, was
//! acknowledged, or after its dead letter was confirmed. If it is unknown whether a COMMIT succeeded, the batch is applied
//! again, which changes nothing if it did.
//!
//! **Memory** is bounded by the prefetch: as many deliveries as that are in hand, in whatever state.

mod aside;
mod commit;
mod item;
mod prepare;
mod shelf;

use std::{fmt, panic::resume_unwind, sync::Arc, time::Duration};

use broker::{Acker, BrokerConfig, Consumer, Delivery, LinkStatus, Publisher};
use store::Db;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    aside::{Buried, PutOff, bury, put_off, retry_as},
    commit::{Committed, commit},
    item::{Item, Verdict},
    prepare::prepare,
    shelf::Shelf,
};
use crate::{
    health::{Health, Part},
    metrics::StageMetrics,
    outbox::Outbox,
    stage::Stage,
};

/// A delivery counted more often than this is handled alone: it may be the one that crashes its consumers.
pub const ALONE_ABOVE: u32 = 3;
/// A delivery counted more often than this becomes a dead letter without being handled.
pub const DEAD_ABOVE: u32 = 10;

/// How long sending the last acknowledgements may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// How much a runner does at once, and how patient it is.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// How many deliveries are prepared at the same time, from 1.
    pub concurrency: usize,
    /// How many are applied in one transaction, at most; from 1.
    pub max_batch: usize,
    /// How many transactions run at the same time, from 1: while one waits for its COMMIT, the next is applied.
    pub commits: usize,
    /// How long a delivery waits for company while another batch is under way. An idle stage never waits.
    pub company: Duration,
    /// How often an event is tried in all, from 1, before it becomes a dead letter. Outages don't count.
    pub max_attempts: u32,
    /// How long what is in hand may take to finish after a soft shutdown.
    pub drain: Duration,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            concurrency: 256,
            max_batch: 256,
            commits: 2,
            company: Duration::from_millis(3),
            max_attempts: 10,
            drain: Duration::from_secs(8),
        }
    }
}

/// Runs one stage on one queue.
pub struct StageRunner<S> {
    stage: Arc<S>,
    db: Db,
    consumer: BrokerConfig,
    outbox: Outbox,
    publisher: Publisher,
    config: RunnerConfig,
    health: Health,
}

impl<S: Stage> StageRunner<S> {
    /// A runner that consumes with the settings in `consumer`, on a connection of its own; its prefetch bounds how many
    /// deliveries are in hand. `publisher` is for dead letters. Nobody is told of outages: see [`Self::with_health`].
    pub fn new(
        stage: Arc<S>,
        db: Db,
        consumer: BrokerConfig,
        outbox: Outbox,
        publisher: Publisher,
        config: RunnerConfig,
    ) -> Self {
        Self { stage, db, consumer, outbox, publisher, config, health: Health::unobserved() }
    }

    /// Tells `health` of PostgreSQL and RabbitMQ.
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Runs until it is cancelled. After `soft`, it takes nothing more and finishes what it has in hand, for
    /// [`RunnerConfig::drain`] at most; what isn't acknowledged goes back to the queue. After `hard` it returns at once.
    pub async fn run(self, soft: CancellationToken, hard: CancellationToken) {
        let connection_name = format!("leadmill-{}", S::NAME);
        let in_hand_limit = usize::from(self.consumer.prefetch.max(1));
        let consumer = Consumer::start(self.consumer, S::QUEUE, &connection_name, soft.child_token());
        let context = Context {
            stage: self.stage,
            db: self.db,
            outbox: self.outbox,
            publisher: self.publisher,
            acker: consumer.acker(),
            config: self.config,
            health: self.health,
            metrics: StageMetrics::new(S::NAME),
            soft,
        };
        let work = Work {
            context: Arc::new(context),
            consumer,
            in_hand_limit,
            in_hand: 0,
            suspects: Vec::new(),
            suspect_is_busy: false,
            preparing: JoinSet::new(),
            shelf: Shelf::new(),
            committing: JoinSet::new(),
            company_until: None,
            to_put_off: Vec::new(),
            to_bury: Vec::new(),
            putting_off: JoinSet::new(),
            burying: JoinSet::new(),
        };
        tokio::select! {
            biased;
            // Dropping the work aborts its tasks; what isn't acknowledged goes back to the queue.
            () = hard.cancelled() => {}
            () = work.run() => {}
        }
    }
}

impl<S: Stage> fmt::Debug for StageRunner<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageRunner").field("stage", &S::NAME).field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the tasks of a runner share.
struct Context<S> {
    stage: Arc<S>,
    db: Db,
    outbox: Outbox,
    publisher: Publisher,
    acker: Acker,
    config: RunnerConfig,
    health: Health,
    metrics: StageMetrics,
    soft: CancellationToken,
}

impl<S> Context<S> {
    /// Tells how the consumer stands with RabbitMQ.
    fn report(&self, link: &LinkStatus) {
        if link.connected {
            self.health.present(Part::Consuming);
        } else if !self.soft.is_cancelled() {
            self.health.missing(Part::Consuming, link.error.as_deref().unwrap_or("connecting to RabbitMQ"));
        }
    }
}

/// What a runner has in hand, and where it is.
struct Work<S: Stage> {
    context: Arc<Context<S>>,
    consumer: Consumer,
    in_hand_limit: usize,
    in_hand: usize,
    /// Counted too often to be handled with others; one at a time is.
    suspects: Vec<Item>,
    suspect_is_busy: bool,
    preparing: JoinSet<Verdict<S::Prepared>>,
    shelf: Shelf<S::Prepared>,
    committing: JoinSet<Committed>,
    company_until: Option<Instant>,
    to_put_off: Vec<PutOff>,
    to_bury: Vec<Buried>,
    putting_off: JoinSet<usize>,
    burying: JoinSet<usize>,
}

impl<S: Stage> Work<S> {
    async fn run(mut self) {
        let context = Arc::clone(&self.context);
        let mut link = self.consumer.statuses();
        link.mark_changed();
        let mut give_up_at: Option<Instant> = None;
        loop {
            let stopping = give_up_at.is_some();
            if !stopping {
                self.begin_suspect();
            }
            self.begin_batches();
            self.begin_asides();
            context.metrics.in_hand(self.in_hand);
            if stopping && self.in_hand == 0 {
                break;
            }
            let has_room = !stopping && self.has_room();
            tokio::select! {
                biased;
                () = context.soft.cancelled(), if !stopping => {
                    give_up_at = Some(Instant::now() + context.config.drain);
                    self.in_hand -= self.suspects.len();
                    self.suspects.clear();
                }
                Some(ended) = self.preparing.join_next() => {
                    self.prepared(joined(ended));
                    while let Some(ended) = self.preparing.try_join_next() {
                        self.prepared(joined(ended));
                    }
                }
                Some(ended) = self.committing.join_next() => self.committed(joined(ended)),
                Some(ended) = self.putting_off.join_next() => self.in_hand -= joined(ended),
                Some(ended) = self.burying.join_next() => self.in_hand -= joined(ended),
                delivery = self.consumer.next(), if has_room => match delivery {
                    Some(delivery) => {
                        self.receive(delivery);
                        while self.has_room() && let Some(delivery) = self.consumer.try_next() {
                            self.receive(delivery);
                        }
                    }
                    // It ends only when it is cancelled.
                    None => context.soft.cancelled().await,
                },
                () = sleep_until(self.company_until.unwrap_or_else(Instant::now)), if self.company_until.is_some() => {
                    self.begin_batch();
                }
                Ok(()) = link.changed() => context.report(&link.borrow_and_update()),
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if stopping => {
                    tracing::warn!(stage = S::NAME, in_hand = self.in_hand, "didn't finish in time; the rest goes back to the queue");
                    break;
                }
            }
        }
        if timeout(GOODBYE, self.consumer.close()).await.is_err() {
            tracing::warn!(
                stage = S::NAME,
                "the last acknowledgements may not have been sent; their messages come again"
            );
        }
    }

    fn has_room(&self) -> bool {
        self.in_hand < self.in_hand_limit && self.preparing.len() < self.context.config.concurrency.max(1)
    }

    fn receive(&mut self, delivery: Delivery) {
        self.in_hand += 1;
        let count = delivery.delivery_count;
        match Item::new::<S>(delivery) {
            (item, Some(reason)) => self.bury(item, reason),
            (item, None) if count > DEAD_ABOVE => {
                self.bury(item, format!("came back {count} times without being acknowledged"));
            }
            (item, None) if count > ALONE_ABOVE => self.suspects.push(item),
            (item, None) => self.begin(item),
        }
    }

    fn begin(&mut self, item: Item) {
        self.preparing.spawn(prepare(Arc::clone(&self.context), item));
    }

    /// Begins with any of the suspects: in a fixed order, the innocent behind the one that crashes every process would
    /// be counted with it until all of them were dead letters.
    fn begin_suspect(&mut self) {
        if !self.suspect_is_busy && !self.suspects.is_empty() {
            let any = rand::random_range(0..self.suspects.len());
            let item = self.suspects.swap_remove(any).alone();
            self.suspect_is_busy = true;
            self.begin(item);
        }
    }

    fn prepared(&mut self, verdict: Verdict<S::Prepared>) {
        match verdict {
            Verdict::Apply(item, prepared) => self.shelf.put(item, prepared),
            Verdict::Done(item, result) => {
                self.over(&item);
                self.context.metrics.handled(result);
                self.context.acker.settle(item.tag());
                self.in_hand -= 1;
            }
            Verdict::Later(item, after, reason) => self.put_off(item, after, reason),
            Verdict::InProgress(item, after, reason) => {
                let attempt = item.attempt();
                self.schedule_retry(item, attempt, after, reason);
            }
            Verdict::Failed(item, reason) => self.fail(item, reason),
            Verdict::Dead(item, reason) => self.bury(item, reason),
            Verdict::Left(item) => {
                self.over(&item);
                self.in_hand -= 1;
            }
        }
    }

    fn committed(&mut self, committed: Committed) {
        self.suspect_is_busy &= !committed.alone;
        self.in_hand -= committed.finished;
        for (item, reason) in committed.failed {
            self.fail(item, reason);
        }
    }

    /// A defect: of the event, of the data, or ours. The next program version may mend it, so it is tried again, ever
    /// more seldom.
    fn fail(&mut self, item: Item, reason: String) {
        let after = Duration::from_secs(1 << item.attempt().min(8));
        self.put_off(item, retry::jittered(after), reason);
    }

    fn put_off(&mut self, item: Item, after: Duration, reason: String) {
        let tries = item.attempt().saturating_add(1);
        if tries >= self.context.config.max_attempts {
            let times = if tries == 1 { "time" } else { "times" };
            return self.bury(item, format!("tried {tries} {times}, at last: {reason}"));
        }
        self.schedule_retry(item, tries, after, reason);
    }

    fn schedule_retry(&mut self, item: Item, attempt: u32, after: Duration, reason: String) {
        let Some(retry) = retry_as(&item, attempt, after) else { return self.bury(item, reason) };
        tracing::info!(parent: item.span(), reason, after_ms = after.as_millis() as u64, "will be tried again");
        self.over(&item);
        self.to_put_off.push((item, retry));
    }

    fn bury(&mut self, item: Item, reason: String) {
        self.over(&item);
        let letter = item.dead_letter(reason);
        self.to_bury.push((item, letter));
    }

    /// The item is no longer being prepared or applied.
    fn over(&mut self, item: &Item) {
        self.suspect_is_busy &= !item.is_alone();
    }

    /// Begins what may be begun: at once when nothing is under way, else in company.
    fn begin_batches(&mut self) {
        while self.shelf.has_alone() && self.has_place_for_commit() {
            if let Some(alone) = self.shelf.take_alone() {
                self.committing.spawn(commit(Arc::clone(&self.context), alone));
            }
        }
        while !self.shelf.is_empty() && self.has_place_for_commit() {
            let now = Instant::now();
            let until = *self.company_until.get_or_insert(now + self.context.config.company);
            let full = self.shelf.len() >= self.context.config.max_batch;
            if !self.committing.is_empty() && !full && until > now {
                return;
            }
            self.begin_batch();
        }
        if self.shelf.is_empty() || !self.has_place_for_commit() {
            self.company_until = None;
        }
    }

    fn begin_batch(&mut self) {
        self.company_until = None;
        let batch = self.shelf.take(self.context.config.max_batch.max(1));
        if !batch.is_empty() {
            self.committing.spawn(commit(Arc::clone(&self.context), batch));
        }
    }

    fn has_place_for_commit(&self) -> bool {
        self.committing.len() < self.context.config.commits.max(1)
    }

    /// Retries and dead letters: what has gathered while the last were under way goes together.
    fn begin_asides(&mut self) {
        if self.putting_off.is_empty() && !self.to_put_off.is_empty() {
            self.putting_off.spawn(put_off(Arc::clone(&self.context), std::mem::take(&mut self.to_put_off)));
        }
        if self.burying.is_empty() && !self.to_bury.is_empty() {
            self.burying.spawn(bury(Arc::clone(&self.context), std::mem::take(&mut self.to_bury)));
        }
    }
}

/// The result of a task of ours. They catch the stage's panics, so one that comes through is a defect of the runner.
fn joined<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => unreachable!("tasks are aborted only when the whole runner is dropped"),
        },
    }
}
