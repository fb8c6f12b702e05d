//! What mail servers say against a program's sender, and what follows from it: a rest or a pause.
//!
//! Written only when a server refuses something, in a transaction of its own. Each function locks the program's row first, so
//! that refusals which several senders get at the same moment are counted one after the other. A sender is paused by mails to
//! several different recipients, never by one mail that comes back: a recipient counts once, and not at all after a person
//! has resumed the program.

use std::time::Duration;

use domain::{
    id::{OutreachId, ProgramId},
    smtp_reply::Limit,
};
use time::OffsetDateTime;

use crate::{Connection, StoreError, programs};

/// So many recipients' servers refusing mail by policy pause the program …
const POLICY_RECIPIENTS: i64 = 3;
/// … when they are among its last so many mails.
const POLICY_WINDOW: i64 = 50;
/// So many recipients for whom the sender was refused within a day pause the program.
const SENDER_RECIPIENTS: i64 = 2;
/// How long a mail is tried whose sender is refused for nobody else. As long as a deferred one.
const SENDER_DAYS: i32 = 4;
/// For so long a recipient whose mail began a rest doesn't begin another.
const RESTS_APART_HOURS: i32 = 24;
/// How long refusals are remembered.
const KEEP_DAYS: i32 = 30;

/// The reason of a pause for several recipients' servers that refuse mails by policy; a reply code follows a colon.
pub const POLICY_REFUSED: &str = "policy_refused";
/// The reason of a pause for a sender that is refused; a reply code follows a colon.
pub const SENDER_REFUSED: &str = "sender_refused";
/// The reason of a pause for a sender whose SPF, DKIM or DMARC is refused; a reply code follows a colon.
pub const AUTHENTICATION_REFUSED: &str = "authentication_refused";
/// The reason of a pause for refused credentials; a reply code follows a colon.
pub const CREDENTIALS_REFUSED: &str = "credentials_refused";

/// A mail that a server refused.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The program.
    pub program_id: ProgramId,
    /// The row; its recipient is the one that counts.
    pub outreach_id: OutreachId,
    /// A short code that names nobody, such as `smtp_550_5.7.1`.
    pub reason: &'a str,
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It is remembered. The program goes on, or was paused before.
    Noted,
    /// The program is paused by this, because mails to so many recipients were refused.
    Paused {
        /// How many.
        recipients: i64,
    },
    /// The mail fails: its sender was refused before a person resumed the program, or for days and for nobody else.
    GiveUp,
    /// The program rests.
    Rest {
        /// For how long from now.
        remaining: Duration,
        /// Whether this mail began the rest.
        began: bool,
    },
    /// The mail waits by itself: its recipient has begun a rest a short while ago.
    Defer,
}

/// A recipient's server refused the mail by its policy. Pauses the program when three different recipients' servers did so
/// among its last 50 mails.
pub async fn policy_refused(
    connection: &mut Connection,
    refusal: Refusal<'_>,
    now: OffsetDateTime,
) -> Result<Reaction, StoreError> {
    lock(connection, refusal.program_id).await?;
    remember(connection, refusal, "policy").await?;
    let oldest = sqlx::query_scalar!(
        "SELECT refused_at FROM sender_refusals WHERE program_id = $1 AND kind = 'policy' AND NOT counted
         ORDER BY refused_at DESC OFFSET $2 LIMIT 1",
        refusal.program_id.as_uuid(),
        POLICY_RECIPIENTS - 1,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(oldest) = oldest else { return Ok(Reaction::Noted) };
    // The refusals are mails as well: they are among the last 50 if no more than the others were sent since the oldest.
    let others = POLICY_WINDOW - POLICY_RECIPIENTS;
    // Along the index, and no further than the limit: a program that the statistics don't know yet is taken for an empty one,
    // of which all mails would be read and sorted.
    sqlx::query("SET LOCAL enable_sort = off").execute(&mut *connection).await?;
    let sent_since = sqlx::query_scalar!(
        r#"SELECT count(*) FILTER (WHERE sent_at >= $2) AS "sent!" FROM (
               SELECT o.sent_at FROM outreach o WHERE o.program_id = $1 AND o.sent_at IS NOT NULL
               ORDER BY o.sent_at DESC LIMIT $3
           ) last"#,
        refusal.program_id.as_uuid(),
        oldest,
        others + 1,
    )
    .fetch_one(&mut *connection)
    .await?;
    if sent_since > others {
        return Ok(Reaction::Noted);
    }
    let reason = format!("{POLICY_REFUSED}:{}", refusal.reason);
    let paused = programs::pause(connection, refusal.program_id, &reason, now).await?;
    Ok(if paused { Reaction::Paused { recipients: POLICY_RECIPIENTS } } else { Reaction::Noted })
}

