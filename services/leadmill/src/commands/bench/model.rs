//! A stand-in for a chat model's API (OpenAI-compatible): it answers every question well, after a fixed time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use domain::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The stand-in; it ends when dropped.
pub struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    latency: Duration,
    questions: AtomicU64,
    first: std::sync::OnceLock<OffsetDateTime>,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
}

impl Model {
    /// Starts one that takes `latency` for each answer.
    pub async fn start(latency: Duration) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            latency,
            questions: AtomicU64::new(0),
            first: std::sync::OnceLock::new(),
            at_once: AtomicU64::new(0),
            most_at_once: AtomicU64::new(0),
        });
        let router = Router::new().route("/v1/chat/completions", post(answer)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the model's port")?;
        let address = listener.local_addr().context("asking for the model's port")?;
        let serving = tokio::spawn(async move {
            // It ends with this process; until then, what can't be served shows as leads that the model did not analyse.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, serving })
    }

    /// The enricher's settings that lead to it.
    pub fn settings(&self, concurrency: u32) -> Vec<(&'static str, String)> {
        vec![
            ("enricher.provider", "openai".to_owned()),
            ("enricher.model.base_url", format!("http://{}/v1", self.address)),
            ("enricher.model.name", "stand-in".to_owned()),
            ("enricher.model.concurrency", concurrency.to_string()),
        ]
    }

    /// How many questions it was asked.
    pub fn questions(&self) -> u64 {
        self.shared.questions.load(Ordering::Relaxed)
    }

    /// When it was asked the first one.
    pub fn first_question(&self) -> Option<OffsetDateTime> {
        self.shared.first.get().copied()
    }

    /// The most questions that were open at once.
    pub fn most_at_once(&self) -> u64 {
        self.shared.most_at_once.load(Ordering::Relaxed)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, Json(_question): Json<Value>) -> Json<Value> {
    shared.first.get_or_init(|| SystemClock.now());
    shared.questions.fetch_add(1, Ordering::Relaxed);
    let at_once = shared.at_once.fetch_add(1, Ordering::Relaxed) + 1;
    shared.most_at_once.fetch_max(at_once, Ordering::Relaxed);
    tokio::time::sleep(shared.latency).await;
    shared.at_once.fetch_sub(1, Ordering::Relaxed);
    let content = json!({
        "niche": "fitness",
        "score": 88,
        "notes": "A close audience and regular posts.",
        "message": "Your posts are easy to follow, and I think that your audience would like our program.",
        "compliant": true,
        "compliance_notes": "Nothing speaks against it.",
        "confidence": 0.8
    });
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "stand-in",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": content.to_string() },
            "finish_reason": "stop"
        }],
        "usage": { "prompt_tokens": 400, "completion_tokens": 100, "total_tokens": 500 }
    }))
}
