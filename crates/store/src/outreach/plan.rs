//! Recording decisions and planning mails.

use std::collections::{HashMap, HashSet};

use domain::{
    id::{LeadId, LeaseToken, OutreachId, ProgramId},
    outreach::CampaignStep,
    qualification::{Blocker, Decision},
};
use uuid::Uuid;
use vault::{BlindIndex, INDEX_VERSION};

use crate::{Connection, StoreError, leads};

/// A decision about an enriched lead, and the mail that follows from it.
#[derive(Debug, Clone)]
pub struct PlanItem {
    /// The program.
    pub program_id: ProgramId,
    /// The lead.
    pub lead_id: LeadId,
    /// The enrichment that was decided about.
    pub enrichment_version: i32,
    /// The decision.
    pub decision: Decision,
    /// The mail, unless the decision is to decline.
    pub mail: Option<PlannedMail>,
}

/// A mail to insert.
#[derive(Debug, Clone)]
pub struct PlannedMail {
    /// The row's id, if it is inserted.
    pub id: OutreachId,
    /// Which mail of which campaign.
    pub step: CampaignStep,
    /// Whom it goes to.
    pub recipient: BlindIndex,
    /// Its `Message-ID`.
    pub message_id: String,
    /// Whether the planner starts to send it at once.
    pub start: Start,
}

/// When a planned mail starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, by the planner, under this lease.
    Claimed(LeaseToken),
    /// When somebody claims it.
    Queued,
}

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// The row is there, and leased to the planner.
    Claimed(OutreachId),
    /// The row is there, and waits for a claim.
    Queued(OutreachId),
    /// The row is there, and held: for the decision's reason, or because another lead has the same address.
    Held(OutreachId),
    /// There was a row already; if nothing of it had gone out, it follows the newer enrichment.
    Existing,
    /// No mail.
    Declined,
    /// This or a newer enrichment was decided about before, or the decision is about an older one than is stored.
    Stale,
    /// The lead was erased.
    Erased,
}

/// Records decisions and inserts the mails that follow; returns what became of each, in order. `lease_seconds` is the
/// length of the lease of rows that the planner claims.
pub async fn plan(
    connection: &mut Connection,
    items: &[PlanItem],
    lease_seconds: i32,
) -> Result<Vec<Planned>, StoreError> {
    let mut ids: Vec<_> = items.iter().map(|item| (item.program_id, item.lead_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let alive = leads::lock_keys(connection, &ids).await?;
    // One item per lead, in key order: the one about the newest enrichment.
    let mut newest: HashMap<(ProgramId, LeadId), usize> = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let held = newest.entry((item.program_id, item.lead_id)).or_insert(index);
        if item.enrichment_version > items[*held].enrichment_version {
            *held = index;
        }
    }
    let mut order: Vec<usize> = newest.into_values().collect();
    order.sort_unstable_by_key(|index| (items[*index].program_id, items[*index].lead_id));
    order.retain(|index| alive.contains(&(items[*index].program_id, items[*index].lead_id)));

    let decided = record(connection, items, &order).await?;
    order.retain(|index| decided.contains(&(items[*index].program_id, items[*index].lead_id)));
    let declined: Vec<usize> = order.iter().copied().filter(|index| items[*index].mail.is_none()).collect();
    cancel_unsent(connection, items, &declined).await?;
    let mailed: Vec<usize> = order.iter().copied().filter(|index| items[*index].mail.is_some()).collect();
    let inserted = insert(connection, items, &mailed, lease_seconds).await?;
    let left: Vec<usize> =
        mailed.iter().copied().filter(|index| !inserted.contains(&mail_id(&items[*index]))).collect();
    let replanned = replan(connection, items, &left).await?;
    let left: Vec<usize> = left
        .into_iter()
        .filter(|index| !replanned.contains(&(items[*index].program_id, items[*index].lead_id)))
        .collect();
    let duplicates = insert_duplicates(connection, items, &left).await?;

    let decided: HashSet<usize> = order.into_iter().collect();
    Ok(items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            if !alive.contains(&(item.program_id, item.lead_id)) {
                Planned::Erased
            } else if !decided.contains(&index) {
                Planned::Stale
            } else if let Some(mail) = &item.mail {
                if inserted.contains(&mail.id.as_uuid()) {
                    match (&item.decision, mail.start) {
                        (Decision::Plan, Start::Claimed(_)) => Planned::Claimed(mail.id),
                        (Decision::Plan, Start::Queued) => Planned::Queued(mail.id),
                        _ => Planned::Held(mail.id),
                    }
                } else if duplicates.contains(&mail.id.as_uuid()) {
                    Planned::Held(mail.id)
                } else {
                    Planned::Existing
                }
            } else {
                Planned::Declined
            }
        })
        .collect())
}

