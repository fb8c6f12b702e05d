//! The admin server over real HTTP.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use service::admin::{self, AdminServer};
use service::config::{Loader, LogConfig, TelemetryConfig};
use service::healthcheck;
use service::readiness::Readiness;
use service::shutdown::Shutdown;
use service::telemetry::{self, Identity, Telemetry};

struct Admin {
    server: AdminServer,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl Admin {
    async fn start(telemetry: &Telemetry) -> Self {
        let readiness = Readiness::new();
        let shutdown = Shutdown::new(Duration::from_mins(1));
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = admin::serve(listen, readiness.clone(), telemetry.scrape(), shutdown.clone()).await.unwrap();
        Self { server, readiness, shutdown }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = reqwest::get(format!("http://{}{path}", self.server.local_addr())).await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn get_json(&self, path: &str) -> (StatusCode, Value) {
        let (status, text) = self.get(path).await;
        (status, serde_json::from_str(&text).unwrap())
    }
}

/// One test, since telemetry is set up once in a process.
#[tokio::test]
async fn probes_and_scrapes_are_answered_through_a_whole_life() {
    let config = Loader::new().load().unwrap();
    let log: LogConfig = config.section("log").unwrap();
    let settings: TelemetryConfig = config.section("telemetry").unwrap();
    let identity = Identity { name: "admin-test", version: "1.2.3" };
    let telemetry = telemetry::init(identity, &log, &settings).unwrap();
    assert!(telemetry::init(identity, &log, &settings).is_err(), "a second set-up is refused");

    let admin = Admin::start(&telemetry).await;

    // Readiness follows its checks and names what is missing.
    let (status, body) = admin.get_json("/readyz").await;
    assert_eq!((status, &body["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    let database = admin.readiness.register("database");
    database.set_not_ready("connection refused by 127.0.0.1:5432");
    let (status, body) = admin.get_json("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["checks"][0]["name"], "database");
    assert_eq!(body["checks"][0]["missing"], "connection refused by 127.0.0.1:5432");
    let address = admin.server.local_addr();
    let check = move || healthcheck::ask(address).map_err(|error| error.to_string());
    let answer = tokio::task::spawn_blocking(check).await.unwrap().unwrap_err();
    assert!(answer.contains("connection refused by 127.0.0.1:5432"), "a health check says what is missing: {answer}");
    database.set_ready();
    assert_eq!(tokio::task::spawn_blocking(check).await.unwrap(), Ok(()));
    let (status, body) = admin.get_json("/readyz").await;
    assert_eq!((status, &body["ready"]), (StatusCode::OK, &json!(true)));

    // What a library records through the global meter is scraped.
    let meter = opentelemetry::global::meter("leadmill");
    meter.u64_counter("mails").build().add(2, &[opentelemetry::KeyValue::new("state", "sent")]);
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("mails_total{state=\"sent\"} 2"), "{text}");
    assert!(text.contains("process_resident_memory_bytes "), "{text}");
    assert!(
        text.contains("service_name=\"leadmill-admin-test\"") && text.contains("service_version=\"1.2.3\""),
        "{text}"
    );

    assert_eq!(admin.get("/healthz").await.0, StatusCode::OK);
    assert_eq!(admin.get("/").await.0, StatusCode::NOT_FOUND);

    // While it drains it is alive but takes no new work.
    admin.shutdown.request();
    assert_eq!(
        admin.get_json("/healthz").await,
        (StatusCode::OK, json!({"alive": true, "stage": "stopping", "crashed": null}))
    );
    let (status, body) = admin.get_json("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["checks"][1]["name"], "shutdown");
    admin.shutdown.abort();
    assert_eq!(admin.get("/healthz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let address = admin.server.local_addr();
    admin.server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());

    // A crash makes another process's life end: alive no more, and the task is named.
    let crashing = Admin::start(&telemetry).await;
    crashing.shutdown.spawn("broken", async { Err(anyhow::anyhow!("the wheel came off")) });
    crashing.shutdown.soft().cancelled().await;
    let (status, body) = crashing.get_json("/healthz").await;
    assert_eq!((status, &body["crashed"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("broken")));
    crashing.server.stop().await;
}
