//! Recording causes, with what follows from them at once.

use domain::{
    id::{CauseId, OrganisationId, ProgramId},
    suppression::{Cause, ContactList, SubjectKind},
};
use uuid::Uuid;
use vault::{BlindIndex, INDEX_VERSION};

use super::{SubjectIndex, SuppressionScope, cover};
use crate::{Connection, StoreError, organisations};

/// A cause to be recorded.
#[derive(Debug, Clone)]
pub struct NewCause {
    /// Its id, which the evidence is bound to.
    pub id: CauseId,
    /// Whom it is about.
    pub subject: SubjectIndex,
    /// Why.
    pub cause: Cause,
    /// A person's reason, sealed under the key of the scope.
    pub evidence: Option<Vec<u8>>,
}

/// What was recorded.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// How many causes were not there before.
    pub added: u64,
    /// Recipients that are suppressed now and were not before. Once this is committed, cancel what is unsent to them:
    /// [`recipients::cancel_suppressed`](crate::outreach::recipients::cancel_suppressed).
    pub suppressed: Vec<(ProgramId, BlindIndex)>,
    /// Whether leads are left that a cause covers and that have no row yet: [`apply_causes`](super::apply_causes) goes on.
    pub unfinished: bool,
}

/// Takes the organisation's lock until the transaction ends: alone, to lift a cause, or shared, to add one.
pub(super) async fn lock(
    connection: &mut Connection,
    organisation: OrganisationId,
    alone: bool,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"SELECT CASE WHEN $2 THEN pg_advisory_xact_lock(hashtextextended($1, 0))::text
                       ELSE pg_advisory_xact_lock_shared(hashtextextended($1, 0))::text END AS locked"#,
        organisation.to_string(),
        alone,
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// The programs of a scope.
pub async fn programs_of(connection: &mut Connection, scope: &SuppressionScope) -> Result<Vec<ProgramId>, StoreError> {
    match scope.program {
        Some(program) => Ok(vec![program]),
        None => organisations::programs(connection, scope.organisation).await,
    }
}

/// Records causes, at most a thousand, and suppresses whom they cover. Those that are there already stay as they are. `by` says
/// who does it: `person:` and a name, or `process:` and a name.
pub async fn record(
    connection: &mut Connection,
    scope: SuppressionScope,
    causes: &[NewCause],
    by: &str,
) -> Result<Recorded, StoreError> {
    lock(connection, scope.organisation, false).await?;
    let mut sorted: Vec<&NewCause> = causes.iter().collect();
    sorted.sort_unstable_by_key(|cause| (cause.subject.index, cause.cause.name()));
    let ids: Vec<Uuid> = sorted.iter().map(|cause| cause.id.as_uuid()).collect();
    let kinds: Vec<String> = sorted.iter().map(|cause| cause.subject.kind.name().to_owned()).collect();
    let indexes: Vec<Vec<u8>> = sorted.iter().map(|cause| cause.subject.index.to_vec()).collect();
    let subdomains: Vec<bool> = sorted.iter().map(|cause| cause.subject.subdomains).collect();
    let names: Vec<String> = sorted.iter().map(|cause| cause.cause.name().to_owned()).collect();
    let lists: Vec<Option<String>> =
        sorted.iter().map(|cause| cause.cause.list().map(|list| ContactList::name(list).to_owned())).collect();
    let evidence: Vec<Option<Vec<u8>>> = sorted.iter().map(|cause| cause.evidence.clone()).collect();
    let added = sqlx::query!(
        "INSERT INTO suppression_causes (organisation_id, id, program_id, kind, subject_index, index_version, subdomains,
                                         cause, list, evidence, created_at, created_by, applied_at)
         SELECT $1, id, $2, kind, subject_index, $3, subdomains, cause, list, evidence, now(), $4,
                CASE kind WHEN 'email' THEN now() END
         FROM UNNEST($5::uuid[], $6::text[], $7::bytea[], $8::boolean[], $9::text[], $10::text[], $11::bytea[])
              AS n (id, kind, subject_index, subdomains, cause, list, evidence)
         ON CONFLICT DO NOTHING",
        scope.organisation.as_uuid(),
        scope.program.map(|program| program.as_uuid()),
        INDEX_VERSION,
        by,
        &ids,
        &kinds,
        &indexes,
        &subdomains,
        &names,
        &lists as &[Option<String>],
        &evidence as &[Option<Vec<u8>>],
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let programs = programs_of(connection, &scope).await?;
    let mut recorded = Recorded { added, ..Recorded::default() };
    let subjects = |kind: SubjectKind| -> Vec<(BlindIndex, Cause)> {
        let of_kind = sorted.iter().filter(|cause| cause.subject.kind == kind);
        of_kind.map(|cause| (cause.subject.index, cause.cause)).collect()
    };
    for program in &programs {
        recorded.suppressed.extend(cover::by_address(connection, *program, &subjects(SubjectKind::Email)).await?);
    }
    for covering in [
        cover::by_handle(connection, &programs, &subjects(SubjectKind::Handle)).await?,
        cover::by_domain(connection, &programs, &subjects(SubjectKind::Domain)).await?,
    ] {
        recorded.unfinished |= covering.unfinished;
        recorded.suppressed.extend(covering.suppressed);
    }
    Ok(recorded)
}
