//! Running the enricher: with a context that is shared with other services, or as a process of its own.

use std::sync::Arc;

use anyhow::Context as _;
use broker::{Admin, BrokerConfig, Publisher};
use domain::clock::{Clock, SystemClock};
use pipeline::{Health, Outbox, OutboxConfig, Part, ReconcilerConfig, RunnerConfig, StageRunner, reconciler};
use service::{
    config::{AmqpConfig, DatabaseConfig, Document, ReconcilerSection, VaultConfig},
    readiness::Readiness,
    shutdown::Shutdown,
};
use store::{Db, DbConfig, model_usage, programs::Directory, schema};
use tokio_util::sync::CancellationToken;
use vault::{MasterKey, Vault};

use crate::{
    RefusalAlarm,
    analyst::Analyst,
    config::{EnricherConfig, ProviderChoice},
    local::LocalAnalyser,
    model::{Budget, ModelClient},
    stage::{EnrichStage, Spending},
};

/// Leads in hand per request that may run at the same time. More would only wait, and what waits too long looks lost to
/// the reconciler and is sent, and paid for, again.
const IN_HAND_PER_REQUEST: usize = 4;

/// What the enricher needs of its process; several services can share one.
#[derive(Clone)]
pub struct Context {
    /// The database, its schema checked.
    pub db: Db,
    /// Programs and their keys.
    pub programs: Directory,
    /// How to consume.
    pub consumer: BrokerConfig,
    /// For dead letters.
    pub publisher: Publisher,
    /// For events.
    pub outbox: Outbox,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Is told of PostgreSQL and RabbitMQ.
    pub health: Health,
    /// Where the model's own check is registered.
    pub readiness: Readiness,
    /// Ends the work.
    pub shutdown: Shutdown,
}

/// Enriches leads until shutdown.
///
/// # Errors
/// When the model's client can't be made; outages are waited out.
pub async fn run(config: EnricherConfig, context: Context) -> anyhow::Result<()> {
    let mut consumer = context.consumer;
    let mut concurrency = config.concurrency.get();
    let (analyst, spending) = match config.provider {
        ProviderChoice::Local => (Analyst::Local(LocalAnalyser::new()), None),
        ProviderChoice::OpenAi => {
            let model = config.model;
            let in_hand = model.concurrency.get().saturating_mul(IN_HAND_PER_REQUEST);
            consumer.prefetch = consumer.prefetch.min(u16::try_from(in_hand).unwrap_or(u16::MAX));
            concurrency = concurrency.min(in_hand);
            let budget = Arc::new(Budget::new(model.daily_token_limit));
            learn_total(&context.db, &budget, &*context.clock).await;
            let name = model.name.clone().unwrap_or_default();
            tracing::info!(enricher.model = name, enricher.base_url = model.base_url, "leads are analysed by a model");
            let alarm = RefusalAlarm::new(context.readiness.register("enricher.model"));
            let client = ModelClient::new(model, Arc::clone(&budget), Arc::clone(&context.clock), alarm)?;
            let analyst = Analyst::Model { client: Box::new(client), fallback: LocalAnalyser::new() };
            (analyst, Some(Spending { model: name, budget }))
        }
    };
    let stage = EnrichStage::new(context.db.clone(), context.programs, analyst, spending, context.clock);
    let runner = RunnerConfig { concurrency, max_batch: config.max_batch.get(), ..RunnerConfig::default() };
    StageRunner::new(Arc::new(stage), context.db, consumer, context.outbox, context.publisher, runner)
        .with_health(context.health)
        .run(context.shutdown.soft().clone(), context.shutdown.hard().clone())
        .await;
    Ok(())
}

/// What was spent before this process started.
async fn learn_total(db: &Db, budget: &Budget, clock: &dyn Clock) {
    if !budget.is_limited() {
        return;
    }
    let today = clock.now().date();
    match db.transact("model_usage.total", |tx, _| Box::pin(model_usage::total(tx, today))).await {
        Ok(total) => budget.learn(today, total),
        // The first written batch tells the total as well.
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "could not read what was spent today"),
    }
}

/// Runs the enricher as a process of its own: connects, waits for its servers, checks the schema, enriches, and takes part
/// in publishing and reconciling.
///
/// # Errors
/// When the configuration, the master key or the schema don't fit.
pub async fn process(document: Document, shutdown: Shutdown, readiness: Readiness) -> anyhow::Result<()> {
    let config = EnricherConfig::read(&document)?;
    let vault = open_vault(&document)?;
    let database: DatabaseConfig = document.section("database")?;
    let amqp: AmqpConfig = document.section("amqp")?;
    let eagerness = eagerness(&document)?;
    let health = observed(&readiness);

    let db = Db::new(&DbConfig {
        max_connections: database.max_connections.get(),
        acquire_timeout: database.acquire_timeout,
        application_name: "leadmill-enricher".to_owned(),
        ..DbConfig::new(database.url.expose())
    })
    .with_context(|| format!("reading the database's address {}", database.url.endpoint()))?;
    let up = db.wait_until_up(|error| {
        let away = error as &dyn std::error::Error;
        tracing::warn!(error = away, database = database.url.endpoint(), "PostgreSQL does not answer yet");
    });
    tokio::select! {
        () = up => {}
        () = shutdown.soft().cancelled() => return Ok(()),
    }
    schema::check(&db).await?;

    let consumer = BrokerConfig {
        prefetch: amqp.prefetch.get(),
        confirm_timeout: amqp.confirm_timeout,
        connect_timeout: amqp.connect_timeout,
        ..BrokerConfig::new(amqp.url.expose()).in_namespace(&amqp.namespace)
    };
    consumer.validate().context("reading the section `amqp`")?;
    let publisher = Publisher::new(consumer.clone(), "leadmill-enricher-publishing");
    let publishing_ends = CancellationToken::new();
    let (outbox, publishing) =
        Outbox::start(db.clone(), publisher.clone(), OutboxConfig::default(), health.clone(), publishing_ends.clone());
    let reconciling = tokio::spawn(reconciler::run(
        db.clone(),
        outbox.clone(),
        Admin::new(consumer.clone()),
        eagerness,
        shutdown.soft().clone(),
    ));
    let context = Context {
        programs: Directory::new(db.clone(), vault),
        db: db.clone(),
        consumer,
        publisher: publisher.clone(),
        outbox,
        clock: Arc::new(SystemClock),
        health,
        readiness,
        shutdown,
    };
    let result = run(config, context).await;

    // The stage's last events still go out, then the connections close.
    reconciling.abort();
    publishing_ends.cancel();
    publishing.await.context("publishing events")?;
    publisher.close().await;
    db.close().await;
    result
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

/// A readiness check for each part of the pipeline's surroundings.
fn observed(readiness: &Readiness) -> Health {
    let checks = Part::ALL.map(|part| (part, readiness.register(part.name())));
    Health::new(move |part, state| {
        for (_, check) in checks.iter().filter(|(of, _)| *of == part) {
            match state {
                Ok(()) => check.set_ready(),
                Err(reason) => check.set_not_ready(reason),
            }
        }
    })
}
