//! Lifting a cause. The others stand; an objection ends by a new consent alone.

use domain::{
    id::{LeadId, LiftId, OrganisationId, ProgramId},
    suppression::{Cause, ContactList, SubjectKind},
};
use uuid::Uuid;
use vault::BlindIndex;

use super::{SubjectIndex, SuppressionScope, causes, cover, standing};
use crate::{Connection, StoreError, leads};

/// What is lifted, and by whom.
#[derive(Debug, Clone)]
pub struct Lift {
    /// The record's id, which the evidence is bound to.
    pub id: LiftId,
    /// Where the cause holds.
    pub scope: SuppressionScope,
    /// Whom it is about.
    pub subject: SubjectIndex,
    /// The cause; of a do-not-contact list the one that the person is on.
    pub cause: Cause,
    /// The consent that it rests on.
    pub evidence: Option<Evidence>,
    /// Who does it: `person:` and a name.
    pub by: String,
}

/// A new consent, sealed.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The consent: its source and its wording.
    pub sealed: Vec<u8>,
    /// The lead under whose key it is sealed; `None` for the key of the program or the organisation.
    pub lead: Option<(ProgramId, LeadId)>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifted {
    /// It is lifted. Once this is committed, decide again about the leads: [`decide_again`](super::decide_again).
    Done {
        /// Whom it covered.
        subject: LiftedSubject,
        /// Causes of this scope or another that stand about the same subject.
        others: Vec<Cause>,
    },
    /// There is no such cause in this scope; these are.
    NotThere {
        /// What stands about the subject, in this scope or another.
        others: Vec<Cause>,
    },
    /// An objection is lifted only by a new consent, of which there is evidence.
    NeedsConsent,
}

/// Whom a lifted cause covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiftedSubject {
    programs: Vec<ProgramId>,
    kind: SubjectKind,
    index: BlindIndex,
}

/// Lifts one cause, and takes away the rows of `suppressions` for which no other stands.
pub async fn lift(connection: &mut Connection, lift: &Lift) -> Result<Lifted, StoreError> {
    if lift.cause.needs_consent() && lift.evidence.is_none() {
        return Ok(Lifted::NeedsConsent);
    }
    let Lift { scope, subject, .. } = lift;
    causes::lock(connection, scope.organisation, true).await?;
    let sealed_for = lift.evidence.as_ref().and_then(|evidence| evidence.lead);
    if let Some(lead) = sealed_for
        && leads::lock_keys(connection, &[lead]).await?.is_empty()
    {
        // Erased meanwhile: what is sealed under its key could not be read.
        return Err(StoreError::Stale);
    }
    let deleted = sqlx::query!(
        "DELETE FROM suppression_causes
         WHERE subject_index = $1 AND organisation_id = $2 AND program_id IS NOT DISTINCT FROM $3 AND kind = $4
           AND cause = $5",
        &subject.index.to_vec(),
        scope.organisation.as_uuid(),
        scope.program.map(|program| program.as_uuid()) as Option<Uuid>,
        subject.kind.name(),
        lift.cause.name(),
    )
    .execute(&mut *connection)
    .await?;
    let others = causes_of(connection, scope.organisation, subject.index).await?;
    if deleted.rows_affected() == 0 {
        return Ok(Lifted::NotThere { others });
    }
    sqlx::query!(
        "INSERT INTO suppression_lifts (organisation_id, id, program_id, kind, subject_index, cause, list, evidence,
                                        evidence_program_id, evidence_lead_id, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now(), $11)",
        scope.organisation.as_uuid(),
        lift.id.as_uuid(),
        scope.program.map(|program| program.as_uuid()),
        subject.kind.name(),
        &subject.index.to_vec(),
        lift.cause.name(),
        lift.cause.list().map(ContactList::name),
        lift.evidence.as_ref().map(|evidence| evidence.sealed.as_slice()),
        sealed_for.map(|(program, _)| program.as_uuid()),
        sealed_for.map(|(_, lead)| lead.as_uuid()),
        lift.by,
    )
    .execute(&mut *connection)
    .await?;
    let subject = LiftedSubject {
        programs: causes::programs_of(connection, scope).await?,
        kind: subject.kind,
        index: subject.index,
    };
    free(connection, &subject).await?;
    Ok(Lifted::Done { subject, others })
}

