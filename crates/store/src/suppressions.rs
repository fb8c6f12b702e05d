//! Who must not be written to, and why. A suppression is a blind index: it outlives the lead.
//!
//! ```text
//!  suppression_causes                         suppressions                   outreach
//!  (scope, subject, cause), each stands  ──►  one row per program and   ──►  unsent rows are cancelled;
//!  until it is lifted                         recipient that is covered      claim and data phase look here
//! ```
//!
//! A cause is a fact, written with the rows of `suppressions` that follow from it in one transaction: a cause by address has one
//! in every program of its scope, one by user name or domain in the programs of the leads that it covers. What is unsent to the
//! recipient is cancelled right after it, by [`recipients::cancel_suppressed`], and once more some minutes later, by [`apply`]: a
//! mail may have been planned by a transaction that was under way. A claim and the move to the data phase look at the fact itself.
//!
//! Leads that are stored later get their row when they are taken in, and at the latest when they are decided about
//! ([`standing`] looks their causes up). Adding a cause holds a shared advisory lock of the organisation until the transaction
//! ends, lifting one holds it alone: so that whoever lifts the last cause sees every other.

mod causes;
mod cover;
mod domains;
mod follow_up;
mod lift;
mod read;
mod standing;

use std::time::Duration;

use domain::{
    id::{CauseId, LeadId, OrganisationId, ProgramId},
    suppression::{Cause, SubjectKind},
};
use vault::{BlindIndex, INDEX_VERSION};

pub(crate) use self::cover::{NewLead, cover_new, cover_standing};
pub use self::{
    causes::{NewCause, Recorded, programs_of, record},
    domains::{Hashed, hash_domains},
    follow_up::{apply_causes, cancel, decide_again},
    lift::{Evidence, Lift, Lifted, LiftedSubject, leads_of, lift},
    read::{Filter, StoredCause, count, page},
    standing::{Standing, skip_analysis, standing},
};
use crate::{Connection, Db, StoreError, outreach::recipients, programs};

/// Recipients of one transaction.
const PAGE: i64 = 500;
/// No transaction that plans a mail, or takes a lead in, takes longer.
const IN_FLIGHT: Duration = Duration::from_mins(2);

/// Where a suppression holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuppressionScope {
    /// The organisation.
    pub organisation: OrganisationId,
    /// One of its programs; `None` means all of them, also those that come later.
    pub program: Option<ProgramId>,
}

/// Whom a suppression is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubjectIndex {
    /// By what it names them.
    pub kind: SubjectKind,
    /// The keyed hash.
    pub index: BlindIndex,
    /// Whether it is the domains below one.
    pub subdomains: bool,
}

impl SubjectIndex {
    /// The hash of a subject, with a scope's index key.
    pub fn of(subject: &domain::suppression::Subject, keys: &vault::IndexKey) -> Self {
        Self { kind: subject.kind(), index: keys.subject(subject), subdomains: subject.is_wildcard() }
    }
}

/// Why a recipient is suppressed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuppressionReason {
    /// They asked for it.
    Unsubscribed,
    /// The address doesn't exist.
    HardBounce,
    /// They reported a mail as spam.
    Complaint,
    /// Somebody of the program did it.
    Manual,
}

impl SuppressionReason {
    /// The cause that it is.
    pub const fn cause(self) -> Cause {
        match self {
            Self::Unsubscribed => Cause::Objection,
            Self::HardBounce => Cause::HardBounce,
            Self::Complaint => Cause::Complaint,
            Self::Manual => Cause::Manual,
        }
    }
}

/// The reason of a row of `suppressions`, which releases without causes read too.
const fn reason_of(cause: Cause) -> &'static str {
    match cause {
        Cause::Objection => "unsubscribed",
        other => other.name(),
    }
}

