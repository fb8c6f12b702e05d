//! The PostgreSQL server itself: what it is, and databases on it. For `leadmill doctor`, `leadmill demo` and
//! `leadmill bench`.
//!
//! These statements need no schema of ours, so they aren't checked against it either.

use sqlx::{ConnectOptions as _, Connection as _, Executor, PgConnection};

use crate::{Connection, StoreError, db::connect_options};

/// The versions that Leadmill is tested with.
pub const SUPPORTED_VERSIONS: std::ops::RangeInclusive<i32> = 15..=18;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// Its version as it prints it, such as `17.2 (Debian 17.2-1)`.
    pub version: String,
    /// Its major version, such as 17.
    pub major: i32,
    /// Whether it waits for the disk: `on` unless somebody gave durability up.
    pub fsync: String,
    /// When it reports a commit: anything but `off` waits for the log.
    pub synchronous_commit: String,
    /// Whether it is a standby, which can't be written to.
    pub standby: bool,
    /// Whether it removes dead rows and keeps the planner's statistics up to date by itself.
    pub autovacuum: bool,
}

impl Facts {
    /// Whether what was committed survives a crash of the server; everything else in Leadmill rests on it.
    pub fn is_durable(&self) -> bool {
        self.fsync == "on" && self.synchronous_commit != "off"
    }
}

/// Connects once, without a pool, which would take a refused connection for a server that is still starting, wait for
/// seconds, and then not say why.
///
/// # Errors
/// Why not, at once; a server that doesn't answer at all is the caller's to time out.
pub async fn reach(url: &str) -> Result<(), StoreError> {
    PgConnection::connect_with(&connect_options(url)?).await?.close().await?;
    Ok(())
}

/// Asks the server.
pub async fn facts(connection: &mut Connection) -> Result<Facts, StoreError> {
    let (version, number, fsync, synchronous_commit, standby, autovacuum): (String, i32, String, String, bool, bool) =
        sqlx::query_as(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                    current_setting('fsync'), current_setting('synchronous_commit'), pg_is_in_recovery(),
                    current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean",
        )
        .fetch_one(connection)
        .await?;
    Ok(Facts { version, major: number / 10_000, fsync, synchronous_commit, standby, autovacuum })
}

/// Lets this session report its statistics as soon as its transaction has ended. Left to itself it does so at most once a
/// second, and up to ten seconds late when it becomes idle: too late for whoever wants to know what a transaction cost.
///
/// # Errors
/// When the server can't be asked.
pub async fn report_statistics(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(connection).await?;
    Ok(())
}

/// The URL of a sibling of the database that `url` names: the same server and account, the name with `suffix` at its end.
/// Creates it where it doesn't exist.
pub async fn sibling_database(url: &str, suffix: &str) -> Result<String, StoreError> {
    let options = connect_options(url)?;
    let name = format!("{}{suffix}", options.get_database().unwrap_or_else(|| options.get_username()));
    let mut connection = PgConnection::connect_with(&options).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        connection.execute(format!("CREATE DATABASE {}", quoted(&name)).as_str()).await?;
    }
    connection.close().await?;
    Ok(with_database(url, &name))
}

/// Creates a database on the server that `url` names, and returns its URL.
///
/// # Errors
/// [`StoreError::is_forbidden`] when the account may not create databases.
pub async fn create_database(url: &str, name: &str) -> Result<String, StoreError> {
    administer(url, &format!("CREATE DATABASE {}", quoted(name))).await?;
    Ok(with_database(url, name))
}

/// Drops a database of the server that `url` names, whoever is connected to it.
pub async fn drop_database(url: &str, name: &str) -> Result<(), StoreError> {
    administer(url, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name))).await
}

/// Runs a statement over a connection of its own. It may take its time, and nobody wants to be warned of that.
async fn administer(url: &str, statement: &str) -> Result<(), StoreError> {
    let options = connect_options(url)?;
    let mut connection = PgConnection::connect_with(&options.disable_statement_logging()).await?;
    connection.execute(statement).await?;
    connection.close().await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The URL with another database in it.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) =
        url.split_once('?').map_or((url, String::new()), |(address, query)| (address, format!("?{query}")));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    format!("{}/{name}{query}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_exchanged() {
        for (url, expected) in [
            ("postgres://me:pw@host:5432/old", "postgres://me:pw@host:5432/old_demo"),
            ("postgres://host/old?sslmode=disable", "postgres://host/old_demo?sslmode=disable"),
            ("postgres:///old?host=/run/postgresql", "postgres:///old_demo?host=/run/postgresql"),
        ] {
            assert_eq!(with_database(url, "old_demo"), expected);
        }
    }

    #[test]
    fn a_server_that_may_forget_a_commit_is_not_durable() {
        let facts = |fsync: &str, synchronous_commit: &str| Facts {
            version: "15.1".to_owned(),
            major: 15,
            fsync: fsync.to_owned(),
            synchronous_commit: synchronous_commit.to_owned(),
            standby: false,
            autovacuum: true,
        };
        assert!(facts("on", "on").is_durable());
        assert!(!facts("off", "on").is_durable());
        assert!(!facts("on", "off").is_durable());
    }
}
