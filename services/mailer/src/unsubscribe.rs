//! The unsubscribe endpoint: `/u/{token}`.
//!
//! GET and HEAD show a page and change nothing, since link scanners follow every link of a mail. POST suppresses the
//! recipient at once: it is what mail programs send for one-click unsubscription (RFC 8058) and what the page's button
//! sends. There is no login, no cookie, no redirect and no script; the answer is 200 also when it had been done before.
//!
//! The token alone decides. The body (`List-Unsubscribe=One-Click`, urlencoded or multipart) is read within bounds and
//! otherwise ignored: whoever objects must not fail on the form of a form.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use domain::{
    clock::Clock,
    event::{Envelope, Event, Outgoing, Route},
    id::ProgramId,
};
use minijinja::{Environment, context};
use pipeline::Outbox;
use store::{
    Connection, Db, StoreError, outbox,
    outbox::Leased,
    outreach::recipients,
    programs::{Directory, OpenProgram},
    suppressions::{self, SuppressionReason},
};
use time::OffsetDateTime;
use vault::BlindIndex;

use crate::message::templates;

/// The most bytes of a body that are read.
const BODY_BYTES: usize = 64 * 1_024;
/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// What the pages may do: be styled and be sent back to us.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What the endpoint needs.
#[derive(Clone)]
pub struct Unsubscribe {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    directory: Directory,
    outbox: Outbox,
    clock: Arc<dyn Clock>,
    pages: Environment<'static>,
}

/// What a page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Ask,
    Done,
    Unknown,
    Unavailable,
}

impl Unsubscribe {
    /// The endpoint over a database.
    pub fn new(db: Db, directory: Directory, outbox: Outbox, clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Inner { db, directory, outbox, clock, pages: templates() }) }
    }

    /// Its routes.
    pub fn router(self) -> Router {
        Router::new().route("/u/{token}", get(show).post(object)).fallback(nothing).with_state(self)
    }

    /// The program and the recipient that a token names; `None` for one that isn't ours.
    async fn resolve(&self, token: &str) -> Result<Option<(Arc<OpenProgram>, BlindIndex)>, StoreError> {
        let Some(id) = vault::token::program_of(token) else { return Ok(None) };
        let Some(program) = self.inner.directory.get(id).await? else { return Ok(None) };
        Ok(program.keys.verify_unsubscribe(token).map(|recipient| (program, recipient)))
    }

    async fn suppress(&self, program: ProgramId, recipient: BlindIndex) -> Result<(), StoreError> {
        let now = self.inner.clock.now();
        let told = self
            .inner
            .db
            .transact("mailer.unsubscribe", |tx, _| Box::pin(suppress(tx, program, recipient, now)))
            .await?;
        self.inner.outbox.offer(told);
        // The objection holds already: each mail is stopped when it is claimed, and a job cancels what is left.
        let cancelled = self
            .inner
            .db
            .transact("mailer.cancel_suppressed", |tx, _| {
                Box::pin(async move { recipients::cancel_suppressed(tx, program, &[recipient]).await })
            })
            .await;
        if let Err(error) = cancelled {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(program.id = %program, error, "mails to somebody who objected are cancelled later: the database failed");
        }
        Ok(())
    }

    fn page(&self, status: StatusCode, page: Page, program: &str) -> Response {
        let state = match page {
            Page::Ask => "ask",
            Page::Done => "done",
            Page::Unknown => "unknown",
            Page::Unavailable => "unavailable",
        };
        let html = self
            .inner
            .pages
            .get_template("unsubscribe.html")
            .and_then(|template| template.render(context! { state, program }));
        match html {
            Ok(html) => (status, headers(), Html(html)).into_response(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the unsubscribe page can't be rendered");
                (StatusCode::INTERNAL_SERVER_ERROR, headers()).into_response()
            }
        }
    }

    fn failed(&self, error: &StoreError) -> Response {
        tracing::error!(error = error as &dyn std::error::Error, "an unsubscribe request could not be served");
        let mut response = self.page(StatusCode::SERVICE_UNAVAILABLE, Page::Unavailable, "");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        response
    }
}

async fn suppress(
    tx: &mut Connection,
    program: ProgramId,
    recipient: BlindIndex,
    now: OffsetDateTime,
) -> Result<Vec<Leased>, StoreError> {
    let leads = suppressions::add(tx, program, &[recipient], SuppressionReason::Unsubscribed).await?;
    let trace = pipeline::current_trace();
    let events = leads
        .into_iter()
        .map(|(lead, revision)| Outgoing {
            envelope: Envelope::new(program, lead, revision, now, Event::LeadUnsubscribed {}),
            route: Route::Exchange,
            trace: trace.clone(),
        })
        .collect();
    outbox::insert(tx, events).await
}

/// GET and HEAD: a page.
async fn show(State(endpoint): State<Unsubscribe>, Path(token): Path<String>) -> Response {
    match endpoint.resolve(&token).await {
        Ok(Some((program, _))) => endpoint.page(StatusCode::OK, Page::Ask, &program.program.settings.name),
        Ok(None) => endpoint.page(StatusCode::NOT_FOUND, Page::Unknown, ""),
        Err(error) => endpoint.failed(&error),
    }
}

/// POST: suppresses.
async fn object(State(endpoint): State<Unsubscribe>, Path(token): Path<String>, body: Body) -> Response {
    // Read, so that the peer can finish what it sends; whatever is wrong with it, the token has said enough.
    let _ = tokio::time::timeout(BODY_LIMIT, axum::body::to_bytes(body, BODY_BYTES)).await;
    match endpoint.resolve(&token).await {
        Ok(Some((program, recipient))) => match endpoint.suppress(program.program.id, recipient).await {
            Ok(()) => endpoint.page(StatusCode::OK, Page::Done, &program.program.settings.name),
            Err(error) => endpoint.failed(&error),
        },
        Ok(None) => endpoint.page(StatusCode::NOT_FOUND, Page::Unknown, ""),
        Err(error) => endpoint.failed(&error),
    }
}

async fn nothing(State(endpoint): State<Unsubscribe>) -> Response {
    endpoint.page(StatusCode::NOT_FOUND, Page::Unknown, "")
}

fn headers() -> [(header::HeaderName, HeaderValue); 5] {
    [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex, nofollow")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_renders_and_escapes_the_programs_name() {
        let pages = templates();
        let template = pages.get_template("unsubscribe.html").unwrap();
        for (state, expected, form) in [
            ("ask", "Stop mails from", true),
            ("done", "You are unsubscribed", false),
            ("unknown", "know this link", false),
            ("unavailable", "try again", false),
        ] {
            let html = template.render(context! { state, program => "<b>Acme</b>" }).unwrap();
            assert!(html.contains(expected), "{html}");
            assert!(!html.contains("<b>") && !html.contains("<script") && !html.contains("http"));
            assert_eq!(html.contains("<form method=\"post\">"), form);
        }
    }
}
