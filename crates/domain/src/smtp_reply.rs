//! What a mail server's negative reply means: for the mail, for the address, or for us.
//!
//! A reply of the submission server (the server of our account) can speak about our account, about the recipient, or about this
//! message. [`classify`] tells them apart by phase, reply code, enhanced code and text, along the table in [`rules`]: the first
//! rule that matches wins.
//!
//! To add a reply, add a rule with its source and an example, above the first rule that would match it now. A test checks
//! that each rule's example is matched by that rule and by none above it.

pub mod rules;

use std::fmt;

/// The most characters of a reply's text that rules look at.
const MAX_TEXT_CHARS: usize = 500;

/// How far a transaction had come when the reply was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Greeting, EHLO, STARTTLS.
    Connect,
    /// AUTH.
    Login,
    /// MAIL FROM: no recipient was named yet, so the reply is about the sender.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA: nothing of the body was written yet.
    Data,
    /// The body was begun.
    Body,
}

/// An enhanced status code (RFC 3463): class, subject, detail. `5.1.1` is `EnhancedCode(5, 1, 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl EnhancedCode {
    /// Reads the code at the beginning of a reply's text (RFC 2034); one of another class than `code` is ignored, because one of
    /// both is wrong and only `code` says whether the mail was accepted.
    pub fn read(code: u16, text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace().next()?.split('.');
        let class: u8 = parts.next()?.parse().ok()?;
        let subject: u16 = parts.next()?.parse().ok().filter(|part| *part < 1_000)?;
        let detail: u16 = parts.next()?.parse().ok().filter(|part| *part < 1_000)?;
        (parts.next().is_none() && u16::from(class) == code / 100).then_some(Self(class, subject, detail))
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Which limit of our account was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Mails or connections per short time: over in minutes.
    Rate,
    /// Mails per hour or day: over in hours.
    Quota,
}

/// What a negative reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The server serves nobody now: nothing was begun, and every other mail would meet the same.
    Unavailable,
    /// The server refuses our user name or password.
    CredentialsRefused,
    /// Our account sends more than it may: no mail of ours goes through until it has rested.
    AccountLimited(Limit),
    /// The sender's domain isn't authenticated: SPF, DKIM, DMARC, or reverse DNS.
    AuthenticationFailed,
    /// The sender may not send, whoever the recipient is.
    SenderRefused,
    /// This recipient's server refuses the mail by its policy. Several of them say something about us.
    PolicyRefused,
    /// Not now: to be tried again with backoff.
    Deferred,
    /// There is no such mailbox: the address must not be used again.
    HardBounce,
    /// The recipient's domain takes no mail.
    Undeliverable,
    /// The mailbox is full.
    MailboxFull,
    /// This message was refused; another one may be accepted.
    MessageRefused,
}

/// What a reply of 400 to 599 means. `text` is the reply's text with or without its enhanced code; it is untrusted, and
/// addresses in it are not looked at.
pub fn classify(phase: Phase, code: u16, enhanced: Option<EnhancedCode>, text: &str) -> Verdict {
    let text = searchable(text);
    rules::RULES
        .iter()
        .find(|rule| rule.matches(phase, code, enhanced, &text))
        .map_or(Verdict::Deferred, |rule| rule.verdict)
}

/// The text in lower case without words that contain `@`: somebody's address may contain the name of a check such as `dkim`.
fn searchable(text: &str) -> String {
    let end = text.char_indices().nth(MAX_TEXT_CHARS).map_or(text.len(), |(end, _)| end);
    let words: Vec<&str> = text[..end].split_whitespace().filter(|word| !word.contains('@')).collect();
    words.join(" ").to_ascii_lowercase()
}

