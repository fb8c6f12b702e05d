//! Releasing mails by hand: captured ones, so that a real transport sends them, and held ones whose cause was mended.

use std::collections::{BTreeMap, HashSet};

use domain::{
    id::{LeadId, OutreachId, ProgramId},
    outreach::{CampaignStep, OutreachState},
};
use uuid::Uuid;

use super::{
    parse_state,
    plan::{self, PlanItem},
    recipients::{self, Place},
    reevaluate::{self, HeldRow},
};
use crate::{Connection, Db, StoreError, leads};

/// Mails of one transaction.
const PAGE: i64 = 500;

/// Which mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// These.
    Ids(Vec<OutreachId>),
    /// Every captured one.
    Captured,
    /// Every held one; with a reason, those held for it (what follows a colon in a reason doesn't count).
    Held(Option<String>),
}

/// What became of the mails.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Released {
    /// In the queue now.
    pub queued: u64,
    /// Cancelled instead: the recipient must not be written to, or the lead was erased.
    pub cancelled: u64,
    /// Still held, by reason.
    pub held: BTreeMap<String, u64>,
    /// Mails that were named and are neither captured nor held, with the state that they are in.
    pub others: Vec<(OutreachId, OutreachState)>,
    /// Ids that no mail of the program has.
    pub unknown: Vec<OutreachId>,
}

impl Released {
    /// Adds another page's.
    pub fn add(&mut self, page: Self) {
        self.queued += page.queued;
        self.cancelled += page.cancelled;
        for (reason, count) in page.held {
            *self.held.entry(reason).or_default() += count;
        }
        self.others.extend(page.others);
        self.unknown.extend(page.unknown);
    }
}

/// Releases mails, page by page, each in a transaction of its own: what was released stays released if it is interrupted.
/// `progress` is told how many were queued so far.
///
/// # Errors
/// When the database fails; call it again for the rest.
pub async fn release(
    db: &Db,
    program: ProgramId,
    filter: &Filter,
    mut progress: impl FnMut(u64),
) -> Result<Released, StoreError> {
    let (mut released, mut after) = (Released::default(), None);
    loop {
        let (done, next) = db.transact("outreach.release", |tx, _| Box::pin(page(tx, program, filter, after))).await?;
        released.add(done);
        progress(released.queued);
        if next.is_none() {
            return Ok(released);
        }
        after = next;
    }
}

/// Releases up to a page of mails after the id `after`, in the order of their ids; returns what became of them, and where the
/// next page begins. Each page is to be a transaction of its own. Nothing that suppressions, the law or the program's settings
/// forbid is released: each is decided about again.
async fn page(
    connection: &mut Connection,
    program: ProgramId,
    filter: &Filter,
    after: Option<OutreachId>,
) -> Result<(Released, Option<OutreachId>), StoreError> {
    let after = after.map_or(Uuid::nil(), |after| after.as_uuid());
    let mut released = Released::default();
    let ids = match filter {
        Filter::Ids(ids) => {
            let mut ids: Vec<Uuid> = ids.iter().map(OutreachId::as_uuid).filter(|id| *id > after).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.truncate(PAGE as usize);
            ids
        }
        Filter::Captured => captured_after(connection, program, after).await?,
        Filter::Held(reason) => held_after(connection, program, after, reason.as_deref()).await?,
    };
    let next = (ids.len() as i64 == PAGE).then(|| ids.last().copied()).flatten();
    let rows = locked(connection, program, &ids).await?;
    if matches!(filter, Filter::Ids(_)) {
        let found: HashSet<Uuid> = rows.iter().map(|row| row.id).collect();
        released.unknown = ids.iter().filter(|id| !found.contains(id)).map(|id| OutreachId::from_uuid(*id)).collect();
    }
    let (mut captured, mut held) = (Vec::new(), Vec::new());
    for row in rows {
        match (parse_state(row.id, &row.state)?, filter) {
            (OutreachState::Captured, Filter::Ids(_) | Filter::Captured) => captured.push(row),
            (OutreachState::Held, Filter::Ids(_) | Filter::Held(_)) => held.push(row),
            (state, Filter::Ids(_)) => released.others.push((OutreachId::from_uuid(row.id), state)),
            // Somebody else was faster.
            _ => {}
        }
    }
    let ids: Vec<Uuid> = captured.iter().chain(&held).map(|row| row.id).collect();
    if !captured.is_empty() {
        requeue_captured(connection, program, &captured).await?;
        let again: Vec<PlanItem> = captured.iter().map(|row| row.planned_again(program)).collect();
        plan::plan(connection, &again).await?;
    }
    if !held.is_empty() {
        let held: Vec<HeldRow> = held.into_iter().map(|row| row.held(program)).collect();
        reevaluate::again(connection, program, &held).await?;
    }
    if !ids.is_empty() {
        for row in named(connection, program, &ids).await? {
            match parse_state(row.id, &row.state)? {
                OutreachState::Held => *released.held.entry(row.reason.unwrap_or_default()).or_default() += 1,
                OutreachState::Cancelled => released.cancelled += 1,
                _ => released.queued += 1,
            }
        }
    }
    Ok((released, next.map(OutreachId::from_uuid)))
}

