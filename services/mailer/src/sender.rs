//! Sends what is planned: hands claimed rows to the transport, in phases, and settles what came of them.
//!
//! ```text
//! plan.rs ── claimed while planned ─┐
//! poll.rs ── claimed when due ──────┴─► Sender::start ─► capture: compose ─────────────────────────────────────► settle
//!                                                        SMTP:    compose ─► turn ─► begin ─► COMMIT(data) ─► transmit ─► settle
//! ```
//!
//! More mails are in hand than there are connections ([`Slot`]): while some are sent, others have been read and composed
//! and wait for their turn. A connection's turn ends only when its mail is settled, so that a process that dies leaves no
//! more mails `uncertain` than it has connections.
//!
//! **Architecture invariant:** a body goes out only after the move of its row to the data phase was committed and
//! acknowledged ([`commit`]). Whatever happens in between leaves a lease that runs out: back to the queue before that
//! commit, `uncertain` after it. Nothing is claimed without a [`Slot`], the right to have it in hand.

pub mod capture;
pub mod circuit_breaker;
pub mod commit;
pub mod poll;
mod reaction;
mod rests;
mod settle;
mod slots;
mod smtp;
mod tokens;

use std::{sync::Arc, time::Duration};

use domain::{clock::Clock, event::TraceContext};
use opentelemetry::{KeyValue, metrics::Counter};
use pipeline::Outbox;
use store::{
    Db,
    enrichments::EnrichedLead,
    outreach::{claim::Claimed, data_phase::Lease},
    programs::{Directory, OpenProgram},
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{circuit_breaker::CircuitBreaker, commit::Committer, rests::Rests, slots::Slots};
pub use self::{slots::Slot, tokens::Tokens};
use crate::{
    config::MailerConfig,
    message::{ComposeError, ComposeInput, ComposedMessage, Composer},
    transport::SmtpTransport,
};

/// How long a mail may take to be captured, in seconds.
const CAPTURE_LEASE_SECONDS: i32 = 60;
/// How long a planned mail waits for a slot before it is queued: claiming it from the queue later costs a second reading.
const SLOT_PATIENCE: Duration = Duration::from_millis(500);

/// How mails leave.
#[derive(Debug, Clone)]
pub enum Transport {
    /// They are kept, complete, instead of leaving.
    Capture,
    /// By SMTP.
    Smtp(SmtpTransport),
}

/// A claimed row with everything that its mail is made of.
#[derive(Debug)]
pub struct Job {
    /// The row, under lease.
    pub claimed: Claimed,
    /// Whom it is for.
    pub lead: Box<EnrichedLead>,
    /// Who writes.
    pub program: Arc<OpenProgram>,
    /// The right to have it in hand.
    pub slot: Slot,
    /// What it has taken of the program's limits.
    pub tokens: Tokens,
    /// The trace that it belongs to.
    pub trace: TraceContext,
}

impl Job {
    /// Whether the lead has the address that the mail was planned for.
    fn is_for_its_recipient(&self) -> bool {
        let email = self.lead.lead.lead.profile.email.as_ref();
        email.is_some_and(|email| self.program.keys.email_index(email) == self.claimed.recipient)
    }

    const fn lease(&self) -> Lease {
        (self.claimed.program_id, self.claimed.id, self.claimed.token)
    }
}

/// What a sender is made of.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub db: Db,
    /// Programs and their keys.
    pub directory: Directory,
    /// Where committed events go.
    pub outbox: Outbox,
    /// Makes the mails.
    pub composer: Arc<Composer>,
    /// Takes them.
    pub transport: Transport,
    /// Whether the SMTP server is asked at all.
    pub breaker: CircuitBreaker,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The settings.
    pub config: MailerConfig,
    /// Gives back what hasn't begun.
    pub soft: CancellationToken,
    /// Ends whatever is under way where it is.
    pub hard: CancellationToken,
}

/// Sends mails. Clones share it.
#[derive(Clone)]
pub struct Sender {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    committer: Committer,
    slots: Slots,
    rests: Rests,
    tasks: TaskTracker,
    /// Rows were queued that may be due now.
    queued: Notify,
    outcomes: Counter<u64>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("transport", &self.inner.parts.transport).finish_non_exhaustive()
    }
}

