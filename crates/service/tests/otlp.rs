//! Export over OTLP/HTTP into a stand-in for a collector, which decodes what it gets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use service::config::{Loader, LogConfig, TelemetryConfig};
use service::telemetry::{self, Identity};
use service::trace_context::{current_trace, set_parent_from};

#[derive(Clone, Default)]
struct Received {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

async fn collector(received: Received) -> String {
    let Received { traces, metrics } = received;
    let routes = Router::new()
        .route(
            "/v1/traces",
            post(move |headers: HeaderMap, body: Bytes| async move {
                assert_eq!(headers["content-type"], "application/x-protobuf");
                traces.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
            }),
        )
        .route(
            "/v1/metrics",
            post(move |body: Bytes| async move {
                metrics.lock().unwrap().push(ExportMetricsServiceRequest::decode(body).unwrap());
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    endpoint
}

fn attribute(resource: Option<&Resource>, key: &str) -> String {
    let found = resource.unwrap().attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_metrics_reach_a_collector_and_a_carried_context_joins_its_trace() {
    let received = Received::default();
    let endpoint = collector(received.clone()).await;
    let config = Loader::new().option("--otlp", "telemetry.otlp_endpoint", endpoint).load().unwrap();
    let log: LogConfig = config.section("log").unwrap();
    let settings: TelemetryConfig = config.section("telemetry").unwrap();
    // Inside of a runtime on purpose: the exporter's blocking client must not mind.
    let telemetry = telemetry::init(Identity { name: "otlp-test", version: "1.2.3" }, &log, &settings).unwrap();

    let (traceparent, tracestate) = tracing::info_span!("collect").in_scope(current_trace);
    assert_eq!(tracestate, None);
    let traceparent = traceparent.expect("an exported span has a context");
    // What a message carries into another process.
    let enrich = tracing::info_span!("enrich");
    set_parent_from(&enrich, Some(&traceparent), Some("vendor=1"));
    let (_, tracestate) = enrich.in_scope(current_trace);
    assert_eq!(tracestate.as_deref(), Some("vendor=1"));
    drop(enrich);
    // Nonsense from outside begins a trace of its own.
    let mail = tracing::info_span!("mail");
    set_parent_from(&mail, Some("00-nonsense"), None);
    drop(mail);
    tracing::debug_span!("detail").in_scope(|| ());
    opentelemetry::global::meter("leadmill").u64_counter("mails").build().add(5, &[]);

    tokio::task::spawn_blocking(move || telemetry.shutdown(Duration::from_secs(20))).await.unwrap();

    let traces = received.traces.lock().unwrap();
    let resource_spans: Vec<_> = traces.iter().flat_map(|request| &request.resource_spans).collect();
    let resource = resource_spans[0].resource.as_ref();
    assert_eq!(attribute(resource, "service.name"), "leadmill-otlp-test");
    assert_eq!(attribute(resource, "service.version"), "1.2.3");
    assert!(attribute(resource, "service.instance.id").ends_with(&std::process::id().to_string()));
    let spans: Vec<&Span> =
        resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
    let span =
        |name: &str| *spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:?}"));
    let (collect, enrich, mail) = (span("collect"), span("enrich"), span("mail"));
    assert_eq!(enrich.trace_id, collect.trace_id);
    assert_eq!(enrich.parent_span_id, collect.span_id);
    assert_ne!(mail.trace_id, collect.trace_id);
    assert!(mail.parent_span_id.is_empty());
    assert_eq!(spans.len(), 3, "debug spans are not exported: {spans:?}");

    let metrics = received.metrics.lock().unwrap();
    let resource_metrics: Vec<_> = metrics.iter().flat_map(|request| &request.resource_metrics).collect();
    assert_eq!(attribute(resource_metrics[0].resource.as_ref(), "service.name"), "leadmill-otlp-test");
    let names: Vec<&str> = resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics)
        .map(|metric| metric.name.as_str())
        .collect();
    assert!(names.contains(&"mails") && names.contains(&"process.resident_memory"), "{names:?}");
}
