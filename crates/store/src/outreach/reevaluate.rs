//! Deciding again: after a change of a program's settings or of the law's rules, and about held mails whose time has come.
//!
//! Nothing here needs a key. Each page is a transaction of its own, and every step may be repeated.

use domain::{
    clock::{Clock as _, SystemClock},
    hold::{self, WayOut},
    id::{LeadId, OutreachId, ProgramId},
    program::ProgramSettings,
    qualification::Decision,
};
use uuid::Uuid;

use super::{
    NEXT_LOOK_SECONDS,
    plan::{self, Facts, PlanItem, decide, read_facts},
    recipients::{self, Place},
};
use crate::{Connection, Db, StoreError, leads, programs, reanalysis};

/// Leads or mails of one transaction.
const PAGE: i64 = 500;
/// How long after a change all leads are gone through a second time, for those that were decided about by transactions that
/// were under way.
const SECOND_PASS_SECONDS: f64 = 120.0;

/// How many decisions a change of settings turns, by what they were and what they become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Turned {
    /// Leads that were decided about and not written to yet.
    pub decided: u64,
    /// Leads that would get a mail and didn't before, or were waiting.
    pub to_planned: u64,
    /// Leads whose mail would wait.
    pub to_held: u64,
    /// Leads that would get no mail any more.
    pub to_declined: u64,
}

impl Turned {
    /// How many decisions change.
    pub const fn changed(&self) -> u64 {
        self.to_planned + self.to_held + self.to_declined
    }

    /// Counts one lead, by the decision about it before and after.
    pub fn add(&mut self, before: &Decision, after: &Decision) {
        self.add_named(Some(plan::name_of(before)), after);
    }

    fn add_named(&mut self, before: Option<&str>, after: &Decision) {
        self.decided += 1;
        if before == Some(plan::name_of(after)) {
            return;
        }
        match after {
            Decision::Plan => self.to_planned += 1,
            Decision::Hold(_) => self.to_held += 1,
            Decision::Decline(_) => self.to_declined += 1,
        }
    }
}

/// Counts what a program's decisions would become under other settings; changes nothing. `progress` is told how many leads
/// were looked at.
///
/// # Errors
/// When the database fails; nothing needs to be undone.
pub async fn preview(
    db: &Db,
    program: ProgramId,
    settings: &ProgramSettings,
    mut progress: impl FnMut(u64),
) -> Result<Turned, StoreError> {
    let (mut turned, mut seen, mut after) = (Turned::default(), 0, LeadId::from_uuid(Uuid::nil()));
    loop {
        let page = db
            .transact("reevaluate.preview", |tx, _| {
                Box::pin(async move {
                    let leads = decided_after(tx, program, after).await?;
                    Ok((read_facts(tx, &leads).await?, leads))
                })
            })
            .await?;
        let (facts, leads) = page;
        for facts in facts.values().filter(|facts| !facts.sent) {
            turned.add_named(facts.decision.as_deref(), &decide(facts, settings));
        }
        seen += leads.len() as u64;
        progress(seen);
        match leads.last() {
            Some((_, last)) if leads.len() as i64 == PAGE => after = *last,
            _ => return Ok(turned),
        }
    }
}

/// The job: decides again, and has leads analysed again, wherever a program's settings or the law's rules have changed. Returns
/// how many decisions were turned and leads sent to the enricher.
///
/// # Errors
/// When the database fails; the next run goes on.
pub async fn all_programs(db: Db) -> Result<u64, StoreError> {
    let mut count = 0;
    for id in all(&db).await? {
        count += program(&db, id, |_| ()).await?;
        count += reanalysis::program(&db, id, SystemClock.now(), |_| ()).await?;
    }
    Ok(count)
}

/// The job: gives held mails whose time has come their way out; returns how many were looked at.
///
/// # Errors
/// When the database fails; the next run goes on.
pub async fn all_held(db: Db) -> Result<u64, StoreError> {
    let mut count = 0;
    for id in all(&db).await? {
        loop {
            let found = db.transact("reevaluate.held", |tx, _| Box::pin(held(tx, id))).await?;
            count += found;
            if found < PAGE as u64 {
                break;
            }
        }
    }
    Ok(count)
}

async fn all(db: &Db) -> Result<Vec<ProgramId>, StoreError> {
    db.transact("reevaluate.programs", |tx, _| Box::pin(programs::ids(tx))).await
}

