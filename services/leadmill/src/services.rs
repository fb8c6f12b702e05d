//! All services in one process, over one pool, one publisher and one outbox.

use std::sync::Arc;

use anyhow::Context;
use broker::{Admin, BrokerConfig, Publisher};
use collector::config::CollectorConfig;
use domain::clock::{Clock, SystemClock};
use enricher::config::EnricherConfig;
use mailer::config::MailerConfig;
use pipeline::{Health, Outbox, OutboxConfig, Part, ReconcilerConfig, reconciler};
use service::config::{DatabaseConfig, Document, ReconcilerSection};
use service::readiness::{Readiness, ReadinessHandle};
use service::shutdown::Shutdown;
use store::{Db, programs::Directory, schema};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::settings;

/// The running services, and what they share.
pub struct Services {
    /// The database, its schema checked.
    pub db: Db,
    /// Programs and their keys.
    pub programs: Directory,
    /// For events.
    pub outbox: Outbox,
    /// How to reach RabbitMQ.
    pub broker: BrokerConfig,
    publisher: Publisher,
    running: JoinSet<anyhow::Result<()>>,
    reconciling: JoinHandle<()>,
    publishing: JoinHandle<()>,
    publishing_ends: CancellationToken,
}

impl Services {
    /// Waits for PostgreSQL, checks the schema and starts everything; `None` when shutdown came first. A service that
    /// fails asks the others to end.
    ///
    /// # Errors
    /// When the configuration, the master key or the schema don't fit.
    pub async fn start(
        document: &Document,
        shutdown: &Shutdown,
        readiness: &Readiness,
    ) -> anyhow::Result<Option<Self>> {
        let collector = CollectorConfig::read(document)?;
        let enricher = EnricherConfig::read(document)?;
        let (mailer, links) = MailerConfig::read(document)?;
        let vault = settings::vault(document)?;
        let broker = settings::broker(document)?;
        let db = settings::database(document)?;
        let Some(()) = shutdown.soft().run_until_cancelled(wait_for_database(document, &db)?).await else {
            return Ok(None);
        };
        schema::check(&db).await?;

        let surroundings = Surroundings::new(readiness);
        let publisher = Publisher::new(broker.clone(), "leadmill-publishing");
        let publishing_ends = CancellationToken::new();
        let (outbox, publishing) = Outbox::start(
            db.clone(),
            publisher.clone(),
            OutboxConfig::default(),
            surroundings.health(None),
            publishing_ends.clone(),
        );
        let reconciling = tokio::spawn(reconciler::run(
            db.clone(),
            outbox.clone(),
            Admin::new(broker.clone()),
            reconciler_config(document)?,
            shutdown.soft().clone(),
        ));
        let programs = Directory::new(db.clone(), vault);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut running = JoinSet::new();
        let collecting = collector::run(
            collector,
            collector::Context {
                db: db.clone(),
                programs: programs.clone(),
                outbox: outbox.clone(),
                clock: Arc::clone(&clock),
                readiness: readiness.clone(),
                shutdown: shutdown.clone(),
            },
        );
        let enriching = enricher::run(
            enricher,
            enricher::Context {
                db: db.clone(),
                programs: programs.clone(),
                consumer: broker.clone(),
                publisher: publisher.clone(),
                outbox: outbox.clone(),
                clock: Arc::clone(&clock),
                health: surroundings.health(Some(readiness.register("enricher.consuming"))),
                readiness: readiness.clone(),
                shutdown: shutdown.clone(),
            },
        );
        let mailing = mailer::run::run(
            mailer,
            links,
            mailer::run::Context {
                db: db.clone(),
                programs: programs.clone(),
                consumer: broker.clone(),
                publisher: publisher.clone(),
                outbox: outbox.clone(),
                clock,
                health: surroundings.health(Some(readiness.register("mailer.consuming"))),
                readiness: readiness.clone(),
                shutdown: shutdown.clone(),
            },
        );
        running.spawn(supervised("collector", collecting, shutdown.clone()));
        running.spawn(supervised("enricher", enriching, shutdown.clone()));
        running.spawn(supervised("mailer", mailing, shutdown.clone()));
        Ok(Some(Self { db, programs, outbox, broker, publisher, running, reconciling, publishing, publishing_ends }))
    }

    /// Waits until all services have ended, publishes their last events, and closes the connections.
    ///
    /// # Errors
    /// The first failure of a service.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let ended = ended.context("a service broke off by a defect of the program").flatten();
            result = result.and(ended);
        }
        self.reconciling.abort();
        self.publishing_ends.cancel();
        self.publishing.await.context("publishing events")?;
        self.publisher.close().await;
        self.db.close().await;
        result
    }
}

/// One service; whatever makes it end, the others don't go on without it.
async fn supervised(
    name: &'static str,
    service: impl Future<Output = anyhow::Result<()>>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    // Also when it panics.
    let _asks_the_others = shutdown.soft().clone().drop_guard();
    service.await.with_context(|| format!("the {name} failed"))
}

fn wait_for_database(document: &Document, db: &Db) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let config: DatabaseConfig = document.section("database")?;
    let db = db.clone();
    Ok(async move {
        db.wait_until_up(|error| {
            let away = error as &dyn std::error::Error;
            tracing::warn!(error = away, database = config.url.endpoint(), "PostgreSQL does not answer yet");
        })
        .await;
    })
}

fn reconciler_config(document: &Document) -> anyhow::Result<ReconcilerConfig> {
    let section: ReconcilerSection = document.section("reconciler")?;
    Ok(ReconcilerConfig {
        observe_every: section.observe_every,
        rest: section.rest,
        grace: section.grace,
        again_after: section.again_after,
        ..ReconcilerConfig::default()
    })
}

/// The readiness checks of what the services share.
#[derive(Clone)]
struct Surroundings {
    database: ReadinessHandle,
    publishing: ReadinessHandle,
}

impl Surroundings {
    fn new(readiness: &Readiness) -> Self {
        Self {
            database: readiness.register(Part::Database.name()),
            publishing: readiness.register(Part::Publishing.name()),
        }
    }

    /// For one user of the pipeline, with a check of its own for its consumer.
    fn health(&self, consuming: Option<ReadinessHandle>) -> Health {
        let Self { database, publishing } = self.clone();
        Health::new(move |part, state| {
            let check = match part {
                Part::Database => Some(&database),
                Part::Publishing => Some(&publishing),
                Part::Consuming => consuming.as_ref(),
            };
            match (check, state) {
                (Some(check), Ok(())) => check.set_ready(),
                (Some(check), Err(reason)) => check.set_not_ready(reason),
                (None, _) => {}
            }
        })
    }
}