impl Sender {
    /// Starts the group commits; sends nothing yet.
    pub fn new(parts: Parts) -> Self {
        let committer = Committer::start(
            parts.db.clone(),
            parts.outbox.clone(),
            Arc::clone(&parts.clock),
            data_lease_seconds(&parts.config),
        );
        let outcomes = opentelemetry::global::meter("leadmill")
            .u64_counter("leadmill.mailer.mails")
            .with_description("Attempts to send or capture a mail, by outcome")
            .build();
        let slots = Slots::new(&parts.transport, &parts.config);
        let inner = Inner {
            parts,
            committer,
            slots,
            rests: Rests::default(),
            tasks: TaskTracker::new(),
            queued: Notify::new(),
            outcomes,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The right to have one more mail in hand, if there is one at this moment.
    fn try_slot(&self) -> Option<Slot> {
        self.inner.parts.breaker.allows().then(|| self.inner.slots.take()).flatten()
    }

    /// The right to have one more mail in hand, if there is one soon.
    pub async fn slot_soon(&self) -> Option<Slot> {
        let breaker = &self.inner.parts.breaker;
        if !breaker.allows() {
            return None;
        }
        timeout(SLOT_PATIENCE, self.inner.slots.wait()).await.ok().filter(|_| breaker.allows())
    }

    /// Whether mails of this program want tokens of a budget, or rest: then they are claimed by polling, where tokens are taken
    /// and a rest is waited for. Captured mails want none.
    pub fn is_limited(&self, program: &OpenProgram) -> bool {
        matches!(self.inner.parts.transport, Transport::Smtp(_))
            && (self.inner.parts.config.smtp.per_minute > 0
                || program.program.settings.daily_cap.is_some()
                || program.rests
                || self.inner.rests.remaining(program.program.id).is_some())
    }

    /// Whether mails are captured instead of sent.
    pub fn captures(&self) -> bool {
        matches!(self.inner.parts.transport, Transport::Capture)
    }

    /// How long a claim holds before the data phase, in seconds.
    pub fn lease_seconds(&self) -> i32 {
        match &self.inner.parts.transport {
            Transport::Capture => CAPTURE_LEASE_SECONDS,
            Transport::Smtp(_) => {
                let config = &self.inner.parts.config;
                lease_seconds(config.smtp.connect_phase() + config.lease_slack)
            }
        }
    }

    /// How long a mail may be under lease, at most, from any moment on.
    fn longest_lease(&self) -> Duration {
        let seconds = self.lease_seconds().max(data_lease_seconds(&self.inner.parts.config));
        Duration::from_secs(seconds.unsigned_abs().into())
    }

    /// Says that rows were queued.
    pub fn notify_queued(&self) {
        self.inner.queued.notify_one();
    }

    /// Starts claimed mails. Captured ones are settled when it returns, others are on their way.
    pub async fn start(&self, jobs: Vec<Job>) {
        let hard = self.inner.parts.hard.clone();
        match &self.inner.parts.transport {
            Transport::Capture if jobs.is_empty() => {}
            Transport::Capture => {
                hard.run_until_cancelled(capture::capture(self, jobs)).await;
            }
            Transport::Smtp(transport) => {
                for job in jobs {
                    let (sender, transport, hard) = (self.clone(), transport.clone(), hard.clone());
                    self.inner.tasks.spawn(async move {
                        hard.run_until_cancelled(Box::pin(smtp::send(&sender, &transport, job))).await;
                    });
                }
            }
        }
    }

    /// Waits until everything that was started is settled. Nothing may be started any more.
    pub async fn drain(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Gives back what a mail has taken of its program's limits: nothing of it went out.
    async fn give_tokens_back(&self, job: &Job) {
        job.tokens.give_back(&self.inner.parts.db, job.claimed.program_id, 1).await;
    }

    fn compose(&self, job: &Job) -> Result<ComposedMessage, ComposeError> {
        compose(&self.inner.parts.composer, self.inner.parts.clock.as_ref(), job)
    }

    fn count(&self, outcome: &'static str, mails: u64) {
        self.inner.outcomes.add(mails, &[KeyValue::new("outcome", outcome)]);
    }
}

fn compose(composer: &Composer, clock: &dyn Clock, job: &Job) -> Result<ComposedMessage, ComposeError> {
    let lead = &job.lead.lead.lead;
    let token = job.program.keys.unsubscribe_token(job.claimed.recipient);
    composer.compose(&ComposeInput {
        program: &job.program.program,
        lead,
        message: &job.lead.enrichment.message,
        step: &job.claimed.step,
        message_id: &job.claimed.message_id,
        outreach: job.claimed.id,
        unsubscribe_token: &token,
        now: clock.now(),
    })
}

/// How long a mail may stay in the data phase, in seconds.
fn data_lease_seconds(config: &MailerConfig) -> i32 {
    lease_seconds(config.smtp.data_phase() + config.lease_slack)
}

fn lease_seconds(lease: Duration) -> i32 {
    i32::try_from(lease.as_secs() + 1).unwrap_or(i32::MAX)
}
