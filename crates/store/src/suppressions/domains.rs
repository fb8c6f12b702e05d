//! Hashing the domains of addresses that an older release has stored, so that a suppression by domain covers them.

use domain::{
    email::EmailAddress,
    id::{LeadId, ProgramId},
};
use uuid::Uuid;
use vault::{IndexKey, Vault};

use super::{NewLead, cover_new};
use crate::{
    Connection, Db, StoreError,
    leads::{self, Found},
    programs::{self, Directory},
    unreadable,
};

/// Leads of one transaction.
const PAGE: i64 = 500;

/// What was hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashed {
    /// Leads whose address has its domains now.
    pub leads: u64,
    /// Leads that can't be opened, because they were erased or tampered with; they are not looked at again.
    pub skipped: u64,
}

/// Hashes the domains of all leads that have none yet, of one program or of all; `progress` is told how many leads were looked at.
///
/// # Errors
/// When the database fails, or a key can't be unwrapped; the next call goes on.
pub async fn hash_domains(
    db: &Db,
    vault: &Vault,
    only: Option<&[ProgramId]>,
    mut progress: impl FnMut(u64),
) -> Result<Hashed, StoreError> {
    let directory = Directory::new(db.clone(), vault.clone());
    let all = match only {
        Some(programs) => programs.to_vec(),
        None => db.transact("domains.programs", |tx, _| Box::pin(programs::ids(tx))).await?,
    };
    let mut hashed = Hashed::default();
    for program in all {
        let Some(open) = directory.get(program).await? else { continue };
        loop {
            let page = db.transact("domains.without", |tx, _| Box::pin(without(tx, program))).await?;
            if page.is_empty() {
                break;
            }
            let rows = hash(db, vault, open.keys.index(), &page).await?;
            let skipped = rows.iter().filter(|row| row.domains.is_empty()).count() as u64;
            db.transact("domains.write", |tx, _| {
                let rows = rows.as_slice();
                Box::pin(async move { write(tx, program, rows).await })
            })
            .await?;
            hashed.leads += rows.len() as u64 - skipped;
            hashed.skipped += skipped;
            progress(hashed.leads + hashed.skipped);
        }
    }
    Ok(hashed)
}

/// A lead with what its domains are hashed to; nothing for one that can't be opened.
struct HashedLead {
    id: LeadId,
    recipient: Vec<u8>,
    username: Vec<u8>,
    domains: Vec<Vec<u8>>,
}

/// Leads whose address has no domains yet, or those of an earlier address: id, and the indexes of address and user name.
async fn without(
    connection: &mut Connection,
    program: ProgramId,
) -> Result<Vec<(ProgramId, LeadId, Vec<u8>, Vec<u8>)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, email_index AS "email_index!", username_index FROM leads
           WHERE program_id = $1 AND email_index IS NOT NULL AND domain_indexes_of IS DISTINCT FROM email_index
           ORDER BY id LIMIT $2"#,
        program.as_uuid(),
        PAGE,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (program, LeadId::from_uuid(row.id), row.email_index, row.username_index)).collect())
}

async fn hash(
    db: &Db,
    vault: &Vault,
    keys: &IndexKey,
    page: &[(ProgramId, LeadId, Vec<u8>, Vec<u8>)],
) -> Result<Vec<HashedLead>, StoreError> {
    let ids: Vec<_> = page.iter().map(|(program, lead, ..)| (*program, *lead)).collect();
    let mut found = leads::open(db, vault, &ids).await?;
    Ok(page
        .iter()
        .map(|(program, id, recipient, username)| {
            let email = match found.remove(&(*program, *id)) {
                Some(Found::Lead(lead)) => lead.lead.profile.email,
                Some(Found::Unreadable(error)) => {
                    unreadable::readable("leads", id.as_uuid(), Err::<EmailAddress, _>(error))
                }
                _ => None,
            };
            // An address that has changed since the page was read is left for the next one: the write is guarded.
            let domains = email.map(|email| keys.domains_of(&email)).unwrap_or_default();
            HashedLead {
                id: *id,
                recipient: recipient.clone(),
                username: username.clone(),
                domains: domains.into_iter().map(vault::BlindIndex::to_vec).collect(),
            }
        })
        .collect())
}

/// Writes hashes, each guarded by the address that it was made for, and suppresses those that a cause covers.
async fn write(connection: &mut Connection, program: ProgramId, rows: &[HashedLead]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id.as_uuid()).collect();
    let recipients: Vec<Vec<u8>> = rows.iter().map(|row| row.recipient.clone()).collect();
    // An array of arrays can't be unnested by rows: hashes travel one after the other, 16 bytes each.
    let joined: Vec<Vec<u8>> = rows.iter().map(|row| row.domains.concat()).collect();
    sqlx::query!(
        "UPDATE leads l
         SET domain_indexes = ARRAY(SELECT substring(n.joined FROM i * 16 + 1 FOR 16)
                                    FROM generate_series(0, octet_length(n.joined) / 16 - 1) AS i ORDER BY i),
             domain_indexes_of = n.recipient
         FROM UNNEST($1::uuid[], $2::uuid[], $3::bytea[], $4::bytea[]) AS n (program_id, id, recipient, joined)
         WHERE l.program_id = n.program_id AND l.id = n.id AND l.email_index = n.recipient",
        &vec![program.as_uuid(); ids.len()],
        &ids,
        &recipients,
        &joined,
    )
    .execute(&mut *connection)
    .await?;
    let leads: Vec<NewLead> = rows
        .iter()
        .map(|row| {
            let mut subjects = row.domains.clone();
            subjects.extend([row.recipient.clone(), row.username.clone()]);
            NewLead { recipient: row.recipient.clone(), subjects }
        })
        .collect();
    cover_new(connection, program, &leads).await
}
