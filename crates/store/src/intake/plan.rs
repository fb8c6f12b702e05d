//! What a batch would write: its distinct leads in key order, what is known of them, and their sealed profiles.

use std::collections::HashMap;

use domain::{
    id::{LeadId, ProgramId},
    lead::Profile,
    submission::Submission,
};
use vault::{BlindIndex, DataKey, Vault};

use super::{Accepted, Dedupe, IntakeBatch, columns::Columns};
use crate::{
    Db, StoreError,
    contact_evidence::{self, SealedEvidence, StoredEvidence},
    leads::{self, Found, OpenLead, SealedProfile},
    programs::OpenProgram,
    rejects::SealedReject,
};

/// What identifies a lead within its program: the network and the user name there.
pub(super) type LeadKey<'b> = (&'b str, BlindIndex);

/// A batch without repetitions, in the order in which its leads are locked.
pub(super) struct Plan<'b> {
    pub(super) program: ProgramId,
    pub(super) batch: &'b IntakeBatch,
    /// Per distinct lead, in key order: what identifies it, and what came in about it.
    pub(super) distinct: Vec<(LeadKey<'b>, &'b Submission)>,
    /// Per profile of the batch: its lead's place in `distinct`, and whether it is the first of them.
    pub(super) places: Vec<(usize, bool)>,
    pub(super) rejects: Vec<SealedReject>,
}

/// What becomes of the distinct leads, and the columns with which it is written.
pub(super) struct Writes {
    /// Per distinct lead, in key order.
    pub(super) leads: Vec<Write>,
    pub(super) inserts: Columns,
    pub(super) updates: Columns,
    /// New evidence about the leads of both.
    pub(super) evidence: Vec<SealedEvidence>,
}

/// What becomes of a lead when everything is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) accepted: Accepted,
    /// Its revision afterwards; 0 when nothing is written.
    pub(super) revision: i32,
}

/// A lead of the batch that is stored already.
pub(super) enum Known {
    /// One that stays as it is.
    Closed(LeadId),
    /// One that may be updated, with what is known already of the kind of evidence that came in.
    Open(LeadId, Box<OpenLead>, Vec<StoredEvidence>),
    /// One whose person was erased.
    Erased,
}

