//! Writing down what came of a mail.

use std::{collections::HashMap, time::Duration};

use domain::{
    id::{LeadId, LeaseToken, OutreachId, ProgramId},
    outreach::{CampaignStep, OutreachState},
};
use uuid::Uuid;
use vault::BlindIndex;

use super::{
    NEXT_LOOK_SECONDS, claim, parse_state,
    recipients::{self, Place},
};
use crate::{
    Connection, StoreError,
    captured::{self, SealedMail},
    leads,
    suppressions::{self, SuppressionReason},
};

/// How long a mail is tried from the first attempt that reached a server, at most (RFC 5321 §4.5.4.1: four to five days).
const GIVE_UP_DAYS: i32 = 4;

/// What came of a mail under lease.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The program.
    pub program_id: ProgramId,
    /// The row.
    pub id: OutreachId,
    /// Whom it was for.
    pub lead_id: LeadId,
    /// The lease.
    pub token: LeaseToken,
    /// What came of it.
    pub outcome: Outcome,
    /// The server's last reply code, such as 250.
    pub reply_code: Option<i16>,
    /// The server's last reply, sealed under the lead's key.
    pub reply: Option<Vec<u8>>,
}

/// What came of a mail.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A server took it.
    Sent,
    /// It was kept instead.
    Captured(SealedMail),
    /// A server asked to come back later; it has failed four days after the first time that one did.
    Deferred {
        /// A short code, such as `smtp_451_4.3.0`.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// A server refused it for good.
    Failed {
        /// A short code, such as `no_such_mailbox`.
        reason: String,
        /// The address doesn't exist: suppress it.
        hard_bounce: bool,
    },
    /// Nobody knows whether a server took it.
    Uncertain {
        /// A short code, such as `connection_lost`.
        reason: String,
    },
    /// It waits for our sender, our account or our database, through no fault of its own, and its body phase has begun: deferred,
    /// without counting towards the four days.
    Postponed {
        /// A short code, such as `account_limited:smtp_550_5.4.5`.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// Nothing of it went out, through no fault of its own: back into the queue.
    Returned {
        /// How long to wait.
        after: Duration,
    },
    /// It can't be made or addressed; see `domain::hold`.
    Held {
        /// A short code, such as `compose_failed`.
        reason: String,
    },
}

impl Outcome {
    const fn state(&self) -> OutreachState {
        match self {
            Self::Sent => OutreachState::Sent,
            Self::Captured(_) => OutreachState::Captured,
            Self::Deferred { .. } | Self::Postponed { .. } => OutreachState::Deferred,
            Self::Failed { .. } => OutreachState::Failed,
            Self::Uncertain { .. } => OutreachState::Uncertain,
            Self::Returned { .. } => OutreachState::Queued,
            Self::Held { .. } => OutreachState::Held,
        }
    }

    /// Whether a server had its say about this mail.
    const fn reached_a_server(&self) -> bool {
        match self {
            Self::Deferred { .. } | Self::Sent | Self::Failed { .. } | Self::Uncertain { .. } => true,
            Self::Postponed { .. } | Self::Captured(_) | Self::Returned { .. } | Self::Held { .. } => false,
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Deferred { reason, .. }
            | Self::Postponed { reason, .. }
            | Self::Failed { reason, .. }
            | Self::Uncertain { reason }
            | Self::Held { reason } => Some(reason.clone()),
            Self::Sent | Self::Captured(_) | Self::Returned { .. } => None,
        }
    }

    fn delay(&self) -> Option<f64> {
        match self {
            Self::Deferred { after, .. } | Self::Postponed { after, .. } | Self::Returned { after } => {
                Some(after.as_secs_f64())
            }
            Self::Held { .. } => Some(NEXT_LOOK_SECONDS),
            _ => None,
        }
    }
}

/// What was settled.
#[derive(Debug, Clone, Default)]
pub struct Settlements {
    /// The rows that were still under their lease.
    pub rows: Vec<Settled>,
    /// Recipients that are suppressed now and were not before. Once this is committed, cancel what is unsent to them:
    /// [`recipients::cancel_suppressed`].
    pub suppressed: Vec<(ProgramId, BlindIndex)>,
}

/// A row that was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The program.
    pub program_id: ProgramId,
    /// The row.
    pub id: OutreachId,
    /// Whom it was for.
    pub lead_id: LeadId,
    /// The lead's revision that it was planned from.
    pub lead_revision: i32,
    /// Which mail of which campaign.
    pub step: CampaignStep,
    /// The state it is in now.
    pub state: OutreachState,
}