fn mail_id(item: &PlanItem) -> Uuid {
    item.mail.as_ref().map_or(Uuid::nil(), |mail| mail.id.as_uuid())
}

/// Writes the decisions that are about the stored enrichment and newer than the last decision.
async fn record(
    connection: &mut Connection,
    items: &[PlanItem],
    order: &[usize],
) -> Result<HashSet<(ProgramId, LeadId)>, StoreError> {
    let chosen: Vec<&PlanItem> = order.iter().map(|index| &items[*index]).collect();
    let programs: Vec<Uuid> = chosen.iter().map(|item| item.program_id.as_uuid()).collect();
    let leads: Vec<Uuid> = chosen.iter().map(|item| item.lead_id.as_uuid()).collect();
    let versions: Vec<i32> = chosen.iter().map(|item| item.enrichment_version).collect();
    let decisions: Vec<String> = chosen
        .iter()
        .map(|item| match item.decision {
            Decision::Plan => "planned".to_owned(),
            Decision::Hold(_) => "held".to_owned(),
            Decision::Decline(_) => "declined".to_owned(),
        })
        .collect();
    // An array of arrays can't be unnested by rows: reasons travel joined by a character that no code has.
    let reasons: Vec<String> = chosen
        .iter()
        .map(|item| item.decision.blockers().iter().map(Blocker::code).collect::<Vec<_>>().join("\n"))
        .collect();
    let rows = sqlx::query!(
        r"UPDATE enriched_leads e
          SET decision = n.decision, decision_reasons = string_to_array(n.reasons, E'\n'),
              decided_version = n.version, decided_at = now()
          FROM UNNEST($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[])
               AS n (program_id, lead_id, version, decision, reasons)
          WHERE e.program_id = n.program_id AND e.lead_id = n.lead_id AND e.enrichment_version = n.version
            AND (e.decided_version IS NULL OR e.decided_version < n.version)
          RETURNING e.program_id, e.lead_id",
        &programs,
        &leads,
        &versions,
        &decisions,
        &reasons,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id))).collect())
}

/// The columns of mails.
struct Columns {
    programs: Vec<Uuid>,
    ids: Vec<Uuid>,
    leads: Vec<Uuid>,
    campaigns: Vec<String>,
    steps: Vec<i16>,
    recipients: Vec<Vec<u8>>,
    message_ids: Vec<String>,
    versions: Vec<i32>,
    states: Vec<String>,
    reasons: Vec<Option<String>>,
    tokens: Vec<Option<Uuid>>,
}

impl Columns {
    fn of(items: &[PlanItem], order: &[usize]) -> Self {
        let chosen: Vec<(&PlanItem, &PlannedMail)> =
            order.iter().filter_map(|index| items[*index].mail.as_ref().map(|mail| (&items[*index], mail))).collect();
        let token = |item: &PlanItem, mail: &PlannedMail| match (&item.decision, mail.start) {
            (Decision::Plan, Start::Claimed(token)) => Some(token.as_uuid()),
            _ => None,
        };
        let state = |item: &PlanItem, mail: &PlannedMail| match (&item.decision, mail.start) {
            (Decision::Plan, Start::Claimed(_)) => "connecting",
            (Decision::Plan, Start::Queued) => "queued",
            _ => "held",
        };
        Self {
            programs: chosen.iter().map(|(item, _)| item.program_id.as_uuid()).collect(),
            ids: chosen.iter().map(|(_, mail)| mail.id.as_uuid()).collect(),
            leads: chosen.iter().map(|(item, _)| item.lead_id.as_uuid()).collect(),
            campaigns: chosen.iter().map(|(_, mail)| mail.step.campaign.clone()).collect(),
            steps: chosen.iter().map(|(_, mail)| mail.step.step).collect(),
            recipients: chosen.iter().map(|(_, mail)| mail.recipient.to_vec()).collect(),
            message_ids: chosen.iter().map(|(_, mail)| mail.message_id.clone()).collect(),
            versions: chosen.iter().map(|(item, _)| item.enrichment_version).collect(),
            states: chosen.iter().map(|(item, mail)| state(item, mail).to_owned()).collect(),
            reasons: chosen.iter().map(|(item, _)| item.decision.blockers().first().map(Blocker::code)).collect(),
            tokens: chosen.iter().map(|(item, mail)| token(item, mail)).collect(),
        }
    }
}

