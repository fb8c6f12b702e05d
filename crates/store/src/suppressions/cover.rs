//! The rows of `suppressions` that follow from causes.

use std::collections::BTreeMap;

use domain::{
    id::{LeadId, ProgramId},
    suppression::Cause,
};
use uuid::Uuid;
use vault::{BlindIndex, INDEX_VERSION};

use super::{Standing, reason_of};
use crate::{Connection, StoreError};

/// Recipients that one look suppresses, at most; a domain may cover most of a program's leads.
const MOST: usize = 1_000;

/// What a look has suppressed.
#[derive(Debug, Default)]
pub(super) struct Covering {
    pub(super) suppressed: Vec<(ProgramId, BlindIndex)>,
    /// Whether more are left.
    pub(super) unfinished: bool,
}

/// Suppresses recipients of a program; returns those that were not suppressed before.
pub(super) async fn by_address(
    connection: &mut Connection,
    program: ProgramId,
    recipients: &[(BlindIndex, Cause)],
) -> Result<Vec<(ProgramId, BlindIndex)>, StoreError> {
    let wanted: BTreeMap<Vec<u8>, &'static str> =
        recipients.iter().map(|(recipient, cause)| (recipient.to_vec(), reason_of(*cause))).collect();
    let rows = wanted.into_iter().map(|(recipient, reason)| (program, recipient, reason.to_owned())).collect();
    insert(connection, rows).await
}

/// Inserts rows that are sorted by key; returns those that were not there.
async fn insert(
    connection: &mut Connection,
    mut rows: Vec<(ProgramId, Vec<u8>, String)>,
) -> Result<Vec<(ProgramId, BlindIndex)>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    rows.sort_unstable();
    rows.dedup_by(|next, row| next.0 == row.0 && next.1 == row.1);
    let programs: Vec<Uuid> = rows.iter().map(|(program, _, _)| program.as_uuid()).collect();
    let recipients: Vec<Vec<u8>> = rows.iter().map(|(_, recipient, _)| recipient.clone()).collect();
    let reasons: Vec<String> = rows.into_iter().map(|(_, _, reason)| reason).collect();
    let inserted = sqlx::query!(
        "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at, cause_recorded)
         SELECT program_id, recipient_index, $1, reason, now(), true
         FROM UNNEST($2::uuid[], $3::bytea[], $4::text[]) AS n (program_id, recipient_index, reason)
         ON CONFLICT (program_id, recipient_index) DO NOTHING
         RETURNING program_id, recipient_index",
        INDEX_VERSION,
        &programs,
        &recipients,
        &reasons,
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted
        .into_iter()
        .filter_map(|row| {
            let recipient = BlindIndex::try_from(row.recipient_index.as_slice()).ok()?;
            Some((ProgramId::from_uuid(row.program_id), recipient))
        })
        .collect())
}

/// Suppresses the recipients of leads by their user names, on every network.
pub(super) async fn by_handle(
    connection: &mut Connection,
    programs: &[ProgramId],
    handles: &[(BlindIndex, Cause)],
) -> Result<Covering, StoreError> {
    let mut covering = Covering::default();
    if handles.is_empty() {
        return Ok(covering);
    }
    let reasons: BTreeMap<BlindIndex, Cause> = handles.iter().copied().collect();
    let indexes: Vec<BlindIndex> = reasons.keys().copied().collect();
    for program in programs {
        let leads = leads_by_handle(connection, *program, &indexes).await?;
        let rows = leads.into_iter().filter_map(|lead| {
            let handle = BlindIndex::try_from(lead.subject.as_slice()).ok()?;
            Some((*program, lead.recipient?, reason_of(*reasons.get(&handle)?).to_owned()))
        });
        covering.suppressed.extend(insert(connection, rows.collect()).await?);
    }
    Ok(covering)
}

/// Suppresses the recipients of leads by the domains of their addresses: up to a thousand that have no row yet.
pub(super) async fn by_domain(
    connection: &mut Connection,
    programs: &[ProgramId],
    domains: &[(BlindIndex, Cause)],
) -> Result<Covering, StoreError> {
    if domains.is_empty() {
        return Ok(Covering::default());
    }
    let reasons: BTreeMap<Vec<u8>, &'static str> =
        domains.iter().map(|(domain, cause)| (domain.to_vec(), reason_of(*cause))).collect();
    let indexes: Vec<Vec<u8>> = reasons.keys().cloned().collect();
    let names: Vec<String> = reasons.values().map(|reason| (*reason).to_owned()).collect();
    let ids: Vec<Uuid> = programs.iter().map(ProgramId::as_uuid).collect();
    // Domain by domain along their index. The program is looked at afterwards: no other organisation has these hashes, and one
    // that the statistics don't know would be taken for an empty one, all of whose leads might as well be read.
    let found = sqlx::query!(
        r#"SELECT l.program_id AS "program_id!", l.email_index AS "email_index!", n.reason AS "reason!"
           FROM UNNEST($1::bytea[], $2::text[]) AS n (domain, reason)
           CROSS JOIN LATERAL (SELECT program_id, email_index FROM leads
                               WHERE domain_indexes @> ARRAY[n.domain] AND domain_indexes_of = email_index OFFSET 0) l
           WHERE l.program_id = ANY($3)
             AND NOT EXISTS (SELECT FROM suppressions s
                             WHERE s.program_id = l.program_id AND s.recipient_index = l.email_index)
           LIMIT $4"#,
        &indexes,
        &names,
        &ids,
        MOST as i64,
    )
    .fetch_all(&mut *connection)
    .await?;
    let unfinished = found.len() == MOST;
    let rows = found.into_iter().map(|row| (ProgramId::from_uuid(row.program_id), row.email_index, row.reason));
    Ok(Covering { suppressed: insert(connection, rows.collect()).await?, unfinished })
}

