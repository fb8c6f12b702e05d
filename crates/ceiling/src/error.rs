//! Why something could not be measured.

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum CeilingError {
    /// PostgreSQL refused, or is away.
    #[error("PostgreSQL answered with an error while {doing}")]
    Postgres {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// RabbitMQ refused, or is away.
    #[error("RabbitMQ answered with an error while {doing}")]
    RabbitMq {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: lapin::Error,
    },
    /// A message was not taken.
    #[error("RabbitMQ did not confirm a message")]
    Unconfirmed,
    /// RabbitMQ stopped delivering.
    #[error("RabbitMQ cancelled a consumer")]
    Cancelled,
    /// The mail sink is away, or the connection to it broke.
    #[error("the mail sink at {address} failed")]
    Sink {
        /// Where it is.
        address: std::net::SocketAddr,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The mail sink gave an answer that a sink should not give.
    #[error("the mail sink answered `{answer}` to {command}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The answer's line.
        answer: String,
    },
    /// A part of a measurement ended by a panic.
    #[error("measuring broke off by a defect of the program")]
    Panicked,
}

impl CeilingError {
    pub(crate) fn postgres(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Postgres { doing, source }
    }

    pub(crate) fn rabbitmq(doing: &'static str) -> impl Fn(lapin::Error) -> Self {
        move |source| Self::RabbitMq { doing, source }
    }
}
