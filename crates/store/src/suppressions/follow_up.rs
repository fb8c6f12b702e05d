//! What is left to do after a cause was recorded or lifted, and the jobs that see to it if nobody else does.

use domain::{
    clock::{Clock as _, SystemClock},
    id::{CauseId, LeadId, LiftId, OrganisationId, ProgramId},
    suppression::{Cause, SubjectKind},
};
use uuid::Uuid;
use vault::BlindIndex;

use super::{
    IN_FLIGHT, SuppressionScope, causes, cover,
    lift::{self, LiftedSubject},
    standing,
};
use crate::{
    Connection, Db, StoreError, leads,
    outreach::{
        plan::{self, PlanItem},
        recipients,
    },
    reanalysis,
};

/// Causes, or leads, of one transaction.
const PAGE: usize = 500;

/// The job: suppresses the leads that causes by user name and domain cover, and decides again about those that lifted ones did;
/// returns how many recipients and leads there were.
///
/// # Errors
/// When the database fails; the next run goes on.
pub async fn apply_causes(db: Db) -> Result<u64, StoreError> {
    let mut count = 0;
    let organisations = db
        .transact("suppressions.organisations", |tx, _| {
            Box::pin(
                async move { Ok(sqlx::query_scalar!("SELECT id FROM organisations ORDER BY id").fetch_all(tx).await?) },
            )
        })
        .await?;
    for organisation in organisations.into_iter().map(OrganisationId::from_uuid) {
        let mut after = CauseId::from_uuid(Uuid::nil());
        loop {
            let page = db.transact("suppressions.cover", |tx, _| Box::pin(apply_page(tx, organisation, after))).await?;
            count += page.suppressed.len() as u64;
            cancel(&db, &page.suppressed).await?;
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        let lifts = db.transact("suppressions.lifts", |tx, _| Box::pin(lift::unapplied(tx, organisation))).await?;
        for (id, subject) in lifts {
            count += decide_again(&db, organisation, id, &subject).await?;
        }
    }
    Ok(count)
}

/// Cancels what is unsent to recipients that were suppressed just now.
///
/// # Errors
/// When the database fails; a job does it some minutes later.
pub async fn cancel(db: &Db, suppressed: &[(ProgramId, BlindIndex)]) -> Result<(), StoreError> {
    let mut sorted = suppressed.to_vec();
    sorted.sort_unstable();
    for of_program in sorted.chunk_by(|(one, _), (next, _)| one == next) {
        for page in of_program.chunks(PAGE) {
            let program = page[0].0;
            let page: Vec<BlindIndex> = page.iter().map(|(_, recipient)| *recipient).collect();
            let page = page.as_slice();
            db.transact("suppressions.cancel", |tx, _| {
                Box::pin(async move { recipients::cancel_suppressed(tx, program, page).await })
            })
            .await?;
        }
    }
    Ok(())
}

/// A cause that is applied to leads.
type AppliedCause = (SubjectKind, BlindIndex, Cause);

struct AppliedPage {
    suppressed: Vec<(ProgramId, BlindIndex)>,
    /// Where the next page begins; the same causes again while leads of theirs are left.
    next: Option<CauseId>,
}

/// Suppresses leads that a page of causes covers. Causes so old that no lead can still be on its way that was taken in without
/// knowing of them are done with.
async fn apply_page(
    connection: &mut Connection,
    organisation: OrganisationId,
    after: CauseId,
) -> Result<AppliedPage, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, program_id, kind, subject_index, cause, list, created_at < now() - $3 * interval '1 second' AS "is_settled!"
           FROM suppression_causes
           WHERE organisation_id = $1 AND id > $2 AND applied_at IS NULL ORDER BY id LIMIT $4"#,
        organisation.as_uuid(),
        after.as_uuid(),
        IN_FLIGHT.as_secs_f64(),
        PAGE as i64,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut page = AppliedPage { suppressed: Vec::new(), next: None };
    if rows.is_empty() {
        return Ok(page);
    }
    let mut scopes: Vec<(Option<Uuid>, Vec<AppliedCause>)> = Vec::new();
    for row in &rows {
        let cause =
            Cause::parse(&row.cause, row.list.as_deref()).map_err(|error| inconsistent(row.id, error.to_string()))?;
        let index = BlindIndex::try_from(row.subject_index.as_slice())
            .map_err(|error| inconsistent(row.id, error.to_string()))?;
        let kind = if row.kind == SubjectKind::Handle.name() { SubjectKind::Handle } else { SubjectKind::Domain };
        match scopes.iter_mut().find(|(program, _)| *program == row.program_id) {
            Some((_, subjects)) => subjects.push((kind, index, cause)),
            None => scopes.push((row.program_id, vec![(kind, index, cause)])),
        }
    }
    let mut unfinished = false;
    for (program, subjects) in scopes {
        let scope = SuppressionScope { organisation, program: program.map(ProgramId::from_uuid) };
        let programs = causes::programs_of(connection, &scope).await?;
        let of = |wanted: SubjectKind| -> Vec<(BlindIndex, Cause)> {
            subjects.iter().filter(|(kind, ..)| *kind == wanted).map(|(_, index, cause)| (*index, *cause)).collect()
        };
        for covering in [
            cover::by_handle(connection, &programs, &of(SubjectKind::Handle)).await?,
            cover::by_domain(connection, &programs, &of(SubjectKind::Domain)).await?,
        ] {
            unfinished |= covering.unfinished;
            page.suppressed.extend(covering.suppressed);
        }
    }
    if unfinished {
        page.next = Some(after);
        return Ok(page);
    }
    let settled: Vec<Uuid> = rows.iter().filter(|row| row.is_settled).map(|row| row.id).collect();
    sqlx::query!(
        "UPDATE suppression_causes SET applied_at = now() WHERE organisation_id = $1 AND id = ANY($2)",
        organisation.as_uuid(),
        &settled,
    )
    .execute(connection)
    .await?;
    page.next = (rows.len() == PAGE).then(|| rows.last().map(|row| CauseId::from_uuid(row.id))).flatten();
    Ok(page)
}

