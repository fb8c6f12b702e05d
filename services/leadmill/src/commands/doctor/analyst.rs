//! Whether the model can be reached, and whether its API takes requests as they are configured.

use std::time::Duration;

use enricher::config::{EnricherConfig, ModelConfig, ProviderChoice};
use enricher::model::{Failure, Refusal, probe};
use service::config::Document;
use store::{Db, enrichments};
use tokio::net::TcpStream;

use super::Check;
use crate::settings;

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer to almost nothing may take.
const ANSWER: Duration = Duration::from_secs(15);

/// Checks the analyst.
pub(super) async fn check(document: &Document) -> Option<Check> {
    let config = EnricherConfig::read(document).ok()?;
    if config.provider == ProviderChoice::Local {
        return Some(Check::ok("analyst", "the built-in analyser (enricher.provider)"));
    }
    let model = config.model;
    let url = url::Url::parse(&model.base_url).ok()?;
    let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    let what = format!("model {} at {host}:{port}", model.name.as_deref().unwrap_or_default());
    let advice = "check enricher.model.base_url and the network; until it answers, the built-in analyser does its work";
    Some(match tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => answering(document, &model, &what).await,
        Ok(Err(error)) => Check::warning("analyst", format!("{what}: {error}"), advice),
        Err(_) => Check::warning("analyst", format!("{what}: no answer"), advice),
    })
}

/// Asks once, with the parameters that every request has.
async fn answering(document: &Document, model: &ModelConfig, what: &str) -> Check {
    match probe(model, model.timeout.min(ANSWER)).await {
        Err(Failure::Refused { status, refusal }) => Check::missing(
            "analyst",
            format!("{what} refuses {refusal} with status {status}; the built-in analyser does its work"),
            refusal.advice(),
        ),
        Err(failure) => Check::warning(
            "analyst",
            format!("{what}: {failure}"),
            "try again; until it answers, the built-in analyser does its work",
        ),
        Ok(()) => match latest_refusal(document).await {
            Some(refusal) => Check::warning(
                "analyst",
                format!("{what} answers, but refused {refusal} for the latest lead"),
                refusal.advice(),
            ),
            None if model.api_key.is_none() => Check::warning(
                "analyst",
                format!("{what}, which answers; no key"),
                "if the API wants one, give it as LEADMILL_ENRICHER_MODEL_API_KEY_FILE",
            ),
            None => Check::ok("analyst", format!("{what}, which answers")),
        },
    }
}

/// What the API refused when the latest lead was analysed: a service may run with other settings than these.
async fn latest_refusal(document: &Document) -> Option<Refusal> {
    let db: Db = settings::database(document).ok()?;
    let latest = db.transact("enrichment.latest_fallback", |tx, _| Box::pin(enrichments::latest_fallback(tx)));
    let reason = tokio::time::timeout(CONNECT, latest).await.ok()?.ok()??;
    Refusal::named(reason.strip_prefix("refused:")?)
}
