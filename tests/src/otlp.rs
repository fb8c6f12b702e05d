//! A stand-in for a collector of traces (OTLP over HTTP).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, resource::v1::Resource,
};
use prost::Message as _;
use tokio::task::JoinHandle;

/// A span, as far as the tests care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSpan {
    /// The exporting process's `service.name`.
    pub service: String,
    /// The id of its trace.
    pub trace: Vec<u8>,
    /// The span's own id.
    pub id: Vec<u8>,
    /// The id of the span above it; empty for a trace's first.
    pub parent: Vec<u8>,
    /// Its name.
    pub name: String,
    /// Everything else that it carries, as text.
    pub attributes: String,
}

/// Takes what processes export; it ends when dropped.
#[derive(Debug)]
pub struct TraceCollector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<SeenSpan>>>,
    server: JoinHandle<()>,
}

impl TraceCollector {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let spans = Arc::<Mutex<Vec<SeenSpan>>>::default();
        let taken = Arc::clone(&spans);
        let routes = Router::new()
            .route(
                "/v1/traces",
                post(async move |body: Bytes| {
                    let request = ExportTraceServiceRequest::decode(body).expect("traces come as protobuf");
                    taken.lock().unwrap_or_else(PoisonError::into_inner).extend(read(request));
                }),
            )
            .route("/v1/metrics", post(async || ()));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("the stand-in serves") });
        Self { address, spans, server }
    }

    /// What a process is configured with.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The services that had a part in each trace.
    pub fn services_by_trace(&self) -> BTreeMap<Vec<u8>, BTreeSet<String>> {
        let mut traces: BTreeMap<Vec<u8>, BTreeSet<String>> = BTreeMap::new();
        for span in self.spans() {
            traces.entry(span.trace).or_default().insert(span.service);
        }
        traces
    }
}

impl Drop for TraceCollector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<SeenSpan> {
    let mut seen = Vec::new();
    for resource in request.resource_spans {
        let service = service_name(resource.resource.as_ref());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(SeenSpan {
                service: service.clone(),
                trace: span.trace_id,
                attributes: format!("{:?} {:?} {:?}", span.attributes, span.events, span.status),
                id: span.span_id,
                parent: span.parent_span_id,
                name: span.name,
            });
        }
    }
    seen
}

fn service_name(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let name = attributes.iter().find(|attribute| attribute.key == "service.name");
    match name.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("service.name is {other:?}"),
    }
}
