//! The table behind [`super::classify`].
//!
//! Sources: RFC 3463 and its IANA registry for enhanced codes, RFC 4954, 5321, 7372, 7504 and 7505; "Gmail SMTP errors and
//! codes" (support.google.com/a/answer/3726730); "Email non-delivery reports and SMTP errors in Exchange Online"
//! (learn.microsoft.com); Postfix's `postconf(5)`; the troubleshooting pages of Amazon SES, cPanel and Zoho Mail.

use std::ops::RangeInclusive;

use super::{
    EnhancedCode, Limit,
    Phase::{self, Body, Connect, Data, Login, Recipient, Sender},
    Verdict, contains_phrase,
};

/// One row of the table. A reply matches when every column does.
#[derive(Debug)]
pub struct Rule {
    /// The phases in which the reply may come.
    pub phases: &'static [Phase],
    /// The reply codes.
    pub codes: &'static [RangeInclusive<u16>],
    /// The enhanced codes.
    pub enhanced: Enhanced,
    /// Phrases in lower case, of which the text contains one as whole words; any text when empty.
    pub text: &'static [&'static str],
    /// What such a reply means.
    pub verdict: Verdict,
    /// Who defines the reply, or sends it.
    pub source: &'static str,
    /// A reply for which the rule was made: phase, code, text.
    pub example: (Phase, u16, &'static str),
}

