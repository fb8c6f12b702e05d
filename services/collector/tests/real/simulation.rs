//! Made-up creators into the database.

use std::sync::Arc;

use collector::{
    simulate::{Simulation, simulate},
    source::simulated::SimulationMix,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_simulation_adds_up_and_a_second_one_adds_nothing() {
    let fixture = Fixture::new().await;
    let simulation = Simulation { seed: 3, count: 2_000, mix: SimulationMix::default(), rate: None };
    let cancel = CancellationToken::new();
    let run = || simulate(&fixture.intake, Arc::clone(&fixture.program), &simulation, &cancel, |_| {});
    let first = run().await.unwrap();
    assert_eq!(first.counts.rows(), 2_000);
    assert!(first.counts.accepted > 1_700 && first.counts.rejected > 40 && first.counts.duplicates > 50);
    let second = run().await.unwrap();
    assert_eq!((second.counts.accepted, second.counts.rejected_new), (0, 0));
    let status = fixture.status().await;
    assert_eq!(status.leads.accepted as u64, first.counts.accepted);
    assert_eq!(status.leads.rejected as u64, first.counts.rejected);
}

#[tokio::test]
async fn a_rate_is_kept() {
    let fixture = Fixture::new().await;
    let simulation = Simulation { seed: 3, count: 100, mix: SimulationMix::CLEAN, rate: Some(200.0) };
    let started = std::time::Instant::now();
    let cancel = CancellationToken::new();
    let summary = simulate(&fixture.intake, Arc::clone(&fixture.program), &simulation, &cancel, |_| {}).await.unwrap();
    assert_eq!(summary.counts.accepted, 100);
    assert!(started.elapsed().as_secs_f64() >= 0.24, "the last half page of 200/s begins after a quarter of a second");
}
