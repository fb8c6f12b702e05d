//! The configuration, and what commands make from it.

use std::path::Path;

use anyhow::Context;
use domain::program::Slug;
use service::config::{DatabaseConfig, Defaults, Document, Loader, process_environment};
use store::{Db, programs, schema, server};

pub use bootstrap::settings::{broker, vault};

/// The sections of all services: this program reads, and checks, the whole of a shared configuration.
pub const DEFAULTS: &[Defaults] = &[collector::config::DEFAULTS, enricher::config::DEFAULTS, mailer::config::DEFAULTS];

/// A value that a command sets whatever the configuration says: who sets it, the key, the value.
pub type Override = (&'static str, &'static str, String);

/// Something that was asked for in a way that can't work. Ends the program with status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

/// Reads the configuration.
pub fn load(file: Option<&Path>, overrides: &[Override]) -> anyhow::Result<Document> {
    let mut loader = Loader::new().defaults(DEFAULTS).file(file).env(process_environment());
    for (option, key, value) in overrides {
        loader = loader.option(option, key, value.clone());
    }
    Ok(loader.load()?)
}

/// The database; opens no connection yet.
pub fn database(document: &Document) -> anyhow::Result<Db> {
    bootstrap::settings::database(document, "leadmill")
}

/// The database, which answers and has the schema that this program needs.
pub async fn connect(document: &Document) -> anyhow::Result<Db> {
    let db = database(document)?;
    reach_database(document).await?;
    schema::check(&db).await?;
    Ok(db)
}

/// Tells whether PostgreSQL lets this program in, and what to do if not.
pub async fn reach_database(document: &Document) -> anyhow::Result<()> {
    let config: DatabaseConfig = document.section("database")?;
    let endpoint = config.url.endpoint();
    let advice = "start it, or set DATABASE_URL to the right one (`leadmill doctor` checks everything)";
    match tokio::time::timeout(config.acquire_timeout, server::reach(config.url.expose())).await {
        Ok(reached) => {
            reached.with_context(|| format!("PostgreSQL at {endpoint} does not let this program in: {advice}"))
        }
        Err(_) => anyhow::bail!("PostgreSQL at {endpoint} does not answer: {advice}"),
    }
}

/// The short name of the program that is meant: the one that was named, or the only one that there is.
pub async fn program_slug(db: &Db, named: Option<Slug>) -> anyhow::Result<Slug> {
    if let Some(slug) = named {
        return Ok(slug);
    }
    let all = db.transact("program.list", |tx, _| Box::pin(programs::list(tx))).await?;
    match all.as_slice() {
        [only] => Ok(only.slug.clone()),
        [] => {
            Err(WrongUsage("there is no program yet: make one with `leadmill program create NAME`".to_owned()).into())
        }
        several => {
            let known: Vec<&str> = several.iter().map(|program| program.slug.as_str()).collect();
            Err(WrongUsage(format!("which program? Say --program and one of {}", known.join(", "))).into())
        }
    }
}

/// The error for an organisation that isn't there.
pub fn no_such_organisation(slug: &Slug) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no organisation `{slug}`: `leadmill organisation list` shows them, `leadmill organisation create` makes one"
    )
}

/// The error for a program that isn't there.
pub fn no_such_program(slug: &Slug) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no program `{slug}`: `leadmill program list` shows them, `leadmill program create` makes one"
    )
}
