//! One set of instruments, read by whoever wants it: Prometheus on `/metrics`, and an OTLP collector when one is set.
//!
//! Libraries take `opentelemetry::global::meter("leadmill")` and record; they need not know this crate. Names are dotted
//! OpenTelemetry names without a unit (`outbox.age`, unit `s`); Prometheus shows them as `outbox_age_seconds`, counters with
//! `_total`. Attributes have few values: a stage, an outcome, a state; never an id, an address or a text from outside.
//!
//! Histograms of seconds (unit `s`) get [`SECONDS`] as their buckets, so that latencies compare across the system. A histogram
//! of anything else states its own with `with_boundaries`.

mod process;

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

/// Upper bounds of the buckets for durations, in seconds: from half a millisecond to a minute.
pub const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Reads all instruments in Prometheus's text format.
#[derive(Debug, Clone)]
pub struct Scrape {
    registry: Registry,
}

impl Scrape {
    /// The current values.
    ///
    /// # Errors
    /// When a name or label isn't valid in the format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Builds the meter provider with its readers, and the process's own metrics.
pub(crate) fn provider(
    resource: Resource,
    export: Option<(MetricExporter, Duration)>,
) -> Result<(SdkMeterProvider, Scrape), OTelSdkError> {
    let registry = Registry::new();
    let prometheus =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
    let mut builder =
        SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus).with_view(seconds_histogram);
    if let Some((exporter, interval)) = export {
        builder = builder.with_reader(PeriodicReader::builder(exporter).with_interval(interval).build());
    }
    let provider = builder.build();
    process::observe(&provider.meter("leadmill.process"));
    Ok((provider, Scrape { registry }))
}

fn seconds_histogram(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram || instrument.unit() != "s" {
        return None;
    }
    let buckets = Aggregation::ExplicitBucketHistogram { boundaries: SECONDS.to_vec(), record_min_max: true };
    // The only way to fail are boundaries out of order; a test builds this stream.
    Stream::builder().with_aggregation(buckets).build().ok()
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    #[test]
    fn instruments_show_up_under_their_prometheus_names() {
        let (provider, scrape) = provider(Resource::builder_empty().build(), None).unwrap();
        let meter = provider.meter("test");
        meter.u64_counter("stage.handled").build().add(3, &[KeyValue::new("stage", "enrich")]);
        meter.f64_histogram("stage.latency").with_unit("s").build().record(0.002, &[]);
        let text = scrape.render().unwrap();
        assert!(text.contains("stage_handled_total{stage=\"enrich\"} 3"), "{text}");
        assert!(text.contains("stage_latency_seconds_bucket{le=\"0.001\"} 0"), "{text}");
        assert!(text.contains("stage_latency_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
    }

    #[test]
    fn the_process_tells_its_memory_time_and_files() {
        let (_provider, scrape) = provider(Resource::builder_empty().build(), None).unwrap();
        let text = scrape.render().unwrap();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1_000_000.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_start_time_seconds ") > 1_600_000_000.0);
    }
}
