//! From pages of raw rows to stored leads: validates, batches, overlaps transactions, counts.
//!
//! A page becomes one transaction. Several are under way at once, so that parsing, sealing and the database overlap; each
//! adds its counts only after its COMMIT, so that they are exact whatever happens. An outage is waited out: a page whose
//! outcome is unknown is stored again, and what was stored already counts as a duplicate then.

use std::sync::{Arc, LazyLock};

use domain::{clock::Clock, id::RunId, lead::SourceName};
use opentelemetry::{KeyValue, metrics::Counter};
use pipeline::Outbox;
use retry::Policy;
use store::{
    Db, StoreError,
    intake::{Dedupe, IntakeBatch, accept},
    programs::OpenProgram,
    rejects::Reject,
    runs::{self, Counts, Origin, RunKind},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};
use vault::Vault;

use crate::{
    source::{Row, SourceError},
    validate::validate,
};

/// Pages that wait between parser and database.
pub const PAGES_WAITING: usize = 2;
/// Transactions under way at once.
const PAGES_UNDER_WAY: usize = 3;

/// Why leads could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The source can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The database refused.
    #[error("storing the leads of run {run} failed")]
    Store {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A task of the run ended by a panic.
    #[error("run {run} broke off by a defect of the program")]
    Panicked {
        /// The run.
        run: RunId,
    },
}

/// What taking leads in needs. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    /// The database.
    pub db: Db,
    /// Seals what is stored.
    pub vault: Vault,
    /// Tells when leads are created.
    pub clock: Arc<dyn Clock>,
    /// Publishes the events at once; without one they are left to the sweepers of running services.
    pub outbox: Option<Outbox>,
}

/// What a run is.
#[derive(Clone)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The program that the leads are for.
    pub program: Arc<OpenProgram>,
    /// Where they come from.
    pub kind: RunKind,
    /// Names the source's content: the same content a second time makes no second reject rows.
    pub source_digest: [u8; 32],
    /// The network of rows that name none.
    pub default_source: Option<SourceName>,
    /// What to do with known leads.
    pub dedupe: Dedupe,
    /// Where all of its leads come from.
    pub origin: Origin,
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The run.
    pub run_id: RunId,
    /// What became of its rows.
    pub counts: Counts,
    /// Whether the source was read to its end.
    pub complete: bool,
}

static ROWS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("leadmill")
        .u64_counter("leadmill.collector.rows")
        .with_description("Rows taken in, by kind of run and result")
        .build()
});

/// Counts rows for the metrics.
pub(crate) fn count_rows(kind: RunKind, counts: &Counts) {
    let kind = match kind {
        RunKind::Import => "import",
        RunKind::Simulation => "simulation",
        RunKind::Http => "http",
    };
    let results = [
        ("accepted", counts.accepted),
        ("updated", counts.updated),
        ("duplicate", counts.duplicates),
        ("rejected", counts.rejected),
    ];
    for (result, rows) in results.into_iter().filter(|(_, rows)| *rows > 0) {
        ROWS.add(rows, &[KeyValue::new("source", kind), KeyValue::new("result", result)]);
    }
}

impl Intake {
    /// Records that a run begins.
    pub async fn start(&self, run: &Run) -> Result<(), CollectError> {
        let (program, id, kind, digest) = (run.program.program.id, run.id, run.kind, run.source_digest);
        let (keys, origin, now) = (&run.program.keys, &run.origin, self.clock.now());
        let started = self
            .db
            .transact("run.start", |tx, _| {
                Box::pin(async move {
                    runs::start(tx, program, id, kind, Some(&digest), now).await?;
                    if *origin == Origin::default() { Ok(()) } else { runs::describe(tx, keys, id, origin).await }
                })
            })
            .await;
        started.map_err(|source| CollectError::Store { run: id, source })
    }

    /// Records that a run is over.
    pub async fn finish(&self, run: &Run) -> Result<(), CollectError> {
        let (program, id, now) = (run.program.program.id, run.id, self.clock.now());
        let finished = self
            .db
            .transact("run.finish", |tx, _| Box::pin(async move { runs::finish(tx, program, id, now).await }))
            .await;
        finished.map_err(|source| CollectError::Store { run: id, source })
    }

