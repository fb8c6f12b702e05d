//! Logs to standard error, traces and metrics to an OTLP collector.
//!
//! A process calls [`init`] once, keeps the [`Telemetry`], and ends it last. Everything else in the system only records, to
//! `tracing` and `opentelemetry::global`.
//!
//! # What gets recorded
//!
//! Spans from level INFO up are exported, with the events in them. Log lines follow `log.filter`. Field names are dotted (`lead.id`, `batch.size`), units
//! are part of the name, an error is logged once where it is handled, and nothing personal is recorded: ids only.
//!
//! # Threads
//!
//! Exports run on threads of their own, which have no asynchronous runtime; hence the blocking HTTP client. Ending telemetry
//! waits for them, so it doesn't belong on a thread that drives tasks.

mod export;
mod log;

use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, TelemetryConfig};
use crate::metrics::{self, Scrape};
use crate::tls;

/// How long the last export may take when nobody says otherwise.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Which program this is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its short name: `mailer`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// Telemetry that can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The exporter refuses its settings, such as an endpoint that isn't a URL.
    #[error("the OTLP exporter can't be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The metric readers can't be joined.
    #[error("the metrics can't be set up")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The log filter isn't one.
    #[error("the log filter can't be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Someone else has set up `tracing` in this process.
    #[error("logging is set up already")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry going; exports what is left when it ends.
#[derive(Debug)]
pub struct Telemetry {
    providers: Option<Providers>,
    scrape: Scrape,
}

#[derive(Debug)]
struct Providers {
    tracer: Option<SdkTracerProvider>,
    meter: SdkMeterProvider,
}

/// Sets up logs, traces and metrics for the whole process.
///
/// # Errors
/// [`TelemetryError`]; a collector that doesn't answer is none: exports are tried again and again.
pub fn init(identity: Identity, log: &LogConfig, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    tls::install_provider();
    let resource = export::resource(identity, config);
    let tracer = export::tracer_provider(config, resource.clone())?;
    let (meter, scrape) = metrics::provider(resource, export::metric_exporter(config)?)?;

    let spans = tracer.as_ref().map(|provider| log::span_layer(provider.tracer("leadmill")));
    tracing_subscriber::registry().with(spans).with(log::line_layer(log)?).try_init()?;
    log::log_panics();

    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_meter_provider(meter.clone());
    if let Some(provider) = &tracer {
        global::set_tracer_provider(provider.clone());
    }
    Ok(Telemetry { providers: Some(Providers { tracer, meter }), scrape })
}

impl Telemetry {
    /// For the admin server.
    pub fn scrape(&self) -> Scrape {
        self.scrape.clone()
    }

    /// Exports what is left and ends. Blocks for at most `limit`; what couldn't be exported by then is lost.
    pub fn shutdown(mut self, limit: Duration) {
        self.end(limit);
    }

    fn end(&mut self, limit: Duration) {
        let Some(providers) = self.providers.take() else { return };
        let (done, ended) = mpsc::channel();
        // On a thread of its own, because the SDK doesn't keep to a limit in every case.
        std::thread::spawn(move || {
            let traces = providers.tracer.map_or(Ok(()), |provider| provider.shutdown_with_timeout(limit));
            let metrics = providers.meter.shutdown_with_timeout(limit);
            // Nobody listens any more when the limit has passed.
            let _ = done.send(traces.and(metrics));
        });
        match ended.recv_timeout(limit) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces and metrics were not exported"),
            Err(_) => {
                tracing::warn!(limit.seconds = limit.as_secs_f64(), "gave up exporting the last traces and metrics");
            }
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.end(FLUSH_LIMIT);
    }
}
