//! The sections that every process has.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::{ConfigError, Defaults, Secret};

/// Defaults of the sections in this module; every [`Loader`](super::Loader) starts with them.
pub const COMMON_DEFAULTS: Defaults = Defaults {
    name: "service",
    text: include_str!("common.toml"),
    secrets: &["database.url", "database.direct_url", "amqp.url", "vault.master_key", "vault.old_master_keys"],
};

/// `[runtime]`: threads and shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that run tasks; 0 means one per CPU.
    pub worker_threads: u16,
    /// How long tasks may take to end after the first signal, before they are aborted.
    #[serde(with = "super::duration")]
    pub shutdown_grace: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Directives in the syntax of `tracing_subscriber::EnvFilter`, checked when read.
    #[serde(deserialize_with = "log_filter")]
    pub filter: String,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Base URL of an OTLP/HTTP collector; without one nothing is exported.
    #[serde(deserialize_with = "http_url")]
    pub otlp_endpoint: Option<String>,
    /// First part of `service.name`.
    pub service_name_prefix: String,
    /// Share of new traces that is recorded, from 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sample_ratio: f64,
    /// Time between two exports of metrics.
    #[serde(with = "super::duration")]
    pub metric_interval: Duration,
    /// Limit of one export.
    #[serde(with = "super::duration")]
    pub export_timeout: Duration,
}

/// `[admin]`: the admin server of a process that runs all services.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// Whether prepared statements are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatementCache {
    /// Unless there is a pooler.
    Auto,
    /// For one transaction after the other.
    On,
    /// Within a transaction at most.
    Off,
}

/// `[database]`: PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Where the database is.
    pub url: Secret<String>,
    /// The same database without a pooler in between.
    pub direct_url: Option<Secret<String>>,
    /// Connections of one process.
    pub max_connections: NonZeroU32,
    /// Whether prepared statements are kept; [`DatabaseConfig::caches_statements`] is the answer.
    pub statement_cache: StatementCache,
    /// Limit for getting a connection.
    #[serde(with = "super::duration")]
    pub acquire_timeout: Duration,
    /// Limit for a whole transaction.
    #[serde(with = "super::duration")]
    pub transaction_timeout: Duration,
}

impl DatabaseConfig {
    /// The URL for what a transaction-mode pooler can't do: migrations and LISTEN.
    pub fn direct_url(&self) -> &Secret<String> {
        self.direct_url.as_ref().unwrap_or(&self.url)
    }

    /// Whether prepared statements are kept from one transaction to the next.
    pub fn caches_statements(&self) -> bool {
        match self.statement_cache {
            StatementCache::Auto => self.direct_url().expose() == self.url.expose(),
            StatementCache::On => true,
            StatementCache::Off => false,
        }
    }
}

/// `[amqp]`: RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmqpConfig {
    /// Where the broker is.
    pub url: Secret<String>,
    /// Prefix of all exchanges and queues; may be empty.
    pub namespace: String,
    /// Unacknowledged messages of one consumer.
    pub prefetch: NonZeroU16,
    /// Limit for opening a connection or a channel.
    #[serde(with = "super::duration")]
    pub connect_timeout: Duration,
    /// Limit for a publisher confirm.
    #[serde(with = "super::duration")]
    pub confirm_timeout: Duration,
}

/// `[reconciler]`: how eagerly lost messages are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcilerSection {
    /// Time between two looks at the queues.
    #[serde(with = "super::duration")]
    pub observe_every: Duration,
    /// Rest after all unfinished leads were looked at.
    #[serde(with = "super::duration")]
    pub rest: Duration,
    /// How long before its queue was seen empty a lead must have changed to count as lost.
    #[serde(with = "super::duration")]
    pub grace: Duration,
    /// Wait before the same is told again, at first.
    #[serde(with = "super::duration")]
    pub again_after: Duration,
}

/// `[vault]`: the master key, in the text form that `leadmill keys generate` prints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// The key in use. [`VaultConfig::require_master_key`] is for those who can't do without.
    pub master_key: Option<Secret<String>>,
    /// Keys that may still have wrapped something.
    pub old_master_keys: Vec<Secret<String>>,
}

impl VaultConfig {
    /// The master key.
    ///
    /// # Errors
    /// [`ConfigError::Missing`], which says how to make one, if there is none.
    pub fn require_master_key(&self) -> Result<&Secret<String>, ConfigError> {
        self.master_key.as_ref().ok_or_else(|| ConfigError::Missing {
            key: "vault.master_key".to_owned(),
            hint: "every personal field is encrypted under it, so nothing starts without one. Make one with \
                   `leadmill keys generate`, keep a copy in a safe place, and give it as LEADMILL_MASTER_KEY, or as a file \
                   that LEADMILL_MASTER_KEY_FILE names"
                .to_owned(),
        })
    }
}

fn log_filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match tracing_subscriber::EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(de::Error::custom(format!(
            "expected off, error, warn, info, debug or trace, or directives such as \"info,mailer=debug\" ({error})"
        ))),
    }
}

fn http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
            Err(de::Error::custom("expected a URL that begins with http:// or https://"))
        }
        url => Ok(url),
    }
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(de::Error::custom("expected a number from 0.0 to 1.0")) }
}
