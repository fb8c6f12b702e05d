//! Running the mailer: with a context that is shared with other services, or as a process of its own.

use std::sync::Arc;

use anyhow::Context as _;
use broker::{Admin, BrokerConfig, Publisher};
use domain::clock::{Clock, SystemClock};
use pipeline::{Health, Outbox, OutboxConfig, Part, ReconcilerConfig, RunnerConfig, StageRunner, reconciler};
use service::{
    config::{AmqpConfig, DatabaseConfig, Document, ReconcilerSection, VaultConfig},
    readiness::Readiness,
    run::Program,
    shutdown::Shutdown,
};
use store::{Db, DbConfig, programs::Directory, schema};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vault::{MasterKey, Vault};

use crate::{
    config::{DEFAULTS, MailerConfig, TransportKind},
    message::{Composer, Links},
    plan::PlanStage,
    sender::{Parts, Sender, Transport, gate::Gate, poll},
    transport::SmtpTransport,
    unsubscribe::Unsubscribe,
};

/// What the runner has to know.
pub const PROGRAM: Program = Program {
    name: "mailer",
    version: env!("CARGO_PKG_VERSION"),
    about: "Decides about enriched leads, sends or captures their mails, and serves the unsubscribe pages.",
    defaults: &[DEFAULTS],
    admin: Some("mailer.admin_listen"),
};

/// What the mailer needs of its process; several services can share one.
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
    /// Where the mailer's own checks are registered.
    pub readiness: Readiness,
    /// Ends the work.
    pub shutdown: Shutdown,
}

/// Plans, sends and serves the unsubscribe pages until shutdown. `links` come from [`MailerConfig::read`].
///
/// # Errors
/// When the transport can't be set up or the pages' address can't be bound; outages are waited out.
pub async fn run(config: MailerConfig, links: Links, context: Context) -> anyhow::Result<()> {
    let transport = match config.transport {
        TransportKind::Capture => Transport::capture(),
        TransportKind::Smtp => Transport::Smtp(SmtpTransport::new(config.smtp.clone())?),
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("binding the unsubscribe pages' address {} (`mailer.listen`)", config.listen))?;
    tracing::info!(unsubscribe.address = %listener.local_addr()?, "the unsubscribe pages are served");
    let (soft, hard) = (context.shutdown.soft().clone(), context.shutdown.hard().clone());
    let sender = Sender::new(Parts {
        db: context.db.clone(),
        directory: context.programs.clone(),
        outbox: context.outbox.clone(),
        composer: Arc::new(Composer::new(links)),
        transport,
        gate: Gate::new(context.readiness.register("mailer.smtp")),
        clock: Arc::clone(&context.clock),
        config: config.clone(),
        hard: hard.clone(),
    });
    let pages = Unsubscribe::new(
        context.db.clone(),
        context.programs.clone(),
        context.outbox.clone(),
        Arc::clone(&context.clock),
    );
    let stage = PlanStage::new(context.db.clone(), context.programs, sender.clone(), Arc::clone(&context.clock));
    let runner = RunnerConfig {
        concurrency: config.concurrency.get() as usize,
        max_batch: config.max_batch.get() as usize,
        max_attempts: config.max_attempts.get(),
        ..RunnerConfig::default()
    };
    let planning =
        StageRunner::new(Arc::new(stage), context.db, context.consumer, context.outbox, context.publisher, runner)
            .with_health(context.health)
            .run(soft.clone(), hard.clone());
    let serving = async {
        let until_soft = soft.clone().cancelled_owned();
        let served = axum::serve(listener, pages.router()).with_graceful_shutdown(until_soft);
        // A visitor who never ends must not keep the process.
        hard.run_until_cancelled(served.into_future()).await.unwrap_or(Ok(()))
    };
    let ((), (), served) = tokio::join!(planning, poll::run(&sender, &soft), serving);
    sender.drain().await;
    served.context("serving the unsubscribe pages")
}

/// Runs the mailer as a process of its own: connects, waits for its servers, checks the schema, sends, and takes part in
/// publishing and reconciling.
///
/// # Errors
/// When the configuration, the master key or the schema don't fit.
pub async fn process(document: Document, shutdown: Shutdown, readiness: Readiness) -> anyhow::Result<()> {
    let (config, links) = MailerConfig::read(&document)?;
    let vault = open_vault(&document)?;
    let database: DatabaseConfig = document.section("database")?;
    let amqp: AmqpConfig = document.section("amqp")?;
    let eagerness = eagerness(&document)?;
    let health = observed(&readiness);

    let db = Db::new(&DbConfig {
        max_connections: database.max_connections.get(),
        acquire_timeout: database.acquire_timeout,
        application_name: "leadmill-mailer".to_owned(),
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
    let publisher = Publisher::new(consumer.clone(), "leadmill-mailer-publishing");
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
    let result = run(config, links, context).await;

    // The last events still go out, then the connections close.
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
