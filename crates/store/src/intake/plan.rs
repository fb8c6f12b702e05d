//! What a batch would write: its distinct leads in key order, what is known of them, and their sealed profiles.

use std::collections::HashMap;

use domain::{
    event::TraceContext,
    id::{LeadId, ProgramId, RunId},
    lead::Profile,
};
use time::OffsetDateTime;
use vault::{BlindIndex, DataKey, Vault};

use super::{Accepted, Dedupe, IdempotencyKey, IntakeBatch};
use crate::{
    Db, StoreError,
    leads::{self, Found, OpenLead, SealedProfile},
    programs::OpenProgram,
    rejects::SealedReject,
};

/// What identifies a lead within its program.
pub(super) type LeadKey = (String, BlindIndex);

/// A batch without repetitions, in the order in which its leads are locked.
pub(super) struct Plan {
    pub(super) program: ProgramId,
    pub(super) run_id: RunId,
    /// Per distinct lead, in key order: what identifies it, and its profile.
    pub(super) distinct: Vec<(LeadKey, Profile)>,
    /// Per profile of the batch: its lead's place in `distinct`, and whether it is the first of them.
    pub(super) places: Vec<(usize, bool)>,
    pub(super) rejects: Vec<SealedReject>,
    pub(super) dedupe: Dedupe,
    pub(super) trace: TraceContext,
    pub(super) now: OffsetDateTime,
    pub(super) idempotency: Option<IdempotencyKey>,
}

/// A lead that is to be written.
pub(super) enum Write {
    Insert { id: LeadId, wrapped_key: Vec<u8>, sealed: SealedProfile },
    Update { id: LeadId, revision: i32, profile: Profile, sealed: SealedProfile },
    Nothing(Accepted),
}

/// A lead of the batch that is stored already.
pub(super) enum Known {
    /// One that stays as it is.
    Closed(LeadId),
    /// One that may be updated.
    Open(LeadId, Box<OpenLead>),
    /// One whose person was erased.
    Erased,
}

impl Plan {
    pub(super) fn make(program: &OpenProgram, batch: IntakeBatch) -> Self {
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
    pub(super) async fn look(&self, db: &Db, vault: &Vault) -> Result<HashMap<usize, Known>, StoreError> {
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
                None if !erased => Some((place, Known::Closed(id))),
                Some(Found::Unreadable(_)) => Some((place, Known::Closed(id))),
                Some(Found::Lead(lead)) => Some((place, Known::Open(id, lead))),
                None | Some(Found::Erased) => Some((place, Known::Erased)),
                Some(Found::Unknown) => None,
            })
            .collect())
    }

    /// What is to be written, by place.
    pub(super) fn seal(&self, vault: &Vault, program: &OpenProgram, known: &HashMap<usize, Known>) -> Vec<Write> {
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
                Some(Known::Erased) => Write::Nothing(Accepted::Erased),
                Some(Known::Closed(id)) => Write::Nothing(Accepted::Duplicate(*id)),
                Some(Known::Open(id, lead)) => {
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

    fn key_columns(&self) -> (Vec<String>, Vec<Vec<u8>>) {
        self.distinct.iter().map(|((source, username), _)| (source.clone(), username.to_vec())).unzip()
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
