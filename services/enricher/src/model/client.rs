//! Asks a model about a lead: bounded concurrency, retries, a breaker, one second chance for an answer that can't be read.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{clock::Clock, lead::Lead, program::Program};
use opentelemetry::{KeyValue, global, metrics::Counter};
use recloser::{AsyncRecloser, Error as Gate, Recloser};
use serde_json::Value;
use time::Date;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Budget, Failure,
    answer::{self, Answer},
    completion::{Completion, Failed},
    http::Api,
    pauses::Pauses,
    prompt,
};
use crate::{alarm::RefusalAlarm, config::ModelConfig, wording::Wording};

/// How often a model is asked for an answer that can be believed.
const ASKS: u32 = 2;
/// Requests that decide, after a pause of the breaker, whether it closes again.
const PROBES: usize = 3;

/// A client that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The key can't stand in a header.
    #[error("the model's API key has a character that can't stand in an HTTP header")]
    Key,
    /// The HTTP client can't be made.
    #[error("the HTTP client for the model's API can't be made")]
    Client(#[source] reqwest::Error),
}

/// What came of asking about one lead.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The model's analysis, or why there is none.
    pub analysis: Result<Answer, Failure>,
    /// Tokens that were spent on it.
    pub tokens: u64,
}

/// The client. Share it by reference; it keeps its connections open.
pub struct ModelClient {
    api: Api,
    config: ModelConfig,
    permits: Semaphore,
    breaker: AsyncRecloser,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    alarm: RefusalAlarm,
    requests: Counter<u64>,
    tokens: Counter<u64>,
    wordings: Counter<u64>,
}

impl fmt::Debug for ModelClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelClient")
            .field("config", &self.config)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

impl ModelClient {
    /// Makes a client. A TLS provider must be installed (`service::tls`).
    ///
    /// # Errors
    /// [`ModelError`], when the key or the HTTP client's setup is unusable.
    pub fn new(
        config: ModelConfig,
        budget: Arc<Budget>,
        clock: Arc<dyn Clock>,
        alarm: RefusalAlarm,
    ) -> Result<Self, ModelError> {
        let breaker = Recloser::custom()
            .error_rate(config.breaker_failure_rate)
            .closed_len(config.breaker_window.get())
            .half_open_len(PROBES)
            .open_wait(config.breaker_pause)
            .build();
        let meter = global::meter("leadmill");
        Ok(Self {
            api: Api::new(&config)?,
            permits: Semaphore::new(config.concurrency.get()),
            breaker: breaker.into(),
            budget,
            clock,
            alarm,
            requests: meter
                .u64_counter("enricher.model.requests")
                .with_description("Requests to the model's API by outcome: ok, or why its answer was not used")
                .build(),
            tokens: meter.u64_counter("enricher.model.tokens").with_description("Tokens spent").build(),
            wordings: meter
                .u64_counter("enricher.model.wordings")
                .with_description(
                    "What became of a model's words: slots, free_text, built_in, or why they were refused",
                )
                .build(),
            config,
        })
    }

    /// Whether a model may write sentences of its own.
    pub const fn allows_free_text(&self) -> bool {
        self.config.free_text
    }

    /// Counts what became of a model's words.
    pub(crate) fn count_wording(&self, wording: &Wording) {
        let outcome = match wording {
            Wording::Slots(_) => "slots",
            Wording::FreeText(_) => "free_text",
            Wording::BuiltIn { refused: None } => "built_in",
            Wording::BuiltIn { refused: Some(reason) } => reason.as_str(),
        };
        self.wordings.add(1, &[KeyValue::new("outcome", outcome.to_owned())]);
    }

    /// The right to ask about one lead; as many are given out at a time as requests may run.
    pub async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    /// Asks about a lead, under a permit of this client. Takes at most the configured total time.
    pub async fn ask(&self, _permit: &SemaphorePermit<'_>, lead: &Lead, program: &Program) -> Asked {
        let mut asking = Asking { client: self, deadline: Instant::now() + self.config.total_time, tokens: 0 };
        let analysis = asking.analyse(lead, program).await;
        Asked { analysis, tokens: asking.tokens }
    }