/// Decides again about all decided leads of a program whose settings, or the law's rules, have changed since this was done last;
/// returns how many decisions were turned. `progress` is told how many leads were looked at.
///
/// # Errors
/// When the database fails; the next call begins again.
pub async fn program(db: &Db, program: ProgramId, mut progress: impl FnMut(u64)) -> Result<u64, StoreError> {
    let due = db.transact("reevaluate.due", |tx, _| Box::pin(is_due(tx, program))).await?;
    let Some(started) = due else { return Ok(0) };
    let (mut seen, mut turned, mut after) = (0, 0, LeadId::from_uuid(Uuid::nil()));
    loop {
        let (found, last, changed) =
            db.transact("reevaluate.page", |tx, _| Box::pin(page_again(tx, program, after))).await?;
        turned += changed;
        seen += found;
        progress(seen);
        match last {
            Some(last) if found as i64 == PAGE => after = last,
            _ => break,
        }
    }
    db.transact("reevaluate.done", |tx, _| Box::pin(finish(tx, program, started))).await?;
    Ok(turned)
}

/// When the pass that is due begins, by PostgreSQL's clock; none if none is.
async fn is_due(connection: &mut Connection, program: ProgramId) -> Result<Option<time::OffsetDateTime>, StoreError> {
    let due = sqlx::query_scalar!(
        r#"SELECT now() AS "now!" FROM programs
           WHERE id = $1
             AND (law_version < $2
                  OR rules_changed_at IS NOT NULL
                     AND (rules_applied_at IS NULL OR rules_applied_at < rules_changed_at
                          OR rules_applied_at < rules_changed_at + $3 * interval '1 second'
                             AND now() >= rules_changed_at + $3 * interval '1 second'))"#,
        program.as_uuid(),
        programs::law_version(),
        SECOND_PASS_SECONDS,
    )
    .fetch_optional(connection)
    .await?;
    Ok(due)
}

