//! Programs, their keys, and a short-lived cache of both.

mod change;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    email::EmailAddress,
    id::{OrganisationId, ProgramId},
    program::{Program, ProgramSettings, Slug},
};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use vault::{ProgramKeys, Vault};

pub use self::change::{Change, Changed, Version, by_slug_with_version, law_version, set};
use crate::{Connection, Db, StoreError, organisations::OpenOrganisation, unreadable};

/// A program with its keys unwrapped.
#[derive(Debug, Clone)]
pub struct OpenProgram {
    /// The program.
    pub program: Program,
    /// Its keys.
    pub keys: ProgramKeys,
    /// Whether it was resting when it was read: nothing of it may be claimed.
    pub rests: bool,
}

/// Creates a program with new keys, in an organisation of its own.
///
/// # Errors
/// [`StoreError::Conflict`] when the short name is taken.
pub async fn create(
    db: &Db,
    vault: &Vault,
    slug: &Slug,
    settings: &ProgramSettings,
    now: OffsetDateTime,
) -> Result<OpenProgram, StoreError> {
    let id = ProgramId::generate();
    store(db, vault, slug, settings, ProgramKeys::generate(id), None, now).await
}

/// Creates a program of an organisation, whose blind indexes and suppressions it shares; its other keys are its own.
///
/// # Errors
/// [`StoreError::Conflict`] when the short name is taken.
pub async fn create_in(
    db: &Db,
    vault: &Vault,
    organisation: &OpenOrganisation,
    slug: &Slug,
    settings: &ProgramSettings,
    now: OffsetDateTime,
) -> Result<OpenProgram, StoreError> {
    let keys = ProgramKeys::generate_in(ProgramId::generate(), &organisation.keys);
    store(db, vault, slug, settings, keys, Some(organisation.organisation.id), now).await
}

async fn store(
    db: &Db,
    vault: &Vault,
    slug: &Slug,
    settings: &ProgramSettings,
    keys: ProgramKeys,
    organisation: Option<OrganisationId>,
    now: OffsetDateTime,
) -> Result<OpenProgram, StoreError> {
    let id = keys.program();
    let wrapped = vault.wrap_program_keys(id, &keys);
    let inserted = db
        .transact("program.create", |tx, _| {
            let wrapped = wrapped.clone();
            Box::pin(async move { insert(tx, id, slug, settings, &wrapped, organisation, now).await })
        })
        .await?;
    if !inserted {
        return Err(StoreError::Conflict(format!("there is a program `{slug}` already")));
    }
    Ok(OpenProgram { program: Program { id, slug: slug.clone(), settings: settings.clone() }, keys, rests: false })
}

