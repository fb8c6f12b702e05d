//! What is needed to reach RabbitMQ and how patient to be with it.

use std::{fmt, time::Duration};

use lapin::uri::AMQPUri;

use crate::error::BrokerError;

/// The largest AMQP frame to ask for, in bytes. lapin keeps two buffers of 32 frames per connection, so RabbitMQ's own
/// 128 KiB would cost 8 MiB each; events are a few hundred bytes, and longer bodies are split over frames anyway.
const FRAME_MAX: u32 = 32 * 1024;

/// How to reach RabbitMQ, and how patient to be with it.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `amqp://` or `amqps://`, see <https://www.rabbitmq.com/docs/uri-spec>; for the nodes of a cluster several of them,
    /// separated by commas. It may hold a password and never prints.
    pub url: String,
    /// Goes before the name of each exchange and queue: empty in production, unique in a test. At most 100 bytes.
    pub namespace: String,
    /// How many deliveries may be unacknowledged per consumer, from 1. It bounds the memory of a stage.
    pub prefetch: u16,
    /// How long a batch may take from its first byte to its last confirm.
    pub confirm_timeout: Duration,
    /// How long connecting to a node may take, and each question asked of RabbitMQ afterwards.
    pub connect_timeout: Duration,
    /// After twice this time without a byte the peer counts as gone. In whole seconds, from 1.
    pub heartbeat: Duration,
    /// After this long without deliveries a consumer that holds none subscribes anew, to be sure that it still gets
    /// what its queue hands out. When a queue is deleted and declared again at once, as happens when a publisher finds
    /// it missing, RabbitMQ may attach the old consumer to the new queue and take its messages for ones it has
    /// delivered before (seen on 3.10, one time in three): neither is the consumer told, nor do the messages arrive.
    pub idle_refresh: Duration,
    /// How often RabbitMQ itself lets a message of a work queue come back before it dead-letters it. It is only the net
    /// beneath the application's own limit, so keep it high: version 4's default of 20 could catch innocent messages of
    /// a consumer that crashes. Changing it means deleting the queues, for RabbitMQ refuses to redeclare them.
    pub delivery_limit: u32,
}

impl BrokerConfig {
    /// The defaults, for the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: String::new(),
            prefetch: 512,
            confirm_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(20),
            idle_refresh: Duration::from_secs(15),
            delivery_limit: 1000,
        }
    }

    /// The same, with every name under `namespace`.
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Checks everything that can be checked without a server.
    pub fn validate(&self) -> Result<(), BrokerError> {
        let refuse = |reason: &str| Err(BrokerError::Config { reason: reason.to_owned() });
        if self.namespace.len() > 100 {
            return refuse("the namespace is longer than 100 bytes");
        }
        if self.prefetch == 0 {
            // To RabbitMQ, 0 means without limit.
            return refuse("prefetch must be at least 1");
        }
        if !(1..=u64::from(u16::MAX)).contains(&self.heartbeat.as_secs()) {
            return refuse("the heartbeat must be between 1 and 65535 seconds");
        }
        if self.confirm_timeout.is_zero() || self.connect_timeout.is_zero() || self.idle_refresh.is_zero() {
            return refuse("a time must be longer than 0");
        }
        self.uris().map(drop)
    }

    /// The addresses with our settings in them, in the order of the URL; at least one. What a URL's own query string says
    /// wins.
    pub(crate) fn uris(&self) -> Result<Vec<AMQPUri>, BrokerError> {
        // A comma may also stand in a password: only one before a scheme separates.
        let mut urls = Vec::new();
        let mut rest = self.url.as_str();
        while let Some(at) = rest.match_indices(",amqp").map(|(at, _)| at).find(|at| is_url(&rest[at + 1..])) {
            urls.push(&rest[..at]);
            rest = &rest[at + 1..];
        }
        urls.push(rest);
        urls.into_iter().map(|url| self.uri(url)).collect()
    }

    fn uri(&self, url: &str) -> Result<AMQPUri, BrokerError> {
        // Neither the URL nor the parser's message, which may quote it, goes into the error: it can hold a password.
        let refuse = |reason: &str| BrokerError::Config { reason: reason.to_owned() };
        let mut uri: AMQPUri =
            url.parse().map_err(|_| refuse("the URL isn't one of the form amqp[s]://user:password@host:port/vhost"))?;
        if url.contains("@[") || url.contains("://[") {
            // The parser would quietly take `localhost` instead.
            return Err(refuse("the URL names an IPv6 address; name a host instead"));
        }
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        uri.query.heartbeat.get_or_insert(u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX));
        Ok(uri)
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("amqp://") || text.starts_with("amqps://")
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("namespace", &self.namespace)
            .field("prefetch", &self.prefetch)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("heartbeat", &self.heartbeat)
            .field("idle_refresh", &self.idle_refresh)
            .field("delivery_limit", &self.delivery_limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_in_neither_debug_output_nor_errors() {
        let config = BrokerConfig::new("amqp://me:hunter2@host:99999/");
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = config.validate().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn an_address_that_the_parser_would_misread_is_refused() {
        assert!(BrokerConfig::new("amqp://guest:guest@[::1]:5672/").validate().is_err());
        assert!(BrokerConfig::new("http://host/").validate().is_err());
        assert!(BrokerConfig::new("amqp://127.0.0.1:5672/%2f").validate().is_ok());
    }

    #[test]
    fn a_prefetch_without_limit_is_refused() {
        let config = BrokerConfig { prefetch: 0, ..BrokerConfig::new("amqp://host") };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "the broker's configuration is wrong: prefetch must be at least 1"
        );
    }

    #[test]
    fn the_urls_own_settings_win() {
        let uris = BrokerConfig::new("amqp://host?heartbeat=7").uris().unwrap();
        assert_eq!((uris[0].query.heartbeat, uris[0].query.frame_max), (Some(7), Some(FRAME_MAX)));
    }

    #[test]
    fn the_nodes_of_a_cluster_are_separated_by_commas_and_each_is_checked() {
        let hosts = |url: &str| -> Vec<String> {
            let uris = BrokerConfig::new(url).uris().unwrap();
            uris.into_iter().map(|uri| format!("{}:{}", uri.authority.host, uri.authority.port)).collect()
        };
        assert_eq!(hosts("amqp://a"), ["a:5672"]);
        assert_eq!(hosts("amqp://a:1/%2f,amqps://me:pw@b:2,amqp://c"), ["a:1", "b:2", "c:5672"]);
        assert_eq!(hosts("amqp://me:p,amqp,w@a/%2f,amqp://b"), ["a:5672", "b:5672"], "a password may have commas");
        assert!(BrokerConfig::new("amqp://a,amqp://[::1]").validate().is_err());
        assert!(BrokerConfig::new("amqp://a,amqp://b:99999").validate().is_err());
    }
}