/// Locks the data keys of those leads about whom something sealed will be written. To be called before anything else of the
/// transaction takes locks: an erasure takes the key first as well.
pub async fn lock_keys(connection: &mut Connection, settlements: &[Settlement]) -> Result<(), StoreError> {
    let mut ids: Vec<_> = settlements
        .iter()
        .filter(|item| item.reply.is_some() || matches!(item.outcome, Outcome::Captured(_)))
        .map(|item| (item.program_id, item.lead_id))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    leads::lock_keys(connection, &ids).await?;
    Ok(())
}

/// Settles rows, each guarded by its lease token; returns those that were still this lease's. An `uncertain` row may
/// still be moved to its known result by the token it was sent under; a row that is held to its phase otherwise can't
/// leave it for a state that the life cycle doesn't allow. Call [`lock_keys`] first.
///
/// What was sent sets `sent` and `contacted` of the enriched lead; a hard bounce suppresses the address; a captured mail
/// is stored. What would be tried again or kept is cancelled instead if the recipient was suppressed or the lead erased
/// meanwhile.
pub async fn settle(connection: &mut Connection, settlements: &[Settlement]) -> Result<Settlements, StoreError> {
    if settlements.is_empty() {
        return Ok(Settlements::default());
    }
    let mut sorted: Vec<&Settlement> = settlements.iter().collect();
    sorted.sort_unstable_by_key(|item| (item.program_id, item.id));
    let rows = update(connection, &sorted).await?;
    let by_id: HashMap<Uuid, &Settlement> = sorted.iter().map(|item| (item.id.as_uuid(), *item)).collect();
    let mut mails = Vec::new();
    let mut contacted = Vec::new();
    let mut bounced: HashMap<ProgramId, Vec<BlindIndex>> = HashMap::new();
    let mut free = Vec::new();
    let mut settled = Vec::with_capacity(rows.len());
    for row in rows {
        let item = by_id[&row.id];
        let state = parse_state(row.id, &row.state)?;
        match &item.outcome {
            Outcome::Captured(mail) if state == OutreachState::Captured => {
                mails.push((item.program_id, item.lead_id, mail));
            }
            Outcome::Sent => contacted.push((item.program_id, item.lead_id)),
            Outcome::Failed { hard_bounce: true, .. } => {
                let recipient = claim::index_of(row.id, &row.recipient_index)?;
                bounced.entry(item.program_id).or_default().push(recipient);
            }
            _ => {}
        }
        if state == OutreachState::Cancelled {
            let (program, campaign, step) = (item.program_id, row.campaign.clone(), row.step);
            free.push(Place { program, recipient: row.recipient_index, campaign, step });
        }
        settled.push(Settled {
            program_id: item.program_id,
            id: item.id,
            lead_id: item.lead_id,
            lead_revision: row.lead_revision,
            step: CampaignStep { campaign: row.campaign, step: row.step },
            state,
        });
    }
    captured::insert(connection, &mails).await?;
    mark_contacted(connection, &contacted).await?;
    let mut suppressed = Vec::new();
    for (program, recipients) in bounced {
        suppressions::add(connection, program, &recipients, SuppressionReason::HardBounce).await?;
        suppressed.extend(recipients.into_iter().map(|recipient| (program, recipient)));
    }
    recipients::inherit(connection, &free).await?;
    Ok(Settlements { rows: settled, suppressed })
}

struct Row {
    id: Uuid,
    recipient_index: Vec<u8>,
    campaign: String,
    step: i16,
    state: String,
    lead_revision: i32,
}

