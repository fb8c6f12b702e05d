//! What stands against leads: by their address, their user name and the domain of their address.

use std::collections::HashMap;

use domain::{
    id::{LeadId, ProgramId},
    suppression::{Cause, ContactList},
};
use vault::BlindIndex;

use crate::{
    Connection, StoreError,
    leads::{self, Revision},
};

/// What stands against a lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Every cause that covers it.
    pub causes: Vec<Cause>,
    /// Whether its recipient has a row in `suppressions`, which is what a claim looks at.
    pub(crate) effective: bool,
    pub(crate) recipient: Option<BlindIndex>,
}

impl Standing {
    /// Whether nothing does.
    pub const fn is_clear(&self) -> bool {
        !self.effective && self.causes.is_empty()
    }

    /// The do-not-contact list that the person is on.
    pub fn list(&self) -> Option<ContactList> {
        self.causes.iter().find_map(|cause| cause.list())
    }

    /// Whether there is anything but a do-not-contact list. A row whose cause is unknown counts.
    pub fn is_suppressed(&self) -> bool {
        self.causes.iter().any(|cause| cause.list().is_none()) || self.effective && self.causes.is_empty()
    }
}

/// Looks up what stands against leads at this moment; those against whom nothing does are left out.
pub async fn standing(
    connection: &mut Connection,
    ids: &[(ProgramId, LeadId)],
) -> Result<HashMap<(ProgramId, LeadId), Standing>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let (programs, leads) = leads::columns(ids);
    // OFFSET 0 keeps each look one row by its whole key, and the causes one look per hash, also for a program that the
    // statistics don't know yet.
    let rows = sqlx::query!(
        r#"SELECT w.program_id AS "program_id!", w.lead_id AS "lead_id!", l.email_index AS "email_index?",
                  s.effective AS "effective!", c.causes AS "causes!"
           FROM UNNEST($1::uuid[], $2::uuid[]) AS w (program_id, lead_id)
           CROSS JOIN LATERAL (SELECT email_index, username_index,
                                      CASE WHEN domain_indexes_of = email_index THEN domain_indexes END AS domains
                               FROM leads WHERE program_id = w.program_id AND id = w.lead_id OFFSET 0) l
           CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM suppressions
                                              WHERE program_id = w.program_id AND recipient_index = l.email_index)
                                      AS effective OFFSET 0) s
           CROSS JOIN LATERAL (SELECT organisation_id FROM programs WHERE id = w.program_id OFFSET 0) p
           CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(DISTINCT cause || coalesce(':' || list, '')), '{}') AS causes
               FROM suppression_causes
               WHERE subject_index = ANY (array_remove(l.domains || ARRAY[l.email_index, l.username_index], NULL))
                 AND organisation_id = p.organisation_id AND (program_id IS NULL OR program_id = w.program_id)
               OFFSET 0
           ) c
           WHERE s.effective OR cardinality(c.causes) > 0"#,
        &programs,
        &leads,
    )
    .fetch_all(connection)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let mut causes = Vec::with_capacity(row.causes.len());
        for text in &row.causes {
            let (name, list) = match text.split_once(':') {
                Some((name, list)) => (name, Some(list)),
                None => (text.as_str(), None),
            };
            causes.push(Cause::parse(name, list).map_err(|error| StoreError::Inconsistent {
                table: "suppression_causes",
                column: "cause",
                row: row.lead_id,
                detail: error.to_string(),
            })?);
        }
        // A list comes last: an objection is the stronger reason.
        causes.sort_by_key(|cause| cause.list().is_some());
        let recipient = row.email_index.as_deref().and_then(|index| BlindIndex::try_from(index).ok());
        let id = (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.lead_id));
        found.insert(id, Standing { causes, effective: row.effective, recipient });
    }
    Ok(found)
}

/// Takes those of these leads off the list of what waits for an analysis that still are suppressed; they are put on it again
/// when nothing stands against them any more.
pub async fn skip_analysis(
    connection: &mut Connection,
    revisions: &[(ProgramId, LeadId, i32)],
) -> Result<(), StoreError> {
    if revisions.is_empty() {
        return Ok(());
    }
    let mut ids: Vec<_> = revisions.iter().map(|(program, lead, _)| (*program, *lead)).collect();
    ids.sort_unstable();
    ids.dedup();
    leads::lock_keys_for_update(connection, &ids).await?;
    let standing = standing(connection, &ids).await?;
    let skipped: Vec<Revision> =
        revisions.iter().copied().filter(|(program, lead, _)| standing.contains_key(&(*program, *lead))).collect();
    leads::enriched(connection, &skipped).await
}
