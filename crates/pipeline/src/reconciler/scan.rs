//! One pass over the unfinished leads, program by program, in the order of their ids.

use std::time::Duration;

use domain::{
    clock::{Clock as _, SystemClock},
    event::{Outgoing, Queue},
    id::{LeadId, ProgramId},
};
use store::{
    Db, StoreError, outbox, programs,
    reconcile::{self, Page},
};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{ReconcilerConfig, emission_history::EmissionHistory};
use crate::outbox::Outbox;

/// Before every UUIDv7.
const START: LeadId = LeadId::from_uuid(Uuid::nil());

/// How far a scan may go before it stops for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// How many events may be emitted.
    pub(super) events: usize,
    /// How long it may go from page to page without finding anything lost; no limit if `None`.
    pub(super) time: Option<Duration>,
}

/// What came of going on with a scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    /// Whether all unfinished leads were looked at.
    pub(super) at_the_end: bool,
    /// How many events were emitted.
    pub(super) emitted: usize,
}

/// A scan of the unfinished leads that a queue's consumer should have handled.
pub(super) struct Scan {
    queue: Queue,
    /// What changed later may be on its way.
    before: OffsetDateTime,
    /// Where it goes on: within which program (the first after it, if that is gone), after which lead.
    at: Option<(ProgramId, LeadId)>,
    history: EmissionHistory,
    /// How many events this scan has emitted.
    emitted: usize,
}

impl Scan {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, before: OffsetDateTime::UNIX_EPOCH, at: None, history: EmissionHistory::default(), emitted: 0 }
    }

    /// From the beginning, for everything that was changed before this instant.
    pub(super) fn begin(&mut self, before: OffsetDateTime) {
        self.before = before;
        self.at = None;
        self.emitted = 0;
    }

    /// What was emitted is lost as well.
    pub(super) fn forget(&mut self) {
        self.history = EmissionHistory::default();
    }

    /// Goes on until all unfinished leads were looked at or the allowance is used up. One page is always looked at.
    pub(super) async fn go_on(
        &mut self,
        db: &Db,
        outbox: &Outbox,
        config: &ReconcilerConfig,
        allowance: Allowance,
    ) -> Result<Slice, StoreError> {
        let mut programs = db.transact("reconciler.programs", |tx, _| Box::pin(programs::ids(tx))).await?;
        programs.sort_unstable();
        let mut emitted = 0;
        let mut has_looked = false;
        let mut found_at = Instant::now();
        for program in programs {
            let mut after = match self.at {
                Some((current, _)) if program < current => continue,
                Some((current, after)) if program == current => after,
                _ => START,
            };
            loop {
                self.at = Some((program, after));
                let is_late = allowance.time.is_some_and(|time| found_at.elapsed() >= time);
                let left = allowance.events.saturating_sub(emitted);
                if left == 0 || (has_looked && is_late) {
                    return Ok(Slice { at_the_end: false, emitted });
                }
                has_looked = true;
                let limit = usize::from(config.page.max(1)).min(left);
                let page = self.page(db, program, after, limit).await?;
                let lost = self.history.unknown(page.lost, config.again_after);
                if !lost.is_empty() {
                    emitted += lost.len();
                    self.emitted += lost.len();
                    let rows = {
                        let lost = &lost;
                        db.transact("reconciler.emit", |tx, _| Box::pin(outbox::insert(tx, lost.clone()))).await?
                    };
                    outbox.offer(rows);
                    self.history.emitted(&lost);
                    found_at = Instant::now();
                }
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
        }
        if self.emitted > 0 {
            tracing::warn!(queue = %self.queue, emitted = self.emitted, "messages of leads were lost and emitted again");
        }
        self.at = None;
        self.history.prune(config.again_after);
        Ok(Slice { at_the_end: true, emitted })
    }

    async fn page(&self, db: &Db, program: ProgramId, after: LeadId, limit: usize) -> Result<Page, StoreError> {
        let (queue, before, now) = (self.queue, self.before, SystemClock.now());
        let limit = limit as i64;
        db.transact("reconciler.page", |tx, _| {
            Box::pin(async move {
                let mut page = match queue {
                    Queue::LeadCreated => reconcile::unenriched(tx, program, after, before, limit, now).await?,
                    Queue::LeadEnriched => reconcile::undecided(tx, program, after, before, limit, now).await?,
                };
                if !page.lost.is_empty() {
                    let leads: Vec<LeadId> = page.lost.iter().map(lead).collect();
                    let waiting = reconcile::still_in_outbox(tx, &leads).await?;
                    page.lost.retain(|outgoing| !waiting.contains(&lead(outgoing)));
                }
                Ok(page)
            })
        })
        .await
    }
}

const fn lead(outgoing: &Outgoing) -> LeadId {
    outgoing.envelope.lead_id
}
