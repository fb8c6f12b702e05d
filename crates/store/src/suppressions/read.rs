//! Reading causes, page by page. What is stored names nobody: hashes, causes and times.

use domain::{
    id::{CauseId, OrganisationId},
    suppression::Cause,
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::BlindIndex;

use super::SuppressionScope;
use crate::{Connection, StoreError};

/// Which causes.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this organisation; with a program, what holds there: its own, and those of the whole organisation.
    pub scope: Option<SuppressionScope>,
    /// About this subject.
    pub subject: Option<BlindIndex>,
    /// Of this name, such as `objection`.
    pub cause: Option<String>,
    /// Of this do-not-contact list.
    pub list: Option<String>,
}

/// A cause, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCause {
    /// Its organisation.
    pub organisation: OrganisationId,
    /// Its id; pass the last one to [`page`] for the next page.
    pub id: CauseId,
    /// The short name of the program that it holds for; `None` for all of the organisation.
    pub program: Option<String>,
    /// `email`, `handle` or `domain`.
    pub kind: String,
    /// The keyed hash.
    pub index: Vec<u8>,
    /// Whether it is the domains below one.
    pub subdomains: bool,
    /// Why.
    pub cause: Cause,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
    /// Who did it.
    pub created_by: String,
}

/// Up to `limit` causes of an organisation before the id `before`, newest first.
pub async fn page(
    connection: &mut Connection,
    filter: &Filter,
    before: Option<CauseId>,
    limit: i64,
) -> Result<Vec<StoredCause>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT c.organisation_id, c.id, c.kind, c.subject_index, c.subdomains, c.cause, c.list, c.created_at,
                  c.created_by, (SELECT slug FROM programs WHERE id = c.program_id) AS "program?"
           FROM suppression_causes c
           WHERE ($1::uuid IS NULL OR c.organisation_id = $1)
             AND ($2::uuid IS NULL OR c.program_id = $2 OR c.program_id IS NULL)
             AND ($3::bytea IS NULL OR c.subject_index = $3) AND ($4::text IS NULL OR c.cause = $4)
             AND ($5::text IS NULL OR c.list = $5) AND ($6::uuid IS NULL OR c.id < $6)
           ORDER BY c.id DESC LIMIT $7"#,
        filter.scope.map(|scope| scope.organisation.as_uuid()),
        filter.scope.and_then(|scope| scope.program).map(|program| program.as_uuid()),
        filter.subject.map(BlindIndex::to_vec),
        filter.cause,
        filter.list,
        before.map(|before| before.as_uuid()),
        limit,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(StoredCause {
                organisation: OrganisationId::from_uuid(row.organisation_id),
                id: CauseId::from_uuid(row.id),
                program: row.program,
                kind: row.kind,
                index: row.subject_index,
                subdomains: row.subdomains,
                cause: Cause::parse(&row.cause, row.list.as_deref())
                    .map_err(|error| inconsistent(row.id, error.to_string()))?,
                created_at: row.created_at,
                created_by: row.created_by,
            })
        })
        .collect()
}

fn inconsistent(row: Uuid, detail: String) -> StoreError {
    StoreError::Inconsistent { table: "suppression_causes", column: "cause", row, detail }
}

/// How many of these subjects have this cause already, in this scope.
pub async fn count(
    connection: &mut Connection,
    scope: SuppressionScope,
    subjects: &[BlindIndex],
    cause: Cause,
) -> Result<u64, StoreError> {
    let subjects: Vec<Vec<u8>> = subjects.iter().map(|subject| subject.to_vec()).collect();
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM UNNEST($1::bytea[]) AS n (subject)
           WHERE EXISTS (SELECT FROM suppression_causes c
                         WHERE c.subject_index = n.subject AND c.organisation_id = $2
                           AND c.program_id IS NOT DISTINCT FROM $3 AND c.cause = $4)"#,
        &subjects,
        scope.organisation.as_uuid(),
        scope.program.map(|program| program.as_uuid()) as Option<Uuid>,
        cause.name(),
    )
    .fetch_one(connection)
    .await?;
    Ok(count as u64)
}
