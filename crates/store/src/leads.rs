//! Leads: reading them and opening what is sealed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use domain::{
    email::EmailAddress,
    handle::Handle,
    id::{LeadId, ProgramId},
    lead::{Country, Lead, Profile, SourceName},
    profile_url::ProfileUrl,
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{BlindIndex, Column, DataKey, Sealed, Vault};

use crate::{Connection, Db, StoreError};

/// A lead whose fields are open, with the key that seals whatever is written about it.
#[derive(Debug, Clone)]
pub struct OpenLead {
    /// The lead.
    pub lead: Lead,
    /// Its key.
    pub key: DataKey,
    /// The revision that it was enriched at last.
    pub enriched_revision: Option<i32>,
}

/// What there is behind an id.
#[derive(Debug, Clone)]
pub enum Found {
    /// A lead.
    Lead(Box<OpenLead>),
    /// A lead that was erased.
    Erased,
    /// A lead that can't be opened: a sealed value was changed or moved, or holds what this program can't have written.
    Unreadable(Arc<StoreError>),
    /// Nothing: no such lead was ever stored.
    Unknown,
}

/// A profile's sealed columns, and the indexes beside them.
#[derive(Debug, Clone)]
pub(crate) struct SealedProfile {
    pub name: Option<Sealed>,
    pub username: Sealed,
    pub email: Option<Sealed>,
    pub profile_url: Option<Sealed>,
    pub bio: Option<Sealed>,
    pub location: Option<Sealed>,
    pub email_index: Option<BlindIndex>,
}

impl SealedProfile {
    pub(crate) fn seal(profile: &Profile, lead: LeadId, key: &DataKey, email_index: Option<BlindIndex>) -> Self {
        let seal = |column, text: &str| key.seal(column, lead, text.as_bytes());
        Self {
            name: profile.name.as_deref().map(|text| seal(Column::Name, text)),
            username: seal(Column::Username, profile.username.as_str()),
            email: profile.email.as_ref().map(|email| seal(Column::Email, email.as_str())),
            profile_url: profile.profile_url.as_ref().map(|url| seal(Column::ProfileUrl, url.as_str())),
            bio: profile.bio.as_deref().map(|text| seal(Column::Bio, text)),
            location: profile.location.as_deref().map(|text| seal(Column::Location, text)),
            email_index,
        }
    }
}

/// Reads and opens leads; one statement for all of them. A lead that was tampered with doesn't spoil the others; a master
/// key that isn't configured does, since then it is this process that can't read.
pub async fn open(
    db: &Db,
    vault: &Vault,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashMap<(ProgramId, LeadId), Found>, StoreError> {
    let rows = db.transact("leads.open", |tx, _| Box::pin(async move { select(tx, ids).await })).await?;
    let mut found: HashMap<_, _> = ids.iter().map(|id| (*id, Found::Unknown)).collect();
    for row in rows {
        let id = (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.id));
        let lead = match row.open(vault) {
            Ok(Some(lead)) => Found::Lead(Box::new(lead)),
            Ok(None) => Found::Erased,
            Err(error) => Found::Unreadable(error.of_the_row()?),
        };
        found.insert(id, lead);
    }
    Ok(found)
}

/// A row of `leads` with its key, still sealed.
pub(crate) struct SealedRow {
    pub program_id: Uuid,
    pub id: Uuid,
    pub source: String,
    pub name: Option<Vec<u8>>,
    pub username: Option<Vec<u8>>,
    pub email: Option<Vec<u8>>,
    pub profile_url: Option<Vec<u8>>,
    pub bio: Option<Vec<u8>>,
    pub location: Option<Vec<u8>>,
    pub country: Option<String>,
    pub follower_count: Option<i64>,
    pub verified: bool,
    pub revision: i32,
    pub created_at: OffsetDateTime,
    pub wrapped_key: Option<Vec<u8>>,
    pub lead_revision: Option<i32>,
}

