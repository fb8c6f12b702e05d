//! The outreach rows that follow from decisions.

use std::collections::{HashMap, HashSet};

use domain::{
    hold,
    id::{OutreachId, ProgramId},
    qualification::{Blocker, Decision},
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::INDEX_VERSION;

use super::{Decided, Occasion, Planned, Start};
use crate::{
    Connection, StoreError,
    outreach::{FIRST_LOOK_SECONDS, recipients::Place},
};

/// What was written.
pub(super) struct Written {
    /// What became of the rows that were inserted.
    pub(super) outcomes: HashMap<OutreachId, Planned>,
    /// Recipients that nobody holds any more, or that somebody waits for.
    pub(super) free: Vec<Place>,
}

/// Inserts the rows of leads that have none, and lets those of which nothing has gone out follow the decision.
pub(super) async fn write(connection: &mut Connection, decided: &[Decided<'_>]) -> Result<Written, StoreError> {
    let mailed: Vec<&Decided<'_>> = decided.iter().filter(|lead| lead.state().is_some()).collect();
    let inserted = insert(connection, &mailed).await?;
    // Declined leads included: what had been planned for them is cancelled.
    let rest: Vec<&Decided<'_>> = decided.iter().filter(|lead| !inserted.contains(&lead.item.id.as_uuid())).collect();
    let (mut existing, mut free) = (HashSet::new(), Vec::new());
    // Program by program: a distributed PostgreSQL locks rows of one shard at a time.
    for rest in rest.chunk_by(|one, next| one.item.program_id == next.item.program_id) {
        let (found, released) = follow(connection, rest[0].item.program_id, rest).await?;
        existing.extend(found);
        free.extend(released);
    }
    let without: Vec<&Decided<'_>> = rest
        .into_iter()
        .filter(|lead| lead.state().is_some() && !existing.contains(&lead.item.lead_id.as_uuid()))
        .collect();
    let duplicates = insert_duplicates(connection, &without).await?;
    free.extend(without.iter().filter_map(|lead| lead.place()));
    let mut outcomes = HashMap::with_capacity(decided.len());
    for lead in &mailed {
        let id = lead.item.id;
        if duplicates.contains(&id.as_uuid()) {
            outcomes.insert(id, Planned::Held(id));
        } else if inserted.contains(&id.as_uuid()) {
            outcomes.insert(
                id,
                match lead.state() {
                    Some("connecting") => Planned::Claimed(id),
                    Some("queued") => Planned::Queued(id),
                    _ => Planned::Held(id),
                },
            );
        }
    }
    Ok(Written { outcomes, free })
}

impl Decided<'_> {
    /// The state in which its row is inserted; none for a lead that is declined.
    const fn state(&self) -> Option<&'static str> {
        match (&self.decision, self.may_start) {
            _ if self.facts.recipient.is_none() => None,
            (Decision::Plan, true) => Some("connecting"),
            (Decision::Plan, false) => Some("queued"),
            (Decision::Hold(_), _) => Some("held"),
            (Decision::Decline(_), _) => None,
        }
    }

    /// Why its row is held, or cancelled.
    fn reason(&self) -> Option<String> {
        match &self.decision {
            Decision::Plan => None,
            Decision::Hold(blockers) => Some(hold::reason_of(blockers)),
            Decision::Decline(blockers) if blockers.contains(&Blocker::Suppressed) => Some(Blocker::Suppressed.code()),
            Decision::Decline(blockers) => {
                let listed = blockers.iter().find(|blocker| matches!(blocker, Blocker::DoNotContact { .. }));
                Some(listed.map_or_else(|| "no_longer_qualified".to_owned(), Blocker::code))
            }
        }
    }

    fn place(&self) -> Option<Place> {
        Some(Place {
            program: self.item.program_id,
            recipient: self.facts.recipient.clone()?,
            campaign: self.item.step.campaign.clone(),
            step: self.item.step.step,
        })
    }

    const fn token(&self) -> Option<Uuid> {
        match self.item.start {
            Start::Claimed { token, .. } if self.may_start && matches!(self.decision, Decision::Plan) => {
                Some(token.as_uuid())
            }
            _ => None,
        }
    }

    /// The lease of a row that the caller has in hand.
    fn lease(&self) -> Option<Uuid> {
        match self.item.occasion {
            Occasion::Again { lease } => lease.map(|token| token.as_uuid()),
            Occasion::Enriched { .. } => None,
        }
    }
}

