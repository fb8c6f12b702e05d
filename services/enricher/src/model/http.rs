//! One request to the API: bounded in time and size. What its body means is read in [`super::completion`].

use std::time::Duration;

use domain::clock::Clock;
use reqwest::{Client, Response, header, redirect};
use serde_json::Value;

use super::{
    Failure,
    client::ModelError,
    completion::{self, Completion, Failed, estimated_tokens},
    pauses::retry_after,
};
use crate::config::ModelConfig;

/// Bytes of an error's body that are read to tell its kind.
const ERROR_BODY: u64 = 64 << 10;

/// The API at one address.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: String,
    max_body: u64,
}

impl Api {
    pub fn new(config: &ModelConfig) -> Result<Self, ModelError> {
        let mut headers = header::HeaderMap::new();
        if let Some(key) = &config.api_key {
            let value = format!("Bearer {}", key.expose());
            let mut value = header::HeaderValue::from_str(&value).map_err(|_| ModelError::Key)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client = Client::builder()
            .connect_timeout(config.connect_timeout)
            .default_headers(headers)
            // A redirect would carry the profile, and to the same host the key, to where nobody configured it.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("leadmill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ModelError::Client)?;
        Ok(Self { client, url: format!("{}/chat/completions", config.base_url), max_body: config.max_body })
    }

    /// Asks, and takes at most `limit` for it.
    pub async fn ask(&self, body: &Value, limit: Duration, clock: &dyn Clock) -> Result<Completion, Failed> {
        tokio::time::timeout(limit, self.ask_unbounded(body, clock)).await.unwrap_or(Err(Failure::Timeout.into()))
    }

    async fn ask_unbounded(&self, body: &Value, clock: &dyn Clock) -> Result<Completion, Failed> {
        let sent = self.client.post(&self.url).json(body).send().await;
        let response = sent.map_err(|error| if error.is_timeout() { Failure::Timeout } else { Failure::Connection })?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), clock.now());
        if !status.is_success() {
            // An error's body only tells its kind; one that can't be read tells none.
            let body = read(response, ERROR_BODY).await.unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            return Err(completion::of_error(status.as_u16(), &body["error"], &body, retry_after).into());
        }
        let prompt_bytes = body.to_string().len();
        match read(response, self.max_body).await {
            Ok(bytes) => completion::read(&bytes, prompt_bytes, retry_after),
            Err((failure, bytes)) => {
                // What came was generated and is paid for.
                let is_answer = matches!(failure, Failure::Truncated);
                let tokens = if is_answer { estimated_tokens(prompt_bytes + bytes) } else { 0 };
                Err(Failed { failure, tokens })
            }
        }
    }
}

/// Reads a body up to `limit` bytes. What lies beyond is never taken from the connection. An error tells how many bytes
/// came before it.
async fn read(mut response: Response, limit: u64) -> Result<Vec<u8>, (Failure, usize)> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err((Failure::BodyTooLarge { limit }, 0));
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > limit => {
                return Err((Failure::BodyTooLarge { limit }, bytes.len()));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) if error.is_timeout() => return Err((Failure::Timeout, bytes.len())),
            Err(_) => return Err((Failure::Truncated, bytes.len())),
        }
    }
}