pub(crate) async fn select(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<Vec<SealedRow>, StoreError> {
    let (programs, leads) = columns(ids);
    let rows = sqlx::query_as!(
        SealedRow,
        r#"SELECT l.program_id, l.id, l.source, l.name, l.username, l.email, l.profile_url, l.bio, l.location, l.country,
                  l.follower_count, l.verified, l.revision, l.created_at,
                  k.wrapped_key AS "wrapped_key?", e.lead_revision AS "lead_revision?"
           FROM UNNEST($1::uuid[], $2::uuid[]) AS w (program_id, id)
           JOIN leads l USING (program_id, id)
           LEFT JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id
           LEFT JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id"#,
        &programs,
        &leads,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// The two columns of a list of keys.
pub(crate) fn columns(ids: &[(ProgramId, LeadId)]) -> (Vec<Uuid>, Vec<Uuid>) {
    ids.iter().map(|(program, lead)| (program.as_uuid(), lead.as_uuid())).unzip()
}

impl SealedRow {
    /// Opens the row; `None` when its key is gone, which is what an erasure does.
    pub(crate) fn open(self, vault: &Vault) -> Result<Option<OpenLead>, StoreError> {
        let (program_id, id, row) = (ProgramId::from_uuid(self.program_id), LeadId::from_uuid(self.id), self.id);
        let (Some(wrapped), Some(username)) = (self.wrapped_key.as_deref(), self.username.as_deref()) else {
            return Ok(None);
        };
        let sealed = |source| StoreError::Sealed { table: "leads", row, source };
        let inconsistent = |column, detail: String| StoreError::Inconsistent { table: "leads", column, row, detail };
        let key = vault.unwrap_lead_key(program_id, id, wrapped).map_err(sealed)?;
        let text = |column, bytes: &Option<Vec<u8>>| {
            bytes.as_deref().map(|bytes| key.open_text(column, id, bytes).map_err(sealed)).transpose()
        };
        let username = key.open_text(Column::Username, id, username).map_err(sealed)?;
        let email = text(Column::Email, &self.email)?
            .map(|email| EmailAddress::parse(&email).map_err(|error| inconsistent("email", error.to_string())))
            .transpose()?;
        let profile_url = text(Column::ProfileUrl, &self.profile_url)?
            .map(|url| ProfileUrl::parse(&url).map_err(|error| inconsistent("profile_url", error.to_string())))
            .transpose()?;
        let country = self
            .country
            .as_deref()
            .map(|code| Country::parse(code).map_err(|error| inconsistent("country", error.to_string())))
            .transpose()?;
        let profile = Profile {
            source: SourceName::parse(&self.source).map_err(|error| inconsistent("source", error.to_string()))?,
            username: Handle::parse(&username).map_err(|error| inconsistent("username", error.to_string()))?,
            name: text(Column::Name, &self.name)?,
            email,
            profile_url,
            follower_count: self.follower_count.and_then(|count| u64::try_from(count).ok()),
            bio: text(Column::Bio, &self.bio)?,
            verified: self.verified,
            location: text(Column::Location, &self.location)?,
            country,
        };
        let lead = Lead { id, program_id, revision: self.revision, profile, created_at: self.created_at };
        Ok(Some(OpenLead { lead, key, enriched_revision: self.lead_revision }))
    }
}

/// Locks the keys of the leads that still have one, in key order, until the transaction ends: an erasure waits, and who
/// isn't returned was erased.
pub(crate) async fn lock_keys(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashSet<(ProgramId, LeadId)>, StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut alive = HashSet::with_capacity(ids.len());
    // Program by program: a distributed PostgreSQL locks rows of one shard at a time.
    for ids in ids.chunk_by(|(one, _), (next, _)| one == next) {
        let (program, leads) = (ids[0].0, ids.iter().map(|(_, lead)| lead.as_uuid()).collect::<Vec<_>>());
        // One look into the primary key per lead: as a plain join, a program that the statistics don't know yet is taken
        // for an empty one, and all its keys are read.
        let locked = sqlx::query_scalar!(
            "SELECT k.lead_id
             FROM UNNEST($2::uuid[]) AS w (lead_id)
             CROSS JOIN LATERAL (SELECT lead_id FROM lead_keys
                                 WHERE program_id = $1 AND lead_id = w.lead_id
                                 FOR KEY SHARE) k",
            program.as_uuid(),
            &leads,
        )
        .fetch_all(&mut *connection)
        .await?;
        alive.extend(locked.into_iter().map(|lead| (program, LeadId::from_uuid(lead))));
    }
    Ok(alive)
}

/// Does what [`lock_keys`] does for who is about to write the key rows themselves, with [`await_enrichment`] or
/// [`enriched`]: of two such transactions, the second waits here, and sees what the first has written.
pub(crate) async fn lock_keys_for_update(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashSet<(ProgramId, LeadId)>, StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut alive = HashSet::with_capacity(ids.len());
    for ids in ids.chunk_by(|(one, _), (next, _)| one == next) {
        let (program, leads) = (ids[0].0, ids.iter().map(|(_, lead)| lead.as_uuid()).collect::<Vec<_>>());
        let locked = sqlx::query_scalar!(
            "SELECT k.lead_id
             FROM UNNEST($2::uuid[]) AS w (lead_id)
             CROSS JOIN LATERAL (SELECT lead_id FROM lead_keys
                                 WHERE program_id = $1 AND lead_id = w.lead_id
                                 FOR NO KEY UPDATE) k",
            program.as_uuid(),
            &leads,
        )
        .fetch_all(&mut *connection)
        .await?;
        alive.extend(locked.into_iter().map(|lead| (program, LeadId::from_uuid(lead))));
    }
    Ok(alive)
}

/// A lead and one of its revisions.
pub(crate) type Revision = (ProgramId, LeadId, i32);

pub(crate) fn revision_columns(revisions: &[Revision]) -> (Vec<Uuid>, Vec<Uuid>, Vec<i32>) {
    (
        revisions.iter().map(|(program, _, _)| program.as_uuid()).collect(),
        revisions.iter().map(|(_, lead, _)| lead.as_uuid()).collect(),
        revisions.iter().map(|(_, _, revision)| *revision).collect(),
    )
}

/// Notes that these revisions wait for an enrichment, unless a newer one of the lead does. Their keys are locked by [`lock_keys_for_update`].
pub(crate) async fn await_enrichment(connection: &mut Connection, revisions: &[Revision]) -> Result<(), StoreError> {
    let (programs, leads, revisions) = revision_columns(revisions);
    sqlx::query!(
        "UPDATE lead_keys k SET awaited_revision = n.revision
         FROM UNNEST($1::uuid[], $2::uuid[], $3::int[]) AS n (program_id, lead_id, revision)
         WHERE k.program_id = n.program_id AND k.lead_id = n.lead_id AND coalesce(k.awaited_revision, 0) < n.revision",
        &programs,
        &leads,
        &revisions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that these revisions are enriched; a lead that waits for the enrichment of a newer one goes on waiting. Their keys
/// are locked by [`lock_keys_for_update`].
pub(crate) async fn enriched(connection: &mut Connection, revisions: &[Revision]) -> Result<(), StoreError> {
    let (programs, leads, revisions) = revision_columns(revisions);
    sqlx::query!(
        "UPDATE lead_keys k SET awaited_revision = NULL
         FROM UNNEST($1::uuid[], $2::uuid[], $3::int[]) AS n (program_id, lead_id, revision)
         WHERE k.program_id = n.program_id AND k.lead_id = n.lead_id AND k.awaited_revision <= n.revision",
        &programs,
        &leads,
        &revisions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Finds a program's leads by address.
pub async fn find_by_email(
    connection: &mut Connection,
    program: ProgramId,
    email: BlindIndex,
) -> Result<Vec<LeadId>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM leads WHERE program_id = $1 AND email_index = $2 ORDER BY id",
        program.as_uuid(),
        &email.to_vec(),
    )
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(LeadId::from_uuid).collect())
}