async fn finish(
    connection: &mut Connection,
    program: ProgramId,
    started: time::OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE programs SET rules_applied_at = $2, law_version = greatest(law_version, $3) WHERE id = $1",
        program.as_uuid(),
        started,
        programs::law_version(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of leads that were decided about, after the id `after`, in the order of their ids; empty after the last.
pub async fn decided_after(
    connection: &mut Connection,
    program: ProgramId,
    after: LeadId,
) -> Result<Vec<(ProgramId, LeadId)>, StoreError> {
    let leads = sqlx::query_scalar!(
        "SELECT lead_id FROM enriched_leads
         WHERE program_id = $1 AND lead_id > $2 AND decision IS NOT NULL ORDER BY lead_id LIMIT $3",
        program.as_uuid(),
        after.as_uuid(),
        PAGE,
    )
    .fetch_all(connection)
    .await?;
    Ok(leads.into_iter().map(|lead| (program, LeadId::from_uuid(lead))).collect())
}

/// Decides again about a page of leads; returns how many there were, the last of them, and how many decisions changed.
async fn page_again(
    connection: &mut Connection,
    program: ProgramId,
    after: LeadId,
) -> Result<(u64, Option<LeadId>, u64), StoreError> {
    let leads = decided_after(connection, program, after).await?;
    let Some(current) = plan::programs_of(connection, &leads).await?.remove(&program) else { return Ok((0, None, 0)) };
    let facts = read_facts(connection, &leads).await?;
    let turns = |facts: &Facts| !facts.sent && facts.differs(&decide(facts, &current.program.settings));
    let changed: Vec<PlanItem> = leads
        .iter()
        .filter(|id| facts.get(id).is_some_and(turns))
        .map(|(program, lead)| PlanItem::again(*program, *lead))
        .collect();
    if !changed.is_empty() {
        plan::plan(connection, &changed).await?;
    }
    let turned = facts
        .values()
        .filter(|facts| turns(facts))
        .filter(|facts| facts.decision.as_deref() != Some(plan::name_of(&decide(facts, &current.program.settings))))
        .count();
    Ok((leads.len() as u64, leads.last().map(|(_, lead)| *lead), turned as u64))
}

/// Looks at up to a page of a program's held mails whose time has come: decides again, releases duplicates whose recipient is
/// free, ends those whose recipient was written to, and tries again what could not be made. What stays held is looked at again
/// a day later. Returns how many there were.
pub async fn held(connection: &mut Connection, program: ProgramId) -> Result<u64, StoreError> {
    let mut rows = due_holds(connection, program, true).await?;
    if (rows.len() as i64) < PAGE {
        rows.extend(due_holds(connection, program, false).await?);
    }
    if rows.is_empty() {
        return Ok(0);
    }
    again(connection, program, &rows).await?;
    Ok(rows.len() as u64)
}

/// A held row.
#[derive(Debug, Clone)]
pub(super) struct HeldRow {
    pub(super) id: OutreachId,
    pub(super) lead: LeadId,
    pub(super) reason: String,
    pub(super) place: Place,
    pub(super) is_duplicate: bool,
}

/// Held rows that are due: those without a time, which older versions have written, or the others.
async fn due_holds(
    connection: &mut Connection,
    program: ProgramId,
    without_time: bool,
) -> Result<Vec<HeldRow>, StoreError> {
    struct Row {
        id: Uuid,
        lead_id: Uuid,
        reason: Option<String>,
        recipient_index: Vec<u8>,
        campaign: String,
        step: i16,
        is_duplicate: bool,
    }
    let rows = if without_time {
        sqlx::query_as!(
            Row,
            r#"SELECT id, lead_id, reason, recipient_index, campaign, step, recipient_key IS NULL AS "is_duplicate!"
               FROM outreach WHERE program_id = $1 AND state = 'held' AND due_at IS NULL
               LIMIT $2"#,
            program.as_uuid(),
            PAGE,
        )
        .fetch_all(connection)
        .await?
    } else {
        sqlx::query_as!(
            Row,
            r#"SELECT id, lead_id, reason, recipient_index, campaign, step, recipient_key IS NULL AS "is_duplicate!"
               FROM outreach WHERE program_id = $1 AND state = 'held' AND due_at <= now()
               ORDER BY due_at LIMIT $2"#,
            program.as_uuid(),
            PAGE,
        )
        .fetch_all(connection)
        .await?
    };
    Ok(rows
        .into_iter()
        .map(|row| HeldRow {
            id: OutreachId::from_uuid(row.id),
            lead: LeadId::from_uuid(row.lead_id),
            reason: row.reason.unwrap_or_default(),
            place: Place { program, recipient: row.recipient_index, campaign: row.campaign, step: row.step },
            is_duplicate: row.is_duplicate,
        })
        .collect())
}

/// Gives held rows their way out, by their reasons.
pub(super) async fn again(connection: &mut Connection, program: ProgramId, rows: &[HeldRow]) -> Result<(), StoreError> {
    // Before the rows themselves, in the order of everybody else.
    let leads: Vec<_> = rows.iter().map(|row| (program, row.lead)).collect();
    leads::lock_keys_for_update(connection, &leads).await?;
    let ids: Vec<OutreachId> = rows.iter().map(|row| row.id).collect();
    // First the next time: whatever is still held afterwards has one.
    postpone(connection, program, &ids).await?;
    recipients::cancel_for_erased(connection, program, &ids).await?;
    let tried: Vec<OutreachId> = rows
        .iter()
        .filter(|row| !row.is_duplicate && hold::way_out(&row.reason) == WayOut::TriedAgain)
        .map(|row| row.id)
        .collect();
    requeue_held(connection, program, &tried).await?;
    // Duplicates too: their own lead may not qualify any more, or have another address by now.
    let mut decided: Vec<PlanItem> = rows
        .iter()
        .filter(|row| !tried.contains(&row.id))
        .map(|row| PlanItem {
            step: domain::outreach::CampaignStep { campaign: row.place.campaign.clone(), step: row.place.step },
            ..PlanItem::again(program, row.lead)
        })
        .collect();
    decided.sort_unstable_by_key(|item| item.lead_id);
    plan::plan(connection, &decided).await?;
    let duplicates: Vec<OutreachId> = rows.iter().filter(|row| row.is_duplicate).map(|row| row.id).collect();
    if !duplicates.is_empty() {
        recipients::end_duplicates(connection, program, &duplicates).await?;
    }
    Ok(())
}

async fn postpone(connection: &mut Connection, program: ProgramId, rows: &[OutreachId]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(OutreachId::as_uuid).collect();
    // CASE keeps the index of all held rows out, here and below.
    sqlx::query!(
        "UPDATE outreach SET due_at = now() + $3 * interval '1 second'
         WHERE program_id = $1 AND id = ANY($2) AND CASE state WHEN 'held' THEN true ELSE false END",
        program.as_uuid(),
        &ids,
        NEXT_LOOK_SECONDS,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Queues held rows that hold their recipient.
async fn requeue_held(connection: &mut Connection, program: ProgramId, rows: &[OutreachId]) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = rows.iter().map(OutreachId::as_uuid).collect();
    let queued = sqlx::query!(
        "UPDATE outreach SET state = 'queued', reason = NULL, due_at = now(), updated_at = now()
         WHERE program_id = $1 AND id = ANY($2)
           AND CASE state WHEN 'held' THEN recipient_key IS NOT NULL ELSE false END",
        program.as_uuid(),
        &ids,
    )
    .execute(connection)
    .await?;
    Ok(queued.rows_affected())
}

/// Makes a program's held mails of a pause due for a look: older versions hold what is planned during one.
pub(crate) async fn release_paused(connection: &mut Connection, program: ProgramId) -> Result<u64, StoreError> {
    let due = sqlx::query!(
        "UPDATE outreach SET due_at = now()
         WHERE program_id = $1 AND state = 'held' AND reason = 'program_paused'",
        program.as_uuid(),
    )
    .execute(connection)
    .await?;
    Ok(due.rows_affected())
}