/// A server refused the sender. Pauses the program when that happened to mails of two different recipients within a day.
/// `authentication` says whether it is about SPF, DKIM, DMARC or reverse DNS.
pub async fn sender_refused(
    connection: &mut Connection,
    refusal: Refusal<'_>,
    authentication: bool,
    now: OffsetDateTime,
) -> Result<Reaction, StoreError> {
    lock(connection, refusal.program_id).await?;
    if remember(connection, refusal, "sender").await? {
        return Ok(Reaction::GiveUp);
    }
    let recipients = sqlx::query_scalar!(
        r#"SELECT count(*) AS "recipients!" FROM sender_refusals
           WHERE program_id = $1 AND kind = 'sender' AND NOT counted AND refused_at > now() - interval '1 day'"#,
        refusal.program_id.as_uuid(),
    )
    .fetch_one(&mut *connection)
    .await?;
    if recipients < SENDER_RECIPIENTS {
        return Ok(Reaction::Noted);
    }
    let code = if authentication { AUTHENTICATION_REFUSED } else { SENDER_REFUSED };
    let reason = format!("{code}:{}", refusal.reason);
    let paused = programs::pause(connection, refusal.program_id, &reason, now).await?;
    Ok(if paused { Reaction::Paused { recipients } } else { Reaction::Noted })
}

/// A server refuses our credentials, whoever the recipient is. Pauses the program; `false` when it is paused already.
pub async fn credentials_refused(
    connection: &mut Connection,
    refusal: Refusal<'_>,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let reason = format!("{CREDENTIALS_REFUSED}:{}", refusal.reason);
    programs::pause(connection, refusal.program_id, &reason, now).await
}

/// A server limits our account: the program rests. A rest that begins soon after the last one is twice as long; none is longer
/// than `longest`.
pub async fn account_limited(
    connection: &mut Connection,
    refusal: Refusal<'_>,
    limit: Limit,
    longest: Duration,
) -> Result<Reaction, StoreError> {
    let last = sqlx::query!(
        r#"SELECT extract(epoch FROM rest_until - now())::float8 AS remaining,
                  extract(epoch FROM rest_until - rest_from)::float8 AS length
           FROM programs WHERE id = $1 FOR NO KEY UPDATE"#,
        refusal.program_id.as_uuid(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    let last = last.and_then(|row| row.remaining.zip(row.length));
    if let Some((remaining, _)) = last
        && remaining > 0.0
    {
        return Ok(Reaction::Rest { remaining: Duration::from_secs_f64(remaining), began: false });
    }
    let began_one = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM sender_refusals r
               WHERE r.program_id = $1 AND r.kind = 'limited' AND r.refused_at > now() - $3 * interval '1 hour'
                 AND r.recipient_index = (SELECT o.recipient_index FROM outreach o WHERE o.program_id = $1 AND o.id = $2)
           ) AS "found!""#,
        refusal.program_id.as_uuid(),
        refusal.outreach_id.as_uuid(),
        f64::from(RESTS_APART_HOURS),
    )
    .fetch_one(&mut *connection)
    .await?;
    if began_one {
        return Ok(Reaction::Defer);
    }
    remember(connection, refusal, "limited").await?;
    let last = last.map(|(remaining, length)| LastRest {
        length: Duration::from_secs_f64(length.max(0.0)),
        ended_ago: Duration::from_secs_f64(-remaining),
    });
    let length = rest_length(limit, last).min(longest);
    sqlx::query!(
        "UPDATE programs SET rest_from = now(), rest_until = now() + $2 * interval '1 second', rest_reason = $3
         WHERE id = $1",
        refusal.program_id.as_uuid(),
        length.as_secs_f64(),
        refusal.reason,
    )
    .execute(connection)
    .await?;
    Ok(Reaction::Rest { remaining: length, began: true })
}

