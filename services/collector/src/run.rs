//! Running the collector: with a context that is shared with other services, or as a process of its own.

use std::net::SocketAddr;

use anyhow::Context as _;
use bootstrap::Context;
use domain::program::Slug;
use service::{config::Document, readiness::Readiness, shutdown::Shutdown};
use store::programs::Directory;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    config::{CollectorConfig, SimulateConfig},
    http::Ingest,
    intake::Intake,
    simulate::{Simulation, simulate},
};

/// Takes leads in until shutdown; a hard one cuts off requests that are still coming in.
///
/// # Errors
/// When the ingest's address can't be bound, or there is no program for the simulation that was asked for.
pub async fn run(config: CollectorConfig, context: Context) -> anyhow::Result<()> {
    let Context { db, programs, outbox, clock, readiness, shutdown, .. } = context;
    let soft = shutdown.soft().clone();
    let intake = Intake { db, vault: programs.vault().clone(), clock, outbox: Some(outbox) };
    let listening = readiness.register("collector.ingest");
    let listener = TcpListener::bind(config.listen).await;
    let listener =
        listener.with_context(|| format!("binding the ingest's address {} (`collector.listen`)", config.listen))?;
    let address: SocketAddr = listener.local_addr().context("asking for the ingest's address")?;
    let ingest = Ingest::new(intake.clone(), programs.clone(), config.request_timeout);
    let body_limit = usize::try_from(config.body_limit).unwrap_or(usize::MAX);
    let simulating = simulation(intake, &programs, config.simulate, soft.clone());
    let serving = async {
        info!(ingest.address = %address, "the HTTP ingest is listening");
        listening.set_ready();
        axum::serve(listener, ingest.clone().router(body_limit))
            .with_graceful_shutdown(soft.cancelled_owned())
            .await
            .context("serving the HTTP ingest")
    };
    let working = async {
        tokio::try_join!(serving, simulating)?;
        ingest.finish().await;
        Ok(())
    };
    // A client may take its time over a request. Whoever got no answer asks again, with the same idempotency key.
    shutdown.hard().run_until_cancelled(working).await.unwrap_or(Ok(()))
}

/// Runs the collector as a process of its own.
///
/// # Errors
/// When the configuration, the master key or the schema don't fit.
pub async fn process(document: Document, shutdown: Shutdown, readiness: Readiness) -> anyhow::Result<()> {
    let config = CollectorConfig::read(&document)?;
    bootstrap::run("leadmill-collector", None, &document, &shutdown, &readiness, |context| run(config, context)).await
}

/// Collects made-up creators without end, when a program for them is configured.
async fn simulation(
    intake: Intake,
    programs: &Directory,
    config: SimulateConfig,
    soft: CancellationToken,
) -> anyhow::Result<()> {
    let mix = config.mix();
    let Some(slug) = config.program else { return Ok(()) };
    let slug: Slug = slug;
    let program = programs
        .by_slug(&slug)
        .await?
        .with_context(|| format!("`collector.simulate.program`: there is no program `{slug}`"))?;
    let simulation = Simulation { seed: config.seed, count: u64::MAX, mix, rate: Some(config.rate) };
    let summary = simulate(&intake, program, &simulation, &soft, |_| {}).await?;
    info!(run.id = %summary.run_id, accepted = summary.counts.accepted, "the simulation ended");
    Ok(())
}
