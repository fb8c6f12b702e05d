//! The admin server: `/healthz`, `/readyz` and `/metrics` for probes, scrapers and operators.
//!
//! It has no authentication and answers only GET, with nothing personal in it; it listens on loopback unless told otherwise.
//! It runs outside of the tracked tasks, so that it still answers while the others drain.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::Scrape;
use crate::readiness::{CheckReport, Readiness};
use crate::shutdown::{Shutdown, Stage};

/// How long [`AdminServer::stop`] waits for requests that are being answered.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A running admin server.
#[derive(Debug)]
pub struct AdminServer {
    local_addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct AdminState {
    readiness: Readiness,
    scrape: Scrape,
    shutdown: Shutdown,
}

/// Starts the admin server; port 0 takes a free one.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(
    listen: SocketAddr,
    readiness: Readiness,
    scrape: Scrape,
    shutdown: Shutdown,
) -> io::Result<AdminServer> {
    let listener = TcpListener::bind(listen).await?;
    let local_addr = listener.local_addr()?;
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(AdminState { readiness, scrape, shutdown });
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "admin server ended");
        }
    });
    Ok(AdminServer { local_addr, stop, task })
}

impl AdminServer {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends the server.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Alive until a task has crashed or the process is being aborted. That a dependency is away doesn't make a process unhealthy:
/// restarting it wouldn't bring the dependency back.
async fn healthz(State(AdminState { shutdown, .. }): State<AdminState>) -> Response {
    let stage = shutdown.stage();
    let crashed = shutdown.crashed_task();
    let alive = crashed.is_none() && stage != Stage::Aborting;
    let status = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "alive": alive, "stage": stage, "crashed": crashed }))).into_response()
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let mut report = state.readiness.report();
    if state.shutdown.stage() != Stage::Running {
        report.ready = false;
        report.checks.push(CheckReport {
            name: "shutdown".to_owned(),
            ready: false,
            missing: Some("the process is shutting down".to_owned()),
            for_seconds: 0,
        });
    }
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match state.scrape.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