/// Says why a person paused a program.
pub async fn explain_pause(
    connection: &mut Connection,
    program: ProgramId,
    reason: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE programs SET paused_reason = $2, paused_at = $3 WHERE id = $1 AND paused",
        program.as_uuid(),
        reason,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The reasons of deferred mails that wait for our account or our sender, and for nothing of the recipient's.
const WAITING_FOR_THE_SENDER: [&str; 3] = ["account_limited", SENDER_REFUSED, CREDENTIALS_REFUSED];

/// Lets a program send again: ends its pause and its rest, and what its mails wait for. What was refused until now doesn't count
/// any more.
pub async fn resume(connection: &mut Connection, program: ProgramId, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE programs
         SET paused = false, paused_reason = NULL, paused_at = NULL, rest_from = NULL, rest_until = NULL,
             rest_reason = NULL, updated_at = $2
         WHERE id = $1",
        program.as_uuid(),
        now,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("UPDATE sender_refusals SET counted = true WHERE program_id = $1 AND NOT counted", program.as_uuid())
        .execute(&mut *connection)
        .await?;
    // What went back to wait for the end of the rest, or of the sender's trouble, doesn't wait any longer.
    sqlx::query!(
        "UPDATE outreach SET due_at = now()
         WHERE program_id = $1 AND due_at > now()
           AND (state = 'queued' OR state = 'deferred' AND split_part(reason, ':', 1) = ANY($2))",
        program.as_uuid(),
        &WAITING_FOR_THE_SENDER.map(str::to_owned),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a program sends, and if not, why.
#[derive(Debug, Clone)]
pub struct SenderHealth {
    /// The program.
    pub program_id: ProgramId,
    /// Its short name.
    pub slug: String,
    /// Whether it is paused, until a person resumes it.
    pub paused: bool,
    /// Why, if whoever paused it said so: a code of this module, or a person's own words. Names no recipient.
    pub paused_reason: Option<String>,
    /// Since when, if whoever paused it said so.
    pub paused_at: Option<OffsetDateTime>,
    /// Until when it rests; `None` when it doesn't.
    pub rest_until: Option<OffsetDateTime>,
    /// The reply code that began the rest.
    pub rest_reason: Option<String>,
    /// For how many different recipients a server refused the sender, or the mail by policy: in the last 30 days, and since a
    /// person resumed the program.
    pub refused_recipients: i64,
}

/// The health of one program's sender, or of all, by short name.
pub async fn read(connection: &mut Connection, program: Option<ProgramId>) -> Result<Vec<SenderHealth>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT p.id, p.slug, p.paused, p.paused_reason, p.paused_at,
                  CASE WHEN p.rest_until > now() THEN p.rest_until END AS rest_until, p.rest_reason,
                  r.recipients AS "recipients!"
           FROM programs p
           CROSS JOIN LATERAL (
               SELECT count(DISTINCT s.recipient_index) AS recipients FROM sender_refusals s
               WHERE s.program_id = p.id AND s.kind IN ('policy', 'sender') AND NOT s.counted
                 AND s.refused_at > now() - $2 * interval '1 day'
           ) r
           WHERE $1::uuid IS NULL OR p.id = $1
           ORDER BY p.slug"#,
        program.map(|program| program.as_uuid()),
        f64::from(KEEP_DAYS),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| SenderHealth {
            program_id: ProgramId::from_uuid(row.id),
            slug: row.slug,
            paused: row.paused,
            // An older version resumes a program without clearing why it was paused.
            paused_reason: row.paused_reason.filter(|_| row.paused),
            paused_at: row.paused_at.filter(|_| row.paused),
            rest_reason: row.rest_reason.filter(|_| row.rest_until.is_some()),
            rest_until: row.rest_until,
            refused_recipients: row.recipients,
        })
        .collect())
}

