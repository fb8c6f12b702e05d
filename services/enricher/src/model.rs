//! A chat model as an analyst, behind an OpenAI-compatible API.
//!
//! What a model says is a stranger's text that was made from a stranger's text. So the profile goes out as data (one JSON
//! object, `prompt`) without addresses, links and handles (`redact`), and of what comes back the one JSON object is found
//! (`object`) and read strictly (`answer`). Only then comes how it is asked: once more when an answer was refused, again
//! with backoff when the server failed, not at all while the breaker is open or the day's tokens are spent (`client`). What
//! a model may say in a mail is decided in [`crate::wording`].
//!
//! Nothing here fails a lead: the caller falls back to the built-in analyser and records [`Failure::code`].

mod answer;
mod budget;
mod client;
mod completion;
mod failure;
mod http;
mod object;
mod pauses;
mod prompt;
mod redact;
mod refusal;

pub(crate) use self::redact::redact;
pub use self::{
    answer::Answer,
    budget::Budget,
    client::{Asked, ModelClient, ModelError, probe},
    failure::Failure,
    refusal::Refusal,
};
