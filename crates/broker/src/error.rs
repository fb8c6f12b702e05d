//! What can go wrong between Leadmill and RabbitMQ.

use std::time::Duration;

use domain::event::Queue;

/// An operation on RabbitMQ that failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration can't work; trying again won't help.
    #[error("the broker's configuration is wrong: {reason}")]
    Config {
        /// What is wrong; never the URL, which may hold a password.
        reason: String,
    },
    /// An exchange or queue exists already with other settings. It must be deleted, or the configuration put back;
    /// trying again won't help.
    #[error("{entity} exists with other settings: {detail}")]
    TopologyMismatch {
        /// Its kind and name.
        entity: String,
        /// What differs, in RabbitMQ's words.
        detail: String,
    },
    /// RabbitMQ couldn't be reached, or refused us.
    #[error("can't connect to RabbitMQ")]
    Connect(#[source] lapin::Error),
    /// The last attempts to connect failed and the next one isn't due yet.
    #[error("RabbitMQ is away; the next attempt to connect is due in {} ms", retry_in.as_millis())]
    Away {
        /// When the next attempt is due.
        retry_in: Duration,
    },
    /// RabbitMQ takes no messages at present: a memory or disk alarm.
    #[error("RabbitMQ blocks publishing because of a resource alarm")]
    Blocked,
    /// RabbitMQ didn't answer in time.
    #[error("{doing}: no answer from RabbitMQ within {} ms", after.as_millis())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// RabbitMQ refused an operation, or the connection broke.
    #[error("{doing} failed")]
    Amqp {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: lapin::Error,
    },
    /// The queue was deleted, or moved to another node, while it was being consumed.
    #[error("RabbitMQ no longer delivers from {0}")]
    ConsumerEnded(Queue),
    /// A queue that was to be looked into doesn't exist.
    #[error("the queue `{name}` doesn't exist")]
    NoSuchQueue {
        /// The name, with its namespace.
        name: String,
    },
    /// Messages that were to be moved stayed where they were.
    #[error("{failed} of {total} messages weren't confirmed and stay where they are")]
    NotMoved {
        /// How many stay.
        failed: usize,
        /// How many were to be moved.
        total: usize,
        /// Why the first of them stays.
        #[source]
        first: PublishFailure,
    },
}

impl BrokerError {
    /// Whether somebody has to change something before it can work.
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::TopologyMismatch { .. })
    }
}

/// Why one message of a batch counts as not published. It may nevertheless have arrived: publish it again, and let
/// the consumer's idempotency take care of the second copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// RabbitMQ said that it couldn't take responsibility for it.
    #[error("RabbitMQ refused the message")]
    Nacked,
    /// No queue is bound for it. The next batch declares the topology again.
    #[error("no queue takes the message")]
    Unroutable,
    /// No answer about it.
    #[error("the message wasn't confirmed: {0}")]
    Unconfirmed(String),
}

/// The error and all that caused it, in one line for a log or a person.
pub(crate) fn chain(error: &BrokerError) -> String {
    match error {
        // lapin's messages quote their own sources, so the chain ends with them.
        BrokerError::Connect(source) | BrokerError::Amqp { source, .. } => format!("{error}: {source}"),
        BrokerError::NotMoved { first, .. } => format!("{error}: {first}"),
        _ => error.to_string(),
    }
}