/// Suppresses recipients of a program at once. Returns the leads behind those that were not suppressed before, so that the
/// caller can tell of it. Once it is committed, cancel what is unsent to them: [`recipients::cancel_suppressed`].
pub async fn add(
    connection: &mut Connection,
    program: ProgramId,
    recipients: &[BlindIndex],
    reason: SuppressionReason,
) -> Result<Vec<(LeadId, i32)>, StoreError> {
    let mut recipients: Vec<Vec<u8>> = recipients.iter().map(|recipient| recipient.to_vec()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let causes: Vec<uuid::Uuid> = recipients.iter().map(|_| CauseId::generate().as_uuid()).collect();
    let organisation = sqlx::query_scalar!(
        r#"SELECT organisation_id AS "organisation_id!" FROM programs WHERE id = $1"#,
        program.as_uuid(),
    )
    .fetch_optional(&mut *connection)
    .await?
    .map(OrganisationId::from_uuid);
    if let Some(organisation) = organisation {
        causes::lock(connection, organisation, false).await?;
        sqlx::query!(
            "INSERT INTO suppression_causes (organisation_id, id, program_id, kind, subject_index, index_version, cause,
                                             created_at, created_by, applied_at)
             SELECT $1, id, $2, 'email', recipient_index, $3, $4, now(), 'process:leadmill', now()
             FROM UNNEST($5::uuid[], $6::bytea[]) AS n (id, recipient_index)
             ON CONFLICT DO NOTHING",
            organisation.as_uuid(),
            program.as_uuid(),
            INDEX_VERSION,
            reason.cause().name(),
            &causes,
            &recipients,
        )
        .execute(&mut *connection)
        .await?;
    }
    let added = sqlx::query_scalar!(
        "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at, cause_recorded)
         SELECT $1, recipient_index, $2, $3, now(), $5 FROM UNNEST($4::bytea[]) AS n (recipient_index)
         ON CONFLICT (program_id, recipient_index) DO NOTHING
         RETURNING recipient_index",
        program.as_uuid(),
        INDEX_VERSION,
        reason_of(reason.cause()),
        &recipients,
        organisation.is_some(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let leads = sqlx::query!(
        r#"SELECT l.id, l.revision
           FROM UNNEST($2::bytea[]) AS n (recipient)
           CROSS JOIN LATERAL (SELECT id, revision FROM leads
                               WHERE program_id = $1 AND email_index = n.recipient OFFSET 0) l
           ORDER BY l.id"#,
        program.as_uuid(),
        &added,
    )
    .fetch_all(connection)
    .await?;
    Ok(leads.into_iter().map(|row| (LeadId::from_uuid(row.id), row.revision)).collect())
}

/// The job: applies the suppressions of every program that are due for it; returns how many there were.
///
/// # Errors
/// When the database fails; the next run goes on.
pub async fn apply_all(db: Db) -> Result<u64, StoreError> {
    let mut count = 0;
    for program in db.transact("suppressions.programs", |tx, _| Box::pin(programs::ids(tx))).await? {
        loop {
            let found = db.transact("suppressions.apply", |tx, _| Box::pin(apply(tx, program, PAGE))).await?;
            count += found;
            if found < PAGE as u64 {
                break;
            }
        }
    }
    Ok(count)
}

/// Cancels what is unsent to up to `limit` recipients of a program whose suppressions are so old that no transaction can still
/// be under way which doesn't know of them; each is looked at once. Returns how many recipients there were.
pub async fn apply(connection: &mut Connection, program: ProgramId, limit: i64) -> Result<u64, StoreError> {
    let recipients = sqlx::query_scalar!(
        "UPDATE suppressions SET applied_at = now()
         WHERE program_id = $1 AND recipient_index IN (
             SELECT recipient_index FROM suppressions
             WHERE program_id = $1 AND applied_at IS NULL AND created_at < now() - $2 * interval '1 second'
             ORDER BY recipient_index LIMIT $3
             FOR UPDATE SKIP LOCKED)
         RETURNING recipient_index",
        program.as_uuid(),
        IN_FLIGHT.as_secs_f64(),
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let found = recipients.len() as u64;
    let recipients: Vec<BlindIndex> =
        recipients.iter().filter_map(|index| BlindIndex::try_from(index.as_slice()).ok()).collect();
    recipients::cancel_suppressed(connection, program, &recipients).await?;
    Ok(found)
}

/// Whether a recipient is suppressed.
pub async fn contains(
    connection: &mut Connection,
    program: ProgramId,
    recipient: BlindIndex,
) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM suppressions WHERE program_id = $1 AND recipient_index = $2) AS "found!""#,
        program.as_uuid(),
        &recipient.to_vec(),
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}
