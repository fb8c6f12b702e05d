//! Running the mailer: with a context that is shared with other services, or as a process of its own.

use std::sync::Arc;

use anyhow::Context as _;
use bootstrap::Context;
use pipeline::{Part, RunnerConfig, StageRunner};
use service::{config::Document, readiness::Readiness, shutdown::Shutdown};
use tokio::net::TcpListener;

use crate::{
    config::{MailerConfig, TransportKind},
    message::{Composer, Links},
    plan::PlanStage,
    sender::{Parts, Sender, Transport, circuit_breaker::CircuitBreaker, poll},
    transport::SmtpTransport,
    unsubscribe::Unsubscribe,
};

/// Plans, sends and serves the unsubscribe pages until shutdown. `links` come from [`MailerConfig::read`].
///
/// # Errors
/// When the transport can't be set up or the pages' address can't be bound; outages are waited out.
pub async fn run(config: MailerConfig, links: Links, context: Context) -> anyhow::Result<()> {
    let transport = match config.transport {
        TransportKind::Capture => Transport::Capture,
        TransportKind::Smtp => Transport::Smtp(SmtpTransport::new(config.smtp.clone())?),
    };
    if config.transport == TransportKind::Smtp && config.test_sink {
        tracing::warn!("mails go to a test sink (`mailer.test_sink`): nobody gets them");
    }
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
        breaker: CircuitBreaker::new(context.readiness.register("mailer.smtp")),
        clock: Arc::clone(&context.clock),
        config: config.clone(),
        soft: soft.clone(),
        hard: hard.clone(),
    });
    let pages = Unsubscribe::new(
        context.db.clone(),
        context.programs.clone(),
        context.outbox.clone(),
        Arc::clone(&context.clock),
    );
    let stage = PlanStage::new(context.db.clone(), context.programs, sender.clone());
    let runner = RunnerConfig {
        concurrency: config.concurrency.get() as usize,
        max_batch: config.max_batch.get() as usize,
        max_attempts: config.max_attempts.get(),
        ..RunnerConfig::default()
    };
    let planning =
        StageRunner::new(Arc::new(stage), context.db, context.broker, context.outbox, context.publisher, runner)
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

/// Runs the mailer as a process of its own.
///
/// # Errors
/// When the configuration, the master key or the schema don't fit.
pub async fn process(document: Document, shutdown: Shutdown, readiness: Readiness) -> anyhow::Result<()> {
    let (config, links) = MailerConfig::read(&document)?;
    let consuming = Some(Part::Consuming.name());
    bootstrap::run("leadmill-mailer", consuming, &document, &shutdown, &readiness, |context| {
        run(config, links, context)
    })
    .await
}