fn inconsistent(row: Uuid, detail: String) -> StoreError {
    StoreError::Inconsistent { table: "suppression_causes", column: "cause", row, detail }
}

/// Decides again about the leads that a lifted cause covered and against whom nothing stands any more: their mails are planned
/// anew, and who was not analysed is. Returns how many leads there were.
///
/// # Errors
/// When the database fails; a job goes on.
pub async fn decide_again(
    db: &Db,
    organisation: OrganisationId,
    id: LiftId,
    subject: &LiftedSubject,
) -> Result<u64, StoreError> {
    let leads = db.transact("suppressions.covered", |tx, _| Box::pin(lift::covered(tx, subject))).await?;
    let mut count = 0;
    for page in leads.chunks(PAGE) {
        count += db.transact("suppressions.decide_again", |tx, _| Box::pin(free_page(tx, page))).await?;
    }
    db.transact("suppressions.lift_applied", |tx, _| {
        Box::pin(async move {
            sqlx::query!(
                "UPDATE suppression_lifts SET applied_at = now() WHERE organisation_id = $1 AND id = $2",
                organisation.as_uuid(),
                id.as_uuid(),
            )
            .execute(tx)
            .await?;
            Ok(())
        })
    })
    .await?;
    Ok(count)
}

async fn free_page(connection: &mut Connection, page: &[(ProgramId, LeadId)]) -> Result<u64, StoreError> {
    leads::lock_keys_for_update(connection, page).await?;
    let standing = standing(connection, page).await?;
    let mut free: Vec<_> = page.iter().copied().filter(|id| !standing.contains_key(id)).collect();
    free.sort_unstable();
    let (programs, ids) = leads::columns(&free);
    // Waiting for an analysis: the others, of which the decision is made again at once.
    let unanalysed = sqlx::query!(
        r#"SELECT w.program_id AS "program_id!", w.lead_id AS "lead_id!", l.revision
           FROM UNNEST($1::uuid[], $2::uuid[]) AS w (program_id, lead_id)
           CROSS JOIN LATERAL (SELECT revision FROM leads
                               WHERE program_id = w.program_id AND id = w.lead_id OFFSET 0) l
           LEFT JOIN LATERAL (SELECT lead_revision FROM enriched_leads
                              WHERE program_id = w.program_id AND lead_id = w.lead_id OFFSET 0) e ON true
           WHERE coalesce(e.lead_revision, 0) < l.revision"#,
        &programs,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let unanalysed: Vec<_> = unanalysed
        .into_iter()
        .map(|row| (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id), row.revision))
        .collect();
    let items: Vec<PlanItem> = free.iter().map(|(program, lead)| PlanItem::again(*program, *lead)).collect();
    plan::plan(connection, &items).await?;
    reanalysis::raise(connection, &unanalysed, SystemClock.now()).await?;
    Ok(free.len() as u64)
}
