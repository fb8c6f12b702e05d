//! All services in one process, over one pool, one publisher and one outbox.

use anyhow::Context;
use bootstrap::Process;
use collector::config::CollectorConfig;
use enricher::config::EnricherConfig;
use mailer::config::MailerConfig;
use service::config::Document;
use service::readiness::Readiness;
use service::shutdown::Shutdown;
use tokio::task::JoinSet;

/// The running services, and what they share.
pub struct Services {
    /// The connections and what else they share.
    pub process: Process,
    running: JoinSet<anyhow::Result<()>>,
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
        let Some(process) = Process::open("leadmill", document, shutdown, readiness).await? else {
            return Ok(None);
        };
        let collecting = collector::run(collector, process.context(None));
        let enriching = enricher::run(enricher, process.context(Some("enricher.consuming")));
        let mailing = mailer::run(mailer, links, process.context(Some("mailer.consuming")));
        let mut running = JoinSet::new();
        running.spawn(supervised("collector", collecting, shutdown.clone()));
        running.spawn(supervised("enricher", enriching, shutdown.clone()));
        running.spawn(supervised("mailer", mailing, shutdown.clone()));
        Ok(Some(Self { process, running }))
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
        result.and(self.process.close().await)
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