    /// Takes in all pages. After `cancel` no further page is begun; what is under way is finished.
    pub async fn take_all(
        &self,
        run: &Run,
        mut pages: mpsc::Receiver<Result<Vec<Row>, SourceError>>,
        cancel: &CancellationToken,
        mut progress: impl FnMut(&Counts),
    ) -> Result<Summary, CollectError> {
        self.start(run).await?;
        // The last of several rows about one lead must win an update: one page after the other.
        let at_once = if run.dedupe == Dedupe::Update { 1 } else { PAGES_UNDER_WAY };
        let mut counts = Counts::default();
        let mut under_way = JoinSet::new();
        // Whether the page that was settled last had only new leads: then so will the next, as a rule.
        let mut newcomers = false;
        let mut complete = false;
        let mut failure = None;
        loop {
            while under_way.len() >= at_once || (failure.is_some() && !under_way.is_empty()) {
                newcomers = settle(run, under_way.join_next().await, &mut counts, &mut failure);
                progress(&counts);
            }
            if failure.is_some() {
                break;
            }
            let page = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                page = pages.recv() => page,
            };
            match page {
                Some(Ok(page)) => {
                    let (intake, run) = (self.clone(), run.clone());
                    under_way.spawn(async move { intake.take_page(&run, page, newcomers).await });
                }
                Some(Err(error)) => failure = Some(error.into()),
                None => {
                    complete = true;
                    break;
                }
            }
        }
        while let Some(ended) = under_way.join_next().await {
            settle(run, Some(ended), &mut counts, &mut failure);
            progress(&counts);
        }
        if let Some(error) = failure {
            return Err(error);
        }
        if complete {
            self.finish(run).await?;
        }
        Ok(Summary { run_id: run.id, counts, complete })
    }

    /// Takes in one page in one transaction; waits for a database that is away.
    async fn take_page(&self, run: &Run, page: Vec<Row>, likely_new: bool) -> Result<Counts, CollectError> {
        let span = info_span!("collector.page", run.id = %run.id, rows = page.len());
        async {
            if let Some(outbox) = &self.outbox {
                outbox.room().await;
            }
            let batch = self.batch(run, page, likely_new);
            let mut waits = Policy::OUTAGE.start();
            loop {
                match accept(&self.db, &self.vault, &run.program, &batch, |_| serde_json::Value::Null).await {
                    Ok(outcome) => {
                        if let Some(outbox) = &self.outbox {
                            outbox.offer(outcome.outbox);
                        }
                        count_rows(run.kind, &outcome.counts);
                        return Ok(outcome.counts);
                    }
                    Err(error) if error.is_transient() => {
                        if waits.is_news() {
                            warn!(run.id = %run.id, error = chain(&error), "the database is away, the page waits");
                        }
                        waits.pause().await;
                    }
                    Err(source) => return Err(CollectError::Store { run: run.id, source }),
                }
            }
        }
        .instrument(span)
        .await
    }

    fn batch(&self, run: &Run, page: Vec<Row>, likely_new: bool) -> IntakeBatch {
        let mut items = Vec::with_capacity(page.len());
        let mut rejects = Vec::new();
        let now = self.clock.now();
        for row in page {
            match row {
                Row::Profile(raw) => match validate(&raw, run.default_source.as_ref(), now) {
                    Ok(submission) => items.push(submission),
                    Err(refusal) => rejects.push(Reject {
                        source_digest: run.source_digest,
                        line: raw.line,
                        defect: refusal.defect,
                        raw: raw.raw,
                        username: refusal.username,
                        email: refusal.email,
                    }),
                },
                Row::Defect(defect) => rejects.push(Reject {
                    source_digest: run.source_digest,
                    line: defect.line,
                    defect: defect.defect,
                    raw: defect.raw,
                    username: None,
                    email: None,
                }),
            }
        }
        let trace = pipeline::current_trace();
        IntakeBatch { run_id: run.id, items, rejects, dedupe: run.dedupe, likely_new, trace, now, idempotency: None }
    }
}

type Ended = Option<Result<Result<Counts, CollectError>, tokio::task::JoinError>>;

/// Adds up what has become of a page, and says whether it brought new leads and no other.
fn settle(run: &Run, ended: Ended, counts: &mut Counts, failure: &mut Option<CollectError>) -> bool {
    match ended {
        Some(Ok(Ok(of_page))) => {
            *counts += of_page;
            return of_page.accepted > 0 && of_page.updated + of_page.duplicates == 0;
        }
        // The first failure is the one to tell.
        Some(Ok(Err(error))) => *failure = failure.take().or(Some(error)),
        Some(Err(_)) => *failure = failure.take().or(Some(CollectError::Panicked { run: run.id })),
        None => {}
    }
    false
}

/// An error with its sources, for the log.
pub(crate) fn chain(error: &(impl std::error::Error + 'static)) -> &(dyn std::error::Error + 'static) {
    error
}