struct Row {
    id: Uuid,
    lead_id: Uuid,
    state: String,
    reason: Option<String>,
    recipient_index: Vec<u8>,
    campaign: String,
    step: i16,
    is_duplicate: bool,
}

impl Row {
    fn planned_again(&self, program: ProgramId) -> PlanItem {
        PlanItem {
            step: CampaignStep { campaign: self.campaign.clone(), step: self.step },
            ..PlanItem::again(program, LeadId::from_uuid(self.lead_id))
        }
    }

    fn held(self, program: ProgramId) -> HeldRow {
        HeldRow {
            id: OutreachId::from_uuid(self.id),
            lead: LeadId::from_uuid(self.lead_id),
            reason: self.reason.unwrap_or_default(),
            place: Place { program, recipient: self.recipient_index, campaign: self.campaign, step: self.step },
            is_duplicate: self.is_duplicate,
        }
    }
}

/// Locks rows after their leads, as everybody does, and reads them.
async fn locked(connection: &mut Connection, program: ProgramId, ids: &[Uuid]) -> Result<Vec<Row>, StoreError> {
    let leads = sqlx::query_scalar!(
        "SELECT lead_id FROM outreach WHERE program_id = $1 AND id = ANY($2)",
        program.as_uuid(),
        ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let leads: Vec<_> = leads.into_iter().map(|lead| (program, LeadId::from_uuid(lead))).collect();
    leads::lock_keys_for_update(connection, &leads).await?;
    // No others: a mailer that has a row in hand may be about to send it, and doesn't wait.
    sqlx::query!(
        "SELECT FROM outreach WHERE program_id = $1 AND id = ANY($2) AND state IN ('captured', 'held')
         ORDER BY id FOR NO KEY UPDATE",
        program.as_uuid(),
        ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    named(connection, program, ids).await
}

async fn named(connection: &mut Connection, program: ProgramId, ids: &[Uuid]) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, lead_id, state::text AS "state!", reason, recipient_index, campaign, step,
                  recipient_key IS NULL AS "is_duplicate!"
           FROM outreach WHERE program_id = $1 AND id = ANY($2) ORDER BY id"#,
        program.as_uuid(),
        ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Captured rows, found by their captured mails: there are no others.
async fn captured_after(connection: &mut Connection, program: ProgramId, after: Uuid) -> Result<Vec<Uuid>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT outreach_id FROM captured_mails WHERE program_id = $1 AND outreach_id > $2 ORDER BY outreach_id LIMIT $3",
        program.as_uuid(),
        after,
        PAGE,
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

async fn held_after(
    connection: &mut Connection,
    program: ProgramId,
    after: Uuid,
    reason: Option<&str>,
) -> Result<Vec<Uuid>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM outreach
         WHERE program_id = $1 AND id > $2 AND state = 'held' AND ($3::text IS NULL OR split_part(reason, ':', 1) = $3)
         ORDER BY id LIMIT $4",
        program.as_uuid(),
        after,
        reason,
        PAGE,
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// Puts captured rows back into the queue, so that a real transport sends them; their captured mails go. Who objected since,
/// or was erased, gets nothing. Whether the others still qualify is to be decided afterwards.
async fn requeue_captured(connection: &mut Connection, program: ProgramId, rows: &[Row]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let rows = sqlx::query!(
        r#"WITH v AS (
               SELECT o.program_id, o.id,
                      CASE WHEN NOT EXISTS (SELECT FROM lead_keys k WHERE k.program_id = o.program_id AND k.lead_id = o.lead_id)
                           THEN 'erased'
                           ELSE (SELECT CASE s.reason WHEN 'do_not_contact' THEN s.reason ELSE 'suppressed' END
                                 FROM suppressions s WHERE s.program_id = o.program_id
                                                       AND s.recipient_index = o.recipient_index) END AS obstacle
               FROM outreach o WHERE o.program_id = $1 AND o.id = ANY($2) AND o.state = 'captured'
           ), gone AS (
               DELETE FROM captured_mails WHERE program_id = $1 AND outreach_id IN (SELECT id FROM v)
           )
           UPDATE outreach o
           SET state = CASE WHEN v.obstacle IS NULL THEN 'queued'::outreach_state ELSE 'cancelled'::outreach_state END,
               reason = v.obstacle, due_at = CASE WHEN v.obstacle IS NULL THEN now() END, attempts = 0,
               first_attempt_at = NULL, mailbox_full_at = NULL,
               recipient_key = CASE WHEN v.obstacle IS NULL THEN o.recipient_key END, updated_at = now()
           FROM v WHERE o.program_id = v.program_id AND o.id = v.id
           RETURNING v.obstacle AS "obstacle?", o.recipient_index, o.campaign, o.step"#,
        program.as_uuid(),
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let free: Vec<Place> = rows
        .into_iter()
        .filter(|row| row.obstacle.is_some())
        .map(|row| Place { program, recipient: row.recipient_index, campaign: row.campaign, step: row.step })
        .collect();
    recipients::inherit(connection, &free).await?;
    Ok(())
}
