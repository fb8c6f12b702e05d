//! Taking leads in: one transaction per batch for the leads, their keys, their events, what was refused, the run's counts
//! and, for HTTP, the answer that a repeated request gets again.

use std::collections::HashMap;

use domain::{
    event::{Envelope, Event, Outgoing, Route, TraceContext},
    id::{LeadId, ProgramId, RunId},
    lead::Profile,
};
use time::OffsetDateTime;
use uuid::Uuid;
use vault::{BlindIndex, DataKey, INDEX_VERSION, Vault};

use crate::{
    Connection, Db, StoreError,
    leads::{self, Found, OpenLead, SealedProfile},
    outbox::{self, Leased},
    programs::OpenProgram,
    rejects::{self, Reject, SealedReject},
    runs::{self, Counts},
};

/// The most profiles of one batch.
pub const MAX_BATCH: usize = 1_000;

/// How often a batch is planned anew after it lost a race.
const MAX_LOOKS: u32 = 20;

/// What to do with a lead that is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dedupe {
    /// Leave it as it is.
    Skip,
    /// Take over what is new or different; what the new profile doesn't say stays.
    Update,
}

/// A batch of validated profiles and refused rows.
#[derive(Debug, Clone)]
pub struct IntakeBatch {
    /// The run that it belongs to; see [`runs::start`].
    pub run_id: RunId,
    /// The profiles, at most [`MAX_BATCH`].
    pub items: Vec<Profile>,
    /// The refused rows.
    pub rejects: Vec<Reject>,
    /// What to do with known leads.
    pub dedupe: Dedupe,
    /// The trace that the batch belongs to.
    pub trace: TraceContext,
    /// The time that counts as the leads' creation.
    pub now: OffsetDateTime,
    /// The request's key, when the answer has to be given again to a repeated request.
    pub idempotency: Option<IdempotencyKey>,
}

/// Names a request that may be repeated.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKey {
    /// SHA-256 of the `Idempotency-Key` header.
    pub key_hash: [u8; 32],
    /// SHA-256 of the request's body.
    pub request_hash: [u8; 32],
}

/// What became of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A new lead.
    New(LeadId),
    /// A known lead that changed.
    Updated(LeadId),
    /// A known lead that did not change.
    Duplicate(LeadId),
    /// The person was erased, and is refused.
    Erased,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct IntakeOutcome {
    /// Per profile, in order.
    pub items: Vec<Accepted>,
    /// All together.
    pub counts: Counts,
    /// Events to publish now, leased to this process.
    pub outbox: Vec<Leased>,
    /// The stored answer of an earlier, equal request; then nothing was done.
    pub repeated: Option<serde_json::Value>,
}

/// Takes a batch in. `answer` makes what a repeated request gets again; it is asked only when the batch carries an
/// [`IdempotencyKey`].
///
/// # Errors
/// [`StoreError::Conflict`] when the idempotency key was used for another request.
pub async fn accept(
    db: &Db,
    vault: &Vault,
    program: &OpenProgram,
    batch: IntakeBatch,
    answer: impl Fn(&[Accepted]) -> serde_json::Value + Send + Sync,
) -> Result<IntakeOutcome, StoreError> {
    let plan = Plan::make(program, batch);
    // A lead that another process takes in or changes between the look and the write makes the plan stale: look again.
    let mut looks = 0;
    loop {
        let known = plan.look(db, vault).await?;
        let sealed = plan.seal(vault, program, &known);
        let (plan, sealed, answer) = (&plan, &sealed, &answer);
        let written =
            db.transact("intake.accept", |tx, _| Box::pin(async move { plan.write(tx, sealed, answer).await })).await;
        match written {
            Err(error) if error.is_stale() && looks < MAX_LOOKS => looks += 1,
            written => return written,
        }
    }
}

/// What identifies a lead within its program.
type LeadKey = (String, BlindIndex);

struct Plan {
    program: ProgramId,
    run_id: RunId,
    /// Per distinct lead, in key order: what identifies it, and its profile.
    distinct: Vec<(LeadKey, Profile)>,
    /// Per profile of the batch: its lead's place in `distinct`, and whether it is the first of them.
    places: Vec<(usize, bool)>,
    rejects: Vec<SealedReject>,
    dedupe: Dedupe,
    trace: TraceContext,
    now: OffsetDateTime,
    idempotency: Option<IdempotencyKey>,
}

