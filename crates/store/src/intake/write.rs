//! The statements of a batch, all in one transaction.

use std::collections::{HashMap, HashSet};

use domain::{
    event::{Envelope, Event, Outgoing, Route},
    id::LeadId,
    lead::Profile,
};
use uuid::Uuid;
use vault::{BlindIndex, INDEX_VERSION};

use super::{
    Accepted, IntakeOutcome,
    plan::{Plan, Write},
};
use crate::{
    Connection, StoreError,
    leads::{self, SealedProfile},
    outbox, rejects,
    runs::{self, Counts},
};

impl Plan {
    /// Writes everything.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when the leads changed since they were looked at.
    pub(super) async fn write(
        &self,
        tx: &mut Connection,
        writes: &[Write],
        answer: &(impl Fn(&[Accepted]) -> serde_json::Value + Send + Sync),
    ) -> Result<IntakeOutcome, StoreError> {
        if let Some(key) = &self.idempotency
            && let Some(repeated) = key.claim(tx, self.program, self.now).await?
        {
            let counts = Counts::default();
            return Ok(IntakeOutcome { items: Vec::new(), counts, outbox: Vec::new(), repeated: Some(repeated) });
        }
        let inserted = self.insert(tx, writes).await?;
        let updated = self.update(tx, writes).await?;
        let mut accepted = Vec::with_capacity(writes.len());
        let mut lost = Vec::new();
        for (place, write) in writes.iter().enumerate() {
            accepted.push(match write {
                Write::Nothing(accepted) => *accepted,
                Write::Insert { id, .. } if inserted.contains(&id.as_uuid()) => Accepted::New(*id),
                Write::Update { id, .. } if updated.contains_key(&id.as_uuid()) => Accepted::Updated(*id),
                Write::Insert { id, .. } | Write::Update { id, .. } => {
                    lost.push(place);
                    Accepted::Duplicate(*id)
                }
            });
        }
        if !lost.is_empty() {
            // Somebody else took one of these in, or changed it, since the look. What is sealed here belongs to the rows
            // of this plan, so all of it is rolled back and planned anew.
            return Err(StoreError::Stale);
        }
        let events: Vec<Outgoing> = accepted
            .iter()
            .filter_map(|accepted| match accepted {
                Accepted::New(id) => Some((*id, 1, Event::LeadCreated {})),
                Accepted::Updated(id) => Some((*id, updated[&id.as_uuid()], Event::LeadUpdated {})),
                Accepted::Duplicate(_) | Accepted::Erased => None,
            })
            .map(|(lead, revision, event)| Outgoing {
                envelope: Envelope::new(self.program, lead, revision, self.now, event),
                route: Route::Exchange,
                trace: self.trace.clone(),
            })
            .collect();
        let outbox = outbox::insert(tx, events).await?;
        let items: Vec<Accepted> = self
            .places
            .iter()
            .map(|(place, first)| match accepted[*place] {
                Accepted::New(id) | Accepted::Updated(id) if !first => Accepted::Duplicate(id),
                accepted => accepted,
            })
            .collect();
        let rejected_new = rejects::insert(tx, self.program, self.run_id, &self.rejects, self.now).await?;
        let count = |wanted: fn(&Accepted) -> bool| items.iter().filter(|item| wanted(item)).count() as u64;
        let counts = Counts {
            accepted: count(|item| matches!(item, Accepted::New(_))),
            updated: count(|item| matches!(item, Accepted::Updated(_))),
            duplicates: count(|item| matches!(item, Accepted::Duplicate(_))),
            rejected: self.rejects.len() as u64 + count(|item| matches!(item, Accepted::Erased)),
            rejected_new,
        };
        runs::add(tx, self.program, self.run_id, &counts).await?;
        if let Some(key) = &self.idempotency {
            key.answer(tx, self.program, &answer(&items)).await?;
        }
        Ok(IntakeOutcome { items, counts, outbox, repeated: None })
    }

