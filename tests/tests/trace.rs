//! One trace shows a lead's way through all services.

use std::collections::BTreeSet;

use leadmill_tests::{
    audit::{Planted, audit},
    creators, dump,
    otlp::TraceCollector,
    stack::Stack,
    wait::PATIENCE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_exported_trace_spans_collector_enricher_and_mailer_for_the_same_lead() {
    let stack = Stack::start().await;
    let traces = TraceCollector::start().await;
    let endpoint = traces.endpoint();
    let services = ["collector", "enricher", "mailer"];
    let fleet = stack.fleet(&services, 1, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;

    // One request each, so that each lead has a trace of its own.
    let (ingest, key) = (fleet[0].address("ingest.address").await, stack.api_key().await);
    let people = creators::creators(7, 3);
    let mut leads = Vec::new();
    for person in &people {
        let answers = creators::post(ingest, &key, std::slice::from_ref(person)).await;
        leads.push(answers[0]["results"][0]["id"].as_str().expect("the lead's id").to_owned());
    }
    stack.settle(PATIENCE).await;
    audit(&stack, Planted::default()).await;
    // What is left to export goes out when a process ends.
    for mut process in fleet {
        assert!(process.terminate().await.0.success(), "{}", process.log());
    }

    let spans = traces.spans();
    let everybody: BTreeSet<String> = services.map(|service| format!("leadmill-{service}")).into();
    let by_trace = traces.services_by_trace();
    let mut seen = BTreeSet::new();
    for lead in &leads {
        let about: Vec<_> = spans.iter().filter(|span| span.attributes.contains(lead)).collect();
        let trace = &about.first().unwrap_or_else(|| panic!("no span names lead {lead}")).trace;
        assert!(about.iter().all(|span| &span.trace == trace), "lead {lead} is in several traces: {about:#?}");
        assert_eq!(by_trace[trace], everybody, "the trace of lead {lead}");
        // Every span but the trace's first has its parent in the same trace.
        let ids: BTreeSet<_> = spans.iter().filter(|span| &span.trace == trace).map(|span| &span.id).collect();
        let orphans: Vec<_> = spans.iter().filter(|span| &span.trace == trace && !ids.contains(&span.parent)).collect();
        assert_eq!(orphans.len(), 1, "one root: {orphans:#?}");
        seen.insert(trace.clone());
    }
    assert_eq!(seen.len(), leads.len(), "each request began a trace of its own");

    let exported: Vec<String> = spans.iter().map(|span| format!("{} {}", span.name, span.attributes)).collect();
    let told = dump::found(exported.join("\n").as_bytes(), &creators::personal(&people));
    assert!(told.is_empty(), "spans carry personal data: {told:?}");
    stack.cleanup().await;
}
