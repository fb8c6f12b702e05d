//! One transaction on one connection.

use std::{fmt, sync::Arc, time::Instant};

use domain::{email::EmailAddress, smtp_reply::Phase};
use lettre::{
    Address,
    transport::smtp::{
        client::AsyncSmtpConnection,
        commands::{Data, Mail, Quit, Rcpt, Rset},
    },
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    connect::step,
    outcome::{SendOutcome, broken, classify, of_response},
    pool::Pool,
};

/// The envelope of one message: one sender, one recipient.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpEnvelope {
    sender: Address,
    recipient: Address,
}

/// Debug output shows no personal data.
impl fmt::Debug for SmtpEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmtpEnvelope(***)")
    }
}

impl SmtpEnvelope {
    /// `None` if one of both can't stand in an envelope.
    pub fn new(return_path: &str, recipient: &EmailAddress) -> Option<Self> {
        let recipient = Address::new(recipient.local(), recipient.domain()).ok()?;
        Some(Self { sender: return_path.parse().ok()?, recipient })
    }
}

/// An open connection between two transactions.
pub(super) struct Connection {
    /// Boxed: it is a kilobyte, and moves from hand to hand.
    pub(super) smtp: Box<AsyncSmtpConnection>,
    pub(super) mails: u32,
    pub(super) idle_since: Instant,
}

impl Connection {
    pub(super) fn new(smtp: AsyncSmtpConnection) -> Self {
        Self { smtp: Box::new(smtp), mails: 0, idle_since: Instant::now() }
    }
}

/// The right to one transaction at a time, until it is dropped.
///
/// Dropped in the middle of a transaction it closes its connection; only [`Session::transmit`] and [`Session::abandon`]
/// give that back.
pub struct Session {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    /// As many sessions as there are permits.
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(pool: Arc<Pool>, permit: OwnedSemaphorePermit) -> Self {
        Self { pool, connection: None, _permit: permit }
    }

    /// Offers the envelope. `Ok` means that the server agreed to it; nothing of the body was written.
    ///
    /// A kept connection that turns out to be dead is replaced once: nothing had been begun on it.
    pub async fn begin(&mut self, envelope: &SmtpEnvelope) -> Result<(), SendOutcome> {
        if let Some(kept) = self.pool.take() {
            match self.offer(kept, envelope).await {
                Err(outcome) if self.connection.is_none() && is_dead(&outcome) => {}
                known => return known,
            }
        }
        let smtp = self.pool.dialer.connect().await?;
        self.offer(Connection::new(smtp), envelope).await
    }

    /// MAIL and RCPT; keeps the connection for what follows, unless it is of no use any more.
    async fn offer(&mut self, mut connection: Connection, envelope: &SmtpEnvelope) -> Result<(), SendOutcome> {
        let limit = self.pool.config.command_timeout;
        let smtp = &mut connection.smtp;
        let mail = smtp.command(Mail::new(Some(envelope.sender.clone()), Vec::new()));
        let mut result = step(Phase::Sender, limit, mail).await;
        let mut phase = Phase::Sender;
        if result.as_ref().is_ok_and(|response| is_done(u16::from(response.code()))) {
            phase = Phase::Recipient;
            result = step(phase, limit, smtp.command(Rcpt::new(envelope.recipient.clone(), Vec::new()))).await;
        }
        match result {
            Ok(response) if is_done(u16::from(response.code())) => {
                self.connection = Some(connection);
                Ok(())
            }
            Ok(response) => Err(classify(phase, of_response(&response))),
            Err(outcome) => {
                if leaves_the_connection(&outcome) {
                    self.pool.reset(connection).await;
                }
                Err(outcome)
            }
        }
    }

    /// Writes the body and says what is known of its fate. Call it only after the move to the data phase is committed.
    ///
    /// `message` has CRLF line ends and is 7-bit; dots are stuffed here.
    pub async fn transmit(&mut self, message: &[u8]) -> SendOutcome {
        let Some(mut connection) = self.connection.take() else {
            return broken(Phase::Data, "smtp_not_begun");
        };
        let smtp = &mut connection.smtp;
        match step(Phase::Data, self.pool.config.command_timeout, smtp.command(Data)).await {
            Ok(response) if response.has_code(354) => {}
            Ok(response) => return classify(Phase::Data, of_response(&response)),
            Err(outcome) => {
                if leaves_the_connection(&outcome) {
                    self.pool.reset(connection).await;
                }
                return outcome;
            }
        }
        // lettre ends what it is given with a line break of its own.
        let message = message.strip_suffix(b"\r\n").unwrap_or(message);
        let outcome = match step(Phase::Body, self.pool.config.body_timeout, smtp.message(message)).await {
            Ok(response) if is_done(u16::from(response.code())) => SendOutcome::Sent { reply: of_response(&response) },
            Ok(response) => classify(Phase::Body, of_response(&response)),
            Err(outcome) => outcome,
        };
        if matches!(outcome, SendOutcome::Sent { .. }) || leaves_the_connection(&outcome) {
            connection.mails += 1;
            self.pool.keep(connection);
        }
        outcome
    }

    /// Ends the transaction without a message.
    pub async fn abandon(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.reset(connection).await;
        }
    }
}

impl Pool {
    /// Ends a transaction (RSET) and keeps the connection if the server agrees.
    async fn reset(&self, mut connection: Connection) {
        let limit = self.config.command_timeout;
        if step(Phase::Sender, limit, connection.smtp.command(Rset)).await.is_ok() {
            self.keep(connection);
        }
    }

    /// Says goodbye in the background.
    pub(super) fn retire(&self, mut connection: Connection) {
        let limit = self.config.command_timeout;
        tokio::spawn(async move {
            let _ = step(Phase::Sender, limit, connection.smtp.command(Quit)).await;
        });
    }
}

const fn is_done(code: u16) -> bool {
    code >= 200 && code < 300
}

/// Whether the server is still there and in order after a negative reply: not after a 421, by which it says that it hangs
/// up (RFC 5321 §4.2.3), and not after a broken connection.
fn leaves_the_connection(outcome: &SendOutcome) -> bool {
    match outcome {
        SendOutcome::Failed { reply, .. }
        | SendOutcome::MailboxFull { reply }
        | SendOutcome::PolicyRefused { reply }
        | SendOutcome::SenderRefused { reply, .. }
        | SendOutcome::AccountLimited { reply, .. } => reply.code != 421,
        SendOutcome::Deferred { reason } => {
            reason.strip_prefix("smtp_").is_some_and(|code| code.starts_with(['4', '5']) && !code.starts_with("421"))
        }
        _ => false,
    }
}

/// Whether a kept connection was closed while nobody looked, or has carried all the mails that the server wants on one.
fn is_dead(outcome: &SendOutcome) -> bool {
    match outcome {
        SendOutcome::AccountLimited { reply, .. } => reply.code == 421,
        SendOutcome::Deferred { reason } => {
            reason == "smtp_connection_lost" || reason == "smtp_unreadable_reply" || reason.starts_with("smtp_421")
        }
        _ => false,
    }
}
