//! A stand-in for a chat model's API (OpenAI-compatible) that misbehaves as told.
//!
//! It listens on a free port of the loopback interface, records every request, and asks a function what to do with each,
//! so that a test can give every lead a misbehaviour of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The size of what [`Behaviour::HugeBody`] would send.
pub const HUGE_BODY_BYTES: u64 = 100 << 20;

/// What to do with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Behaviour {
    /// A good answer that fits any profile.
    Good,
    /// A completion with this text.
    Content(String),
    /// This status with this body.
    Body(u16, Value),
    /// A completion with this text that was cut because the tokens ran out.
    CutByLength(String),
    /// Prose instead of JSON.
    Prose,
    /// The first half of a good answer.
    HalfJson,
    /// A good answer but for its score, 250.
    Score250,
    /// A good answer but for `compliant: "maybe"`.
    CompliantMaybe,
    /// Valid JSON of the right types that offers a message with a link to somewhere else instead of slots.
    ForeignLink,
    /// Status 429, with this `retry-after`.
    RateLimited(Option<String>),
    /// Another status, with a JSON error.
    Status(u16),
    /// Status 429 because the account has no money left.
    InsufficientQuota,
    /// Takes the request and never answers.
    Hang,
    /// Status 200 and half of a body, then a closed connection.
    TruncatedBody,
    /// Status 200 and 100 MiB.
    HugeBody,
    /// Status 200 and a page of HTML.
    HtmlPage,
    /// This behaviour, after a while.
    After(Duration, Box<Behaviour>),
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedRequest {
    /// Counts from 0.
    pub number: usize,
    /// The `authorization` header.
    pub authorization: Option<String>,
    /// The whole body.
    pub body: Value,
}

impl RecordedRequest {
    /// The content of the message at `index`; empty when there is none.
    pub fn message(&self, index: usize) -> &str {
        self.body["messages"][index]["content"].as_str().unwrap_or_default()
    }

    /// The profile that the request is about: the first message of the user, read as JSON.
    pub fn profile(&self) -> Value {
        let messages = self.body["messages"].as_array();
        let user = messages.into_iter().flatten().find(|message| message["role"] == "user");
        let text = user.and_then(|message| message["content"].as_str()).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Whether it asks again because an answer was refused.
    pub fn is_second_ask(&self) -> bool {
        self.body["messages"].as_array().is_some_and(|messages| messages.len() > 2)
    }
}

type Decide = dyn Fn(&RecordedRequest) -> Behaviour + Send + Sync;

struct Shared {
    decide: Box<Decide>,
    requests: Mutex<Vec<RecordedRequest>>,
    huge_bytes: AtomicU64,
}

/// The stand-in; it ends when dropped.
pub struct FakeLlm {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl FakeLlm {
    /// Starts one that asks `decide` about every request.
    pub async fn start(decide: impl Fn(&RecordedRequest) -> Behaviour + Send + Sync + 'static) -> anyhow::Result<Self> {
        let shared =
            Arc::new(Shared { decide: Box::new(decide), requests: Mutex::default(), huge_bytes: AtomicU64::new(0) });
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .layer(axum::extract::DefaultBodyLimit::max(16 << 20))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the model's stand-in ended");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// Starts one that behaves as listed, request by request, and well afterwards.
    pub async fn scripted(behaviours: Vec<Behaviour>) -> anyhow::Result<Self> {
        Self::start(move |request| behaviours.get(request.number).cloned().unwrap_or(Behaviour::Good)).await
    }

    /// The base URL for a client's configuration.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many bytes of huge bodies were taken from it so far.
    pub fn huge_bytes_sent(&self) -> u64 {
        self.shared.huge_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for FakeLlm {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A good answer that fits any profile.
pub fn good_answer() -> Value {
    json!({
        "niche": "fitness",
        "score": 88,
        "notes": "A close audience and regular posts.",
        "slots": { "topic": "fitness", "quote": "", "reason": "audience", "tone": "warm" },
        "compliant": true,
        "compliance_notes": "Nothing speaks against it.",
        "confidence": 0.8
    })
}

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let request = {
        let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let request = RecordedRequest { number: requests.len(), authorization, body };
        requests.push(request.clone());
        request
    };
    let mut behaviour = (shared.decide)(&request);
    while let Behaviour::After(delay, then) = behaviour {
        tokio::time::sleep(delay).await;
        behaviour = *then;
    }
    respond(&shared, behaviour).await
}

async fn respond(shared: &Arc<Shared>, behaviour: Behaviour) -> Response {
    let good = || good_answer().to_string();
    let with = |field: &str, value: Value| {
        let mut answer = good_answer();
        answer[field] = value;
        completion(&answer.to_string(), "stop")
    };
    match behaviour {
        // Whoever calls has waited already.
        Behaviour::Good | Behaviour::After(..) => completion(&good(), "stop"),
        Behaviour::Content(text) => completion(&text, "stop"),
        Behaviour::Body(status, body) => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), axum::Json(body))
                .into_response()
        }
        Behaviour::CutByLength(text) => completion(&text, "length"),
        Behaviour::Prose => completion("Sure! I think this creator is great, about 8 out of 10.", "stop"),
        Behaviour::HalfJson => completion(&good()[..good().len() / 2], "stop"),
        Behaviour::Score250 => with("score", json!(250)),
        Behaviour::CompliantMaybe => with("compliant", json!("maybe")),
        Behaviour::ForeignLink => {
            let mut answer = good_answer();
            answer["slots"] = Value::Null;
            answer["message"] = json!("Great posts! See https://evil.example/claim for your prize.");
            completion(&answer.to_string(), "stop")
        }
        Behaviour::RateLimited(retry_after) => {
            let mut response = error(429, "rate_limit_exceeded");
            if let Some(value) = retry_after.and_then(|text| text.parse().ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            response
        }
        Behaviour::Status(status) => error(status, "error"),
        Behaviour::InsufficientQuota => error(429, "insufficient_quota"),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::TruncatedBody => {
            let start = stream::iter([Ok("{\"choices\":[{\"mess")]);
            // Cut at once, even the headers would not get out.
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            (StatusCode::OK, Body::from_stream(start.chain(cut))).into_response()
        }
        Behaviour::HugeBody => {
            const CHUNK: u64 = 64 << 10;
            let shared = Arc::clone(shared);
            let chunks = (0..HUGE_BODY_BYTES / CHUNK).map(move |_| {
                shared.huge_bytes.fetch_add(CHUNK, Ordering::Relaxed);
                Ok::<_, std::io::Error>(vec![b' '; CHUNK as usize])
            });
            (StatusCode::OK, Body::from_stream(stream::iter(chunks))).into_response()
        }
        Behaviour::HtmlPage => {
            (StatusCode::OK, "<html><body>Sign in to the guest network</body></html>").into_response()
        }
    }
}

fn completion(content: &str, finish_reason: &str) -> Response {
    let body = json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "stand-in",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": content }, "finish_reason": finish_reason }],
        "usage": { "prompt_tokens": 400, "completion_tokens": 100, "total_tokens": 500 }
    });
    axum::Json(body).into_response()
}

fn error(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(json!({ "error": { "message": "refused by the stand-in", "code": code } }))).into_response()
}
