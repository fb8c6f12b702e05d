//! The HTTP ingest: `POST /v1/leads` takes one lead, a list, or `{"leads": […]}`, up to 1,000 at once.
//!
//! The request carries a program's key (`Authorization: Bearer …`); `?program=SLUG` may name the program as well, so that
//! a client notices when it uses the wrong key; `?terms=TEXT` names the terms under which the data may be used. With an `Idempotency-Key`, the same request again gets the same answer
//! and stores nothing. The answer has a result per item; errors are problem details (RFC 9457).

mod input;
mod problem;
mod verdicts;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Query, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use domain::{
    event::TraceContext,
    id::{ProgramId, RunId},
    text,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use store::{
    StoreError, api_keys,
    intake::{Accepted, Dedupe, IdempotencyKey, IntakeBatch, accept},
    programs::{Directory, OpenProgram},
    runs::{ORIGIN_CHARS, Origin, RunKind},
};
use tokio::sync::Mutex;
use tracing::{Instrument, error, info_span, warn};

use self::verdicts::Verdicts;
pub use self::{input::MAX_ITEMS, problem::Problem};
use crate::intake::{Intake, Run, chain, count_rows};

/// The most different terms that this process keeps runs for.
const MAX_TERMS: usize = 100;
/// How long a request waits for room in the outbox's buffer.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// What the ingest needs.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    intake: Intake,
    directory: Directory,
    request_timeout: Duration,
    /// One run per program, terms of the data, and process.
    runs: Mutex<HashMap<(ProgramId, Option<String>), Run>>,
}

impl Ingest {
    /// An ingest that stores through `intake`.
    pub fn new(intake: Intake, directory: Directory, request_timeout: Duration) -> Self {
        let shared = Shared { intake, directory, request_timeout, runs: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The routes.
    pub fn router(self, body_limit: usize) -> Router {
        Router::new()
            .route("/v1/leads", post(take_leads))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here; leads go to POST /v1/leads"))
            .method_not_allowed_fallback(async || {
                let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "leads are taken by POST");
                ([(header::ALLOW, HeaderValue::from_static("POST"))], problem)
            })
            .layer(DefaultBodyLimit::max(body_limit))
            .with_state(self)
    }

    /// Records that the runs of this process are over.
    pub async fn finish(&self) {
        for run in self.shared.runs.lock().await.values() {
            if let Err(error) = self.shared.intake.finish(run).await {
                warn!(run.id = %run.id, error = chain(&error), "the end of a run could not be recorded");
            }
        }
    }

    /// The program that a request is for.
    async fn program(&self, headers: &HeaderMap, slug: Option<&str>) -> Result<Arc<OpenProgram>, Problem> {
        let unauthorized =
            || Problem::new(StatusCode::UNAUTHORIZED, "the request needs a valid key: `Authorization: Bearer lmi_…`");
        let key = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim())
            .ok_or_else(unauthorized)?;
        let Shared { intake, directory, .. } = &*self.shared;
        let id = intake
            .db
            .transact("ingest.authenticate", |tx, _| Box::pin(async move { api_keys::authenticate(tx, key).await }))
            .await
            .map_err(|error| unavailable(&error))?
            .ok_or_else(unauthorized)?;
        let program = directory.get(id).await.map_err(|error| unavailable(&error))?.ok_or_else(unauthorized)?;
        if slug.is_some_and(|slug| slug != program.program.slug.as_str()) {
            let detail = "the key belongs to no program of this name";
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        }
        Ok(program)
    }