/// The columns of mails.
struct Columns {
    programs: Vec<Uuid>,
    ids: Vec<Uuid>,
    leads: Vec<Uuid>,
    campaigns: Vec<String>,
    steps: Vec<i16>,
    recipients: Vec<Option<Vec<u8>>>,
    message_ids: Vec<String>,
    versions: Vec<i32>,
    states: Vec<Option<String>>,
    reasons: Vec<Option<String>>,
    law_versions: Vec<Option<i16>>,
    law_rules: Vec<Option<String>>,
    permitted_until: Vec<Option<OffsetDateTime>>,
}

impl Columns {
    fn of(chosen: &[&Decided<'_>]) -> Self {
        Self {
            programs: chosen.iter().map(|lead| lead.item.program_id.as_uuid()).collect(),
            ids: chosen.iter().map(|lead| lead.item.id.as_uuid()).collect(),
            leads: chosen.iter().map(|lead| lead.item.lead_id.as_uuid()).collect(),
            campaigns: chosen.iter().map(|lead| lead.item.step.campaign.clone()).collect(),
            steps: chosen.iter().map(|lead| lead.item.step.step).collect(),
            recipients: chosen.iter().map(|lead| lead.facts.recipient.clone()).collect(),
            message_ids: chosen.iter().map(|lead| lead.message_id.clone()).collect(),
            versions: chosen.iter().map(|lead| lead.facts.enrichment_version).collect(),
            states: chosen.iter().map(|lead| lead.state().map(str::to_owned)).collect(),
            reasons: chosen.iter().map(|lead| lead.reason()).collect(),
            law_versions: chosen.iter().map(|lead| lead.permission.law_version).collect(),
            law_rules: chosen.iter().map(|lead| lead.permission.rule.clone()).collect(),
            permitted_until: chosen.iter().map(|lead| lead.permission.until).collect(),
        }
    }
}

/// Inserts the mails whose lead has none yet and whose recipient nobody holds; returns the rows' ids.
///
/// A lead's own row is looked for first: at a conflict with a row that a settlement has changed and not committed yet, the insert
/// would wait for it, while it waits for this lead's decision.
async fn insert(connection: &mut Connection, chosen: &[&Decided<'_>]) -> Result<HashSet<Uuid>, StoreError> {
    if chosen.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(chosen);
    let tokens: Vec<Option<Uuid>> = chosen.iter().map(|lead| lead.token()).collect();
    let seconds: Vec<Option<f64>> = chosen
        .iter()
        .map(|lead| match (lead.state(), lead.item.start) {
            (Some("connecting"), Start::Claimed { seconds, .. }) => Some(f64::from(seconds)),
            (Some("held"), _) => Some(FIRST_LOOK_SECONDS),
            _ => Some(0.0),
        })
        .collect();
    let inserted = sqlx::query_scalar!(
        "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                               state, reason, message_id, enrichment_version, attempts, due_at, lease_token, created_at,
                               updated_at, law_version, law_rule, permitted_until)
         SELECT program_id, id, lead_id, campaign, step, recipient, recipient, $1, state::outreach_state, reason,
                message_id, version, CASE state WHEN 'connecting' THEN 1 ELSE 0 END, now() + seconds * interval '1 second',
                token, now(), now(), law_version, law_rule, permitted_until
         FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::smallint[], $7::bytea[], $8::text[], $9::int[],
                     $10::text[], $11::text[], $12::uuid[], $13::float8[], $14::smallint[], $15::text[], $16::timestamptz[])
              AS n (program_id, id, lead_id, campaign, step, recipient, message_id, version, state, reason, token, seconds,
                    law_version, law_rule, permitted_until)
         WHERE coalesce((SELECT false FROM outreach o WHERE o.program_id = n.program_id AND o.lead_id = n.lead_id
                                                        AND o.campaign = n.campaign AND o.step = n.step), true)
         ON CONFLICT DO NOTHING
         RETURNING id",
        INDEX_VERSION,
        &columns.programs,
        &columns.ids,
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
        &columns.recipients as &[Option<Vec<u8>>],
        &columns.message_ids,
        &columns.versions,
        &columns.states as &[Option<String>],
        &columns.reasons as &[Option<String>],
        &tokens as &[Option<Uuid>],
        &seconds as &[Option<f64>],
        &columns.law_versions as &[Option<i16>],
        &columns.law_rules as &[Option<String>],
        &columns.permitted_until as &[Option<OffsetDateTime>],
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Lets rows of which nothing has gone out follow the decision, and the lead's address. A row that goes to another recipient
/// than before, or was cancelled, holds none afterwards: it waits as a duplicate, until the heirs are found.
///
/// Other rows are not locked either: one that a mailer is about to send would wait here, and then go out by what was known before.
///
/// Returns the leads that have a row at all, and the recipients that may have become free.
async fn follow(
    connection: &mut Connection,
    program: ProgramId,
    chosen: &[&Decided<'_>],
) -> Result<(HashSet<Uuid>, Vec<Place>), StoreError> {
    let columns = Columns::of(chosen);
    let leases: Vec<Option<Uuid>> = chosen.iter().map(|lead| lead.lease()).collect();
    // The program is a column where rows are looked up: as a parameter, one that the statistics don't know is taken for an empty
    // one, and any index that begins with it for as good as the right one.
    // `v` is the row before and what it shall be: by the decision, and whether it may keep its recipient.
    let rows = sqlx::query!(
        r#"WITH n AS (
               SELECT * FROM UNNEST($13::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::bytea[], $6::int[], $7::text[],
                                    $8::text[], $9::text[], $10::uuid[], $14::smallint[], $15::text[], $16::timestamptz[])
                    AS n (program_id, lead_id, campaign, step, recipient, version, message_id, state, reason, lease,
                          law_version, law_rule, permitted_until)
           ), v AS (
               SELECT n.program_id, n.lead_id, n.recipient, n.version, n.message_id, n.reason, n.law_version, n.law_rule,
                      n.permitted_until, b.id, b.state AS before, b.recipient_key AS old_key, b.campaign, b.step,
                      coalesce(b.recipient_key = n.recipient, false) AS keeps,
                      CASE n.state WHEN 'connecting' THEN 'queued' ELSE coalesce(n.state, 'cancelled') END AS wanted
               FROM n
               CROSS JOIN LATERAL (SELECT id, state, recipient_key, campaign, step FROM outreach
                                   WHERE program_id = n.program_id AND lead_id = n.lead_id AND campaign = n.campaign
                                     AND step = n.step
                                     AND CASE WHEN state = 'connecting' THEN lease_token = n.lease
                                              ELSE state IN ('queued', 'held', 'deferred', 'cancelled') END
                                   FOR NO KEY UPDATE) b
           ), followed AS (
               UPDATE outreach o
               SET enrichment_version = v.version, updated_at = now(), lease_token = NULL,
                   -- a claim of which nothing went out is no attempt
                   attempts = CASE v.before WHEN 'connecting' THEN greatest(o.attempts - 1, 0) ELSE o.attempts END,
                   law_version = v.law_version, law_rule = v.law_rule, permitted_until = v.permitted_until,
                   recipient_index = CASE WHEN v.wanted = 'cancelled' THEN o.recipient_index ELSE v.recipient END,
                   recipient_key = CASE WHEN v.wanted <> 'cancelled' AND v.keeps THEN o.recipient_key END,
                   message_id = CASE WHEN o.attempts = 0 THEN v.message_id ELSE o.message_id END,
                   first_attempt_at = CASE WHEN v.keeps THEN o.first_attempt_at END,
                   mailbox_full_at = CASE WHEN v.keeps THEN o.mailbox_full_at END,
                   state = CASE WHEN v.wanted = 'cancelled' THEN 'cancelled'
                                WHEN NOT v.keeps THEN 'held'
                                WHEN v.wanted = 'held' THEN 'held'
                                WHEN v.before = 'deferred' THEN 'deferred'
                                ELSE 'queued' END::outreach_state,
                   reason = CASE WHEN v.wanted = 'cancelled' THEN v.reason
                                 WHEN NOT v.keeps THEN $11
                                 WHEN v.wanted = 'held' THEN v.reason
                                 WHEN v.before = 'deferred' THEN o.reason END,
                   due_at = CASE WHEN v.wanted = 'cancelled' THEN NULL
                                 WHEN v.before = 'held' AND o.recipient_index = v.recipient
                                      AND o.reason = CASE WHEN v.keeps THEN v.reason ELSE $11 END THEN o.due_at
                                 WHEN NOT v.keeps OR v.wanted = 'held' THEN now() + $12 * interval '1 second'
                                 WHEN v.before IN ('queued', 'deferred') THEN o.due_at
                                 ELSE now() END
               FROM v
               WHERE o.program_id = v.program_id AND o.id = v.id AND (v.program_id = $1) IS TRUE
                 AND NOT (v.before = 'cancelled' AND v.wanted = 'cancelled')
           )
           SELECT n.lead_id AS "lead_id!", n.campaign AS "campaign!", n.step AS "step!",
                  CASE WHEN v.wanted = 'cancelled' OR NOT v.keeps THEN v.old_key END AS released,
                  CASE WHEN v.wanted <> 'cancelled' AND NOT v.keeps THEN v.recipient END AS sought
           FROM n
           CROSS JOIN LATERAL (SELECT FROM outreach
                               WHERE program_id = n.program_id AND lead_id = n.lead_id AND campaign = n.campaign
                                 AND step = n.step OFFSET 0) b
           LEFT JOIN v ON v.program_id = n.program_id AND v.lead_id = n.lead_id AND v.campaign = n.campaign
                AND v.step = n.step"#,
        program.as_uuid(),
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
        &columns.recipients as &[Option<Vec<u8>>],
        &columns.versions,
        &columns.message_ids,
        &columns.states as &[Option<String>],
        &columns.reasons as &[Option<String>],
        &leases as &[Option<Uuid>],
        hold::DUPLICATE_RECIPIENT,
        FIRST_LOOK_SECONDS,
        &columns.programs,
        &columns.law_versions as &[Option<i16>],
        &columns.law_rules as &[Option<String>],
        &columns.permitted_until as &[Option<OffsetDateTime>],
    )
    .fetch_all(connection)
    .await?;
    let mut existing = HashSet::with_capacity(rows.len());
    let mut free = Vec::new();
    for row in rows {
        existing.insert(row.lead_id);
        for recipient in [row.released, row.sought].into_iter().flatten() {
            free.push(Place { program, recipient, campaign: row.campaign.clone(), step: row.step });
        }
    }
    Ok((existing, free))
}

/// Inserts the mails whose recipient another lead holds, as held duplicates; returns the rows' ids.
async fn insert_duplicates(connection: &mut Connection, chosen: &[&Decided<'_>]) -> Result<HashSet<Uuid>, StoreError> {
    if chosen.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(chosen);
    let inserted = sqlx::query_scalar!(
        "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, index_version, state, reason,
                               message_id, enrichment_version, due_at, created_at, updated_at, law_version, law_rule,
                               permitted_until)
         SELECT program_id, id, lead_id, campaign, step, recipient, $1, 'held', $2, message_id, version,
                now() + $3 * interval '1 second', now(), now(), law_version, law_rule, permitted_until
         FROM UNNEST($4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::smallint[], $9::bytea[], $10::text[], $11::int[],
                     $12::smallint[], $13::text[], $14::timestamptz[])
              AS n (program_id, id, lead_id, campaign, step, recipient, message_id, version, law_version, law_rule,
                    permitted_until)
         ON CONFLICT DO NOTHING
         RETURNING id",
        INDEX_VERSION,
        hold::DUPLICATE_RECIPIENT,
        FIRST_LOOK_SECONDS,
        &columns.programs,
        &columns.ids,
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
        &columns.recipients as &[Option<Vec<u8>>],
        &columns.message_ids,
        &columns.versions,
        &columns.law_versions as &[Option<i16>],
        &columns.law_rules as &[Option<String>],
        &columns.permitted_until as &[Option<OffsetDateTime>],
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}