/// A lead that a subject covers.
pub(super) struct CoveredLead {
    pub(super) id: LeadId,
    pub(super) subject: Vec<u8>,
    pub(super) recipient: Option<Vec<u8>>,
}

/// A program's leads with these user names, on every network.
pub(super) async fn leads_by_handle(
    connection: &mut Connection,
    program: ProgramId,
    handles: &[BlindIndex],
) -> Result<Vec<CoveredLead>, StoreError> {
    // Leads are indexed by network and user name: each network that there is takes one look.
    let mut sources: Vec<String> = Vec::new();
    loop {
        let next = sqlx::query_scalar!(
            "SELECT source FROM leads WHERE program_id = $1 AND source > $2 ORDER BY source LIMIT 1",
            program.as_uuid(),
            sources.last().map_or("", String::as_str),
        )
        .fetch_optional(&mut *connection)
        .await?;
        match next {
            Some(source) => sources.push(source),
            None => break,
        }
    }
    let handles: Vec<Vec<u8>> = handles.iter().map(|handle| handle.to_vec()).collect();
    let rows = sqlx::query!(
        r#"SELECT l.id AS "id!", l.username_index AS "username_index!", l.email_index AS "email_index?"
           FROM UNNEST($2::bytea[]) AS n (handle)
           CROSS JOIN UNNEST($3::text[]) AS s (source)
           CROSS JOIN LATERAL (SELECT id, username_index, email_index FROM leads
                               WHERE program_id = $1 AND source = s.source AND username_index = n.handle OFFSET 0) l"#,
        program.as_uuid(),
        &handles,
        &sources,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| CoveredLead {
            id: LeadId::from_uuid(row.id),
            subject: row.username_index,
            recipient: row.email_index,
        })
        .collect())
}

/// What names a lead that is being taken in: the recipient, and everything that it can be covered by.
pub(crate) struct NewLead {
    pub(crate) recipient: Vec<u8>,
    pub(crate) subjects: Vec<Vec<u8>>,
}

/// Suppresses those of these new or changed leads of a program that a cause covers.
pub(crate) async fn cover_new(
    connection: &mut Connection,
    program: ProgramId,
    leads: &[NewLead],
) -> Result<(), StoreError> {
    if leads.is_empty() {
        return Ok(());
    }
    // What is suppressed by address in this program alone has its row already, and there is mostly nothing else.
    let wide = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM suppression_causes c
                          WHERE c.organisation_id = (SELECT organisation_id FROM programs WHERE id = $1)
                            AND (c.kind <> 'email' OR c.program_id IS NULL)) AS "wide!""#,
        program.as_uuid(),
    )
    .fetch_one(&mut *connection)
    .await?;
    if !wide {
        return Ok(());
    }
    let pairs = || leads.iter().flat_map(|lead| lead.subjects.iter().map(|subject| (&lead.recipient, subject)));
    let recipients: Vec<Vec<u8>> = pairs().map(|(recipient, _)| recipient.clone()).collect();
    let subjects: Vec<Vec<u8>> = pairs().map(|(_, subject)| subject.clone()).collect();
    let covered = sqlx::query!(
        r#"SELECT n.recipient AS "recipient!", c.cause AS "cause!"
           FROM UNNEST($2::bytea[], $3::bytea[]) AS n (recipient, subject)
           CROSS JOIN LATERAL (SELECT cause FROM suppression_causes
                               WHERE subject_index = n.subject AND (program_id IS NULL OR program_id = $1)
                                 AND organisation_id = (SELECT organisation_id FROM programs WHERE id = $1) OFFSET 0) c"#,
        program.as_uuid(),
        &recipients,
        &subjects,
    )
    .fetch_all(&mut *connection)
    .await?;
    let rows = covered.into_iter().map(|row| (program, row.recipient, reason_name(&row.cause).to_owned()));
    insert(connection, rows.collect()).await?;
    Ok(())
}

/// Suppresses the recipients of leads by what stands against them.
pub(crate) async fn cover_standing<'a>(
    connection: &mut Connection,
    leads: impl Iterator<Item = (ProgramId, &'a Standing)>,
) -> Result<(), StoreError> {
    let rows = leads.filter_map(|(program, standing)| {
        let cause = standing.causes.first()?;
        let recipient = standing.recipient.filter(|_| !standing.effective)?;
        Some((program, recipient.to_vec(), reason_of(*cause).to_owned()))
    });
    let rows = rows.collect();
    insert(connection, rows).await?;
    Ok(())
}

fn reason_name(cause: &str) -> &str {
    if cause == "objection" { "unsubscribed" } else { cause }
}