    /// Inserts new leads and their keys; returns the ids that were not there.
    async fn insert(&self, tx: &mut Connection, writes: &[Write]) -> Result<HashSet<Uuid>, StoreError> {
        let mut columns = Columns::default();
        let mut keys = HashMap::new();
        for (write, ((source, username), profile)) in writes.iter().zip(&self.distinct) {
            if let Write::Insert { id, wrapped_key, sealed } = write {
                columns.push(*id, profile, sealed);
                columns.sources.push(source.clone());
                columns.username_indexes.push(username.to_vec());
                keys.insert(id.as_uuid(), wrapped_key.clone());
            }
        }
        if keys.is_empty() {
            return Ok(HashSet::new());
        }
        let inserted = sqlx::query_scalar!(
            "INSERT INTO leads (program_id, id, source, name, username, email, profile_url, follower_count, bio, verified,
                                location, country, username_index, email_index, index_version, created_at, updated_at)
             SELECT $1, id, source, name, username, email, profile_url, follower_count, bio, verified, location, country,
                    username_index, email_index, $2, $3, $3
             FROM UNNEST($4::uuid[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bigint[],
                         $11::bytea[], $12::boolean[], $13::bytea[], $14::text[], $15::bytea[], $16::bytea[])
                  AS n (id, source, name, username, email, profile_url, follower_count, bio, verified, location, country,
                        username_index, email_index)
             ON CONFLICT (program_id, source, username_index) DO NOTHING
             RETURNING id",
            self.program.as_uuid(),
            INDEX_VERSION,
            self.now,
            &columns.ids,
            &columns.sources,
            &columns.names as &[Option<Vec<u8>>],
            &columns.usernames,
            &columns.emails as &[Option<Vec<u8>>],
            &columns.profile_urls as &[Option<Vec<u8>>],
            &columns.follower_counts as &[Option<i64>],
            &columns.bios as &[Option<Vec<u8>>],
            &columns.verified,
            &columns.locations as &[Option<Vec<u8>>],
            &columns.countries as &[Option<String>],
            &columns.username_indexes,
            &columns.email_indexes as &[Option<Vec<u8>>],
        )
        .fetch_all(&mut *tx)
        .await?;
        let wrapped: Vec<Vec<u8>> = inserted.iter().filter_map(|id| keys.remove(id)).collect();
        sqlx::query!(
            "INSERT INTO lead_keys (program_id, lead_id, wrapped_key)
             SELECT $1, lead_id, wrapped_key FROM UNNEST($2::uuid[], $3::bytea[]) AS k (lead_id, wrapped_key)",
            self.program.as_uuid(),
            &inserted,
            &wrapped,
        )
        .execute(tx)
        .await?;
        Ok(inserted.into_iter().collect())
    }

    /// Writes changed leads, each guarded by its revision and its key; returns the new revisions.
    async fn update(&self, tx: &mut Connection, writes: &[Write]) -> Result<HashMap<Uuid, i32>, StoreError> {
        let mut columns = Columns::default();
        let mut revisions = Vec::new();
        for write in writes {
            if let Write::Update { id, revision, profile, sealed } = write {
                columns.push(*id, profile, sealed);
                revisions.push(*revision);
            }
        }
        if revisions.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = columns.ids.iter().map(|id| (self.program, LeadId::from_uuid(*id))).collect();
        leads::lock_keys(tx, &ids).await?;
        let rows = sqlx::query!(
            "UPDATE leads l
             SET name = n.name, username = n.username, email = n.email, profile_url = n.profile_url,
                 follower_count = n.follower_count, bio = n.bio, verified = n.verified, location = n.location,
                 country = n.country, email_index = n.email_index, index_version = $2, revision = l.revision + 1,
                 updated_at = $3
             FROM UNNEST($4::uuid[], $5::int[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bigint[],
                         $11::bytea[], $12::boolean[], $13::bytea[], $14::text[], $15::bytea[])
                  AS n (id, revision, name, username, email, profile_url, follower_count, bio, verified, location, country,
                        email_index)
             WHERE l.program_id = $1 AND l.id = n.id AND l.revision = n.revision
               AND EXISTS (SELECT FROM lead_keys k WHERE k.program_id = l.program_id AND k.lead_id = l.id)
             RETURNING l.id, l.revision",
            self.program.as_uuid(),
            INDEX_VERSION,
            self.now,
            &columns.ids,
            &revisions,
            &columns.names as &[Option<Vec<u8>>],
            &columns.usernames,
            &columns.emails as &[Option<Vec<u8>>],
            &columns.profile_urls as &[Option<Vec<u8>>],
            &columns.follower_counts as &[Option<i64>],
            &columns.bios as &[Option<Vec<u8>>],
            &columns.verified,
            &columns.locations as &[Option<Vec<u8>>],
            &columns.countries as &[Option<String>],
            &columns.email_indexes as &[Option<Vec<u8>>],
        )
        .fetch_all(tx)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.revision)).collect())
    }
}

/// The columns of the profiles that a statement writes.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    sources: Vec<String>,
    names: Vec<Option<Vec<u8>>>,
    usernames: Vec<Vec<u8>>,
    emails: Vec<Option<Vec<u8>>>,
    profile_urls: Vec<Option<Vec<u8>>>,
    follower_counts: Vec<Option<i64>>,
    bios: Vec<Option<Vec<u8>>>,
    verified: Vec<bool>,
    locations: Vec<Option<Vec<u8>>>,
    countries: Vec<Option<String>>,
    username_indexes: Vec<Vec<u8>>,
    email_indexes: Vec<Option<Vec<u8>>>,
}

impl Columns {
    fn push(&mut self, id: LeadId, profile: &Profile, sealed: &SealedProfile) {
        self.ids.push(id.as_uuid());
        self.names.push(sealed.name.clone());
        self.usernames.push(sealed.username.clone());
        self.emails.push(sealed.email.clone());
        self.profile_urls.push(sealed.profile_url.clone());
        self.follower_counts.push(profile.follower_count.and_then(|count| i64::try_from(count).ok()));
        self.bios.push(sealed.bio.clone());
        self.verified.push(profile.verified);
        self.locations.push(sealed.location.clone());
        self.countries.push(profile.country.map(|country| country.as_str().to_owned()));
        self.email_indexes.push(sealed.email_index.map(BlindIndex::to_vec));
    }
}