async fn lock(connection: &mut Connection, program: ProgramId) -> Result<(), StoreError> {
    sqlx::query!("SELECT id FROM programs WHERE id = $1 FOR NO KEY UPDATE", program.as_uuid())
        .fetch_optional(connection)
        .await?;
    Ok(())
}

/// Writes a refusal down; `true` when the recipient's mail has been refused for days without a day between, or before a person
/// resumed the program. Forgets old refusals.
async fn remember(connection: &mut Connection, refusal: Refusal<'_>, kind: &str) -> Result<bool, StoreError> {
    let program = refusal.program_id.as_uuid();
    sqlx::query!(
        "DELETE FROM sender_refusals WHERE program_id = $1 AND refused_at < now() - $2 * interval '1 day'",
        program,
        f64::from(KEEP_DAYS),
    )
    .execute(&mut *connection)
    .await?;
    let spent = sqlx::query_scalar!(
        r#"INSERT INTO sender_refusals AS r (program_id, recipient_index, kind, reason)
           SELECT o.program_id, o.recipient_index, $3, $4 FROM outreach o WHERE o.program_id = $1 AND o.id = $2
           ON CONFLICT (program_id, recipient_index, kind) DO UPDATE
           SET refused_at = now(), reason = excluded.reason,
               first_refused_at = CASE WHEN r.refused_at < now() - interval '1 day' THEN now() ELSE r.first_refused_at END
           RETURNING (r.counted OR r.first_refused_at < now() - $5 * interval '1 day') AS "spent!""#,
        program,
        refusal.outreach_id.as_uuid(),
        kind,
        refusal.reason,
        f64::from(SENDER_DAYS),
    )
    .fetch_optional(connection)
    .await?;
    Ok(spent.unwrap_or_default())
}

/// The rest before the one that is about to begin.
#[derive(Debug, Clone, Copy)]
struct LastRest {
    length: Duration,
    ended_ago: Duration,
}

fn rest_length(limit: Limit, last: Option<LastRest>) -> Duration {
    let (first, longest) = match limit {
        Limit::Rate => (Duration::from_mins(1), Duration::from_hours(1)),
        Limit::Quota => (Duration::from_hours(1), Duration::from_hours(6)),
    };
    let doubled = last.filter(|last| last.ended_ago <= last.length * 2).map(|last| last.length * 2);
    doubled.unwrap_or(first).clamp(first, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_soon_after_the_last_one_is_twice_as_long_up_to_its_limit() {
        let last = |length, ended_ago| {
            Some(LastRest { length: Duration::from_mins(length), ended_ago: Duration::from_mins(ended_ago) })
        };
        for (limit, last, minutes) in [
            (Limit::Rate, None, 1),
            (Limit::Rate, last(1, 2), 2),
            (Limit::Rate, last(1, 3), 1),
            (Limit::Rate, last(8, 0), 16),
            (Limit::Rate, last(60, 100), 60),
            (Limit::Rate, last(360, 1), 60),
            (Limit::Quota, None, 60),
            (Limit::Quota, last(1, 0), 60),
            (Limit::Quota, last(60, 60), 120),
            (Limit::Quota, last(240, 1), 360),
        ] {
            assert_eq!(rest_length(limit, last), Duration::from_mins(minutes), "{limit:?} {last:?}");
        }
    }
}
