//! Group commit: the small writes of many mails in one transaction.
//!
//! Each mail by SMTP needs two commits of its own, one before its body and one after. Done one by one they would cost one
//! flush of the disk each; gathered while the previous commit is under way, they share it, and nobody waits longer.

use std::{collections::HashSet, sync::Arc};

use domain::{
    clock::Clock,
    event::{Envelope, Event, Outgoing, Route, TraceContext},
    id::{OutreachId, ProgramId},
    outreach::OutreachState,
};
use pipeline::Outbox;
use store::{
    Connection, Db, StoreError, outbox,
    outbox::Leased,
    outreach::{
        data_phase::{self, Lease},
        recipients,
        settle::{self, Settlement},
    },
};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use vault::BlindIndex;

/// The most writes of one transaction.
const MAX_BATCH: usize = 256;
/// The most writes of a transaction whose plans would take longer to make than the writes themselves. For more of them a plan
/// of their own is worth its time.
const FEW: usize = 16;
/// Transactions at once: while one waits for its flush, the next is made.
const PARALLEL: usize = 2;

/// A small write.
#[derive(Debug, Clone)]
enum Write {
    /// Move to the data phase; or, where that isn't allowed any more, give up the row.
    Begin(Lease),
    /// Write down what came of it, and tell of it under this trace.
    Settle(Box<Settlement>, TraceContext),
}

type Answer = oneshot::Sender<Result<bool, Arc<StoreError>>>;
type Batch = Vec<(Write, Answer)>;

/// Gathers writes into transactions. Clones share it; the task behind it ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Committer {
    queue: mpsc::Sender<(Write, Answer)>,
}

struct Worker {
    db: Db,
    /// The same for a few writes.
    few: Db,
    outbox: Outbox,
    clock: Arc<dyn Clock>,
    data_lease_seconds: i32,
}

impl Committer {
    /// Starts the task. `data_lease_seconds` is how long a row may stay in the data phase.
    pub fn start(db: Db, outbox: Outbox, clock: Arc<dyn Clock>, data_lease_seconds: i32) -> Self {
        let (queue, writes) = mpsc::channel(4 * MAX_BATCH);
        let few = db.with_kept_plans();
        tokio::spawn(gather(writes, Arc::new(Worker { db, few, outbox, clock, data_lease_seconds })));
        Self { queue }
    }

    /// Moves a row to the data phase. `true` after an acknowledged COMMIT: now, and only now, its body may go out. `false`:
    /// it must not; the row was given up. After an error it must not either, and what became of the row is unknown.
    pub async fn begin(&self, lease: Lease) -> Result<bool, Arc<StoreError>> {
        self.write(Write::Begin(lease)).await
    }

    /// Settles a row; `false` if it was no longer under this lease.
    pub async fn settle(&self, settlement: Settlement, trace: TraceContext) -> Result<bool, Arc<StoreError>> {
        self.write(Write::Settle(Box::new(settlement), trace)).await
    }

    async fn write(&self, write: Write) -> Result<bool, Arc<StoreError>> {
        let (answer, answered) = oneshot::channel();
        self.queue.send((write, answer)).await.expect("the task lives as long as its committer");
        answered.await.expect("the task answers every write")
    }
}

async fn gather(mut writes: mpsc::Receiver<(Write, Answer)>, worker: Arc<Worker>) {
    let places = Arc::new(Semaphore::new(PARALLEL));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let mut batch = Batch::new();
        if writes.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
        let worker = Arc::clone(&worker);
        tokio::spawn(async move {
            let rest = worker.commit_and_answer(batch).await;
            // Nobody's body waits for the rest.
            drop(place);
            worker.finish(rest).await;
        });
    }
}

