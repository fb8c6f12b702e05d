//! Makes or drops a throw-away database with the current schema, for `deploy/sqlx-prepare.sh`.
//!
//! ```text
//! scratch_database create   a new database on DATABASE_URL's server, migrated from ./migrations; prints its URL
//! scratch_database drop     drops the database that DATABASE_URL names, if it is one of these
//! ```
//!
//! It needs neither `psql` nor the `store` crate: `store` may be exactly what doesn't compile until its queries are
//! prepared.

use std::{env, io::Write as _, path::Path};

use anyhow::{Context as _, bail};
use sqlx::{Connection as _, PgConnection, Postgres, migrate::MigrateDatabase as _, migrate::Migrator};

/// Databases made here, and only those, may be dropped here.
const PREFIX: &str = "leadmill_scratch_";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let url = env::var("DATABASE_URL").context("DATABASE_URL is not set")?;
    match env::args().nth(1).as_deref() {
        Some("create") => create(&url).await,
        Some("drop") => drop_scratch(&url).await,
        _ => bail!("usage: scratch_database create|drop"),
    }
}

async fn create(server: &str) -> anyhow::Result<()> {
    let url = with_database(server, &format!("{PREFIX}{}", uuid::Uuid::now_v7().simple()))?;
    Postgres::create_database(&url).await.context("creating the database")?;
    if let Err(error) = migrate(&url).await {
        Postgres::force_drop_database(&url).await.context("dropping the half-made database")?;
        return Err(error);
    }
    writeln!(std::io::stdout(), "{url}").context("printing the URL")
}

async fn migrate(url: &str) -> anyhow::Result<()> {
    let migrator = Migrator::new(Path::new("migrations")).await.context("reading ./migrations")?;
    let mut connection = PgConnection::connect(url).await.context("connecting to the new database")?;
    migrator.run(&mut connection).await.context("applying ./migrations")?;
    connection.close().await.context("closing the connection")
}

async fn drop_scratch(url: &str) -> anyhow::Result<()> {
    if !split(url)?.1.starts_with(PREFIX) {
        bail!("only databases whose name starts with {PREFIX} are dropped here");
    }
    Postgres::force_drop_database(url).await.context("dropping the database")
}

/// The same server, another database; parameters such as `sslmode` or `host` stay.
fn with_database(url: &str, database: &str) -> anyhow::Result<String> {
    let (server, _, parameters) = split(url)?;
    Ok(format!("{server}/{database}{parameters}"))
}

/// Cuts a PostgreSQL URL into `scheme://authority`, the database's name and `?parameters`, each of the last two
/// possibly empty.
fn split(url: &str) -> anyhow::Result<(&str, &str, &str)> {
    let (address, parameters) = url.split_at(url.find('?').unwrap_or(url.len()));
    let authority = address.find("://").context("DATABASE_URL is no URL: `://` is missing")? + "://".len();
    let slash = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    let (server, path) = address.split_at(slash);
    Ok((server, path.trim_start_matches('/'), parameters))
}
