//! The layers of `tracing`: lines on standard error, spans for the exporter.

use std::io::{self, IsTerminal};

use opentelemetry_sdk::trace::SdkTracer;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogConfig, LogFormat};

/// Said before the configured filter, which may override it: what libraries tell about themselves below a warning
/// interests nobody who hasn't asked. A failed export is told of by the SDK, trouble with RabbitMQ by the broker crate: what
/// lies beneath would say it twice, and call a question for a queue that isn't there an error. What PostgreSQL warns of is
/// in its own log; here it is the end of a process, whose last COMMIT was under way and is followed by a ROLLBACK.
const QUIET: &str = concat!(
    "opentelemetry=warn,opentelemetry-otlp=error,",
    "hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,rustls=warn,lapin=off,sqlx=warn,sqlx::postgres::notice=error",
);

/// Log lines on standard error.
pub(super) fn line_layer<S>(config: &LogConfig) -> Result<Box<dyn Layer<S> + Send + Sync>, ParseError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", config.filter))?;
    let lines = fmt::layer().with_writer(io::stderr);
    Ok(match config.format {
        // https://no-color.org: any non-empty value.
        LogFormat::Pretty => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            lines.with_ansi(io::stderr().is_terminal() && !no_color).with_filter(filter).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    })
}

/// Spans for the exporter, from INFO up whatever the log shows. Where in the source and on which thread isn't worth its
/// bytes on every span.
pub(super) fn span_layer<S>(tracer: SdkTracer) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(LevelFilter::INFO)
        .boxed()
}

/// Panics become log lines like everything else, so that JSON lines stay JSON lines.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.message = message, panic.location = location, "panicked");
    }));
}
