//! What an attempt's outcome means: for the mail, for the program, for this process.
//!
//! A reply about our sender or our account marks no lead: the mail returns to the queue, and the program rests or is paused.
//! When, is for [`store::sender_health`] to say, which knows what other mails were told.

use std::time::Duration;

use domain::smtp_reply::Limit;
use store::{
    StoreError,
    outreach::{mailbox_full, settle::Outcome},
    sender_health::{self, Reaction, Refusal},
};

use super::{
    Job, Sender,
    circuit_breaker::{Cause, CircuitBreaker},
    settle::{again, backoff},
};
use crate::transport::{Failure, Reply, SendOutcome};

/// How long a mail waits whose sender is refused.
const REFUSED_SENDER: Duration = Duration::from_hours(1);
/// How long a mail waits whose recipient's mailbox is full.
const MAILBOX_FULL: Duration = Duration::from_hours(7 * 24);
/// The rest of a program whose rest could not be written down.
const UNWRITTEN_REST: Duration = Duration::from_mins(1);

/// Does what an outcome means beyond its mail, and says what to write down for the mail. `in_data` says whether the move to the
/// data phase was committed.
pub(super) async fn react(sender: &Sender, job: &Job, outcome: &SendOutcome, in_data: bool) -> Outcome {
    match outcome {
        SendOutcome::Sent { .. } => Outcome::Sent,
        SendOutcome::Uncertain { reason } => Outcome::Uncertain { reason: reason.clone() },
        SendOutcome::Deferred { reason } => deferred(sender, job, reason.clone()),
        SendOutcome::Failed { reply, failure } => match failure {
            Failure::HardBounce => Outcome::Failed { reason: reply.reason(), hard_bounce: true },
            Failure::Undeliverable => failed(format!("undeliverable:{}", reply.reason())),
            Failure::Message => failed(reply.reason()),
        },
        SendOutcome::MailboxFull { reply } => found_mailbox_full(sender, job, reply).await,
        SendOutcome::PolicyRefused { reply } => policy_refused(sender, job, reply).await,
        SendOutcome::SenderRefused { reply, authentication } => {
            sender_refused(sender, job, reply, *authentication, in_data).await
        }
        SendOutcome::AccountLimited { reply, limit } => account_limited(sender, job, reply, *limit, in_data).await,
        SendOutcome::Credentials { reply } => credentials_refused(sender, job, reply, in_data).await,
        SendOutcome::NotStarted { reason } => {
            let after = sender.inner.parts.breaker.trip(Cause::Unreachable(reason));
            untried(sender, job, reason.clone(), after, in_data).await
        }
    }
}

/// Opens the circuit breaker where a new connection shows that no mail would come further; whether it did.
pub(super) fn trip(breaker: &CircuitBreaker, outcome: &SendOutcome) -> bool {
    match outcome {
        SendOutcome::NotStarted { reason } => breaker.trip(Cause::Unreachable(reason)),
        SendOutcome::Credentials { .. } => breaker.trip(Cause::CredentialsRefused),
        _ => return false,
    };
    true
}

const fn failed(reason: String) -> Outcome {
    Outcome::Failed { reason, hard_bounce: false }
}

fn deferred(sender: &Sender, job: &Job, reason: String) -> Outcome {
    let config = &sender.inner.parts.config;
    Outcome::Deferred { reason, after: backoff(job.claimed.attempts, config.retry_first, config.retry_longest) }
}

/// The mail waits through no fault of its own: its tokens return to the budgets.
async fn untried(sender: &Sender, job: &Job, reason: String, after: Duration, in_data: bool) -> Outcome {
    sender.give_tokens_back(job).await;
    again(reason, after, in_data)
}

async fn found_mailbox_full(sender: &Sender, job: &Job, reply: &Reply) -> Outcome {
    let (lease, db) = (job.lease(), &sender.inner.parts.db);
    let found = db
        .transact("mailer.mailbox_full", |tx, _| Box::pin(async move { mailbox_full::found_full(tx, lease).await }))
        .await;
    match written(job, found) {
        Some(true) => failed(reply.reason()),
        // A week is longer than a mail is tried: it does not count towards that.
        Some(false) | None => Outcome::Postponed { reason: reply.reason(), after: MAILBOX_FULL },
    }
}

