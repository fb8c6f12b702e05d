//! What is known of a mail after an attempt.

use domain::smtp_reply::{self, EnhancedCode, Limit, Phase, Verdict};
use lettre::transport::smtp::{Error, response::Response};

/// The most characters of a reply that are kept.
const REPLY_CHARS: usize = 300;

/// A server's reply, bounded and without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits (RFC 5321 §4.2).
    pub code: u16,
    /// The enhanced status code (RFC 3463).
    pub enhanced: Option<EnhancedCode>,
    /// The text, at most 300 characters. It can name a person: for sealed columns only, never for logs.
    pub text: String,
}

impl Reply {
    pub(crate) fn new(code: u16, text: &str) -> Self {
        Self { code, enhanced: EnhancedCode::read(code, text), text: sanitise(text) }
    }

    /// A short code that names nobody, for a state's reason and for logs: `smtp_550_5.1.1`.
    pub fn reason(&self) -> String {
        match self.enhanced {
            Some(enhanced) => format!("smtp_{}_{enhanced}", self.code),
            None => format!("smtp_{}", self.code),
        }
    }
}

/// Why a mail failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The address is dead and must not be used again.
    HardBounce,
    /// The recipient's domain takes no mail.
    Undeliverable,
    /// The server refused this message; the address stays usable.
    Message,
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
    },
    /// The server refused the message for good.
    Failed {
        /// Its reply.
        reply: Reply,
        /// Why.
        failure: Failure,
    },
    /// The recipient's mailbox is full.
    MailboxFull {
        /// The server's reply.
        reply: Reply,
    },
    /// The recipient's server refused the message by its policy: this mail failed, and several such replies say something about
    /// the sender.
    PolicyRefused {
        /// Its reply.
        reply: Reply,
    },
    /// The body was begun and no reply tells of its fate; never send it again by itself.
    Uncertain {
        /// Why: a short code.
        reason: String,
    },
    /// The server refuses the sender, not this message. The lead stays untouched.
    SenderRefused {
        /// Its reply.
        reply: Reply,
        /// Whether it is about SPF, DKIM, DMARC or reverse DNS.
        authentication: bool,
    },
    /// Our account sends more than it may. The lead stays untouched.
    AccountLimited {
        /// The server's reply.
        reply: Reply,
        /// Which limit.
        limit: Limit,
    },
    /// The server refuses our credentials. The lead stays untouched.
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
            Self::MailboxFull { .. } => "mailbox_full",
            Self::PolicyRefused { .. } => "policy_refused",
            Self::Uncertain { .. } => "uncertain",
            Self::SenderRefused { .. } => "sender_refused",
            Self::AccountLimited { .. } => "account_limited",
            Self::Credentials { .. } => "credentials",
            Self::NotStarted { .. } => "not_started",
        }
    }

    /// The server's reply, if it is kept.
    pub const fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Sent { reply }
            | Self::Failed { reply, .. }
            | Self::MailboxFull { reply }
            | Self::PolicyRefused { reply }
            | Self::SenderRefused { reply, .. }
            | Self::AccountLimited { reply, .. }
            | Self::Credentials { reply } => Some(reply),
            Self::Deferred { .. } | Self::Uncertain { .. } | Self::NotStarted { .. } => None,
        }
    }
}

/// What a reply means that isn't the one that was hoped for, by the phase in which it came.
pub(crate) fn classify(phase: Phase, reply: Reply) -> SendOutcome {
    if !(400..600).contains(&reply.code) {
        // A positive reply where none belongs, or none that SMTP knows: nobody can tell what it means.
        return broken(phase, &reply.reason());
    }
    let failed = |reply, failure| SendOutcome::Failed { reply, failure };
    match smtp_reply::classify(phase, reply.code, reply.enhanced, &reply.text) {
        Verdict::Unavailable => SendOutcome::NotStarted { reason: reply.reason() },
        Verdict::CredentialsRefused => SendOutcome::Credentials { reply },
        Verdict::AccountLimited(limit) => SendOutcome::AccountLimited { reply, limit },
        Verdict::AuthenticationFailed => SendOutcome::SenderRefused { reply, authentication: true },
        Verdict::SenderRefused => SendOutcome::SenderRefused { reply, authentication: false },
        Verdict::PolicyRefused => SendOutcome::PolicyRefused { reply },
        Verdict::Deferred => SendOutcome::Deferred { reason: reply.reason() },
        Verdict::HardBounce => failed(reply, Failure::HardBounce),
        Verdict::Undeliverable => failed(reply, Failure::Undeliverable),
        Verdict::MailboxFull => SendOutcome::MailboxFull { reply },
        Verdict::MessageRefused => failed(reply, Failure::Message),
    }
}

/// What it means that a phase ended without a reply.
pub(crate) fn broken(phase: Phase, reason: &str) -> SendOutcome {
    let reason = reason.to_owned();
    match phase {
        Phase::Connect | Phase::Login => SendOutcome::NotStarted { reason },
        Phase::Sender | Phase::Recipient | Phase::Data => SendOutcome::Deferred { reason },
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

fn sanitise(text: &str) -> String {
    domain::text::single_line(text, REPLY_CHARS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_does_not_belong_to_its_phase_is_as_good_as_none() {
        for (phase, code, expected) in [
            (Phase::Connect, 250, "not_started"),
            (Phase::Login, 250, "not_started"),
            (Phase::Sender, 354, "deferred"),
            (Phase::Data, 250, "deferred"),
            (Phase::Body, 354, "uncertain"),
            (Phase::Body, 600, "uncertain"),
        ] {
            assert_eq!(classify(phase, Reply::new(code, "what")).name(), expected, "{phase:?} {code}");
        }
    }

    #[test]
    fn a_stored_reply_is_bounded_and_has_no_control_characters() {
        let reply = Reply::new(550, &format!("5.1.1 a\u{1b}[31m\r\n{}", "x".repeat(10_000)));
        assert!(reply.text.chars().count() <= REPLY_CHARS);
        assert!(!reply.text.contains(char::is_control));
        assert_eq!(reply.reason(), "smtp_550_5.1.1");
    }
}
