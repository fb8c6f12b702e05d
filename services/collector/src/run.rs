//! Running the collector: with a context that is shared with other services, or as a process of its own.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use broker::{Admin, BrokerConfig, Publisher};
use domain::{
    clock::{Clock, SystemClock},
    program::Slug,
};
use pipeline::{Health, Outbox, OutboxConfig, Part, ReconcilerConfig, reconciler};
use service::{
    config::{AmqpConfig, DatabaseConfig, Document, ReconcilerSection, VaultConfig},
    readiness::Readiness,
    shutdown::Shutdown,
};
use store::{Db, DbConfig, programs::Directory, schema};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vault::{MasterKey, Vault};

use crate::{
    config::{CollectorConfig, SimulateConfig},
    http::Ingest,
    intake::Intake,
    simulate::{Simulation, simulate},
};

/// What the collector needs of its process; several services can share one.
#[derive(Clone)]
pub struct Context {
    /// The database, its schema checked.
    pub db: Db,
    /// Programs and their keys.
    pub programs: Directory,
    /// For events.
    pub outbox: Outbox,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where the ingest's check is registered.
    pub readiness: Readiness,
    /// Ends the work.
    pub shutdown: Shutdown,
}

/// Takes leads in until shutdown.
///
/// # Errors
/// When the ingest's address can't be bound, or there is no program for the simulation that was asked for.
pub async fn run(config: CollectorConfig, context: Context) -> anyhow::Result<()> {
    let Context { db, programs, outbox, clock, readiness, shutdown } = context;
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
    tokio::try_join!(serving, simulating)?;
    ingest.finish().await;
    Ok(())
}

/// Runs the collector as a process of its own: connects, waits for its servers, checks the schema, takes leads in, and
/// takes part in publishing and reconciling.
///
/// # Errors
/// When the configuration, the master key or the schema don't fit.
pub async fn process(document: Document, shutdown: Shutdown, readiness: Readiness) -> anyhow::Result<()> {
    let config = CollectorConfig::read(&document)?;
    let vault = open_vault(&document)?;
    let database: DatabaseConfig = document.section("database")?;
    let amqp: AmqpConfig = document.section("amqp")?;
    let eagerness = eagerness(&document)?;
    let health = observed(&readiness);

    let db = Db::new(&DbConfig {
        max_connections: database.max_connections.get(),
        acquire_timeout: database.acquire_timeout,
        application_name: "leadmill-collector".to_owned(),
        ..DbConfig::new(database.url.expose())
    })
    .with_context(|| format!("reading the database's address {}", database.url.endpoint()))?;
    let up = db.wait_until_up(|error| {
        let away = error as &dyn std::error::Error;
        warn!(error = away, database = database.url.endpoint(), "PostgreSQL does not answer yet");
    });
    tokio::select! {
        () = up => {}
        () = shutdown.soft().cancelled() => return Ok(()),
    }
    schema::check(&db).await?;

    let broker = BrokerConfig {
        prefetch: amqp.prefetch.get(),
        confirm_timeout: amqp.confirm_timeout,
        connect_timeout: amqp.connect_timeout,
        ..BrokerConfig::new(amqp.url.expose()).in_namespace(&amqp.namespace)
    };
    broker.validate().context("reading the section `amqp`")?;
    let publisher = Publisher::new(broker.clone(), "leadmill-collector-publishing");
    let publishing_ends = CancellationToken::new();
    let (outbox, publishing) =
        Outbox::start(db.clone(), publisher.clone(), OutboxConfig::default(), health, publishing_ends.clone());
    let reconciling = tokio::spawn(reconciler::run(
        db.clone(),
        outbox.clone(),
        Admin::new(broker),
        eagerness,
        shutdown.soft().clone(),
    ));
    let context = Context {
        programs: Directory::new(db.clone(), vault),
        db: db.clone(),
        outbox,
        clock: Arc::new(SystemClock),
        readiness,
        shutdown,
    };
    let result = run(config, context).await;

    // The last events still go out, then the connections close.
    reconciling.abort();
    publishing_ends.cancel();
    publishing.await.context("publishing events")?;
    publisher.close().await;
    db.close().await;
    result
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

fn eagerness(document: &Document) -> anyhow::Result<ReconcilerConfig> {
    let ReconcilerSection { observe_every, rest, grace, again_after } = document.section("reconciler")?;
    Ok(ReconcilerConfig { observe_every, rest, grace, again_after, ..ReconcilerConfig::default() })
}

fn open_vault(document: &Document) -> anyhow::Result<Vault> {
    let config: VaultConfig = document.section("vault")?;
    let read = |key: &str, text: &str| {
        text.parse::<MasterKey>()
            .map_err(|_| document.refuse(key, "expected a key as `leadmill keys generate` prints it"))
    };
    let current = read("vault.master_key", config.require_master_key()?.expose())?;
    let older: Result<Vec<MasterKey>, _> =
        config.old_master_keys.iter().map(|key| read("vault.old_master_keys", key.expose())).collect();
    Ok(Vault::new(current, older?))
}

/// A readiness check for each part of the surroundings that the collector uses.
fn observed(readiness: &Readiness) -> Health {
    let checks = [Part::Database, Part::Publishing].map(|part| (part, readiness.register(part.name())));
    Health::new(move |part, state| {
        for (_, check) in checks.iter().filter(|(of, _)| *of == part) {
            match state {
                Ok(()) => check.set_ready(),
                Err(reason) => check.set_not_ready(reason),
            }
        }
    })
}