/// Inserts the mails whose lead has none yet and whose recipient nobody holds; returns the rows' ids.
async fn insert(
    connection: &mut Connection,
    items: &[PlanItem],
    order: &[usize],
    lease_seconds: i32,
) -> Result<HashSet<Uuid>, StoreError> {
    if order.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(items, order);
    let inserted = sqlx::query_scalar!(
        "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                               state, reason, message_id, enrichment_version, attempts, due_at, lease_token, created_at,
                               updated_at)
         SELECT program_id, id, lead_id, campaign, step, recipient, recipient, $1, state::outreach_state, reason,
                message_id, version, CASE state WHEN 'connecting' THEN 1 ELSE 0 END,
                CASE state WHEN 'connecting' THEN now() + $2 * interval '1 second' WHEN 'queued' THEN now() END,
                token, now(), now()
         FROM UNNEST($3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::smallint[], $8::bytea[], $9::text[], $10::int[],
                     $11::text[], $12::text[], $13::uuid[])
              AS n (program_id, id, lead_id, campaign, step, recipient, message_id, version, state, reason, token)
         ON CONFLICT DO NOTHING
         RETURNING id",
        INDEX_VERSION,
        f64::from(lease_seconds),
        &columns.programs,
        &columns.ids,
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
        &columns.recipients,
        &columns.message_ids,
        &columns.versions,
        &columns.states,
        &columns.reasons as &[Option<String>],
        &columns.tokens as &[Option<Uuid>],
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Lets rows that exist already, and of which nothing has gone out, follow the newer enrichment. Returns the leads that
/// have a row at all.
async fn replan(
    connection: &mut Connection,
    items: &[PlanItem],
    order: &[usize],
) -> Result<HashSet<(ProgramId, LeadId)>, StoreError> {
    if order.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(items, order);
    sqlx::query!(
        "UPDATE outreach o
         SET enrichment_version = n.version, updated_at = now(),
             state = CASE WHEN n.reason IS NULL AND o.state = 'held' AND o.recipient_key IS NOT NULL
                          THEN 'queued'::outreach_state
                          WHEN n.reason IS NOT NULL THEN 'held'::outreach_state ELSE o.state END,
             due_at = CASE WHEN n.reason IS NULL AND o.state = 'held' AND o.recipient_key IS NOT NULL THEN now()
                           WHEN n.reason IS NOT NULL THEN NULL ELSE o.due_at END,
             reason = CASE WHEN n.reason IS NULL AND o.state = 'held' AND o.recipient_key IS NOT NULL THEN NULL
                           ELSE coalesce(n.reason, o.reason) END
         FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::int[], $6::text[])
              AS n (program_id, lead_id, campaign, step, version, reason)
         WHERE o.program_id = n.program_id AND o.lead_id = n.lead_id AND o.campaign = n.campaign AND o.step = n.step
           AND o.state IN ('queued', 'held', 'deferred')",
        &columns.programs,
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
        &columns.versions,
        &columns.reasons as &[Option<String>],
    )
    .execute(&mut *connection)
    .await?;
    let existing = sqlx::query!(
        "SELECT o.program_id, o.lead_id FROM outreach o
         JOIN UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::smallint[]) AS n (program_id, lead_id, campaign, step)
              USING (program_id, lead_id, campaign, step)",
        &columns.programs,
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
    )
    .fetch_all(connection)
    .await?;
    Ok(existing.into_iter().map(|row| (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id))).collect())
}