/// A lead that is to be written.
enum Write {
    Insert { id: LeadId, wrapped_key: Vec<u8>, sealed: SealedProfile },
    Update { id: LeadId, revision: i32, profile: Profile, sealed: SealedProfile },
    Nothing(Accepted),
}

impl Plan {
    fn make(program: &OpenProgram, batch: IntakeBatch) -> Self {
        let keyed: Vec<(LeadKey, Profile)> = batch
            .items
            .into_iter()
            .map(|profile| {
                let key = (profile.source.as_str().to_owned(), program.keys.username_index(&profile.username));
                (key, profile)
            })
            .collect();
        let mut order: Vec<usize> = (0..keyed.len()).collect();
        order.sort_by(|a, b| keyed[*a].0.cmp(&keyed[*b].0).then(a.cmp(b)));
        let mut places = vec![(0, false); keyed.len()];
        let mut distinct: Vec<(LeadKey, Profile)> = Vec::with_capacity(keyed.len());
        for index in order {
            let (key, profile) = &keyed[index];
            let first = distinct.last().is_none_or(|(last, _)| last != key);
            if first {
                distinct.push((key.clone(), profile.clone()));
            }
            places[index] = (distinct.len() - 1, first);
        }
        Self {
            program: program.program.id,
            run_id: batch.run_id,
            distinct,
            places,
            rejects: batch.rejects.into_iter().map(|reject| SealedReject::seal(reject, &program.keys)).collect(),
            dedupe: batch.dedupe,
            trace: batch.trace,
            now: batch.now,
            idempotency: batch.idempotency,
        }
    }

    /// The leads of the batch that are stored already, by place.
    async fn look(
        &self,
        db: &Db,
        vault: &Vault,
    ) -> Result<HashMap<usize, (LeadId, Option<Box<OpenLead>>)>, StoreError> {
        let ids = db
            .transact("intake.look", |tx, _| {
                Box::pin(async move {
                    let (sources, usernames) = self.key_columns();
                    let rows = sqlx::query!(
                        r#"SELECT w.place AS "place!", l.id, (k.lead_id IS NULL) AS "erased!"
                           FROM UNNEST($2::text[], $3::bytea[]) WITH ORDINALITY AS w (source, username_index, place)
                           JOIN leads l ON l.program_id = $1 AND l.source = w.source
                                AND l.username_index = w.username_index
                           LEFT JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id"#,
                        self.program.as_uuid(),
                        &sources,
                        &usernames,
                    )
                    .fetch_all(tx)
                    .await?;
                    Ok(rows
                        .into_iter()
                        .map(|row| (row.place as usize - 1, LeadId::from_uuid(row.id), row.erased))
                        .collect::<Vec<_>>())
                })
            })
            .await?;
        let mut open = HashMap::new();
        if self.dedupe == Dedupe::Update {
            let wanted: Vec<_> = ids.iter().map(|(_, id, _)| (self.program, *id)).collect();
            open = leads::open(db, vault, &wanted).await?;
        }
        Ok(ids
            .into_iter()
            .filter_map(|(place, id, erased)| match open.remove(&(self.program, id)) {
                // Skipping needs no look inside; an erased lead is told by its missing key. One that can't be read can't be
                // updated either, and stays as it is.
                None if !erased => Some((place, (id, None))),
                Some(Found::Unreadable(_)) => Some((place, (id, None))),
                Some(Found::Lead(lead)) => Some((place, (id, Some(lead)))),
                None | Some(Found::Erased) => Some((place, (LeadId::from_uuid(Uuid::nil()), None))),
                Some(Found::Unknown) => None,
            })
            .collect())
    }