    fn count(&self, outcome: String) {
        self.requests.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}

/// The work for one lead.
struct Asking<'a> {
    client: &'a ModelClient,
    deadline: Instant,
    tokens: u64,
}

impl Asking<'_> {
    async fn analyse(&mut self, lead: &Lead, program: &Program) -> Result<Answer, Failure> {
        let config = &self.client.config;
        let mut messages = prompt::messages(lead, program, &config.fields, config.free_text);
        let mut asks = 0;
        loop {
            asks += 1;
            let read = self.complete(&messages).await.and_then(|completion| read(&completion));
            match read {
                Ok(answer) => {
                    self.client.count("ok".to_owned());
                    return Ok(answer);
                }
                Err(failure) if failure.is_bad_answer() => {
                    self.client.count(failure.code());
                    tracing::debug!(lead.id = %lead.id, enricher.failure = failure.code(), enricher.ask = asks, "refused the model's answer");
                    if asks >= ASKS {
                        return Err(failure);
                    }
                    messages.truncate(2);
                    messages.push(prompt::correction(&failure));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// One completion, tried again while the reason to fail can pass.
    async fn complete(&mut self, messages: &[Value]) -> Result<Completion, Failure> {
        let client = self.client;
        let config = &client.config;
        let body = prompt::request(config, messages);
        let mut pauses = Pauses::new(config.initial_backoff, config.max_backoff);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failure = match self.attempt(&body).await {
                Err(failure) if !failure.is_bad_answer() => failure,
                done => return done,
            };
            let pause = pauses.next(failure.retry_after());
            let left = self.left();
            if !failure.can_pass() || attempts >= config.max_attempts.get() || pause >= left {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&mut self, body: &Value) -> Result<Completion, Failure> {
        let client = self.client;
        let today = client.clock.now().date();
        if !client.budget.allows(today) {
            return Err(Failure::SpendingLimit);
        }
        let limit = client.config.timeout.min(self.left());
        let asked = client.breaker.call_with(
            |failed: &Failed| failed.failure.counts_for_breaker(),
            client.api.ask(body, limit, &*client.clock),
        );
        match asked.await {
            Ok(completion) => {
                client.alarm.clear();
                self.spend(today, completion.tokens);
                Ok(completion)
            }
            Err(Gate::Rejected) => Err(Failure::BreakerOpen),
            Err(Gate::Inner(Failed { failure, tokens })) => {
                self.spend(today, tokens);
                match failure {
                    Failure::Refused { status, refusal } => client.alarm.raise(status, refusal),
                    // It takes our requests, whatever it says to this one.
                    Failure::ContentFilter => client.alarm.clear(),
                    _ => {}
                }
                if !failure.is_bad_answer() {
                    client.count(failure.code());
                }
                Err(failure)
            }
        }
    }

    /// Counts what a request cost, whether its answer is used or not.
    fn spend(&mut self, today: Date, tokens: u64) {
        self.client.budget.spend(today, tokens);
        self.client.tokens.add(tokens, &[]);
        self.tokens += tokens;
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Asks for almost nothing, with the parameters of every request, to see whether the API takes them.
///
/// # Errors
/// Why it doesn't. An answer that can't be read is none of its concern.
pub async fn probe(config: &ModelConfig, limit: Duration) -> Result<(), Failure> {
    let api = Api::new(config).map_err(|_| Failure::Connection)?;
    let body = prompt::request(config, &prompt::probe());
    match api.ask(&body, limit, &domain::clock::SystemClock).await {
        Ok(_) => Ok(()),
        Err(failed) if failed.failure.is_bad_answer() => Ok(()),
        Err(failed) => Err(failed.failure),
    }
}

/// Reads a completion.
fn read(completion: &Completion) -> Result<Answer, Failure> {
    if completion.refused {
        return Err(Failure::InvalidAnswer { what: "refusal" });
    }
    match answer::parse(&completion.content) {
        Err(_) if completion.cut => Err(Failure::Truncated),
        read => read,
    }
}
