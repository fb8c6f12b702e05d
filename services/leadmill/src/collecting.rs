//! Taking leads in without a running service: `import` and `simulate`.
//!
//! What is taken in is safe in PostgreSQL together with its events. When RabbitMQ answers, this process publishes them
//! itself; otherwise they wait in the outbox for a running service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use broker::Publisher;
use collector::intake::{Intake, Summary};
use domain::clock::SystemClock;
use domain::program::Slug;
use pipeline::{Health, Outbox, OutboxConfig};
use serde_json::json;
use service::config::Document;
use store::{
    outbox,
    programs::{Directory, OpenProgram},
    runs::Counts,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::output;
use crate::settings;

/// How long RabbitMQ is waited for before the events are left in the outbox.
const BROKER_PATIENCE: Duration = Duration::from_secs(3);
/// How long the last events may take to be published.
const PUBLISH_LIMIT: Duration = Duration::from_secs(20);
/// Time between two looks at the buffer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a collection needs.
pub struct Collecting {
    /// Takes pages in.
    pub intake: Intake,
    /// The program that they are for.
    pub program: Arc<OpenProgram>,
    /// Cancelled by Ctrl-C.
    pub cancel: CancellationToken,
    publishing: Option<Publishing>,
    started: Instant,
}

struct Publishing {
    outbox: Outbox,
    publisher: Publisher,
    task: JoinHandle<()>,
    ends: CancellationToken,
}

impl Collecting {
    /// Connects.
    pub async fn begin(document: &Document, program: Slug) -> anyhow::Result<Self> {
        let vault = settings::vault(document)?;
        let broker = settings::broker(document)?;
        let db = settings::connect(document).await?;
        let found = Directory::new(db.clone(), vault.clone()).by_slug(&program).await?;
        let program = found.ok_or_else(|| settings::no_such_program(&program))?;

        let publisher = Publisher::new(broker, "leadmill-collecting");
        let answers = matches!(tokio::time::timeout(BROKER_PATIENCE, publisher.ready()).await, Ok(Ok(())));
        let publishing = answers.then(|| {
            let ends = CancellationToken::new();
            let (outbox, task) = Outbox::start(
                db.clone(),
                publisher.clone(),
                OutboxConfig::default(),
                Health::unobserved(),
                ends.clone(),
            );
            Publishing { outbox, publisher, task, ends }
        });
        let outbox = publishing.as_ref().map(|publishing| publishing.outbox.clone());
        let intake = Intake { db, vault, clock: Arc::new(SystemClock), outbox };
        let cancel = CancellationToken::new();
        let interrupted = cancel.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                output::note("stopping when what is under way is stored; start it again to go on");
                interrupted.cancel();
            }
        });
        Ok(Self { intake, program, cancel, publishing, started: Instant::now() })
    }

    /// Publishes the last events, for a bounded time, and prints what became of the rows.
    ///
    /// # Errors
    /// When the source wasn't read to its end.
    pub async fn end(self, summary: &Summary, as_json: bool) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut unpublished = u64::MAX;
        if let Some(Publishing { outbox, publisher, task, ends }) = self.publishing {
            let published = async {
                while outbox.buffered() > 0 {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            // What isn't published in time is in the outbox all the same.
            let _ = tokio::time::timeout(PUBLISH_LIMIT, published).await;
            ends.cancel();
            task.await.context("publishing events")?;
            publisher.close().await;
            unpublished = outbox.unpublished();
        }
        let depth = self.intake.db.transact("outbox.depth", |tx, _| Box::pin(outbox::depth(tx))).await?;
        // Running services have events of their own in the outbox, on the way out.
        let waiting = unpublished.min((depth.due + depth.scheduled) as u64);
        let Counts { accepted, updated, duplicates, rejected, rejected_new } = summary.counts;
        let rate = summary.counts.rows() as f64 / seconds.max(0.001);
        if as_json {
            output::json(&json!({
                "run": summary.run_id,
                "program": self.program.program.slug.as_str(),
                "rows": summary.counts.rows(),
                "accepted": accepted,
                "updated": updated,
                "duplicates": duplicates,
                "rejected": rejected,
                "rejected_new": rejected_new,
                "complete": summary.complete,
                "outbox": waiting,
                "seconds": seconds,
                "rows_per_second": rate,
            }))?;
        } else {
            output::line(format_args!(
                "{} rows: {accepted} accepted, {updated} updated, {duplicates} duplicates, {rejected} rejected \
                 ({seconds:.1} s, {rate:.0} rows/s)",
                summary.counts.rows()
            ))?;
            if rejected > 0 {
                let slug = &self.program.program.slug;
                output::note(format_args!("Why rows were rejected: leadmill rejects export --program {slug}"));
            }
            if waiting > 0 {
                output::note(format_args!(
                    "{waiting} events wait in the outbox for a running service (`leadmill up`) to publish them."
                ));
            }
        }
        if !summary.complete {
            bail!("stopped before the end; the same command again goes on, and what is there counts as duplicates");
        }
        Ok(())
    }
}
