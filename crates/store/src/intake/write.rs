//! The statements of a batch, all in one transaction.

use domain::{
    event::{Envelope, Event, Outgoing, Route},
    id::LeadId,
};
use vault::INDEX_VERSION;

use super::{
    Accepted, IntakeOutcome,
    columns::Columns,
    plan::{Plan, Writes},
};
use crate::{
    Connection, StoreError, contact_evidence, leads, outbox, rejects,
    runs::{self, Counts},
    suppressions,
};

impl Plan<'_> {
    /// Writes everything.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when somebody else took one of these leads in, or changed it, since the look. What is sealed here
    /// belongs to the rows of this plan, so all of it is rolled back, to be planned anew.
    pub(super) async fn write(
        &self,
        tx: &mut Connection,
        writes: &Writes,
        answer: &(impl Fn(&[Accepted]) -> serde_json::Value + Send + Sync),
    ) -> Result<IntakeOutcome, StoreError> {
        if let Some(key) = &self.batch.idempotency
            && let Some(repeated) = key.claim(tx, self.program, self.batch.now).await?
        {
            let counts = Counts::default();
            return Ok(IntakeOutcome { items: Vec::new(), counts, outbox: Vec::new(), repeated: Some(repeated) });
        }
        self.insert(tx, &writes.inserts).await?;
        self.update(tx, &writes.updates).await?;
        contact_evidence::insert(tx, self.program, self.batch.run_id, &writes.evidence, self.batch.now).await?;
        for named in [&writes.inserts.named, &writes.updates.named] {
            suppressions::cover_new(tx, self.program, named).await?;
        }
        let events: Vec<Outgoing> = writes
            .leads
            .iter()
            .filter_map(|write| match write.accepted {
                Accepted::New(id) => Some((id, write.revision, Event::LeadCreated {})),
                Accepted::Updated(id) => Some((id, write.revision, Event::LeadUpdated {})),
                Accepted::Duplicate(_) | Accepted::Erased => None,
            })
            .map(|(lead, revision, event)| Outgoing {
                envelope: Envelope::new(self.program, lead, revision, self.batch.now, event),
                route: Route::Exchange,
                trace: self.batch.trace.clone(),
            })
            .collect();
        let outbox = outbox::insert(tx, events).await?;
        let items: Vec<Accepted> = self
            .places
            .iter()
            .map(|(place, first)| match writes.leads[*place].accepted {
                Accepted::New(id) | Accepted::Updated(id) if !first => Accepted::Duplicate(id),
                accepted => accepted,
            })
            .collect();
        let rejected_new = rejects::insert(tx, self.program, self.batch.run_id, &self.rejects, self.batch.now).await?;
        let count = |wanted: fn(&Accepted) -> bool| items.iter().filter(|item| wanted(item)).count() as u64;
        let counts = Counts {
            accepted: count(|item| matches!(item, Accepted::New(_))),
            updated: count(|item| matches!(item, Accepted::Updated(_))),
            duplicates: count(|item| matches!(item, Accepted::Duplicate(_))),
            rejected: self.rejects.len() as u64 + count(|item| matches!(item, Accepted::Erased)),
            rejected_new,
        };
        runs::add(tx, self.program, self.batch.run_id, &counts).await?;
        if let Some(key) = &self.batch.idempotency {
            key.answer(tx, self.program, &answer(&items)).await?;
        }
        Ok(IntakeOutcome { items, counts, outbox, repeated: None })
    }

    /// Inserts new leads and their keys, all of them or none. Without ON CONFLICT, which would look for each lead once more: the
    /// plan has looked, or is sure enough not to, and one that is there all the same makes it stale.
    async fn insert(&self, tx: &mut Connection, new: &Columns) -> Result<(), StoreError> {
        if new.ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO leads (program_id, id, source, name, username, email, profile_url, follower_count, bio, verified,
                                location, country, username_index, email_index, index_version, created_at, updated_at,
                                run_id, line, country_source, domain_indexes, domain_indexes_of)
             SELECT $1, id, source, name, username, email, profile_url, follower_count, bio, verified, location, country,
                    username_index, email_index, $2, $3, $3, $17, line, country_source,
                    CASE WHEN domains IS NOT NULL THEN
                        ARRAY(SELECT substring(n.domains FROM i * 16 + 1 FOR 16)
                              FROM generate_series(0, octet_length(n.domains) / 16 - 1) AS i ORDER BY i) END,
                    email_index
             FROM UNNEST($4::uuid[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bigint[],
                         $11::bytea[], $12::boolean[], $13::bytea[], $14::text[], $15::bytea[], $16::bytea[],
                         $18::bigint[], $19::smallint[], $20::bytea[])
                  AS n (id, source, name, username, email, profile_url, follower_count, bio, verified, location, country,
                        username_index, email_index, line, country_source, domains)",
            self.program.as_uuid(),
            INDEX_VERSION,
            self.batch.now,
            &new.ids,
            &new.sources,
            &new.names as &[Option<Vec<u8>>],
            &new.usernames,
            &new.emails as &[Option<Vec<u8>>],
            &new.profile_urls as &[Option<Vec<u8>>],
            &new.follower_counts as &[Option<i64>],
            &new.bios as &[Option<Vec<u8>>],
            &new.verified,
            &new.locations as &[Option<Vec<u8>>],
            &new.countries as &[Option<String>],
            &new.username_indexes,
            &new.email_indexes as &[Option<Vec<u8>>],
            self.batch.run_id.as_uuid(),
            &new.lines,
            &new.country_sources as &[Option<i16>],
            &new.domain_indexes as &[Option<Vec<u8>>],
        )
        .execute(&mut *tx)
        .await
        .map_err(|error| match error {
            sqlx::Error::Database(error) if error.is_unique_violation() => StoreError::Stale,
            error => error.into(),
        })?;
        sqlx::query!(
            "INSERT INTO lead_keys (program_id, lead_id, wrapped_key)
             SELECT $1, lead_id, wrapped_key FROM UNNEST($2::uuid[], $3::bytea[]) AS k (lead_id, wrapped_key)",
            self.program.as_uuid(),
            &new.ids,
            &new.wrapped_keys,
        )
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Writes changed leads, each guarded by its revision and its key, all of them or none.
    async fn update(&self, tx: &mut Connection, changed: &Columns) -> Result<(), StoreError> {
        if changed.ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = changed.ids.iter().map(|id| (self.program, LeadId::from_uuid(*id))).collect();
        leads::lock_keys_for_update(tx, &ids).await?;
        let updated = sqlx::query!(
            "UPDATE leads l
             SET name = n.name, username = n.username, email = n.email, profile_url = n.profile_url,
                 follower_count = n.follower_count, bio = n.bio, verified = n.verified, location = n.location,
                 country = n.country, country_source = coalesce(n.country_source, l.country_source),
                 email_index = n.email_index, index_version = $2, revision = l.revision + 1, updated_at = $3,
                 domain_indexes_of = n.email_index,
                 domain_indexes =
                    CASE WHEN n.domains IS NOT NULL THEN
                        ARRAY(SELECT substring(n.domains FROM i * 16 + 1 FOR 16)
                              FROM generate_series(0, octet_length(n.domains) / 16 - 1) AS i ORDER BY i) END
             FROM UNNEST($1::uuid[], $4::uuid[], $5::int[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[],
                         $10::bigint[], $11::bytea[], $12::boolean[], $13::bytea[], $14::text[], $15::bytea[],
                         $16::smallint[], $17::bytea[])
                  AS n (program_id, id, revision, name, username, email, profile_url, follower_count, bio, verified,
                        location, country, email_index, country_source, domains)
             WHERE l.program_id = n.program_id AND l.id = n.id AND l.revision = n.revision
               AND EXISTS (SELECT FROM lead_keys k WHERE k.program_id = l.program_id AND k.lead_id = l.id)",
            // A column, not a value: for a program that the statistics don't know, the planner reads all its leads.
            &vec![self.program.as_uuid(); changed.ids.len()],
            INDEX_VERSION,
            self.batch.now,
            &changed.ids,
            &changed.revisions,
            &changed.names as &[Option<Vec<u8>>],
            &changed.usernames,
            &changed.emails as &[Option<Vec<u8>>],
            &changed.profile_urls as &[Option<Vec<u8>>],
            &changed.follower_counts as &[Option<i64>],
            &changed.bios as &[Option<Vec<u8>>],
            &changed.verified,
            &changed.locations as &[Option<Vec<u8>>],
            &changed.countries as &[Option<String>],
            &changed.email_indexes as &[Option<Vec<u8>>],
            &changed.country_sources as &[Option<i16>],
            &changed.domain_indexes as &[Option<Vec<u8>>],
        )
        .execute(&mut *tx)
        .await?;
        if updated.rows_affected() != changed.ids.len() as u64 {
            return Err(StoreError::Stale);
        }
        let revisions = changed.revisions.iter().map(|replaced| replaced + 1);
        let revisions: Vec<_> =
            ids.into_iter().zip(revisions).map(|((program, lead), new)| (program, lead, new)).collect();
        leads::await_enrichment(tx, &revisions).await
    }
}
