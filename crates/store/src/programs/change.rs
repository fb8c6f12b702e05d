//! Changing a program's settings.
//!
//! A change writes what was named and nothing else, guarded by the version that it was made from. So two people can change
//! different things at the same time, and nobody undoes an automatic pause that they have not seen.

use domain::{
    email::EmailAddress,
    id::ProgramId,
    law::Law,
    legal::Basis,
    program::{Program, ProgramSettings, Slug},
};
use time::OffsetDateTime;

use super::select;
use crate::{Connection, StoreError, outreach};

/// The version of a program's settings, from 1.
pub type Version = i32;

/// What is set anew; `None` leaves a setting as it is, and `Some(None)` removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The program's name.
    pub name: Option<String>,
    /// The name in `From`.
    pub sender_name: Option<String>,
    /// The address in `From`.
    pub sender_email: Option<Option<EmailAddress>>,
    /// The address that answers go to.
    pub reply_to: Option<Option<EmailAddress>>,
    /// The sender's postal address.
    pub postal_address: Option<Option<String>>,
    /// Where the privacy notice stands.
    pub privacy_url: Option<Option<String>>,
    /// The least score that qualifies, 0 to 100.
    pub threshold: Option<i16>,
    /// What the program is looking for.
    pub niches: Option<Vec<String>>,
    /// What the product is.
    pub product: Option<String>,
    /// The lawful basis.
    pub basis: Option<Basis>,
    /// At most this many mails a day.
    pub daily_cap: Option<Option<i32>>,
    /// Whether sending is paused.
    pub paused: Option<bool>,
}

impl Change {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The settings after the change.
    #[must_use]
    pub fn applied_to(&self, settings: &ProgramSettings) -> ProgramSettings {
        let own = settings.clone();
        let Self { name, sender_name, sender_email, reply_to, postal_address, privacy_url, .. } = self.clone();
        let Self { threshold, niches, product, basis, daily_cap, paused, .. } = self.clone();
        ProgramSettings {
            name: name.unwrap_or(own.name),
            sender_name: sender_name.unwrap_or(own.sender_name),
            sender_email: sender_email.unwrap_or(own.sender_email),
            reply_to: reply_to.unwrap_or(own.reply_to),
            postal_address: postal_address.unwrap_or(own.postal_address),
            privacy_url: privacy_url.unwrap_or(own.privacy_url),
            threshold: threshold.unwrap_or(own.threshold),
            niches: niches.unwrap_or(own.niches),
            product: product.unwrap_or(own.product),
            basis: basis.unwrap_or(own.basis),
            daily_cap: daily_cap.unwrap_or(own.daily_cap),
            paused: paused.unwrap_or(own.paused),
        }
    }

    /// Whether decisions about leads may be others after this change of `settings`.
    pub fn touches_decisions(&self, settings: &ProgramSettings) -> bool {
        let after = self.applied_to(settings);
        after.threshold != settings.threshold
            || after.niches != settings.niches
            || after.can_send() != settings.can_send()
            || after.sender_email != settings.sender_email
    }