/// Whether `text` contains `phrase` as whole words. Both are in lower case.
fn contains_phrase(text: &str, phrase: &str) -> bool {
    let bytes = text.as_bytes();
    let is_word = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_alphanumeric);
    text.match_indices(phrase).any(|(start, found)| !(is_word(start + found.len()) || start > 0 && is_word(start - 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{rules::RULES, *};

    const TRANSACTION: [Phase; 4] = [Phase::Sender, Phase::Recipient, Phase::Data, Phase::Body];

    fn verdict(phase: Phase, reply: &str) -> Verdict {
        let (code, text) = reply.split_once(' ').unwrap_or((reply, ""));
        let code = code.parse().unwrap();
        classify(phase, code, EnhancedCode::read(code, text), text)
    }

    #[test]
    fn each_rule_matches_its_example_and_no_rule_above_it_does() {
        for (index, rule) in RULES.iter().enumerate() {
            let (phase, code, text) = rule.example;
            let enhanced = EnhancedCode::read(code, text);
            let first = RULES.iter().position(|rule| rule.matches(phase, code, enhanced, &searchable(text)));
            assert_eq!(first, Some(index), "{phase:?} {code} {text}");
            assert!(!rule.source.is_empty(), "{phase:?} {code} {text}");
        }
    }

    #[test]
    fn phrases_are_written_as_they_are_compared() {
        for phrase in RULES.iter().flat_map(|rule| rule.text) {
            assert_eq!(*phrase, searchable(phrase), "lower case, single spaces, no address");
        }
    }

    #[test]
    fn every_reply_of_the_compliance_table_means_what_it_says() {
        use Verdict::*;
        for (phase, reply, expected) in [
            // 4xx, 4.x.x
            (Phase::Recipient, "450 4.2.0 mailbox busy", Deferred),
            (Phase::Recipient, "452 4.2.2 over quota", Deferred),
            (Phase::Body, "451 4.3.0 try later", Deferred),
            (Phase::Body, "452 4.3.1 insufficient system storage", Deferred),
            (Phase::Recipient, "450 later", Deferred),
            // Greylisting is about one mail
            (Phase::Recipient, "451 4.7.1 Greylisted, please come back later", Deferred),
            (
                Phase::Recipient,
                "450 4.7.1 <ann@x.example>: Recipient address rejected: Greylisting in action",
                Deferred,
            ),
            (Phase::Recipient, "450 4.2.0 graylisted", Deferred),
            (Phase::Data, "421 4.7.0 grey-listed, try again", Deferred),
            // 421, 4.7.x, quota texts: our account
            (Phase::Sender, "421 too many connections", AccountLimited(Limit::Rate)),
            (Phase::Body, "421 4.7.28 Gmail has detected an unusual rate of mail", AccountLimited(Limit::Rate)),
            (Phase::Body, "450 4.7.1 slow down", AccountLimited(Limit::Rate)),
            (
                Phase::Recipient,
                "450 4.7.0 Transmit rate limit exceeded, try again later (ACC)",
                AccountLimited(Limit::Rate),
            ),
            (Phase::Recipient, "450 4.2.1 Peak SMTP relay limit exceeded for customer.", AccountLimited(Limit::Rate)),
            (Phase::Body, "550 5.4.5 Daily user sending limit exceeded.", AccountLimited(Limit::Quota)),
            (Phase::Sender, "550 5.4.5 Daily sending quota exceeded", AccountLimited(Limit::Quota)),
            (Phase::Sender, "550 5.7.1 Daily SMTP relay limit exceeded for user.", AccountLimited(Limit::Quota)),
            // A server that is closing limits nobody
            (Phase::Connect, "421 4.3.2 system not accepting network messages", Unavailable),
            (Phase::Sender, "421 4.3.2 Service shutting down", Deferred),
            (Phase::Sender, "421 4.4.2 Error: timeout exceeded", Deferred),
            (Phase::Sender, "421 Service not available, closing transmission channel", Deferred),
            (Phase::Login, "454 4.7.0 Temporary authentication failure", Unavailable),
            // 5.1.1-5.1.3, 5.1.6, 5.2.1; Microsoft
            (Phase::Recipient, "550 5.1.1 user unknown", HardBounce),
            (Phase::Body, "550 5.1.2 no such domain", HardBounce),
            (Phase::Recipient, "553 5.1.3 bad address", HardBounce),
            (Phase::Recipient, "550 5.1.6 moved away", HardBounce),
            (Phase::Recipient, "550 5.2.1 mailbox disabled", HardBounce),
            (Phase::Recipient, "550 5.5.0 Requested action not taken: mailbox unavailable", HardBounce),
            (Phase::Recipient, "550 5.5.0 RESOLVER.ADR.RecipientNotFound", HardBounce),
            (Phase::Recipient, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", HardBounce),
            (
                Phase::Body,
                "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
                HardBounce,
            ),
            (
                Phase::Recipient,
                "550 5.2.1 The user is receiving mail at a rate that prevents additional messages",
                Deferred,
            ),
            // The domain takes no mail
            (Phase::Recipient, "556 5.1.10 Recipient address has a null MX", Undeliverable),
            (Phase::Recipient, "550 5.4.4 Unable to route", Undeliverable),
            (Phase::Recipient, "556 Domain does not accept mail", Undeliverable),
            // Mailbox full
            (Phase::Recipient, "552 5.2.2 mailbox full", MailboxFull),
            (Phase::Body, "554 5.2.2 mailbox over quota", MailboxFull),
            (Phase::Recipient, "552 Requested mail action aborted, mailbox full", MailboxFull),
            // This message
            (Phase::Sender, "552 5.3.4 too big", MessageRefused),
            (Phase::Sender, "552 5.2.2 too much mail", MessageRefused),
            (Phase::Data, "554 5.5.1 bad sequence", MessageRefused),
            (Phase::Recipient, "550 5.5.0 command rejected", MessageRefused),
            (Phase::Body, "554 5.6.0 malformed", MessageRefused),
            (Phase::Recipient, "452 4.5.3 too many recipients", Deferred),
            (Phase::Recipient, "552 5.5.3 too many recipients", Deferred),
            (Phase::Recipient, "550 no idea", MessageRefused),
            (Phase::Body, "550 5.4.5 congested", Deferred),
            // Authentication
            (Phase::Body, "550 5.7.20 no passing DKIM signature", AuthenticationFailed),
            (Phase::Recipient, "550 5.7.23 SPF validation failed", AuthenticationFailed),
            (Phase::Body, "550 5.7.25 reverse DNS", AuthenticationFailed),
            (Phase::Body, "550 5.7.26 unauthenticated mail is prohibited", AuthenticationFailed),
            (Phase::Sender, "550 5.7.27 Sender address has null MX", AuthenticationFailed),
            (Phase::Body, "550 5.7.515 Access denied, sending domain does not meet the level", AuthenticationFailed),
            (Phase::Body, "550 5.7.1 rejected by the DMARC policy of acme.example", AuthenticationFailed),
            (Phase::Recipient, "554 SPF check failed", AuthenticationFailed),
            // The sender
            (Phase::Sender, "550 5.1.8 bad sender", SenderRefused),
            (Phase::Sender, "550 5.7.1 your domain is not welcome", SenderRefused),
            (Phase::Sender, "553 sender not known", SenderRefused),
            (
                Phase::Recipient,
                "553 5.7.1 <zoe@acme.example>: Sender address rejected: not owned by user",
                SenderRefused,
            ),
            (Phase::Connect, "554 5.7.1 your network is blocked", SenderRefused),
            // Other 5.7.x about a recipient
            (
                Phase::Recipient,
                "550 5.7.1 : Recipient address rejected: Inactive MailBox, not poped for more than 6 months",
                PolicyRefused,
            ),
            (
                Phase::Recipient,
                "554 5.7.1 <dkim@studio.example.com>: Recipient address rejected: blocked",
                PolicyRefused,
            ),
            (Phase::Body, "554 5.7.1 spam", PolicyRefused),
            (Phase::Data, "550 5.7.0 blocked", PolicyRefused),
            // Credentials
            (Phase::Login, "535 5.7.8 invalid", CredentialsRefused),
            (Phase::Login, "534 5.7.9 mechanism too weak", CredentialsRefused),
            (Phase::Login, "504 5.5.4 unknown mechanism", CredentialsRefused),
            (Phase::Sender, "530 5.7.0 authentication required", CredentialsRefused),
            (Phase::Recipient, "538 5.7.11 encryption required", CredentialsRefused),
            // Connecting
            (Phase::Connect, "421 busy", Unavailable),
            (Phase::Connect, "554 no service", Unavailable),
        ] {
            assert_eq!(verdict(phase, reply), expected, "{phase:?} {reply}");
        }
    }

    #[test]
    fn an_address_in_the_text_decides_nothing() {
        for address in ["dmarc@x.example", "<greylisted@x.example>:", "daily.sending.limit@x.example"] {
            let reply = format!("550 5.7.1 {address} rejected");
            assert_eq!(verdict(Phase::Recipient, &reply), Verdict::PolicyRefused, "{reply}");
        }
        assert_eq!(verdict(Phase::Recipient, "550 5.7.1 spfx.example is blocked"), Verdict::PolicyRefused);
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_ignored() {
        assert_eq!(EnhancedCode::read(250, "5.1.1 no"), None);
        assert_eq!(EnhancedCode::read(550, "5.1.1 no"), Some(EnhancedCode(5, 1, 1)));
        assert_eq!(EnhancedCode::read(550, "5.1.1.1"), None);
        assert_eq!(EnhancedCode::read(550, "5.99999.1"), None);
        assert_eq!(EnhancedCode::read(550, ""), None);
    }

    proptest! {
        #[test]
        fn a_temporary_reply_never_condemns_an_address_or_a_mail(
            code in 400_u16..500, subject in 0_u16..10, detail in 0_u16..30, text in "\\PC{0,80}", phase in 0_usize..4,
        ) {
            let found = classify(TRANSACTION[phase], code, Some(EnhancedCode(4, subject, detail)), &text);
            prop_assert!(matches!(found, Verdict::Deferred | Verdict::AccountLimited(_)), "{:?}", found);
        }

        #[test]
        fn before_a_recipient_is_named_no_reply_condemns_an_address(
            code in 400_u16..600, subject in 0_u16..10, detail in 0_u16..30, text in "\\PC{0,80}",
        ) {
            let enhanced = Some(EnhancedCode((code / 100) as u8, subject, detail));
            for phase in [Phase::Connect, Phase::Login, Phase::Sender] {
                let found = classify(phase, code, enhanced, &text);
                prop_assert!(
                    !matches!(found, Verdict::HardBounce | Verdict::Undeliverable | Verdict::MailboxFull | Verdict::PolicyRefused)
                );
            }
        }

        #[test]
        fn every_negative_reply_matches_a_rule(code in 400_u16..600, text in "\\PC{0,80}", phase in 0_usize..4) {
            let text = searchable(&text);
            for phase in [TRANSACTION[phase], Phase::Connect, Phase::Login] {
                prop_assert!(RULES.iter().any(|rule| rule.matches(phase, code, None, &text)));
            }
        }
    }
}
