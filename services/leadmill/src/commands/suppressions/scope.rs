//! Where a suppression holds, and the keys that it takes; and who does it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use domain::id::ProgramId;
use domain::program::Slug;
use domain::suppression::Subject;
use service::config::Document;
use store::Db;
use store::organisations;
use store::programs::Directory;
use store::suppressions::{self, SubjectIndex, SuppressionScope};
use vault::{DataKey, IndexKey, Vault};

use crate::progress::Progress;
use crate::settings::{self, WrongUsage};

/// `--program` or `--organisation`
#[derive(Debug, clap::Args)]
pub struct ScopeArgs {
    /// For this program; may be left out when there is only one
    #[arg(long, value_name = "NAME", conflicts_with = "organisation")]
    program: Option<Slug>,
    /// For every program of this organisation, also those that come later
    #[arg(long, value_name = "NAME")]
    organisation: Option<Slug>,
}

/// A scope with its keys.
pub struct OpenScope {
    pub db: Db,
    pub vault: Vault,
    pub scope: SuppressionScope,
    /// As a person reads it.
    pub label: String,
    /// Makes the hashes.
    pub index: IndexKey,
    /// Seals what a person wrote.
    pub sealing: DataKey,
}

impl OpenScope {
    /// Opens the scope that is meant.
    pub async fn open(document: &Document, args: ScopeArgs) -> anyhow::Result<Self> {
        let vault = settings::vault(document)?;
        let db = settings::connect(document).await?;
        if let Some(slug) = &args.organisation {
            let found = organisations::open(&db, &vault, slug).await?;
            let open = found.ok_or_else(|| settings::no_such_organisation(slug))?;
            return Ok(Self {
                scope: SuppressionScope { organisation: open.organisation.id, program: None },
                label: format!("organisation {slug}"),
                index: open.keys.index().clone(),
                sealing: open.keys.sealing().clone(),
                db,
                vault,
            });
        }
        let slug = settings::program_slug(&db, args.program).await?;
        let found = Directory::new(db.clone(), vault.clone()).by_slug(&slug).await?;
        let open = found.ok_or_else(|| settings::no_such_program(&slug))?;
        let program = open.program.id;
        let organisation =
            db.transact("program.organisation", |tx, _| Box::pin(organisations::of_program(tx, program))).await?;
        let organisation = organisation.ok_or_else(|| settings::no_such_program(&slug))?.id;
        Ok(Self {
            scope: SuppressionScope { organisation, program: Some(program) },
            label: format!("program {slug}"),
            index: open.keys.index().clone(),
            sealing: open.keys.rejects().clone(),
            db,
            vault,
        })
    }

    /// The hash of a subject.
    pub fn hash(&self, subject: &Subject) -> SubjectIndex {
        SubjectIndex::of(subject, &self.index)
    }

    /// Hashes the domains of leads that an older release has stored, so that a suppression by domain covers all of them.
    pub async fn hash_domains(&self, progress: &Progress) -> anyhow::Result<()> {
        let scope = self.scope;
        let programs: Vec<ProgramId> = self
            .db
            .transact("suppressions.programs_of", |tx, _| {
                Box::pin(async move { suppressions::programs_of(tx, &scope).await })
            })
            .await?;
        let mut meter = progress.meter("hashed", None);
        let hashed = suppressions::hash_domains(&self.db, &self.vault, Some(&programs), |seen| {
            meter.set(seen, "addresses' domains");
        })
        .await?;
        meter.give_way(hashed.leads);
        Ok(())
    }
}

/// The subject that was named.
pub fn subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text).map_err(|error| error.to_string())
}

/// A subject, as a person reads it: the text itself is personal.
pub const fn describe(subject: &Subject) -> &'static str {
    match subject {
        Subject::Email(_) => "the address",
        Subject::Handle(_) => "the user name, on every network",
        Subject::Domain(_) if subject.is_wildcard() => "the domains below that one",
        Subject::Domain(_) => "the domain",
    }
}

/// Who does it: the account on this machine.
///
/// # Errors
/// When the account can't be told.
pub fn person() -> anyhow::Result<String> {
    let uid = fs::metadata("/proc/self")
        .map_err(|error| WrongUsage(format!("who runs this can't be told: /proc/self: {error}")))?
        .uid();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    Ok(format!("person:{}", name.unwrap_or_else(|| format!("uid-{uid}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_it_is_an_account_of_this_machine() {
        let person = person().unwrap();
        assert!(person.len() > "person:".len(), "{person}");
    }
}