/// Which enhanced codes a rule is about. Their class is that of the reply code.
#[derive(Debug)]
pub enum Enhanced {
    /// Whatever it is, also if there is none.
    Any,
    /// Only replies without one.
    Missing,
    /// One of these: a subject, and its details.
    In(&'static [(u16, RangeInclusive<u16>)]),
}

impl Rule {
    /// Whether a reply matches. `text` is in lower case.
    pub(super) fn matches(&self, phase: Phase, code: u16, enhanced: Option<EnhancedCode>, text: &str) -> bool {
        self.phases.contains(&phase)
            && self.codes.iter().any(|codes| codes.contains(&code))
            && match (&self.enhanced, enhanced) {
                (Enhanced::Any, _) | (Enhanced::Missing, None) => true,
                (Enhanced::In(codes), Some(EnhancedCode(_, subject, detail))) => {
                    codes.iter().any(|(wanted, details)| *wanted == subject && details.contains(&detail))
                }
                _ => false,
            }
            && (self.text.is_empty() || self.text.iter().any(|phrase| contains_phrase(text, phrase)))
    }
}

/// From MAIL on.
const TRANSACTION: &[Phase] = &[Sender, Recipient, Data, Body];
/// Once the recipient is named.
const RECIPIENT_NAMED: &[Phase] = &[Recipient, Data, Body];
const TEMPORARY: &[RangeInclusive<u16>] = &[400..=499];
const PERMANENT: &[RangeInclusive<u16>] = &[500..=599];
const NEGATIVE: &[RangeInclusive<u16>] = &[400..=599];
/// All details of a subject.
const ALL: RangeInclusive<u16> = 0..=999;

/// The rules. The first that matches wins.
pub static RULES: &[Rule] = &[
    // --- Login and connection: about our account or the server, never about a recipient ---
    Rule {
        phases: &[Login],
        codes: PERMANENT,
        enhanced: Enhanced::Any,
        text: &[],
        verdict: Verdict::CredentialsRefused,
        source: "RFC 4954 section 6",
        example: (Login, 535, "5.7.8 Authentication credentials invalid"),
    },
    Rule {
        phases: TRANSACTION,
        codes: &[530..=530, 534..=535, 538..=538],
        enhanced: Enhanced::Any,
        text: &[],
        verdict: Verdict::CredentialsRefused,
        source: "RFC 4954 section 6: a server that wants a login says so at MAIL",
        example: (Sender, 530, "5.7.0 Authentication required"),
    },
    Rule {
        phases: &[Connect],
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(7, ALL)]),
        text: &[],
        verdict: Verdict::SenderRefused,
        source: "RFC 5321 section 3.1, RFC 3463 section 3.8: our address is blocked",
        example: (Connect, 554, "5.7.1 Service unavailable; client host blocked"),
    },
    Rule {
        phases: &[Connect, Login],
        codes: NEGATIVE,
        enhanced: Enhanced::Any,
        text: &[],
        verdict: Verdict::Unavailable,
        source: "RFC 5321 section 3.1, RFC 4954 section 6",
        example: (Connect, 421, "4.3.2 Service not available"),
    },
    // --- Our account sends too much ---
    // Greylisting is written with codes of policy, but it is about one mail.
    Rule {
        phases: TRANSACTION,
        codes: TEMPORARY,
        enhanced: Enhanced::Any,
        text: &[
            "greylist",
            "greylisted",
            "greylisting",
            "graylist",
            "graylisted",
            "graylisting",
            "grey-listed",
            "gray-listed",
            "grey listed",
            "gray listed",
            "postgrey",
        ],
        verdict: Verdict::Deferred,
        source: "RFC 6647",
        example: (Recipient, 451, "4.7.1 Greylisted, please come back later"),
    },
    Rule {
        phases: TRANSACTION,
        codes: NEGATIVE,
        enhanced: Enhanced::Any,
        text: &[
            "daily sending limit",
            "daily user sending limit",
            "daily sending quota",
            "daily smtp relay limit",
            "daily smtp relay sending limit",
            "daily message quota",
            "daily limit",
            "sending limit exceeded",
            "sending quota exceeded",
            "emails per hour",
            "messages per hour",
        ],
        verdict: Verdict::AccountLimited(Limit::Quota),
        source: "Gmail 5.4.5 and 5.7.1, Exchange Online 5.1.90, Amazon SES 454, cPanel",
        example: (Body, 550, "5.4.5 Daily user sending limit exceeded."),
    },
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(1, 90..=90), (7, 232..=233)]),
        text: &[],
        verdict: Verdict::AccountLimited(Limit::Quota),
        source: "Exchange Online: limits of a mailbox, a trial tenant, and external recipients",
        example: (Body, 550, "5.7.233 tenant exceeded its recipient rate"),
    },
    Rule {
        phases: TRANSACTION,
        codes: NEGATIVE,
        enhanced: Enhanced::Any,
        text: &[
            "rate limit",
            "rate limited",
            "sending rate",
            "peak smtp relay limit",
            "throttled",
            "throttling",
            "too many connections",
            "too many messages",
            "unusual sending activity",
        ],
        verdict: Verdict::AccountLimited(Limit::Rate),
        source: "Gmail 4.2.1 and 4.7.28, Amazon SES 454, Postfix anvil, Zoho Mail 5.4.6",
        example: (Recipient, 450, "4.2.1 Peak SMTP relay limit exceeded for customer"),
    },
    // A server that shuts down, or a connection that was idle for too long.
    Rule {
        phases: TRANSACTION,
        codes: &[421..=421],
        enhanced: Enhanced::In(&[(3, ALL), (4, ALL)]),
        text: &[],
        verdict: Verdict::Deferred,
        source: "RFC 3463 sections 3.4 and 3.5",
        example: (Sender, 421, "4.3.2 Service shutting down"),
    },
    Rule {
        phases: TRANSACTION,
        codes: &[421..=421],
        enhanced: Enhanced::Missing,
        text: &["service not available", "service unavailable", "shutting down", "timeout", "timed out", "idle"],
        verdict: Verdict::Deferred,
        source: "RFC 5321 section 4.2.2",
        example: (Sender, 421, "mx.example Service not available, closing transmission channel"),
    },
    Rule {
        phases: TRANSACTION,
        codes: &[421..=421],
        enhanced: Enhanced::Any,
        text: &[],
        verdict: Verdict::AccountLimited(Limit::Rate),
        source: "Gmail 421 4.7.x; RFC 5321 knows the code only for a server that closes",
        example: (Recipient, 421, "come back later"),
    },
    Rule {
        phases: TRANSACTION,
        codes: TEMPORARY,
        enhanced: Enhanced::In(&[(7, ALL)]),
        text: &[],
        verdict: Verdict::AccountLimited(Limit::Rate),
        source: "RFC 3463 section 3.8; Gmail 4.7.0 and 4.7.28, Exchange Online 4.7.500 to 4.7.699",
        example: (Body, 451, "4.7.500 Server busy"),
    },
    Rule {
        phases: TRANSACTION,
        codes: TEMPORARY,
        enhanced: Enhanced::Any,
        text: &[],
        verdict: Verdict::Deferred,
        source: "RFC 5321 section 4.2.1",
        example: (Recipient, 450, "4.2.0 Mailbox busy"),
    },
    // --- Permanent by code, temporary by meaning ---
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(4, 5..=5), (5, 3..=3)]),
        text: &[],
        verdict: Verdict::Deferred,
        source: "RFC 3463 sections 3.5 and 3.6: congestion, too many recipients",
        example: (Recipient, 552, "5.5.3 Too many recipients"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(2, 1..=1)]),
        text: &["receiving mail too quickly", "receiving mail at a rate"],
        verdict: Verdict::Deferred,
        source: "Gmail 5.2.1: the mailbox is there, and gets too much mail",
        example: (Recipient, 550, "5.2.1 The user you are trying to contact is receiving mail at a rate that prevents"),
    },
    // --- The address ---
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(1, 1..=3), (1, 6..=6), (2, 1..=1)]),
        text: &[],
        verdict: Verdict::HardBounce,
        source: "RFC 3463 sections 3.2 and 3.3",
        example: (Recipient, 550, "5.1.1 User unknown"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(5, 0..=0), (4, 1..=1), (1, 10..=10)]),
        text: &["recipientnotfound", "recipient not found"],
        verdict: Verdict::HardBounce,
        source: "Exchange: RESOLVER.ADR.RecipientNotFound",
        example: (Body, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(5, 0..=0)]),
        text: &["mailbox unavailable"],
        verdict: Verdict::HardBounce,
        source: "Outlook.com 5.5.0",
        example: (Recipient, 550, "5.5.0 Requested action not taken: mailbox unavailable"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(4, 1..=1)]),
        text: &["recipient address rejected", "access denied"],
        verdict: Verdict::HardBounce,
        source: "Exchange Online 5.4.1: directory based edge blocking",
        example: (Recipient, 550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(1, 10..=10), (4, 4..=4)]),
        text: &[],
        verdict: Verdict::Undeliverable,
        source: "RFC 7505 section 4.1 (null MX), RFC 3463 section 3.5 (no route)",
        example: (Recipient, 550, "5.4.4 Unable to route"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: &[556..=556],
        enhanced: Enhanced::Missing,
        text: &[],
        verdict: Verdict::Undeliverable,
        source: "RFC 7504 section 2",
        example: (Recipient, 556, "Domain does not accept mail"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(2, 2..=2)]),
        text: &[],
        verdict: Verdict::MailboxFull,
        source: "RFC 3463 section 3.3",
        example: (Recipient, 552, "5.2.2 Mailbox full"),
    },
    Rule {
        phases: RECIPIENT_NAMED,
        codes: &[550..=554],
        enhanced: Enhanced::Missing,
        text: &["mailbox full", "mailbox is full", "over quota", "quota exceeded", "exceeded storage allocation"],
        verdict: Verdict::MailboxFull,
        source: "RFC 5321 section 4.2.2: 552, which also means a message that is too large",
        example: (Recipient, 552, "Requested mail action aborted: exceeded storage allocation"),
    },
    // --- Our sender ---
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(7, 20..=27), (7, 515..=515)]),
        text: &[],
        verdict: Verdict::AuthenticationFailed,
        source: "RFC 7372, RFC 7505 (5.7.27); Outlook.com 5.7.515",
        example: (Body, 550, "5.7.26 This mail is unauthenticated"),
    },
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::Any,
        text: &["spf", "dkim", "dmarc", "sender policy framework", "domainkeys"],
        verdict: Verdict::AuthenticationFailed,
        source: "Gmail and Yahoo 5.7.1, Exchange Online 5.7.509",
        example: (Body, 550, "5.7.509 Access denied, sending domain does not pass DMARC verification"),
    },
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(1, 7..=8), (2, 252..=252), (7, 60..=60)]),
        text: &[],
        verdict: Verdict::SenderRefused,
        source: "RFC 3463 section 3.2; Exchange Online: SendAsDenied",
        example: (Recipient, 550, "5.1.8 Sender address rejected: domain not found"),
    },
    // Postfix delays what it has to say about the sender until RCPT (smtpd_delay_reject).
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::Any,
        text: &["sender address rejected", "sendasdenied"],
        verdict: Verdict::SenderRefused,
        source: "Postfix reject_sender_login_mismatch, Exchange Online",
        example: (Recipient, 553, "5.7.1 <zoe@acme.example>: Sender address rejected: not owned by user zoe"),
    },
    Rule {
        phases: &[Sender],
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(1, ALL), (7, ALL)]),
        text: &[],
        verdict: Verdict::SenderRefused,
        source: "RFC 5321 section 3.3: at MAIL no recipient was named",
        example: (Sender, 550, "5.7.1 Not welcome"),
    },
    Rule {
        phases: &[Sender],
        codes: &[550..=551, 553..=554],
        enhanced: Enhanced::Missing,
        text: &[],
        verdict: Verdict::SenderRefused,
        source: "RFC 5321 section 4.3.2",
        example: (Sender, 553, "Envelope sender is not known here"),
    },
    // --- The recipient's server does not want this mail ---
    Rule {
        phases: RECIPIENT_NAMED,
        codes: PERMANENT,
        enhanced: Enhanced::In(&[(7, ALL)]),
        text: &[],
        verdict: Verdict::PolicyRefused,
        source: "RFC 3463 section 3.8",
        example: (Recipient, 550, "5.7.1 Recipient address rejected: inactive mailbox"),
    },
    Rule {
        phases: &[Recipient],
        codes: &[550..=553],
        enhanced: Enhanced::Missing,
        text: &["user unknown", "unknown user", "no such user", "no such mailbox", "no such recipient"],
        verdict: Verdict::HardBounce,
        source: "sendmail and qmail without enhanced codes",
        example: (Recipient, 550, "No such user here"),
    },
    // 5.3.4 (too large), 5.5.x (protocol), 5.6.x (content), and whatever nobody has a rule for.
    Rule {
        phases: TRANSACTION,
        codes: PERMANENT,
        enhanced: Enhanced::Any,
        text: &[],
        verdict: Verdict::MessageRefused,
        source: "RFC 5321 section 4.2.1; RFC 3463 sections 3.4, 3.6 and 3.7",
        example: (Sender, 552, "5.3.4 Message too big"),
    },
];