    /// Whether scores may be others after this change of `settings`.
    pub fn touches_scores(&self, settings: &ProgramSettings) -> bool {
        self.applied_to(settings).niches != settings.niches
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is written; the program as it is now.
    Done(Box<Program>),
    /// Somebody else changed the program since `version` was read. Nothing was written.
    Conflict,
    /// There is no such program.
    Missing,
}

/// A program by its short name, with its version.
pub(super) async fn version_of(connection: &mut Connection, id: ProgramId) -> Result<Option<Version>, StoreError> {
    let version = sqlx::query_scalar!("SELECT version FROM programs WHERE id = $1", id.as_uuid())
        .fetch_optional(connection)
        .await?;
    Ok(version)
}

/// Looks a program up by short name, with the version that a [`Change`] of it names.
pub async fn by_slug_with_version(
    connection: &mut Connection,
    slug: &Slug,
) -> Result<Option<(Program, Version)>, StoreError> {
    // One statement: read by two, the settings could be older than the version that vouches for them.
    let Some(row) = select(connection, None, Some(slug)).await?.into_iter().next() else { return Ok(None) };
    let version = row.version;
    Ok(Some((row.try_into()?, version)))
}

/// Writes a change of a program that was read at `version`. Mails that are held for a pause, by versions of Leadmill in which
/// that was a hold, are queued when the program is resumed. Decided leads are decided again afterwards, by
/// [`outreach::reevaluate`].
pub async fn set(
    connection: &mut Connection,
    before: &Program,
    version: Version,
    change: &Change,
    now: OffsetDateTime,
) -> Result<Changed, StoreError> {
    let after = change.applied_to(&before.settings);
    let decisions = change.touches_decisions(&before.settings);
    let scores = change.touches_scores(&before.settings);
    let flat = |address: &Option<EmailAddress>| address.as_ref().map(|address| address.as_str().to_owned());
    // Each column behind its own flag: what isn't named is not written, whatever it is by now.
    let written = sqlx::query_scalar!(
        "UPDATE programs
         SET name = CASE WHEN $3 THEN $4 ELSE name END,
             sender_name = CASE WHEN $5 THEN $6 ELSE sender_name END,
             sender_email = CASE WHEN $7 THEN $8 ELSE sender_email END,
             reply_to = CASE WHEN $9 THEN $10 ELSE reply_to END,
             postal_address = CASE WHEN $11 THEN $12 ELSE postal_address END,
             privacy_url = CASE WHEN $13 THEN $14 ELSE privacy_url END,
             threshold = CASE WHEN $15 THEN $16 ELSE threshold END,
             niches = CASE WHEN $17 THEN $18 ELSE niches END,
             product = CASE WHEN $19 THEN $20 ELSE product END,
             basis = CASE WHEN $21 THEN $22 ELSE basis END,
             daily_cap = CASE WHEN $23 THEN $24 ELSE daily_cap END,
             paused = CASE WHEN $25 THEN $26 ELSE paused END,
             rules_version = rules_version + CASE WHEN $27 THEN 1 ELSE 0 END,
             rules_changed_at = CASE WHEN $27 THEN now() ELSE rules_changed_at END,
             niches_changed_at = CASE WHEN $28 THEN now() ELSE niches_changed_at END,
             version = version + 1, updated_at = $29
         WHERE id = $1 AND version = $2
         RETURNING version",
        before.id.as_uuid(),
        version,
        change.name.is_some(),
        after.name,
        change.sender_name.is_some(),
        after.sender_name,
        change.sender_email.is_some(),
        flat(&after.sender_email) as Option<String>,
        change.reply_to.is_some(),
        flat(&after.reply_to) as Option<String>,
        change.postal_address.is_some(),
        after.postal_address.clone() as Option<String>,
        change.privacy_url.is_some(),
        after.privacy_url.clone() as Option<String>,
        change.threshold.is_some(),
        after.threshold,
        change.niches.is_some(),
        &after.niches,
        change.product.is_some(),
        after.product,
        change.basis.is_some(),
        after.basis.name(),
        change.daily_cap.is_some(),
        after.daily_cap as Option<i32>,
        change.paused.is_some(),
        after.paused,
        decisions,
        scores,
        now,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if written.is_none() {
        let exists = version_of(connection, before.id).await?.is_some();
        return Ok(if exists { Changed::Conflict } else { Changed::Missing });
    }
    if let Some(Some(limit)) = change.daily_cap {
        outreach::budget::recount_day(connection, before.id, limit).await?;
    }
    if change.paused == Some(false) {
        outreach::reevaluate::release_paused(connection, before.id).await?;
    }
    Ok(Changed::Done(Box::new(Program { settings: after, ..before.clone() })))
}

/// The version of the law's rules, as programs and mails remember which of them decisions about them rest on.
pub fn law_version() -> i16 {
    i16::try_from(Law::current().version()).expect("versions are parsed within this range")
}