impl Worker {
    /// Writes a batch and answers, except those whose row is yet to be given up.
    async fn commit_and_answer(&self, batch: Batch) -> Rest {
        let mut rest = Rest::default();
        match self.commit(batch.iter().map(|(write, _)| write)).await {
            Ok((done, suppressed)) => {
                rest.suppressed = suppressed;
                for ((write, answer), done) in batch.into_iter().zip(done) {
                    rest.answer(&write, answer, done);
                }
            }
            // One bad write must not cost the others their commit.
            Err(error) if !error.is_transient() && batch.len() > 1 => {
                for (write, answer) in batch {
                    match self.commit(std::iter::once(&write)).await {
                        Ok((done, suppressed)) => {
                            rest.suppressed.extend(suppressed);
                            rest.answer(&write, answer, done[0]);
                        }
                        Err(error) => {
                            let _ = answer.send(Err(Arc::new(error)));
                        }
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, answer) in batch {
                    let _ = answer.send(Err(Arc::clone(&error)));
                }
            }
        }
        rest
    }

    /// Writes a batch in one transaction; says of each write whether it took effect, and who is suppressed since.
    async fn commit(
        &self,
        writes: impl Iterator<Item = &Write>,
    ) -> Result<(Vec<bool>, Vec<(ProgramId, BlindIndex)>), StoreError> {
        let writes: Vec<&Write> = writes.collect();
        let writes = writes.as_slice();
        let now = self.clock.now();
        let seconds = self.data_lease_seconds;
        let db = if writes.len() <= FEW { &self.few } else { &self.db };
        let Applied { done, events, suppressed } = db
            .transact("mailer.commit", |tx, _| Box::pin(async move { apply(tx, writes, seconds, now).await }))
            .await?;
        self.outbox.offer(events);
        Ok((done, suppressed))
    }

    /// Gives up the rows that may not be sent, and cancels what is unsent to recipients that were just suppressed.
    async fn finish(&self, rest: Rest) {
        let (refused, answers): (Vec<Lease>, Vec<Answer>) = rest.refused.into_iter().unzip();
        if !refused.is_empty() {
            let refused = refused.as_slice();
            let given_up = self
                .db
                .transact("mailer.abort", |tx, _| Box::pin(async move { data_phase::abort(tx, refused).await }))
                .await
                .map_err(Arc::new);
            for answer in answers {
                let _ = answer.send(given_up.clone().map(|()| false));
            }
        }
        for (program, recipient) in rest.suppressed {
            cancel_unsent(&self.db, program, recipient).await;
        }
    }
}

/// What is left to do after a batch, for which no body waits.
#[derive(Default)]
struct Rest {
    /// Rows that may not be sent, and who asked.
    refused: Vec<(Lease, Answer)>,
    /// Recipients that are suppressed since.
    suppressed: Vec<(ProgramId, BlindIndex)>,
}

impl Rest {
    /// Answers, unless the row has to be given up first.
    fn answer(&mut self, write: &Write, answer: Answer, done: bool) {
        match write {
            Write::Begin(lease) if !done => self.refused.push((*lease, answer)),
            Write::Begin(_) | Write::Settle(..) => {
                let _ = answer.send(Ok(done));
            }
        }
    }
}

/// Cancels what is unsent to a recipient that was just suppressed, outside of the group commit. Where it fails, each mail is
/// stopped when it is claimed, and a job cancels the rest.
async fn cancel_unsent(db: &Db, program: ProgramId, recipient: BlindIndex) {
    let cancelled = db
        .transact("mailer.cancel_suppressed", |tx, _| {
            Box::pin(async move { recipients::cancel_suppressed(tx, program, &[recipient]).await })
        })
        .await;
    if let Err(error) = cancelled {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(program.id = %program, error, "mails to a suppressed recipient are cancelled later: the database failed");
    }
}

/// What a transaction has done.
struct Applied {
    /// Of each write whether it took effect.
    done: Vec<bool>,
    /// Events to publish.
    events: Vec<Leased>,
    /// Recipients that are suppressed since.
    suppressed: Vec<(ProgramId, BlindIndex)>,
}

/// The moves to the data phase come last: they wait for nobody, and nothing that waits may stand between what they look up
/// and the COMMIT. An objection that is committed meanwhile would not be seen.
async fn apply(
    tx: &mut Connection,
    writes: &[&Write],
    data_lease_seconds: i32,
    now: OffsetDateTime,
) -> Result<Applied, StoreError> {
    let settlements: Vec<Settlement> = writes
        .iter()
        .filter_map(
            |write| if let Write::Settle(settlement, _) = write { Some(settlement.as_ref().clone()) } else { None },
        )
        .collect();
    settle::lock_keys(tx, &settlements).await?;
    let settled = settle::settle(tx, &settlements).await?;
    let mut done = HashSet::with_capacity(writes.len());
    let mut events = Vec::new();
    for settled in settled.rows {
        done.insert(settled.id);
        if settled.state == OutreachState::Sent {
            let event = Event::LeadContacted {
                outreach_id: settled.id,
                campaign: settled.step.campaign,
                step: settled.step.step,
            };
            let envelope = Envelope::new(settled.program_id, settled.lead_id, settled.lead_revision, now, event);
            let trace = trace_of(writes, settled.id);
            events.push(Outgoing { envelope, route: Route::Exchange, trace });
        }
    }
    let events = outbox::insert(tx, events).await?;
    let leases: Vec<Lease> =
        writes.iter().filter_map(|write| if let Write::Begin(lease) = write { Some(*lease) } else { None }).collect();
    if !leases.is_empty() {
        done.extend(data_phase::begin_data(tx, &leases, data_lease_seconds).await?);
    }
    let done = writes
        .iter()
        .map(|write| match write {
            Write::Begin((_, id, _)) => done.contains(id),
            Write::Settle(settlement, _) => done.contains(&settlement.id),
        })
        .collect();
    Ok(Applied { done, events, suppressed: settled.suppressed })
}

fn trace_of(writes: &[&Write], id: OutreachId) -> TraceContext {
    writes
        .iter()
        .find_map(|write| match write {
            Write::Settle(settlement, trace) if settlement.id == id => Some(trace.clone()),
            _ => None,
        })
        .unwrap_or_default()
}