impl<'b> Plan<'b> {
    pub(super) fn make(program: &OpenProgram, batch: &'b IntakeBatch) -> Self {
        let keys: Vec<LeadKey<'b>> = batch
            .items
            .iter()
            .map(|item| (item.profile.source.as_str(), program.keys.username_index(&item.profile.username)))
            .collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|a, b| keys[*a].cmp(&keys[*b]).then(a.cmp(b)));
        let mut places = vec![(0, false); keys.len()];
        let mut distinct: Vec<(LeadKey<'b>, &'b Submission)> = Vec::with_capacity(keys.len());
        for index in order {
            let first = distinct.last().is_none_or(|(last, _)| *last != keys[index]);
            if first {
                distinct.push((keys[index], &batch.items[index]));
            }
            places[index] = (distinct.len() - 1, first);
        }
        let rejects = batch.rejects.iter().map(|reject| SealedReject::seal(reject, &program.keys)).collect();
        Self { program: program.program.id, batch, distinct, places, rejects }
    }

    /// The leads of the batch that are stored already, by place.
    pub(super) async fn look(&self, db: &Db, vault: &Vault) -> Result<HashMap<usize, Known>, StoreError> {
        let ids = db
            .transact("intake.look", |tx, _| {
                Box::pin(async move {
                    let (sources, usernames) = self.key_columns();
                    // OFFSET 0 keeps it one look into the unique index per lead, and so does a program that is a column:
                    // one that the statistics don't know yet is taken for an empty one if it is a parameter, any index
                    // that begins with it for as good as the right one, and all its leads are read for each of the batch.
                    let rows = sqlx::query!(
                        r#"SELECT w.place AS "place!", l.id, (k.lead_id IS NULL) AS "erased!"
                           FROM UNNEST($1::uuid[], $2::text[], $3::bytea[])
                                WITH ORDINALITY AS w (program_id, source, username_index, place)
                           CROSS JOIN LATERAL (SELECT program_id, id FROM leads
                                               WHERE program_id = w.program_id AND source = w.source
                                                 AND username_index = w.username_index
                                               OFFSET 0) l
                           LEFT JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id"#,
                        &vec![self.program.as_uuid(); sources.len()],
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
        let (mut open, mut evidence) = (HashMap::new(), HashMap::new());
        if self.batch.dedupe == Dedupe::Update {
            let wanted: Vec<_> = ids.iter().map(|(_, id, _)| (self.program, *id)).collect();
            open = leads::open(db, vault, &wanted).await?;
            let with_evidence = ids.iter().filter(|(place, ..)| !self.distinct[*place].1.evidence.is_empty());
            let wanted: Vec<_> = with_evidence.map(|(_, id, _)| (self.program, *id)).collect();
            evidence = contact_evidence::of(db, &wanted, &open).await?;
        }
        Ok(ids
            .into_iter()
            .filter_map(|(place, id, erased)| match open.remove(&(self.program, id)) {
                // Skipping needs no look inside; an erased lead is told by its missing key. One that can't be read can't be
                // updated either, and stays as it is.
                None if !erased => Some((place, Known::Closed(id))),
                Some(Found::Unreadable(_)) => Some((place, Known::Closed(id))),
                Some(Found::Lead(lead)) => {
                    Some((place, Known::Open(id, lead, evidence.remove(&id).unwrap_or_default())))
                }
                None | Some(Found::Erased) => Some((place, Known::Erased)),
                Some(Found::Unknown) => None,
            })
            .collect())
    }

    /// What is to be written.
    pub(super) fn seal(&self, vault: &Vault, program: &OpenProgram, known: &HashMap<usize, Known>) -> Writes {
        let email_index = |profile: &Profile| profile.email.as_ref().map(|email| program.keys.email_index(email));
        let (mut inserts, mut updates, mut evidence) = (Columns::default(), Columns::default(), Vec::new());
        let leads = self.distinct.iter().enumerate().map(|(place, (key, item))| match known.get(&place) {
            None => {
                let (id, profile) = (LeadId::generate(), &item.profile);
                let data_key = DataKey::generate(self.program);
                let recipient = email_index(profile);
                let sealed = SealedProfile::seal(profile, id, &data_key, recipient);
                inserts.push(id, profile, item.country_source, sealed, program.keys.index());
                inserts.push_new(*key, item.line, vault.wrap_lead_key(self.program, id, &data_key));
                evidence.extend(SealedEvidence::of_new(item, id, &data_key, recipient));
                Write { accepted: Accepted::New(id), revision: 1 }
            }
            Some(Known::Erased) => Write { accepted: Accepted::Erased, revision: 0 },
            Some(Known::Closed(id)) => Write { accepted: Accepted::Duplicate(*id), revision: 0 },
            Some(Known::Open(id, lead, stored)) => {
                let merged = merge(&lead.lead.profile, &item.profile);
                let recipient = email_index(&merged);
                let shown = SealedEvidence::of_known(item, *id, &lead.key, recipient, stored);
                if merged == lead.lead.profile && shown.is_empty() {
                    return Write { accepted: Accepted::Duplicate(*id), revision: 0 };
                }
                evidence.extend(shown);
                let sealed = SealedProfile::seal(&merged, *id, &lead.key, recipient);
                let country_source = item.profile.country.and(item.country_source);
                updates.push(*id, &merged, country_source, sealed, program.keys.index());
                updates.push_changed(lead.lead.revision);
                Write { accepted: Accepted::Updated(*id), revision: lead.lead.revision + 1 }
            }
        });
        let leads = leads.collect();
        Writes { leads, inserts, updates, evidence }
    }

    fn key_columns(&self) -> (Vec<String>, Vec<Vec<u8>>) {
        self.distinct.iter().map(|((source, username), _)| ((*source).to_owned(), username.to_vec())).unzip()
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
