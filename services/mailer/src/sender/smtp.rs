//! One mail by SMTP: compose, wait for a connection, offer the envelope, commit, transmit, settle.

use std::time::{Duration, Instant};

use domain::{hold, id::ProgramId};
use store::outreach::{data_phase::Lease, settle::Outcome};
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::{Job, Sender, reaction};
use crate::transport::{SendOutcome, Session, SmtpEnvelope, SmtpTransport};

/// How long a mail waits whose move to the data phase couldn't be committed.
const UNCOMMITTED_PAUSE: Duration = Duration::from_mins(1);

/// Sends one mail and settles it. Its connection's turn lasts through the pause between two mails.
pub(super) async fn send(sender: &Sender, transport: &SmtpTransport, mut job: Job) {
    let span = tracing::info_span!("mailer.send", outreach.id = %job.claimed.id, program.id = %job.claimed.program_id,
                                   outcome = tracing::field::Empty);
    pipeline::continue_trace(&span, &job.trace);
    attempt(sender, transport, &mut job).instrument(span).await;
}

async fn attempt(sender: &Sender, transport: &SmtpTransport, job: &mut Job) {
    if !job.is_for_its_recipient() {
        return give_up(sender, job).await;
    }
    let message = match sender.compose(job) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no mail can be made");
            sender.count("compose_failed", 1);
            sender.give_tokens_back(job).await;
            return sender.settle(job, Outcome::Held { reason: hold::COMPOSE_FAILED.to_owned() }, None).await;
        }
    };
    let Some(envelope) = SmtpEnvelope::new(&message.return_path, &message.recipient) else {
        sender.give_tokens_back(job).await;
        return sender.settle(job, Outcome::Held { reason: hold::BAD_ENVELOPE.to_owned() }, None).await;
    };
    let mut session = match turn(sender, transport, job.claimed.program_id).await {
        Ok(session) => session,
        Err(after) => {
            sender.count("put_back", 1);
            sender.give_tokens_back(job).await;
            return sender.settle(job, Outcome::Returned { after }, None).await;
        }
    };
    let turn_began = Instant::now();
    match deliver(sender, &mut session, &envelope, &message.bytes, job.lease()).await {
        Delivery::GivenUp => {
            sender.count("given_up", 1);
            sender.give_tokens_back(job).await;
        }
        Delivery::Uncommitted => {
            // The row may or may not be in the data phase; nothing was sent, and this token may say so in both.
            sender.count("uncommitted", 1);
            let outcome = Outcome::Postponed { reason: "not_committed".to_owned(), after: UNCOMMITTED_PAUSE };
            sender.settle(job, outcome, None).await;
        }
        Delivery::Known(outcome, in_data) => {
            tracing::Span::current().record("outcome", outcome.name());
            sender.count(outcome.name(), 1);
            let settled = reaction::react(sender, job, &outcome, in_data).await;
            sender.settle(job, settled, outcome.reply()).await;
        }
    }
    sender.inner.slots.turn_took(turn_began.elapsed());
    let parts = &sender.inner.parts;
    parts.soft.run_until_cancelled(sleep(parts.config.smtp.delay_between)).await;
}

/// Gives back a mail whose lead has got another address since it was claimed, before anything is composed for it. The next claim
/// plans it again.
async fn give_up(sender: &Sender, job: &Job) {
    sender.count("address_changed", 1);
    sender.give_tokens_back(job).await;
    sender.settle(job, Outcome::Returned { after: Duration::ZERO }, None).await;
}

/// Waits for a connection's turn, or says after how long the mail may be claimed again: when its lease comes to an end while
/// all connections hang, when the server can't be reached, when its program rests, and when this process is about to end.
async fn turn(sender: &Sender, transport: &SmtpTransport, program: ProgramId) -> Result<Session, Duration> {
    let parts = &sender.inner.parts;
    let patience = parts.config.lease_slack / 2;
    match parts.soft.run_until_cancelled(timeout(patience, transport.session())).await {
        Some(Ok(_)) if !parts.breaker.allows() => Err(parts.breaker.remaining()),
        Some(Ok(session)) => sender.inner.rests.remaining(program).map_or(Ok(session), Err),
        Some(Err(_)) => {
            sender.inner.slots.turn_took(patience);
            Err(patience)
        }
        None => Err(Duration::ZERO),
    }
}

/// How far a mail came.
enum Delivery {
    /// The row may not be sent any more, and was given up.
    GivenUp,
    /// It is unknown whether the move to the data phase was committed; nothing was sent.
    Uncommitted,
    /// The transport says what came of it; and whether the row is in the data phase.
    Known(SendOutcome, bool),
}

async fn deliver(
    sender: &Sender,
    session: &mut Session,
    envelope: &SmtpEnvelope,
    message: &[u8],
    lease: Lease,
) -> Delivery {
    if let Err(outcome) = session.begin(envelope).await {
        return Delivery::Known(outcome, false);
    }
    sender.inner.parts.breaker.close();
    match sender.inner.committer.begin(lease).await {
        Ok(true) => Delivery::Known(session.transmit(message).await, true),
        Ok(false) => {
            session.abandon().await;
            Delivery::GivenUp
        }
        Err(error) => {
            session.abandon().await;
            tracing::warn!(
                error = error.as_ref() as &dyn std::error::Error,
                "the move to the data phase was not committed; nothing was sent"
            );
            Delivery::Uncommitted
        }
    }
}

/// Asks whether the server that couldn't be reached is back. Without a probe of its own, a mailer that has nothing to send would
/// never learn it, and say for ever that it isn't ready.
pub(super) async fn probe(sender: &Sender, transport: &SmtpTransport) {
    let breaker = &sender.inner.parts.breaker;
    match transport.reach().await {
        Some(Err(outcome)) if reaction::trip(breaker, &outcome) => {}
        Some(_) => breaker.reached(),
        // The mails that are under way will tell.
        None => {}
    }
}
