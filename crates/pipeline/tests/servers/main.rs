//! The pipeline against a real PostgreSQL and a real RabbitMQ.

mod common;
mod jobs;
mod outbox;
mod reconciling;
mod running;