async fn insert(
    connection: &mut Connection,
    id: ProgramId,
    slug: &Slug,
    settings: &ProgramSettings,
    wrapped_keys: &[u8],
    organisation: Option<OrganisationId>,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    // Without an organisation, a trigger gives it one of its own, as it does for releases that don't know of them.
    let inserted = sqlx::query!(
        "INSERT INTO programs (id, slug, name, sender_name, sender_email, reply_to, postal_address, privacy_url,
                               threshold, niches, product, basis, daily_cap, paused, wrapped_keys, created_at, updated_at,
                               organisation_id, law_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16, $17, $18)
         ON CONFLICT (slug) DO NOTHING",
        id.as_uuid(),
        slug.as_str(),
        settings.name,
        settings.sender_name,
        settings.sender_email.as_ref().map(EmailAddress::as_str),
        settings.reply_to.as_ref().map(EmailAddress::as_str),
        settings.postal_address,
        settings.privacy_url,
        settings.threshold,
        &settings.niches,
        settings.product,
        settings.basis.name(),
        settings.daily_cap,
        settings.paused,
        wrapped_keys,
        now,
        organisation.map(|organisation| organisation.as_uuid()),
        // Nothing was decided by older rules.
        law_version(),
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Pauses a program's sending until a person resumes it. `reason` is shown to people and names no recipient. `false` when it is
/// paused already: the first reason stays.
pub async fn pause(
    connection: &mut Connection,
    id: ProgramId,
    reason: &str,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let paused = sqlx::query!(
        "UPDATE programs SET paused = true, version = version + 1, paused_reason = $3, paused_at = $2, updated_at = $2
         WHERE id = $1 AND NOT paused",
        id.as_uuid(),
        now,
        reason,
    )
    .execute(connection)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Every program that this version can read, by short name.
pub async fn list(connection: &mut Connection) -> Result<Vec<Program>, StoreError> {
    let rows = select(connection, None, None).await?;
    Ok(rows.into_iter().filter_map(|row| unreadable::readable("programs", row.id, row.try_into())).collect())
}

/// The ids of every program.
pub async fn ids(connection: &mut Connection) -> Result<Vec<ProgramId>, StoreError> {
    let ids = sqlx::query_scalar!("SELECT id FROM programs ORDER BY id").fetch_all(connection).await?;
    Ok(ids.into_iter().map(ProgramId::from_uuid).collect())
}

/// A program as it is at this moment, without its keys.
#[derive(Debug, Clone)]
pub(crate) struct CurrentProgram {
    pub(crate) program: Program,
    /// Whether its mails may be claimed.
    pub(crate) may_claim: bool,
}

/// Reads programs by their ids, past every cache. One that this version can't read is left out, so that it doesn't stop the
/// others.
pub(crate) async fn current(
    connection: &mut Connection,
    ids: &[ProgramId],
) -> Result<HashMap<ProgramId, CurrentProgram>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for id in ids {
        for row in select(connection, Some(*id), None).await? {
            let rests = row.rests;
            match Program::try_from(row) {
                Ok(program) => {
                    let may_claim = !program.settings.paused && !rests;
                    found.insert(*id, CurrentProgram { program, may_claim });
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(program.id = %id, error, "a program can't be read; nothing is planned for it");
                }
            }
        }
    }
    Ok(found)
}

/// The most mails that a program may start in a day, as it is at this moment.
pub async fn daily_cap(connection: &mut Connection, id: ProgramId) -> Result<Option<i32>, StoreError> {
    let cap = sqlx::query_scalar!("SELECT daily_cap FROM programs WHERE id = $1", id.as_uuid())
        .fetch_optional(connection)
        .await?;
    Ok(cap.flatten())
}

/// Looks a program up by short name.
pub async fn by_slug(connection: &mut Connection, slug: &Slug) -> Result<Option<Program>, StoreError> {
    let rows = select(connection, None, Some(slug)).await?;
    rows.into_iter().next().map(TryInto::try_into).transpose()
}

struct Row {
    id: uuid::Uuid,
    slug: String,
    name: String,
    sender_name: String,
    sender_email: Option<String>,
    reply_to: Option<String>,
    postal_address: Option<String>,
    privacy_url: Option<String>,
    threshold: i16,
    niches: Vec<String>,
    product: String,
    basis: String,
    daily_cap: Option<i32>,
    paused: bool,
    wrapped_keys: Vec<u8>,
    rests: bool,
    version: i32,
}

async fn select(
    connection: &mut Connection,
    id: Option<ProgramId>,
    slug: Option<&Slug>,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, slug, name, sender_name, sender_email, reply_to, postal_address, privacy_url, threshold, niches,
                  product, basis, daily_cap, paused, wrapped_keys, coalesce(rest_until > now(), false) AS "rests!", version
           FROM programs
           WHERE ($1::uuid IS NULL OR id = $1) AND ($2::text IS NULL OR slug = $2)
           ORDER BY slug"#,
        id.map(|id| id.as_uuid()),
        slug.map(Slug::as_str),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

impl TryFrom<Row> for Program {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let inconsistent =
            |column, detail: String| StoreError::Inconsistent { table: "programs", column, row: row.id, detail };
        let address = |column, text: Option<String>| {
            text.map(|text| text.parse::<EmailAddress>().map_err(|error| inconsistent(column, error.to_string())))
                .transpose()
        };
        Ok(Self {
            id: ProgramId::from_uuid(row.id),
            slug: row
                .slug
                .parse()
                .map_err(|error: domain::program::InvalidSlug| inconsistent("slug", error.to_string()))?,
            settings: ProgramSettings {
                name: row.name,
                sender_name: row.sender_name,
                sender_email: address("sender_email", row.sender_email)?,
                reply_to: address("reply_to", row.reply_to)?,
                postal_address: row.postal_address,
                privacy_url: row.privacy_url,
                threshold: row.threshold,
                niches: row.niches,
                product: row.product,
                basis: row
                    .basis
                    .parse()
                    .map_err(|error: domain::event::UnknownName| inconsistent("basis", error.to_string()))?,
                daily_cap: row.daily_cap,
                paused: row.paused,
            },
        })
    }
}

/// How long a cached program is believed. Whatever must hold at the moment of sending is checked again in the database.
const CACHE_LIFE: Duration = Duration::from_secs(3);

/// Programs and when they were read.
type Cache = HashMap<ProgramId, (Instant, Arc<OpenProgram>)>;

/// Programs with their keys, cached for a few seconds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory {
    db: Db,
    vault: Vault,
    cache: Arc<Mutex<Cache>>,
}

impl Directory {
    /// A directory over `db` that unwraps keys with `vault`.
    pub fn new(db: Db, vault: Vault) -> Self {
        Self { db, vault, cache: Arc::default() }
    }

    /// The vault that unwraps keys.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The program with this id.
    pub async fn get(&self, id: ProgramId) -> Result<Option<Arc<OpenProgram>>, StoreError> {
        // The lock is held while the program is read, so that a burst of questions asks the database once.
        let mut cache = self.cache.lock().await;
        if let Some((_, program)) = cache.get(&id).filter(|(read, _)| read.elapsed() < CACHE_LIFE) {
            return Ok(Some(Arc::clone(program)));
        }
        let found = self.read(Some(id), None).await?;
        match &found {
            Some(program) => cache.insert(id, (Instant::now(), Arc::clone(program))),
            None => cache.remove(&id),
        };
        Ok(found)
    }

    /// The program with this short name, read afresh.
    pub async fn by_slug(&self, slug: &Slug) -> Result<Option<Arc<OpenProgram>>, StoreError> {
        self.read(None, Some(slug)).await
    }

    async fn read(&self, id: Option<ProgramId>, slug: Option<&Slug>) -> Result<Option<Arc<OpenProgram>>, StoreError> {
        let rows =
            self.db.transact("program.read", |tx, _| Box::pin(async move { select(tx, id, slug).await })).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let id = ProgramId::from_uuid(row.id);
        let keys = self.vault.unwrap_program_keys(id, &row.wrapped_keys).map_err(|source| StoreError::Sealed {
            table: "programs",
            row: row.id,
            source,
        })?;
        let rests = row.rests;
        Ok(Some(Arc::new(OpenProgram { program: row.try_into()?, keys, rests })))
    }
}
