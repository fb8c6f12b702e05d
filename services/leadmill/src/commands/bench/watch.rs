//! Waiting until all leads are through, without getting in their way: the processes' own counters are read, and the
//! database is asked only what an index answers.

use std::time::{Duration, Instant};

use anyhow::bail;
use ceiling::postgres::Database;
use ceiling::truth::Outcome;
use domain::id::ProgramId;
use time::OffsetDateTime;

use super::fleet::{Fleet, Metrics};
use crate::progress::{Meter, Progress};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long nothing may move before something is wrong.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is counted to see how far it is.
#[derive(Debug, Clone, Copy)]
pub enum Counter {
    /// Leads that a stage is done with.
    Handled(&'static str),
    /// Mails that a server took.
    Sent,
}

impl Counter {
    const fn label(self) -> &'static str {
        match self {
            Self::Handled(stage) => stage,
            Self::Sent => "sent",
        }
    }

    /// Where it stands.
    pub fn read(self, metrics: &Metrics) -> u64 {
        match self {
            Self::Handled(stage) => metrics.handled(stage),
            Self::Sent => metrics.sum("leadmill_mailer_mails_total", &["outcome=\"sent\""]),
        }
    }
}

/// Looks at the leads of a run.
pub struct Watch<'a> {
    database: &'a Database,
    program: ProgramId,
    since: OffsetDateTime,
    awaited: Vec<Awaited>,
}

/// What is awaited.
struct Awaited {
    counter: Counter,
    meter: Meter,
    count: u64,
    /// Where the counter stood when the run began.
    before: u64,
}

impl<'a> Watch<'a> {
    /// Awaits that each of `counters`, which stand at `before`, rises by `count`, for leads that are created from an instant
    /// on.
    pub fn new(
        database: &'a Database,
        (program, since): (ProgramId, OffsetDateTime),
        counters: &[Counter],
        count: u64,
        before: &Metrics,
        progress: &Progress,
    ) -> Self {
        let awaited = |counter: &Counter| Awaited {
            counter: *counter,
            meter: progress.meter(counter.label(), Some(count)),
            count,
            before: counter.read(before),
        };
        Self { database, program, since, awaited: counters.iter().map(awaited).collect() }
    }

    /// Waits until all have risen so far, nothing moves any more, and the tables say that it is `done`; returns what they
    /// say.
    ///
    /// # Errors
    /// When a process ends, or nothing moves any more although it isn't done.
    pub async fn until(mut self, fleet: &mut Fleet, done: impl Fn(&Outcome) -> bool) -> anyhow::Result<Outcome> {
        let mut last_move = (Instant::now(), Vec::new());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            fleet.check()?;
            let metrics = fleet.metrics().await?;
            let mut counts: Vec<u64> = Vec::new();
            for awaited in &mut self.awaited {
                let count = awaited.counter.read(&metrics).saturating_sub(awaited.before);
                awaited.meter.set(count.min(awaited.count), "");
                counts.push(count);
            }
            let all_have = self.awaited.iter().zip(&counts).all(|(awaited, count)| *count >= awaited.count);
            if all_have {
                let moving = self.database.moving().await?;
                if !moving.events && !moving.mails {
                    // A delivery that came twice was counted twice: the tables have the last word.
                    let outcome = self.database.outcome(self.program, self.since).await?;
                    if done(&outcome) {
                        for awaited in self.awaited {
                            awaited.meter.give_way(awaited.count);
                        }
                        return Ok(outcome);
                    }
                }
            }
            counts.push(metrics.sum("leadmill_mailer_mails_total", &[]));
            if counts != last_move.1 {
                last_move = (Instant::now(), counts);
            } else if last_move.0.elapsed() > PATIENCE {
                let told: Vec<String> = self
                    .awaited
                    .iter()
                    .zip(&counts)
                    .map(|(awaited, count)| format!("{} {count} of {}", awaited.counter.label(), awaited.count))
                    .collect();
                bail!("nothing has moved for two minutes: {}", told.join(", "));
            }
        }
    }
}
