//! Made-up creators into the intake, as fast as it takes them or at a rate.

use std::{sync::Arc, time::Duration};

use domain::id::RunId;
use sha2::{Digest, Sha256};
use store::{
    intake::Dedupe,
    programs::OpenProgram,
    runs::{Counts, Origin, RunKind},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    intake::{CollectError, Intake, PAGES_WAITING, Run, Summary},
    source::{
        PAGE_ROWS, Row, SourceError, feed,
        simulated::{SimulatedSource, SimulationMix},
    },
};

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Simulation {
    /// Tells one population of creators from another.
    pub seed: u64,
    /// How many rows.
    pub count: u64,
    /// Which of them are not as they should be.
    pub mix: SimulationMix,
    /// Rows per second; `None` for as fast as they are taken.
    pub rate: Option<f64>,
}

/// Takes a simulation in. The same one twice adds nothing.
pub async fn simulate(
    intake: &Intake,
    program: Arc<OpenProgram>,
    simulation: &Simulation,
    cancel: &CancellationToken,
    progress: impl FnMut(&Counts),
) -> Result<Summary, CollectError> {
    let Simulation { seed, count, mix, rate } = *simulation;
    let run = Run {
        id: RunId::generate(),
        program,
        kind: RunKind::Simulation,
        source_digest: Sha256::digest(format!("simulation {seed} {mix:?}")).into(),
        default_source: None,
        dedupe: Dedupe::Skip,
        origin: Origin { file_name: None, terms: Some("simulated leads, who are nobody".to_owned()) },
    };
    let pages = match rate {
        None => feed(SimulatedSource::new(seed, count, mix), PAGES_WAITING),
        Some(rate) => paced(SimulatedSource::new(seed, count, mix), count, rate),
    };
    intake.take_all(&run, pages, cancel, progress).await
}

/// Pages at a steady rate, each at its time: a slow moment is caught up with.
fn paced(source: SimulatedSource, count: u64, rate: f64) -> mpsc::Receiver<Result<Vec<Row>, SourceError>> {
    let (sender, receiver) = mpsc::channel(PAGES_WAITING);
    // Four pages a second, unless a page would get too large.
    let page_rows = (rate / 4.0).clamp(1.0, PAGE_ROWS as f64) as u64;
    tokio::spawn(async move {
        let started = Instant::now();
        let mut next = 0;
        while next < count {
            tokio::time::sleep_until(started + Duration::from_secs_f64(next as f64 / rate.max(0.001))).await;
            let end = count.min(next + page_rows);
            let page = (next..end).map(|index| Row::Profile(Box::new(source.row(index)))).collect();
            if sender.send(Ok(page)).await.is_err() {
                return;
            }
            next = end;
        }
    });
    receiver
}
