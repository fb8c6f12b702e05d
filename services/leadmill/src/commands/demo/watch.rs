//! Waiting until every lead is through.

use std::time::{Duration, Instant};

use anyhow::bail;
use broker::Admin;
use domain::id::ProgramId;
use service::shutdown::Shutdown;
use store::Db;
use store::runs::Counts;
use store::status::{self, Status};

use crate::progress::Progress;

/// Time between two looks: often enough that the end is seen soon, seldom enough not to cost the pipeline anything.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long nothing may move before the demo says that something is wrong.
const PATIENCE: Duration = Duration::from_mins(2);

/// Looks at the leads of one program.
pub struct Watch {
    db: Db,
    program: ProgramId,
    broker: Admin,
}

impl Watch {
    /// For this program.
    pub fn new(db: Db, program: ProgramId, broker: Admin) -> Self {
        Self { db, program, broker }
    }

    /// Waits until every lead is enriched and decided about, every mail has come to rest, and outbox and queues are empty;
    /// returns what the database counts then.
    pub async fn until_through(
        &self,
        counts: &Counts,
        progress: &Progress,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Status> {
        let mut enriched = progress.meter("enriched", Some(counts.accepted));
        let mut decided = progress.meter("decided", Some(counts.accepted));
        let mut last_move = (Instant::now(), Vec::new());
        loop {
            let status = self.read().await?;
            let done = status.enriched.qualified + status.enriched.declined;
            let captured = status.outreach.get("captured").copied().unwrap_or_default();
            if is_through(&status, counts) && self.queues_are_empty().await? {
                enriched.finish(status.enriched.total as u64, "");
                decided.finish(done as u64, &format!("({captured} mails captured)"));
                return Ok(status);
            }
            enriched.set(status.enriched.total as u64, "");
            decided.set(done as u64, &format!("({captured} mails captured)"));

            let moving = vec![status.enriched.total, done, captured, status.outbox.due, status.outbox.scheduled];
            if moving != last_move.1 {
                last_move = (Instant::now(), moving);
            } else if last_move.0.elapsed() > PATIENCE {
                bail!("nothing has moved for two minutes: {}", what_is_left(&status, counts));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.soft().cancelled() => {
                    bail!("stopped before everything was through: {}", what_is_left(&status, counts))
                }
            }
        }
    }

    async fn read(&self) -> anyhow::Result<Status> {
        let program = Some(self.program);
        Ok(self.db.transact("status.read", |tx, _| Box::pin(status::read(tx, program))).await?)
    }

    async fn queues_are_empty(&self) -> anyhow::Result<bool> {
        let depths = self.broker.depths().await?;
        Ok(depths.iter().filter(|depth| !depth.dead).all(|depth| depth.depth.is_none_or(|depth| depth.ready == 0)))
    }
}

fn is_through(status: &Status, counts: &Counts) -> bool {
    let moving = ["queued", "sending", "deferred"];
    status.leads.accepted as u64 >= counts.accepted
        && status.enriched.total == status.leads.accepted
        && status.enriched.undecided == 0
        && moving.iter().all(|state| status.outreach.get(*state).is_none_or(|count| *count == 0))
        && status.outbox.due == 0
        && status.outbox.scheduled == 0
}

fn what_is_left(status: &Status, counts: &Counts) -> String {
    let outreach: Vec<String> = ["queued", "sending", "deferred"]
        .iter()
        .filter_map(|state| {
            status.outreach.get(*state).filter(|count| **count > 0).map(|count| format!("{count} {state}"))
        })
        .collect();
    format!(
        "{} of {} leads enriched, {} undecided, mails: {}, outbox: {}. `leadmill dead list` shows what could not be handled",
        status.enriched.total,
        counts.accepted,
        status.enriched.undecided,
        if outreach.is_empty() { "none waiting".to_owned() } else { outreach.join(", ") },
        status.outbox.due + status.outbox.scheduled,
    )
}
