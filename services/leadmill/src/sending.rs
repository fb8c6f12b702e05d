//! Why a program doesn't send, for people and for scripts.

use domain::id::ProgramId;
use serde_json::{Value, json};
use store::{
    Db,
    sender_health::{self, AUTHENTICATION_REFUSED, CREDENTIALS_REFUSED, POLICY_REFUSED, SENDER_REFUSED, SenderHealth},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The health of one program's sender, or of all.
pub async fn read(db: &Db, program: Option<ProgramId>) -> anyhow::Result<Vec<SenderHealth>> {
    Ok(db.transact("sender_health.read", |tx, _| Box::pin(sender_health::read(tx, program))).await?)
}

/// Why nothing is sent, in one sentence, such as `paused since …: …`; `None` when the program is neither paused nor resting.
pub fn describe(health: &SenderHealth) -> Option<String> {
    if health.paused {
        let since = health.paused_at.map(|at| format!(" since {}", instant(at))).unwrap_or_default();
        let why = health.paused_reason.as_deref().map(|reason| format!(": {}", explain(reason))).unwrap_or_default();
        let refused = match health.refused_recipients {
            0 => String::new(),
            1 => ", mail to 1 recipient refused".to_owned(),
            count => format!(", mails to {count} recipients refused"),
        };
        return Some(format!("paused{since}{why}{refused}"));
    }
    let until = health.rest_until?;
    let code = health.rest_reason.as_deref().unwrap_or("unknown reply");
    Some(format!("rests until {}: the mail server limits our account ({code})", instant(until)))
}

/// What a person can do about it.
pub fn advice(health: &SenderHealth) -> String {
    let slug = &health.slug;
    if !health.paused {
        return format!(
            "it goes on by itself; send less (mailer.smtp.per_minute, `leadmill program set {slug} --daily-cap N`) or ask the \
             provider for more; `leadmill program set {slug} --resume` ends the rest at once"
        );
    }
    let first = match code_of(health.paused_reason.as_deref().unwrap_or_default()) {
        CREDENTIALS_REFUSED => "check mailer.smtp.username, password and auth and restart the mailer, ",
        AUTHENTICATION_REFUSED => {
            "check SPF, DKIM and DMARC of the sender's domain, and reverse DNS of the sending server, "
        }
        SENDER_REFUSED => "check that the mail server lets this account send as the sender's address, ",
        POLICY_REFUSED => {
            "look at the refused mails (`leadmill mail list --state failed`), the texts sent and the blocklists, "
        }
        _ => return format!("leadmill program set {slug} --resume"),
    };
    format!("{first}then: leadmill program set {slug} --resume")
}

/// The fields that scripts read.
pub fn as_value(health: &SenderHealth) -> Value {
    json!({
        "slug": health.slug,
        "paused": health.paused,
        "paused_reason": health.paused_reason,
        "paused_at": health.paused_at.map(instant),
        "rest_until": health.rest_until.map(instant),
        "rest_reason": health.rest_reason,
        "refused_recipients": health.refused_recipients,
    })
}

/// What a stored reason means: a code with its reply code, or a person's own words.
fn explain(reason: &str) -> String {
    let sentence = match code_of(reason) {
        CREDENTIALS_REFUSED => "the mail server refuses our credentials",
        AUTHENTICATION_REFUSED => "the sender's authentication (SPF, DKIM, DMARC) is refused",
        SENDER_REFUSED => "the mail server refuses the sender",
        POLICY_REFUSED => "recipients' servers refuse its mails by policy",
        _ => return reason.to_owned(),
    };
    let reply = reason.split_once(':').map_or("no reply code", |(_, reply)| reply);
    format!("{sentence} ({reply})")
}

fn code_of(reason: &str) -> &str {
    reason.split(':').next().unwrap_or_default()
}

/// An instant, to the second.
fn instant(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn healthy() -> SenderHealth {
        SenderHealth {
            program_id: ProgramId::generate(),
            slug: "coffee".to_owned(),
            paused: false,
            paused_reason: None,
            paused_at: None,
            rest_until: None,
            rest_reason: None,
            refused_recipients: 0,
        }
    }

    #[test]
    fn a_paused_or_resting_program_says_why_and_what_to_do() {
        assert_eq!(describe(&healthy()), None);
        let paused = SenderHealth {
            paused: true,
            paused_reason: Some("policy_refused:smtp_550_5.7.1".to_owned()),
            paused_at: Some(datetime!(2026-03-01 12:00:00.5 UTC)),
            refused_recipients: 3,
            ..healthy()
        };
        assert_eq!(
            describe(&paused).unwrap(),
            "paused since 2026-03-01T12:00:00Z: recipients' servers refuse its mails by policy (smtp_550_5.7.1), mails to 3 \
             recipients refused"
        );
        assert!(advice(&paused).ends_with("then: leadmill program set coffee --resume"));
        let by_hand = SenderHealth { paused: true, paused_reason: Some("a fair: later".to_owned()), ..healthy() };
        assert_eq!(describe(&by_hand).unwrap(), "paused: a fair: later");
        assert_eq!(advice(&by_hand), "leadmill program set coffee --resume");
        let resting = SenderHealth {
            rest_until: Some(datetime!(2026-03-01 13:00 UTC)),
            rest_reason: Some("smtp_550_5.4.5".to_owned()),
            ..healthy()
        };
        assert_eq!(
            describe(&resting).unwrap(),
            "rests until 2026-03-01T13:00:00Z: the mail server limits our account (smtp_550_5.4.5)"
        );
    }
}
