//! What every Leadmill process needs, whatever it does: configuration, logs, traces, metrics, an admin port, an orderly
//! end, and one runner that puts them together so that a `main.rs` stays short.
//!
//! | module | what it is for |
//! |---|---|
//! | [`config`] | layered configuration with its sources, secrets that don't print |
//! | [`telemetry`] | `tracing` to standard error; traces and metrics over OTLP |
//! | [`trace_context`] | the W3C trace context of the current span, out and in |
//! | [`metrics`] | one meter provider, read by Prometheus and by OTLP; process metrics |
//! | [`readiness`] | named checks that say whether the process can work |
//! | [`admin`] | `/healthz`, `/readyz`, `/metrics` |
//! | [`healthcheck`] | asks another process's `/readyz`, for containers |
//! | [`shutdown`] | soft and hard end, named tasks |
//! | [`run`] | the runner of a service's `main` |
//! | [`tls`] | the one TLS provider |
//!
//! **Architecture invariant:** this crate knows nothing of leads, SQL, AMQP or mail, and depends on no other crate of the
//! workspace. Libraries below the services don't depend on it either: they record to `tracing` and to
//! `opentelemetry::global`, and what this crate installs there picks it up.
//!
//! To extend it: a setting that all processes share goes into `config/common.toml` and its struct; anything that only one
//! service needs belongs into that service.

pub mod admin;
pub mod config;
pub mod healthcheck;
pub mod metrics;
pub mod readiness;
pub mod run;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod trace_context;
