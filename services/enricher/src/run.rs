//! Running the enricher: with a context that is shared with other services, or as a process of its own.

use std::sync::Arc;

use bootstrap::Context;
use domain::clock::Clock;
use pipeline::{Part, RunnerConfig, StageRunner};
use service::{config::Document, readiness::Readiness, shutdown::Shutdown};
use store::{Db, model_usage};

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

/// Enriches leads until shutdown.
///
/// # Errors
/// When the model's client can't be made; outages are waited out.
pub async fn run(config: EnricherConfig, context: Context) -> anyhow::Result<()> {
    let mut consumer = context.broker;
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
            let claim_life = model.claim_life();
            tracing::info!(enricher.model = name, enricher.base_url = model.base_url, "leads are analysed by a model");
            let alarm = RefusalAlarm::new(context.readiness.register("enricher.model"));
            let client = ModelClient::new(model, Arc::clone(&budget), Arc::clone(&context.clock), alarm)?;
            let analyst = Analyst::Model { client: Box::new(client), fallback: LocalAnalyser::new() };
            (analyst, Some(Spending { model: name, budget, claim_life }))
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

/// Runs the enricher as a process of its own.
///
/// # Errors
/// When the configuration, the master key or the schema don't fit.
pub async fn process(document: Document, shutdown: Shutdown, readiness: Readiness) -> anyhow::Result<()> {
    let config = EnricherConfig::read(&document)?;
    let consuming = Some(Part::Consuming.name());
    bootstrap::run("leadmill-enricher", consuming, &document, &shutdown, &readiness, |context| run(config, context))
        .await
}
