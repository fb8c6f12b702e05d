//! A chat model as an analyst, behind an OpenAI-compatible API.
//!
//! What a model says is a stranger's text that was made from a stranger's text. So the profile goes out as data (one JSON
//! object, `prompt`) without addresses, links and handles (`redact`), and what comes back is read strictly (`answer`)
//! and checked against the lead's own facts (`facts`) before it is believed. Only then comes how it is asked: once more
//! when an answer was refused, again with backoff when the server failed, not at all while the breaker is open or the
//! day's tokens are spent (`client`).
//!
//! Nothing here fails a lead: the caller falls back to the built-in analyser and records [`Failure::code`].

mod answer;
mod budget;
mod client;
mod facts;
mod failure;
mod http;
mod pauses;
mod prompt;
mod redact;

pub use self::{
    budget::Budget,
    client::{Asked, ModelClient, ModelError},
    failure::Failure,
};
