//! Organisations: the controllers above programs. Each owns the key of its programs' blind indexes, and the suppressions that
//! are for all of them.

use domain::{
    id::{OrganisationId, ProgramId},
    program::Slug,
};
use time::OffsetDateTime;
use vault::{OrganisationKeys, Vault};

use crate::{Connection, Db, StoreError};

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// The organisation.
    pub id: OrganisationId,
    /// Its short name, unique.
    pub slug: Slug,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The short names of its programs.
    pub programs: Vec<String>,
}

/// An organisation with its keys unwrapped.
#[derive(Debug, Clone)]
pub struct OpenOrganisation {
    /// The organisation.
    pub organisation: Organisation,
    /// Its keys.
    pub keys: OrganisationKeys,
}

/// Creates an organisation with new keys.
///
/// # Errors
/// [`StoreError::Conflict`] when the short name is taken.
pub async fn create(
    db: &Db,
    vault: &Vault,
    slug: &Slug,
    name: &str,
    now: OffsetDateTime,
) -> Result<Organisation, StoreError> {
    let id = OrganisationId::generate();
    let wrapped = vault.wrap_organisation_keys(id, &OrganisationKeys::generate(id));
    let inserted = db
        .transact("organisation.create", |tx, _| {
            let wrapped = wrapped.clone();
            Box::pin(async move { insert(tx, id, slug, name, &wrapped, now).await })
        })
        .await?;
    if !inserted {
        return Err(StoreError::Conflict(format!("there is an organisation `{slug}` already")));
    }
    Ok(Organisation { id, slug: slug.clone(), name: name.to_owned(), created_at: now, programs: Vec::new() })
}

async fn insert(
    connection: &mut Connection,
    id: OrganisationId,
    slug: &Slug,
    name: &str,
    wrapped_keys: &[u8],
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query!(
        "INSERT INTO organisations (id, slug, name, wrapped_keys, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (slug) DO NOTHING",
        id.as_uuid(),
        slug.as_str(),
        name,
        wrapped_keys,
        now,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Every organisation, by short name.
pub async fn list(connection: &mut Connection) -> Result<Vec<Organisation>, StoreError> {
    select(connection, None, None).await?.into_iter().map(Row::without_keys).collect()
}

/// The organisation of a program.
pub async fn of_program(connection: &mut Connection, program: ProgramId) -> Result<Option<Organisation>, StoreError> {
    select(connection, None, Some(program)).await?.pop().map(Row::without_keys).transpose()
}

/// Looks an organisation up by short name.
pub async fn by_slug(connection: &mut Connection, slug: &Slug) -> Result<Option<Organisation>, StoreError> {
    select(connection, Some(slug), None).await?.pop().map(Row::without_keys).transpose()
}

/// Looks an organisation up by short name, and unwraps its keys.
pub async fn open(db: &Db, vault: &Vault, slug: &Slug) -> Result<Option<OpenOrganisation>, StoreError> {
    let row = db.transact("organisation.open", |tx, _| Box::pin(select(tx, Some(slug), None))).await?.pop();
    row.map(|row| row.open(vault)).transpose()
}

/// The programs of an organisation, by id.
pub(crate) async fn programs(
    connection: &mut Connection,
    organisation: OrganisationId,
) -> Result<Vec<ProgramId>, StoreError> {
    let ids =
        sqlx::query_scalar!("SELECT id FROM programs WHERE organisation_id = $1 ORDER BY id", organisation.as_uuid(),)
            .fetch_all(connection)
            .await?;
    Ok(ids.into_iter().map(ProgramId::from_uuid).collect())
}

struct Row {
    id: uuid::Uuid,
    slug: String,
    name: String,
    wrapped_keys: Vec<u8>,
    created_at: OffsetDateTime,
    programs: Vec<String>,
}

async fn select(
    connection: &mut Connection,
    slug: Option<&Slug>,
    program: Option<ProgramId>,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT o.id, o.slug, o.name, o.wrapped_keys, o.created_at,
                  ARRAY(SELECT p.slug FROM programs p WHERE p.organisation_id = o.id ORDER BY p.slug) AS "programs!"
           FROM organisations o
           WHERE ($1::text IS NULL OR o.slug = $1)
             AND ($2::uuid IS NULL OR o.id = (SELECT organisation_id FROM programs WHERE id = $2))
           ORDER BY o.slug"#,
        slug.map(Slug::as_str),
        program.map(|program| program.as_uuid()),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

impl Row {
    fn without_keys(self) -> Result<Organisation, StoreError> {
        Ok(Organisation {
            id: OrganisationId::from_uuid(self.id),
            slug: self.slug.parse().map_err(|error: domain::program::InvalidSlug| StoreError::Inconsistent {
                table: "organisations",
                column: "slug",
                row: self.id,
                detail: error.to_string(),
            })?,
            name: self.name,
            created_at: self.created_at,
            programs: self.programs,
        })
    }

    fn open(self, vault: &Vault) -> Result<OpenOrganisation, StoreError> {
        let keys = vault
            .unwrap_organisation_keys(OrganisationId::from_uuid(self.id), &self.wrapped_keys)
            .map_err(|source| StoreError::Sealed { table: "organisations", row: self.id, source })?;
        Ok(OpenOrganisation { organisation: self.without_keys()?, keys })
    }
}
