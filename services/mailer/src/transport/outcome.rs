//! What a server's reply means for the mail, the lead and the sender.

use lettre::transport::smtp::{Error, response::Response};

/// The most characters of a reply that are kept.
const REPLY_CHARS: usize = 300;

/// How far a transaction had come when the reply was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Greeting, EHLO, STARTTLS.
    Connect,
    /// AUTH.
    Login,
    /// MAIL FROM: the reply is about the sender.
    Sender,
    /// RCPT TO: the reply is about the recipient.
    Recipient,
    /// DATA: nothing of the body was written yet.
    Data,
    /// The body was begun.
    Body,
}

/// A server's reply, bounded and without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits (RFC 5321 §4.2).
    pub code: u16,
    /// The enhanced status code (RFC 3463), such as `(5, 1, 1)`.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The text, at most 300 characters. It can name a person: for sealed columns only, never for logs.
    pub text: String,
}

impl Reply {
    pub(crate) fn new(code: u16, text: &str) -> Self {
        Self { code, enhanced: enhanced(code, text), text: sanitise(text) }
    }

    /// A short code that names nobody, for a state's reason and for logs: `smtp_550_5.1.1`.
    pub fn reason(&self) -> String {
        match self.enhanced {
            Some((class, subject, detail)) => format!("smtp_{}_{class}.{subject}.{detail}", self.code),
            None => format!("smtp_{}", self.code),
        }
    }
}

/// What is known after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The server took the message and the duty to deliver it.
    Sent {
        /// Its reply.
        reply: Reply,
    },
    /// The server asked to come back later, or the transaction broke before the body.
    Deferred {
        /// Why: a short code.
        reason: String,
        /// Whether the recipient's domain asked for fewer mails.
        slow_domain: bool,
    },
    /// The server refused the message for good.
    Failed {
        /// Its reply.
        reply: Reply,
        /// Whether the address is dead and must not be used again.
        hard_bounce: bool,
    },
    /// The body was begun and no reply tells of its fate; never send it again by itself.
    Uncertain {
        /// Why: a short code.
        reason: String,
    },
    /// The server refuses the sender, not this message: pause the sender and tell a person. The lead stays untouched.
    SenderPolicy {
        /// Its reply.
        reply: Reply,
    },
    /// The server refuses our credentials: stop sending. The lead stays untouched.
    Credentials {
        /// Its reply.
        reply: Reply,
    },
    /// No transaction was begun: the server can't be reached or won't talk. The mail returns to the queue.
    NotStarted {
        /// Why: a short code.
        reason: String,
    },
}

impl SendOutcome {
    /// A short name for metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sent { .. } => "sent",
            Self::Deferred { .. } => "deferred",
            Self::Failed { .. } => "failed",
            Self::Uncertain { .. } => "uncertain",
            Self::SenderPolicy { .. } => "sender_policy",
            Self::Credentials { .. } => "credentials",
            Self::NotStarted { .. } => "not_started",
        }
    }
}

/// What a negative reply means, by the phase in which it came.
pub(crate) fn classify(phase: Phase, reply: Reply) -> SendOutcome {
    let Reply { code, enhanced, .. } = reply;
    let status = enhanced.map(|(_, subject, detail)| (subject, detail));
    let policy = matches!(status, Some((7, _)));
    match (phase, code) {
        (Phase::Login, 500..) => SendOutcome::Credentials { reply },
        (Phase::Connect | Phase::Login, 400..) if !(policy && code >= 500) => {
            SendOutcome::NotStarted { reason: reply.reason() }
        }
        // "Authentication required" (RFC 4954 §6), "mechanism too weak", "credentials invalid".
        (_, 530 | 534 | 535 | 538) => SendOutcome::Credentials { reply },
        (_, 421) => SendOutcome::Deferred { reason: reply.reason(), slow_domain: true },
        (_, 400..=499) => SendOutcome::Deferred { reason: reply.reason(), slow_domain: policy },
        (_, 500..) if policy => SendOutcome::SenderPolicy { reply },
        // Said of the return path, an address problem is the sender's.
        (Phase::Sender, 500..) if matches!(status, Some((1, _))) => SendOutcome::SenderPolicy { reply },
        (Phase::Recipient | Phase::Data | Phase::Body, 500..) => {
            let hard_bounce = matches!(status, Some((1, 1..=3) | (2, 1)));
            SendOutcome::Failed { reply, hard_bounce }
        }
        (_, 500..) => SendOutcome::Failed { reply, hard_bounce: false },
        // A positive reply where none belongs: the peer doesn't speak SMTP.
        (Phase::Connect | Phase::Login, _) => SendOutcome::NotStarted { reason: reply.reason() },
        (Phase::Sender | Phase::Recipient | Phase::Data, _) => {
            SendOutcome::Deferred { reason: reply.reason(), slow_domain: false }
        }
        (Phase::Body, _) => SendOutcome::Uncertain { reason: reply.reason() },
    }
}