async fn policy_refused(sender: &Sender, job: &Job, reply: &Reply) -> Outcome {
    let (reason, db, now) = (reply.reason(), &sender.inner.parts.db, sender.inner.parts.clock.now());
    let refusal = refusal(job, &reason);
    let reaction = db
        .transact("mailer.policy_refused", |tx, _| {
            Box::pin(async move { sender_health::policy_refused(tx, refusal, now).await })
        })
        .await;
    if let Some(Reaction::Paused { recipients }) = written(job, reaction) {
        paused(sender, job, &reason, recipients, "recipients' servers refuse its mails by policy");
    }
    failed(reason)
}

async fn sender_refused(sender: &Sender, job: &Job, reply: &Reply, authentication: bool, in_data: bool) -> Outcome {
    let what = if authentication {
        "SMTP server refuses the sender's authentication"
    } else {
        "SMTP server refuses the sender"
    };
    let (reason, db, now) = (reply.reason(), &sender.inner.parts.db, sender.inner.parts.clock.now());
    let refusal = refusal(job, &reason);
    let reaction = db
        .transact("mailer.sender_refused", |tx, _| {
            Box::pin(async move { sender_health::sender_refused(tx, refusal, authentication, now).await })
        })
        .await;
    let code = format!("sender_refused:{reason}");
    match written(job, reaction) {
        Some(Reaction::GiveUp) => return failed(code),
        Some(Reaction::Paused { recipients }) => paused(sender, job, &reason, recipients, what),
        _ => tracing::warn!(program.id = %job.claimed.program_id, reason, "{what}, mail returns to the queue"),
    }
    untried(sender, job, code, REFUSED_SENDER, in_data).await
}

async fn account_limited(sender: &Sender, job: &Job, reply: &Reply, limit: Limit, in_data: bool) -> Outcome {
    let (reason, program) = (reply.reason(), job.claimed.program_id);
    let (db, longest) = (&sender.inner.parts.db, sender.inner.parts.config.retry_longest);
    let refusal = refusal(job, &reason);
    let reaction = db
        .transact("mailer.account_limited", |tx, _| {
            Box::pin(async move { sender_health::account_limited(tx, refusal, limit, longest).await })
        })
        .await;
    let remaining = match written(job, reaction) {
        Some(Reaction::Defer) => return deferred(sender, job, reason),
        Some(Reaction::Rest { remaining, began }) => {
            if began {
                tracing::warn!(program.id = %program, reason, seconds = remaining.as_secs(), "SMTP server limits our account, program rests");
            }
            remaining
        }
        _ => UNWRITTEN_REST.min(longest),
    };
    sender.inner.rests.begin(program, remaining);
    untried(sender, job, format!("account_limited:{reason}"), remaining, in_data).await
}

async fn credentials_refused(sender: &Sender, job: &Job, reply: &Reply, in_data: bool) -> Outcome {
    let after = sender.inner.parts.breaker.trip(Cause::CredentialsRefused);
    let (reason, db, now) = (reply.reason(), &sender.inner.parts.db, sender.inner.parts.clock.now());
    let refusal = refusal(job, &reason);
    let paused = db
        .transact("mailer.credentials_refused", |tx, _| {
            Box::pin(async move { sender_health::credentials_refused(tx, refusal, now).await })
        })
        .await;
    if written(job, paused) == Some(true) {
        tracing::error!(program.id = %job.claimed.program_id, reason, "program paused: SMTP server refuses our credentials");
    }
    untried(sender, job, format!("credentials_refused:{reason}"), after, in_data).await
}

/// Keeps this process off a program that was paused, and says so.
fn paused(sender: &Sender, job: &Job, reason: &str, recipients: i64, what: &str) {
    let program = job.claimed.program_id;
    sender.inner.rests.begin(program, Duration::MAX);
    tracing::error!(program.id = %program, reason, recipients, "program paused: {what}");
}

const fn refusal<'a>(job: &Job, reason: &'a str) -> Refusal<'a> {
    Refusal { program_id: job.claimed.program_id, outreach_id: job.claimed.id, reason }
}

/// What was written. Where it could not be, the mail is settled as if nothing else was known; the next refusal tries again.
fn written<T>(job: &Job, result: Result<T, StoreError>) -> Option<T> {
    result
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::error!(program.id = %job.claimed.program_id, outreach.id = %job.claimed.id, error, "refusal could not be recorded");
        })
        .ok()
}
