//! One request to the API: bounded in time and size, and every way to fail told apart.

use std::time::Duration;

use domain::clock::Clock;
use reqwest::{Client, Response, StatusCode, header, redirect};
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, client::ModelError, pauses::retry_after};
use crate::config::ModelConfig;

/// Bytes of an error's body that are read to tell its kind.
const ERROR_BODY: u64 = 64 << 10;

/// What the model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Completion {
    pub content: String,
    /// Tokens of prompt and answer; estimated when the API doesn't tell.
    pub tokens: u64,
    /// Whether the tokens ran out.
    pub cut: bool,
    /// Whether the model, or a filter before it, refused to answer.
    pub refused: bool,
}

/// The API at one address.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: String,
    max_body: u64,
}

#[derive(Deserialize)]
struct Body {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: u64,
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
    pub async fn ask(&self, body: &Value, limit: Duration, clock: &dyn Clock) -> Result<Completion, Failure> {
        tokio::time::timeout(limit, self.ask_unbounded(body, clock)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn ask_unbounded(&self, body: &Value, clock: &dyn Clock) -> Result<Completion, Failure> {
        let sent = self.client.post(&self.url).json(body).send().await;
        let response = sent.map_err(|error| if error.is_timeout() { Failure::Timeout } else { Failure::Connection })?;
        let status = response.status();
        if !status.is_success() {
            return Err(error_of(status, response, clock).await);
        }
        let bytes = read(response, self.max_body).await?;
        let prompt_bytes = body.to_string().len();
        completion(&bytes, prompt_bytes)
    }
}

/// Reads a body up to `limit` bytes. What lies beyond is never taken from the connection.
async fn read(mut response: Response, limit: u64) -> Result<Vec<u8>, Failure> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Failure::BodyTooLarge { limit });
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > limit => {
                return Err(Failure::BodyTooLarge { limit });
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) if error.is_timeout() => return Err(Failure::Timeout),
            Err(_) => return Err(Failure::Truncated),
        }
    }
}

async fn error_of(status: StatusCode, response: Response, clock: &dyn Clock) -> Failure {
    let retry_after = retry_after(response.headers(), clock.now());
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            // The same status also says that the account has no money left, which no waiting heals.
            let body = read(response, ERROR_BODY).await.unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if body["error"]["code"] == "insufficient_quota" || body["error"]["type"] == "insufficient_quota" {
                Failure::Refused { status: status.as_u16() }
            } else {
                Failure::RateLimited { retry_after }
            }
        }
        StatusCode::REQUEST_TIMEOUT => Failure::ServerError { status: status.as_u16(), retry_after },
        status if status.is_server_error() => Failure::ServerError { status: status.as_u16(), retry_after },
        status => Failure::Refused { status: status.as_u16() },
    }
}

fn completion(bytes: &[u8], prompt_bytes: usize) -> Result<Completion, Failure> {
    let body: Body = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof if !bytes.is_empty() => Failure::Truncated,
        _ => Failure::NotJson,
    })?;
    let choice = body.choices.into_iter().next().ok_or(Failure::NotJson)?;
    let content = choice.message.content.unwrap_or_default();
    let finish = choice.finish_reason.as_deref();
    // About four bytes are a token; rather too many than none.
    let estimate = || (prompt_bytes + content.len()).div_ceil(4) as u64;
    Ok(Completion {
        tokens: body.usage.map_or_else(estimate, |usage| usage.total_tokens),
        cut: finish == Some("length"),
        refused: finish == Some("content_filter") || choice.message.refusal.is_some_and(|refusal| !refusal.is_empty()),
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_completion_is_told_apart_from_one_that_breaks_off() {
        assert_eq!(completion(b"<html>", 0), Err(Failure::NotJson));
        assert_eq!(completion(b"", 0), Err(Failure::NotJson));
        assert_eq!(completion(b"{\"choices\": []}", 0), Err(Failure::NotJson));
        assert_eq!(completion(b"{\"choices\": [{\"mess", 0), Err(Failure::Truncated));
    }

    #[test]
    fn tokens_are_estimated_when_the_api_does_not_tell() {
        let body = br#"{"choices": [{"message": {"content": "12345678"}, "finish_reason": "length"}]}"#;
        let completion = completion(body, 392).unwrap();
        assert_eq!((completion.tokens, completion.cut, completion.refused), (100, true, false));
    }
}