/// What it means that a phase ended without a reply.
pub(crate) fn broken(phase: Phase, reason: &str) -> SendOutcome {
    let reason = reason.to_owned();
    match phase {
        Phase::Connect | Phase::Login => SendOutcome::NotStarted { reason },
        Phase::Sender | Phase::Recipient | Phase::Data => SendOutcome::Deferred { reason, slow_domain: false },
        Phase::Body => SendOutcome::Uncertain { reason },
    }
}

/// What lettre's error means: a negative reply, or a broken connection.
pub(crate) fn of_error(phase: Phase, error: &Error) -> SendOutcome {
    let Some(code) = error.status() else {
        let reason = if error.is_response() { "smtp_unreadable_reply" } else { "smtp_connection_lost" };
        return broken(phase, reason);
    };
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    classify(phase, Reply::new(u16::from(code), &text))
}

pub(crate) fn of_response(response: &Response) -> Reply {
    Reply::new(u16::from(response.code()), &response.message().collect::<Vec<_>>().join(" "))
}

/// Reads the enhanced status code at the beginning of a reply's text; one of another class than the reply is ignored.
fn enhanced(code: u16, text: &str) -> Option<(u8, u16, u16)> {
    let word = text.split_whitespace().next()?;
    let mut parts = word.split('.');
    let class: u8 = parts.next()?.parse().ok()?;
    let subject: u16 = parts.next()?.parse().ok().filter(|part| *part < 1_000)?;
    let detail: u16 = parts.next()?.parse().ok().filter(|part| *part < 1_000)?;
    (parts.next().is_none() && u16::from(class) == code / 100).then_some((class, subject, detail))
}

fn sanitise(text: &str) -> String {
    domain::text::single_line(text, REPLY_CHARS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(phase: Phase, code: u16, text: &str) -> SendOutcome {
        classify(phase, Reply::new(code, text))
    }

    #[test]
    fn every_reply_of_the_table_means_what_it_says() {
        for (phase, code, text, expected) in [
            (Phase::Recipient, 450, "4.2.0 greylisted", "deferred"),
            (Phase::Body, 451, "4.3.0 try later", "deferred"),
            (Phase::Sender, 421, "too many connections", "deferred slow"),
            (Phase::Body, 450, "4.7.1 slow down", "deferred slow"),
            (Phase::Recipient, 550, "5.1.1 user unknown", "failed hard"),
            (Phase::Body, 550, "5.1.2 no such domain", "failed hard"),
            (Phase::Recipient, 553, "5.1.3 bad address", "failed hard"),
            (Phase::Recipient, 550, "5.2.1 mailbox disabled", "failed hard"),
            (Phase::Recipient, 552, "5.2.2 mailbox full", "failed"),
            (Phase::Sender, 552, "5.3.4 too big", "failed"),
            (Phase::Data, 554, "5.5.1 bad sequence", "failed"),
            (Phase::Recipient, 550, "no idea", "failed"),
            (Phase::Body, 550, "5.7.1 blocked", "sender_policy"),
            (Phase::Recipient, 554, "5.7.26 unauthenticated", "sender_policy"),
            (Phase::Connect, 554, "5.7.1 go away", "sender_policy"),
            (Phase::Sender, 550, "5.1.8 bad sender", "sender_policy"),
            (Phase::Login, 535, "5.7.8 invalid", "credentials"),
            (Phase::Login, 504, "5.5.4 unknown mechanism", "credentials"),
            (Phase::Sender, 530, "5.7.0 authentication required", "credentials"),
            (Phase::Login, 454, "4.7.0 temporary failure", "not_started"),
            (Phase::Connect, 421, "busy", "not_started"),
            (Phase::Connect, 554, "no service", "not_started"),
            (Phase::Body, 354, "what", "uncertain"),
        ] {
            let found = match outcome(phase, code, text) {
                SendOutcome::Deferred { slow_domain: true, .. } => "deferred slow".to_owned(),
                SendOutcome::Failed { hard_bounce: true, .. } => "failed hard".to_owned(),
                other => other.name().to_owned(),
            };
            assert_eq!(found, expected, "{phase:?} {code} {text}");
        }
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_ignored() {
        assert_eq!(Reply::new(250, "5.1.1 no").enhanced, None);
        assert_eq!(Reply::new(550, "5.1.1 no").enhanced, Some((5, 1, 1)));
        assert_eq!(Reply::new(550, "5.1.1.1").enhanced, None);
        assert_eq!(Reply::new(550, "5.99999.1").enhanced, None);
        assert_eq!(Reply::new(550, "").enhanced, None);
    }

    #[test]
    fn a_stored_reply_is_bounded_and_has_no_control_characters() {
        let reply = Reply::new(550, &format!("5.1.1 a\u{1b}[31m\r\n{}", "x".repeat(10_000)));
        assert!(reply.text.chars().count() <= REPLY_CHARS);
        assert!(!reply.text.contains(char::is_control));
        assert_eq!(reply.reason(), "smtp_550_5.1.1");
    }
}