/// Takes away the rows of recipients against whom nothing stands any more.
async fn free(connection: &mut Connection, subject: &LiftedSubject) -> Result<(), StoreError> {
    let leads = covered(connection, subject).await?;
    let standing = standing(connection, &leads).await?;
    let mut recipients: Vec<(ProgramId, BlindIndex)> = Vec::new();
    for (id, standing) in &standing {
        if standing.causes.is_empty()
            && let Some(recipient) = standing.recipient
        {
            recipients.push((id.0, recipient));
        }
    }
    if subject.kind == SubjectKind::Email {
        recipients.extend(subject.programs.iter().map(|program| (*program, subject.index)));
    }
    recipients.sort_unstable();
    recipients.dedup();
    // Asked once more of the recipient: another lead with the same address may be covered by something else.
    let programs: Vec<Uuid> = recipients.iter().map(|(program, _)| program.as_uuid()).collect();
    let indexes: Vec<Vec<u8>> = recipients.iter().map(|(_, recipient)| recipient.to_vec()).collect();
    sqlx::query!(
        "DELETE FROM suppressions s
         USING (SELECT n.program_id, n.recipient
                FROM UNNEST($1::uuid[], $2::bytea[]) AS n (program_id, recipient)
                CROSS JOIN LATERAL (SELECT organisation_id FROM programs WHERE id = n.program_id OFFSET 0) p
                WHERE NOT EXISTS (SELECT FROM suppression_causes c
                                  WHERE c.subject_index = n.recipient AND c.organisation_id = p.organisation_id
                                    AND (c.program_id IS NULL OR c.program_id = n.program_id))
                  AND NOT EXISTS (
                      SELECT FROM (SELECT domain_indexes, domain_indexes_of, email_index, username_index FROM leads
                                   WHERE program_id = n.program_id AND email_index = n.recipient OFFSET 0) l
                      JOIN suppression_causes c
                           ON c.subject_index = ANY (array_append(CASE WHEN l.domain_indexes_of = l.email_index
                                                                       THEN l.domain_indexes END, l.username_index))
                      WHERE c.organisation_id = p.organisation_id
                        AND (c.program_id IS NULL OR c.program_id = n.program_id))
                ORDER BY n.program_id, n.recipient) f
         WHERE s.program_id = f.program_id AND s.recipient_index = f.recipient",
        &programs,
        &indexes,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The leads that a subject covers in a scope.
pub async fn leads_of(
    connection: &mut Connection,
    scope: SuppressionScope,
    subject: SubjectIndex,
) -> Result<Vec<(ProgramId, LeadId)>, StoreError> {
    let programs = causes::programs_of(connection, &scope).await?;
    covered(connection, &LiftedSubject { programs, kind: subject.kind, index: subject.index }).await
}

/// Every lead that a subject covers.
pub(super) async fn covered(
    connection: &mut Connection,
    subject: &LiftedSubject,
) -> Result<Vec<(ProgramId, LeadId)>, StoreError> {
    let mut leads = Vec::new();
    match subject.kind {
        SubjectKind::Email => {
            for program in &subject.programs {
                let found = leads::find_by_email(connection, *program, subject.index).await?;
                leads.extend(found.into_iter().map(|lead| (*program, lead)));
            }
        }
        SubjectKind::Handle => {
            for program in &subject.programs {
                let found = cover::leads_by_handle(connection, *program, &[subject.index]).await?;
                leads.extend(found.into_iter().map(|lead| (*program, lead.id)));
            }
        }
        SubjectKind::Domain => {
            let programs: Vec<Uuid> = subject.programs.iter().map(ProgramId::as_uuid).collect();
            let found = sqlx::query!(
                r#"SELECT l.program_id AS "program_id!", l.id AS "id!"
                   FROM (SELECT program_id, id FROM leads
                         WHERE domain_indexes @> ARRAY[$1::bytea] AND domain_indexes_of = email_index OFFSET 0) l
                   WHERE l.program_id = ANY($2)"#,
                &subject.index.to_vec(),
                &programs,
            )
            .fetch_all(connection)
            .await?;
            let ids = found.into_iter();
            leads.extend(ids.map(|row| (ProgramId::from_uuid(row.program_id), LeadId::from_uuid(row.id))));
        }
    }
    leads.sort_unstable();
    Ok(leads)
}

/// What stands about a subject anywhere in an organisation.
async fn causes_of(
    connection: &mut Connection,
    organisation: OrganisationId,
    subject: BlindIndex,
) -> Result<Vec<Cause>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, cause, list FROM suppression_causes
         WHERE subject_index = $1 AND organisation_id = $2 ORDER BY cause, list",
        &subject.to_vec(),
        organisation.as_uuid(),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Cause::parse(&row.cause, row.list.as_deref()).map_err(|error| StoreError::Inconsistent {
                table: "suppression_causes",
                column: "cause",
                row: row.id,
                detail: error.to_string(),
            })
        })
        .collect()
}

/// Lifts after which the leads were not decided about yet.
pub(super) async fn unapplied(
    connection: &mut Connection,
    organisation: OrganisationId,
) -> Result<Vec<(LiftId, LiftedSubject)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, program_id, kind, subject_index FROM suppression_lifts
         WHERE organisation_id = $1 AND applied_at IS NULL ORDER BY id LIMIT 100",
        organisation.as_uuid(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut lifts = Vec::with_capacity(rows.len());
    for row in rows {
        let scope = SuppressionScope { organisation, program: row.program_id.map(ProgramId::from_uuid) };
        let inconsistent = |detail: String| StoreError::Inconsistent {
            table: "suppression_lifts",
            column: "subject_index",
            row: row.id,
            detail,
        };
        let subject = LiftedSubject {
            programs: causes::programs_of(connection, &scope).await?,
            kind: match row.kind.as_str() {
                "email" => SubjectKind::Email,
                "handle" => SubjectKind::Handle,
                _ => SubjectKind::Domain,
            },
            index: BlindIndex::try_from(row.subject_index.as_slice())
                .map_err(|error| inconsistent(error.to_string()))?,
        };
        lifts.push((LiftId::from_uuid(row.id), subject));
    }
    Ok(lifts)
}
