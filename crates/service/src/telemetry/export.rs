//! The OTLP exporters, over HTTP with protobuf bodies.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};

use super::Identity;
use crate::config::TelemetryConfig;

/// Finished spans that wait for export at most; more are dropped, since telling about work must not hold it up. About a
/// second's worth at full speed.
const SPAN_QUEUE: usize = 8_192;

/// Who is telling: `service.name`, `.version` and `.instance.id`, plus whatever `OTEL_RESOURCE_ATTRIBUTES` adds.
pub(super) fn resource(identity: Identity, config: &TelemetryConfig) -> Resource {
    let prefix = config.service_name_prefix.as_str();
    let name = if prefix.is_empty() { identity.name.to_owned() } else { format!("{prefix}-{}", identity.name) };
    Resource::builder()
        .with_service_name(name)
        .with_attributes([
            KeyValue::new("service.version", identity.version),
            KeyValue::new("service.instance.id", instance_id()),
        ])
        .build()
}

/// Host and process id: tells replicas apart, and a person where to look.
fn instance_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "host" } else { host }, std::process::id())
}

/// The tracer provider, if there is somewhere to export to.
pub(super) fn tracer_provider(
    config: &TelemetryConfig,
    resource: Resource,
) -> Result<Option<SdkTracerProvider>, ExporterBuildError> {
    let Some(endpoint) = endpoint(config, "/v1/traces") else { return Ok(None) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(config.export_timeout)
        .build()?;
    let batches = BatchSpanProcessor::builder(exporter)
        .with_batch_config(BatchConfigBuilder::default().with_max_queue_size(SPAN_QUEUE).build())
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let provider =
        SdkTracerProvider::builder().with_span_processor(batches).with_sampler(sampler).with_resource(resource).build();
    Ok(Some(provider))
}

/// The exporter of metrics and its interval, if there is somewhere to export to.
pub(super) fn metric_exporter(
    config: &TelemetryConfig,
) -> Result<Option<(MetricExporter, Duration)>, ExporterBuildError> {
    let Some(endpoint) = endpoint(config, "/v1/metrics") else { return Ok(None) };
    let exporter = MetricExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(config.export_timeout)
        .build()?;
    Ok(Some((exporter, config.metric_interval)))
}

/// The specification has the signals' paths below the base URL:
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp>.
fn endpoint(config: &TelemetryConfig, path: &str) -> Option<String> {
    config.otlp_endpoint.as_ref().map(|base| format!("{}{path}", base.trim_end_matches('/')))
}