    /// The run of a program in this process, for data of these terms; begun with its first request.
    async fn run(&self, program: &Arc<OpenProgram>, terms: Option<String>) -> Result<Run, Problem> {
        let mut runs = self.shared.runs.lock().await;
        let key = (program.program.id, terms);
        if let Some(run) = runs.get(&key) {
            return Ok(Run { program: Arc::clone(program), ..run.clone() });
        }
        let terms = key.1.clone();
        if terms.is_some() && runs.keys().filter(|(_, terms)| terms.is_some()).count() >= MAX_TERMS {
            let detail = format!("`terms` has had {MAX_TERMS} different values: name each source's terms in one way");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        let run = Run {
            id: RunId::generate(),
            program: Arc::clone(program),
            kind: RunKind::Http,
            source_digest: [0; 32],
            default_source: None,
            dedupe: Dedupe::Skip,
            origin: Origin { file_name: None, terms },
        };
        self.shared.intake.start(&run).await.map_err(|error| {
            warn!(run.id = %run.id, error = chain(&error), "a run could not be begun");
            away()
        })?;
        runs.insert(key, run.clone());
        Ok(run)
    }

    async fn store(
        &self,
        run: Run,
        verdicts: Verdicts,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Response, Problem> {
        let Verdicts { items, rejects, defects } = verdicts;
        let Shared { intake, .. } = &*self.shared;
        if let Some(outbox) = &intake.outbox {
            // Who is told to wait for a moment comes through sooner than who finds no room, whose events wait for a lease's end.
            let _ = tokio::time::timeout(ROOM_PATIENCE, outbox.room()).await;
        }
        let batch = IntakeBatch {
            run_id: run.id,
            items,
            rejects,
            dedupe: run.dedupe,
            likely_new: false,
            trace: pipeline::current_trace(),
            now: intake.clock.now(),
            idempotency,
        };
        let run_id = run.id;
        let answer = |accepted: &[Accepted]| verdicts::answer(run_id, &defects, accepted);
        let outcome = match accept(&intake.db, &intake.vault, &run.program, &batch, answer).await {
            Ok(outcome) => outcome,
            Err(error) => {
                return Err(match error.conflict() {
                    Some(conflict) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, conflict.to_owned()),
                    None => unavailable(&error),
                });
            }
        };
        if let Some(repeated) = outcome.repeated {
            return Ok(([("idempotent-replayed", HeaderValue::from_static("true"))], Json(repeated)).into_response());
        }
        count_rows(run.kind, &outcome.counts);
        if let Some(outbox) = &intake.outbox {
            outbox.offer(outcome.outbox);
        }
        Ok(Json(answer(&outcome.items)).into_response())
    }
}

#[derive(Deserialize)]
struct Parameters {
    program: Option<String>,
    terms: Option<String>,
}

impl Parameters {
    /// The terms, whole or not at all.
    fn terms(&self) -> Result<Option<String>, Problem> {
        let Some(text) = &self.terms else { return Ok(None) };
        let clean = text::single_line(text, ORIGIN_CHARS + 1).filter(|clean| clean.chars().count() <= ORIGIN_CHARS);
        let detail = || format!("`terms` must have 1 to {ORIGIN_CHARS} characters");
        clean.map(Some).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, detail()))
    }
}

async fn take_leads(
    State(ingest): State<Ingest>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let span = info_span!("collector.ingest", program.id = tracing::field::Empty);
    pipeline::continue_trace(&span, &trace_of(&headers));
    async {
        // Before the body: who has no key can't make the server read.
        let program = ingest.program(&headers, parameters.program.as_deref()).await?;
        tracing::Span::current().record("program.id", tracing::field::display(program.program.id));
        let key_hash = idempotency_key(&headers)?;
        let terms = parameters.terms()?;
        let body = tokio::time::timeout(ingest.shared.request_timeout, Bytes::from_request(request, &()))
            .await
            .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?
            .map_err(|rejection| unreadable(&rejection))?;
        // A body of the wrong shape is refused before anything is begun for it.
        let inputs = input::parse(&body)?;
        let body_hash: [u8; 32] = Sha256::digest(&body).into();
        drop(body);
        let idempotency = key_hash.map(|key_hash| IdempotencyKey { key_hash, request_hash: body_hash });
        let run = ingest.run(&program, terms).await?;
        let now = ingest.shared.intake.clock.now();
        ingest.store(run, verdicts::judge(inputs, body_hash, now), idempotency).await
    }
    .instrument(span)
    .await
}

/// The trace that the client began (<https://www.w3.org/TR/trace-context/>).
fn trace_of(headers: &HeaderMap) -> TraceContext {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    TraceContext { traceparent: text("traceparent"), tracestate: text("tracestate") }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.trim().len()) => Ok(Some(Sha256::digest(key.trim()).into())),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Idempotency-Key must have 1 to 255 visible ASCII characters".to_owned(),
        )),
    }
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large; send fewer leads at once")
    } else {
        Problem::new(StatusCode::BAD_REQUEST, "the body could not be read to its end")
    }
}

fn unavailable(error: &StoreError) -> Problem {
    if error.is_transient() {
        warn!(error = chain(error), "a request could not be stored: the database is away");
        away()
    } else {
        error!(error = chain(error), "a request could not be stored");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the leads could not be stored; nothing was changed")
    }
}

fn away() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database is away; send the same request again").retry_after(5)
}