/// Inserts the mails whose recipient another lead holds, as held duplicates; returns the rows' ids.
async fn insert_duplicates(
    connection: &mut Connection,
    items: &[PlanItem],
    order: &[usize],
) -> Result<HashSet<Uuid>, StoreError> {
    if order.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(items, order);
    let inserted = sqlx::query_scalar!(
        "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, index_version, state, reason,
                               message_id, enrichment_version, created_at, updated_at)
         SELECT program_id, id, lead_id, campaign, step, recipient, $1, 'held', 'duplicate_recipient', message_id, version,
                now(), now()
         FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::smallint[], $7::bytea[], $8::text[], $9::int[])
              AS n (program_id, id, lead_id, campaign, step, recipient, message_id, version)
         ON CONFLICT DO NOTHING
         RETURNING id",
        INDEX_VERSION,
        &columns.programs,
        &columns.ids,
        &columns.leads,
        &columns.campaigns,
        &columns.steps,
        &columns.recipients,
        &columns.message_ids,
        &columns.versions,
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Cancels what hasn't gone out to leads that no longer qualify; a duplicate that waited for the recipient takes over.
async fn cancel_unsent(connection: &mut Connection, items: &[PlanItem], order: &[usize]) -> Result<(), StoreError> {
    if order.is_empty() {
        return Ok(());
    }
    let programs: Vec<Uuid> = order.iter().map(|index| items[*index].program_id.as_uuid()).collect();
    let leads: Vec<Uuid> = order.iter().map(|index| items[*index].lead_id.as_uuid()).collect();
    // Two statements, since a key is free for the heir only once the first has let go of it.
    let released = sqlx::query!(
        "UPDATE outreach o
         SET state = 'cancelled', reason = 'no_longer_qualified', due_at = NULL, recipient_key = NULL, updated_at = now()
         FROM UNNEST($1::uuid[], $2::uuid[]) AS n (program_id, lead_id)
         WHERE o.program_id = n.program_id AND o.lead_id = n.lead_id AND o.state IN ('queued', 'held', 'deferred')
         RETURNING o.program_id, o.recipient_index, o.campaign, o.step",
        &programs,
        &leads,
    )
    .fetch_all(&mut *connection)
    .await?;
    if released.is_empty() {
        return Ok(());
    }
    let programs: Vec<Uuid> = released.iter().map(|row| row.program_id).collect();
    let recipients: Vec<Vec<u8>> = released.iter().map(|row| row.recipient_index.clone()).collect();
    let campaigns: Vec<String> = released.iter().map(|row| row.campaign.clone()).collect();
    let steps: Vec<i16> = released.iter().map(|row| row.step).collect();
    sqlx::query!(
        "UPDATE outreach o
         SET state = 'queued', reason = NULL, due_at = now(), recipient_key = o.recipient_index, updated_at = now()
         FROM (SELECT DISTINCT ON (o.program_id, o.recipient_index, o.campaign, o.step) o.program_id, o.id
               FROM UNNEST($1::uuid[], $2::bytea[], $3::text[], $4::smallint[])
                    AS n (program_id, recipient_index, campaign, step)
               JOIN leads l ON l.program_id = n.program_id AND l.email_index = n.recipient_index
               JOIN outreach o ON o.program_id = l.program_id AND o.lead_id = l.id AND o.campaign = n.campaign
                    AND o.step = n.step AND o.recipient_index = n.recipient_index
               WHERE o.state = 'held' AND o.reason = 'duplicate_recipient'
               ORDER BY o.program_id, o.recipient_index, o.campaign, o.step, o.id) heir
         WHERE o.program_id = heir.program_id AND o.id = heir.id
           AND NOT EXISTS (SELECT FROM outreach holder
                           WHERE holder.program_id = o.program_id AND holder.recipient_key = o.recipient_index
                             AND holder.campaign = o.campaign AND holder.step = o.step)",
        &programs,
        &recipients,
        &campaigns,
        &steps,
    )
    .execute(connection)
    .await?;
    Ok(())
}