    fn seal(
        &self,
        vault: &Vault,
        program: &OpenProgram,
        known: &HashMap<usize, (LeadId, Option<Box<OpenLead>>)>,
    ) -> Vec<Write> {
        let email_index = |profile: &Profile| profile.email.as_ref().map(|email| program.keys.email_index(email));
        self.distinct
            .iter()
            .enumerate()
            .map(|(place, (_, profile))| match known.get(&place) {
                None => {
                    let id = LeadId::generate();
                    let key = DataKey::generate(self.program);
                    Write::Insert {
                        id,
                        wrapped_key: vault.wrap_lead_key(self.program, id, &key),
                        sealed: SealedProfile::seal(profile, id, &key, email_index(profile)),
                    }
                }
                Some((id, _)) if id.as_uuid().is_nil() => Write::Nothing(Accepted::Erased),
                Some((id, None)) => Write::Nothing(Accepted::Duplicate(*id)),
                Some((id, Some(lead))) => {
                    let merged = merge(&lead.lead.profile, profile);
                    if merged == lead.lead.profile {
                        Write::Nothing(Accepted::Duplicate(*id))
                    } else {
                        let sealed = SealedProfile::seal(&merged, *id, &lead.key, email_index(&merged));
                        Write::Update { id: *id, revision: lead.lead.revision, profile: merged, sealed }
                    }
                }
            })
            .collect()
    }

    /// Writes everything.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when the leads changed since they were looked at.
    async fn write(
        &self,
        tx: &mut Connection,
        writes: &[Write],
        answer: &(impl Fn(&[Accepted]) -> serde_json::Value + Send + Sync),
    ) -> Result<IntakeOutcome, StoreError> {
        if let Some(key) = &self.idempotency
            && let Some(repeated) = self.claim_idempotency(tx, key).await?
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
            self.store_answer(tx, key, &answer(&items)).await?;
        }
        Ok(IntakeOutcome { items, counts, outbox, repeated: None })
    }

    fn key_columns(&self) -> (Vec<String>, Vec<Vec<u8>>) {
        self.distinct.iter().map(|((source, username), _)| (source.clone(), username.to_vec())).unzip()
    }

    /// Inserts new leads and their keys; returns the ids that were not there.
    async fn insert(
        &self,
        tx: &mut Connection,
        writes: &[Write],
    ) -> Result<std::collections::HashSet<Uuid>, StoreError> {
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
            return Ok(std::collections::HashSet::new());
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

    /// Claims the key for this transaction; a repeated request waits here for the first one to end, and gets its answer.
    async fn claim_idempotency(
        &self,
        tx: &mut Connection,
        key: &IdempotencyKey,
    ) -> Result<Option<serde_json::Value>, StoreError> {
        let claimed = sqlx::query!(
            "INSERT INTO idempotent_answers (program_id, key_hash, request_hash, answer, created_at)
             VALUES ($1, $2, $3, 'null', $4)
             ON CONFLICT (program_id, key_hash) DO UPDATE
                SET request_hash = excluded.request_hash, answer = 'null', created_at = excluded.created_at
                WHERE idempotent_answers.created_at < excluded.created_at - interval '24 hours'",
            self.program.as_uuid(),
            key.key_hash.as_slice(),
            key.request_hash.as_slice(),
            self.now,
        )
        .execute(&mut *tx)
        .await?;
        if claimed.rows_affected() == 1 {
            return Ok(None);
        }
        let earlier = sqlx::query!(
            "SELECT request_hash, answer FROM idempotent_answers WHERE program_id = $1 AND key_hash = $2",
            self.program.as_uuid(),
            key.key_hash.as_slice(),
        )
        .fetch_one(tx)
        .await?;
        if earlier.request_hash == key.request_hash {
            Ok(Some(earlier.answer))
        } else {
            Err(StoreError::Conflict("the Idempotency-Key was used for another request".to_owned()))
        }
    }

    async fn store_answer(
        &self,
        tx: &mut Connection,
        key: &IdempotencyKey,
        answer: &serde_json::Value,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE idempotent_answers SET answer = $3 WHERE program_id = $1 AND key_hash = $2",
            self.program.as_uuid(),
            key.key_hash.as_slice(),
            answer,
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// What is known, with what the new profile says over it.
fn merge(known: &Profile, new: &Profile) -> Profile {
    Profile {
        source: known.source.clone(),
        username: known.username.clone(),
        name: new.name.clone().or_else(|| known.name.clone()),
        email: new.email.clone().or_else(|| known.email.clone()),
        profile_url: new.profile_url.clone().or_else(|| known.profile_url.clone()),
        follower_count: new.follower_count.or(known.follower_count),
        bio: new.bio.clone().or_else(|| known.bio.clone()),
        verified: new.verified || known.verified,
        location: new.location.clone().or_else(|| known.location.clone()),
        country: new.country.or(known.country),
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