async fn update(connection: &mut Connection, items: &[&Settlement]) -> Result<Vec<Row>, StoreError> {
    let programs: Vec<Uuid> = items.iter().map(|item| item.program_id.as_uuid()).collect();
    let ids: Vec<Uuid> = items.iter().map(|item| item.id.as_uuid()).collect();
    let tokens: Vec<Uuid> = items.iter().map(|item| item.token.as_uuid()).collect();
    let states: Vec<String> = items.iter().map(|item| item.outcome.state().name().to_owned()).collect();
    let reasons: Vec<Option<String>> = items.iter().map(|item| item.outcome.reason()).collect();
    let delays: Vec<Option<f64>> = items.iter().map(|item| item.outcome.delay()).collect();
    let reached: Vec<bool> = items.iter().map(|item| item.outcome.reached_a_server()).collect();
    let codes: Vec<Option<i16>> = items.iter().map(|item| item.reply_code).collect();
    let replies: Vec<Option<Vec<u8>>> = items.iter().map(|item| item.reply.clone()).collect();
    // `n` says what came of the mail, `v` what that means for the row: a deferral after four days is a failure; what would be
    // tried again or kept for somebody who objected meanwhile is a cancellation; nothing sealed is written for an erased lead.
    // OFFSET 0 keeps each look one row by its whole key: a program that the statistics don't know yet is taken for an empty
    // one, of which any index that begins with it would do.
    let rows = sqlx::query_as!(
        Row,
        r#"UPDATE outreach o
           SET state = v.state, reason = v.reason,
               due_at = CASE WHEN v.state IN ('queued', 'deferred', 'held') THEN now() + v.delay * interval '1 second' END,
               lease_token = CASE WHEN v.state = 'uncertain' THEN o.lease_token END,
               recipient_key = CASE WHEN v.state = 'cancelled' THEN NULL ELSE o.recipient_key END,
               first_attempt_at = CASE WHEN v.reached THEN coalesce(o.first_attempt_at, now()) ELSE o.first_attempt_at END,
               sent_at = CASE WHEN v.state = 'sent' THEN now() END,
               -- a try of which nothing went out makes no later one wait longer
               attempts = o.attempts - CASE WHEN v.state = 'queued' AND o.attempts > 0 THEN 1 ELSE 0 END,
               reply_code = coalesce(v.code, o.reply_code),
               reply = CASE WHEN v.erased THEN NULL ELSE coalesce(v.reply, o.reply) END,
               updated_at = now()
           FROM (
               SELECT n.program_id, n.id, n.token, n.delay, n.reached, n.code, n.reply, e.lead_revision, f.erased,
                      CASE WHEN n.repeats AND (f.erased OR f.suppressed IS NOT NULL) THEN 'cancelled'
                           WHEN n.state = 'deferred' AND n.reached
                                AND i.first_attempt_at < now() - $10 * interval '1 day' THEN 'failed'
                           ELSE n.state END::outreach_state AS state,
                      CASE WHEN n.repeats AND f.erased THEN 'erased'
                           WHEN n.repeats AND f.suppressed IS NOT NULL THEN f.suppressed
                           ELSE n.reason END AS reason
               FROM (SELECT *, state IN ('captured', 'deferred', 'queued', 'held') AS repeats
                     FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::float8[], $7::boolean[],
                                 $8::smallint[], $9::bytea[])
                          AS n (program_id, id, token, state, reason, delay, reached, code, reply)) n
               CROSS JOIN LATERAL (SELECT lead_id, recipient_index, first_attempt_at FROM outreach
                                   WHERE program_id = n.program_id AND id = n.id OFFSET 0) i
               CROSS JOIN LATERAL (SELECT lead_revision FROM enriched_leads
                                   WHERE program_id = n.program_id AND lead_id = i.lead_id OFFSET 0) e
               CROSS JOIN LATERAL (
                   SELECT NOT EXISTS (SELECT FROM lead_keys k WHERE k.program_id = n.program_id AND k.lead_id = i.lead_id)
                              AS erased,
                          CASE WHEN n.repeats THEN
                              (SELECT CASE s.reason WHEN 'do_not_contact' THEN s.reason ELSE 'suppressed' END
                               FROM suppressions s
                               WHERE s.program_id = n.program_id AND s.recipient_index = i.recipient_index)
                          END AS suppressed
                   OFFSET 0
               ) f
               OFFSET 0
           ) v
           WHERE o.program_id = v.program_id AND o.id = v.id AND o.lease_token = v.token
             AND (o.state = 'connecting' AND v.state NOT IN ('sent', 'uncertain')
                  OR o.state IN ('transmitting', 'uncertain')
                     AND v.state IN ('sent', 'deferred', 'failed', 'uncertain', 'cancelled'))
           RETURNING o.id, o.recipient_index, o.campaign, o.step, o.state::text AS "state!", v.lead_revision AS "lead_revision!""#,
        &programs,
        &ids,
        &tokens,
        &states,
        &reasons as &[Option<String>],
        &delays as &[Option<f64>],
        &reached,
        &codes as &[Option<i16>],
        &replies as &[Option<Vec<u8>>],
        f64::from(GIVE_UP_DAYS),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn mark_contacted(connection: &mut Connection, leads: &[(ProgramId, LeadId)]) -> Result<(), StoreError> {
    if leads.is_empty() {
        return Ok(());
    }
    let mut sorted = leads.to_vec();
    sorted.sort_unstable();
    let (programs, ids) = crate::leads::columns(&sorted);
    sqlx::query!(
        "UPDATE enriched_leads e SET sent = true, contacted = true, updated_at = now()
         FROM UNNEST($1::uuid[], $2::uuid[]) AS n (program_id, lead_id)
         WHERE e.program_id = n.program_id AND e.lead_id = n.lead_id",
        &programs,
        &ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}
