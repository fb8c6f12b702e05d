//! Opening and closing what the services of one process share.

use std::sync::Arc;

use anyhow::Context as _;
use broker::{Admin, BrokerConfig, Publisher};
use domain::clock::SystemClock;
use pipeline::{Outbox, OutboxConfig};
use retry::Policy;
use service::{
    config::{DatabaseConfig, Document},
    readiness::Readiness,
    shutdown::Shutdown,
};
use store::{Db, programs::Directory, schema, server};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Context,
    health::Surroundings,
    jobs::{self, JobParts},
    settings,
};

/// One pool, one publisher and one outbox, and this process's part in publishing and in the jobs.
pub struct Process {
    /// The database, its schema checked.
    pub db: Db,
    /// Programs and their keys.
    pub programs: Directory,
    /// For events.
    pub outbox: Outbox,
    /// How to reach RabbitMQ.
    pub broker: BrokerConfig,
    publisher: Publisher,
    surroundings: Surroundings,
    readiness: Readiness,
    shutdown: Shutdown,
    jobs: JoinHandle<()>,
    jobs_end: CancellationToken,
    publishing: JoinHandle<()>,
    publishing_ends: CancellationToken,
}

impl Process {
    /// Waits for PostgreSQL, checks the schema, and starts to publish and to run jobs; `None` when shutdown came first.
    /// `name` is what the servers show for its connections.
    ///
    /// # Errors
    /// When the configuration, the master key, the schema or a pooler don't fit; outages are waited out.
    pub async fn open(
        name: &str,
        document: &Document,
        shutdown: &Shutdown,
        readiness: &Readiness,
    ) -> anyhow::Result<Option<Self>> {
        let vault = settings::vault(document)?;
        let broker = settings::broker(document)?;
        let reconciler = settings::reconciler(document)?;
        let db = settings::database(document, name)?;
        let surroundings = Surroundings::new(readiness);

        let config: DatabaseConfig = document.section("database")?;
        let up = wait_for_database(&config, &surroundings);
        let Some(()) = shutdown.soft().run_until_cancelled(up).await else {
            return Ok(None);
        };
        schema::check(&db).await?;
        db.check_statements().await?;

        let publisher = Publisher::new(broker.clone(), &format!("{name}-publishing"));
        let publishing_ends = CancellationToken::new();
        let (outbox, publishing) = Outbox::start(
            db.clone(),
            publisher.clone(),
            OutboxConfig::default(),
            surroundings.health(None),
            publishing_ends.clone(),
        );
        let parts = JobParts {
            outbox: outbox.clone(),
            admin: Admin::new(broker.clone()),
            reconciler,
            vault: Some(vault.clone()),
        };
        let jobs_end = shutdown.soft().child_token();
        let jobs = tokio::spawn(pipeline::jobs::run(db.clone(), jobs::catalogue(parts)?, jobs_end.clone()));
        Ok(Some(Self {
            programs: Directory::new(db.clone(), vault),
            db,
            outbox,
            broker,
            publisher,
            surroundings,
            readiness: readiness.clone(),
            shutdown: shutdown.clone(),
            jobs,
            jobs_end,
            publishing,
            publishing_ends,
        }))
    }

    /// For one service, with a readiness check of this name for its consumer, if it is one.
    pub fn context(&self, consuming: Option<&str>) -> Context {
        Context {
            db: self.db.clone(),
            programs: self.programs.clone(),
            broker: self.broker.clone(),
            publisher: self.publisher.clone(),
            outbox: self.outbox.clone(),
            clock: Arc::new(SystemClock),
            health: self.surroundings.health(consuming.map(|name| self.readiness.register(name))),
            readiness: self.readiness.clone(),
            shutdown: self.shutdown.clone(),
        }
    }

    /// After the services have ended: stops the jobs, publishes the last events, then closes the connections.
    ///
    /// # Errors
    /// When the jobs or publishing broke off by a defect of the program.
    pub async fn close(self) -> anyhow::Result<()> {
        // Jobs may still emit events.
        self.jobs_end.cancel();
        let abort = self.jobs.abort_handle();
        let jobs = if let Some(ended) = self.shutdown.hard().run_until_cancelled(self.jobs).await {
            ended.context("running jobs")
        } else {
            abort.abort();
            Ok(())
        };
        self.publishing_ends.cancel();
        let published = self.publishing.await.context("publishing events");
        self.publisher.close().await;
        self.db.close().await;
        published.and(jobs)
    }
}

/// Waits until PostgreSQL lets this program in, for as long as it takes.
async fn wait_for_database(config: &DatabaseConfig, surroundings: &Surroundings) {
    let (database, limit) = (config.url.endpoint(), config.acquire_timeout);
    let mut waits = Policy::OUTAGE.start();
    loop {
        let reason = match timeout(limit, server::reach(config.url.expose())).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(_) => format!("no answer within {} s", limit.as_secs_f32()),
        };
        if waits.is_news() {
            tracing::warn!(database, reason, "PostgreSQL doesn't let this program in; trying again until it does");
        }
        surroundings.database_is_away(&reason);
        waits.pause().await;
    }
    if waits.reset() {
        tracing::info!(database, "PostgreSQL lets this program in");
    }
}

/// Runs one service as a process of its own: opens, serves until it ends, closes. `consuming` is the readiness check of its
/// consumer, if it is one.
///
/// # Errors
/// What [`Process::open`] says, or the service's own failure.
pub async fn run<F>(
    name: &str,
    consuming: Option<&str>,
    document: &Document,
    shutdown: &Shutdown,
    readiness: &Readiness,
    service: impl FnOnce(Context) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let Some(process) = Process::open(name, document, shutdown, readiness).await? else {
        return Ok(());
    };
    let served = service(process.context(consuming)).await;
    served.and(process.close().await)
}
