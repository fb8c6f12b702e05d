//! A database of a test's own on a PostgreSQL that others use as well.
//!
//! Running all migrations for each test would take most of the tests' time, so they run once per set of migrations, into
//! a template that the databases are copied from. The template's name is a digest of the migrations: several working
//! copies with different migrations can share a server.

use std::{
    env,
    path::Path,
    time::{Duration, SystemTime},
};

use sqlx::{
    Connection, Executor, PgConnection, Postgres,
    migrate::{Migrate as _, MigrateError, Migrator},
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// What every database made here begins with, before the UUIDv7 that tells when.
const PREFIX: &str = "leadmill_test_";
/// What every template begins with, before the digest of its migrations.
const TEMPLATE_PREFIX: &str = "leadmill_test_template_";
/// Guards the templates on a server: shared to copy from one, exclusive to make or delete one.
const TEMPLATE_LOCK: i64 = 0x6c65_6164_6d69_6c6c;
/// No test takes longer; an older database was left behind by a run that was killed.
const LEFTOVER_AFTER: Duration = Duration::from_hours(1);
/// Templates of migrations that nobody has any more.
const OLD_TEMPLATE_AFTER: Duration = Duration::from_hours(24);

/// The server for tests: `DATABASE_URL`, or the one that a local installation has. The database it names is only used
/// to create others.
pub fn server_url() -> String {
    env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned())
}

/// A throw-away database. Dropping it deletes it, whoever is still connected; [`TestDatabase::cleanup`] does so without
/// making a thread of its own for it.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    server: String,
    url: String,
    is_clean: bool,
}

impl TestDatabase {
    /// A fresh database on [`server_url`] with all migrations of the workspace applied; panics, saying why, if it can't
    /// be made.
    pub async fn create() -> Self {
        Self::create_on(&server_url()).await
    }

    /// The same on another server, given by its URL.
    pub async fn create_on(server: &str) -> Self {
        let migrator = workspace_migrations().await.expect("the workspace's migrations can be read");
        let template = template_name(&migrator);
        let mut connection = connect_to_server(server).await;
        ensure_template(&mut connection, server, &template, &migrator)
            .await
            .expect("the migrations apply to an empty database");
        Self::create_from(&mut connection, server, &template).await
    }

    async fn create_from(connection: &mut PgConnection, server: &str, template: &str) -> Self {
        let name = database_name();
        // Shared, so that tests don't wait for one another, and nobody deletes the template meanwhile.
        lock(connection, "pg_advisory_lock_shared").await;
        run(connection, format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#)).await;
        lock(connection, "pg_advisory_unlock_shared").await;
        Self::named(name, server)
    }

    /// A fresh database with nothing in it: for the tests of migrating.
    pub async fn create_empty() -> Self {
        let name = database_name();
        let server = server_url();
        run(&mut connect_to_server(&server).await, format!(r#"CREATE DATABASE "{name}" TEMPLATE template0"#)).await;
        Self::named(name, &server)
    }

    /// Where to connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection, to look behind the scenes with.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the test's own database takes connections")
    }

    /// Takes the lock of the database's migrations, as a release does that migrates by sqlx's own migrator; the connection
    /// holds it.
    pub async fn hold_migration_lock(&self) -> PgConnection {
        let mut connection = self.connect().await;
        connection.lock().await.expect("nobody else migrates the test's own database");
        connection
    }

    /// Deletes the database, whoever is still connected.
    pub async fn cleanup(mut self) {
        run(&mut connect_to_server(&self.server).await, drop_statement(&self.name)).await;
        self.is_clean = true;
    }

    fn named(name: String, server: &str) -> Self {
        crate::witness::talked_to("postgres");
        Self { url: with_database(server, &name), server: server.to_owned(), name, is_clean: false }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.is_clean {
            return;
        }
        let (server, statement) = (self.server.clone(), drop_statement(&self.name));
        // The test's own runtime may be about to end, or busy waiting for this.
        let dropping = std::thread::spawn(move || -> Option<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let dropping = async {
                let mut connection = PgConnection::connect(&server).await.ok()?;
                connection.execute(statement.as_str()).await.ok()?;
                connection.close().await.ok()
            };
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), dropping).await.ok().flatten() })
        });
        // Best effort: the test has its result already, and what is left behind is deleted by a later run.
        let _ = dropping.join();
    }
}

/// Runs a statement that a test makes up, and says how many rows it touched: for crates that don't name sqlx.
pub async fn execute<'c>(
    connection: impl Executor<'c, Database = Postgres>,
    statement: &str,
) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(statement).execute(connection).await?.rows_affected())
}

/// The one number that a query answers with.
pub async fn number<'c>(connection: impl Executor<'c, Database = Postgres>, query: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(query).fetch_one(connection).await
}

/// The one text that a query answers with.
pub async fn text<'c>(connection: impl Executor<'c, Database = Postgres>, query: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(query).fetch_one(connection).await
}

/// The workspace's migrations, as they are now.
pub async fn workspace_migrations() -> Result<Migrator, MigrateError> {
    Migrator::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations"))).await
}

async fn connect_to_server(url: &str) -> PgConnection {
    static LEFTOVERS_DELETED: OnceCell<()> = OnceCell::const_new();
    let mut server = PgConnection::connect(url).await.unwrap_or_else(|error| {
        panic!("this test needs a PostgreSQL; set DATABASE_URL if it isn't on 127.0.0.1:5432: {error}")
    });
    LEFTOVERS_DELETED.get_or_init(|| delete_leftovers(&mut server)).await;
    server
}

/// Makes the template if it doesn't exist. It gets its name only when it is complete.
async fn ensure_template(
    server: &mut PgConnection,
    url: &str,
    template: &str,
    migrator: &Migrator,
) -> Result<(), MigrateError> {
    if exists(server, template).await {
        return Ok(());
    }
    lock(server, "pg_advisory_lock").await;
    if !exists(server, template).await {
        let building = database_name();
        run(server, format!(r#"CREATE DATABASE "{building}" TEMPLATE template0"#)).await;
        let mut connection = PgConnection::connect(&with_database(url, &building)).await?;
        migrator.run(&mut connection).await?;
        connection.close().await?;
        // A copy can be made only while nobody is connected, autovacuum included.
        run(server, format!(r#"ALTER DATABASE "{building}" WITH ALLOW_CONNECTIONS false"#)).await;
        run(server, format!(r#"COMMENT ON DATABASE "{building}" IS '{}'"#, Uuid::now_v7())).await;
        run(server, format!(r#"ALTER DATABASE "{building}" RENAME TO "{template}""#)).await;
    }
    lock(server, "pg_advisory_unlock").await;
    Ok(())
}

/// Deletes what runs that were killed have left behind, and templates that have had their day.
async fn delete_leftovers(server: &mut PgConnection) {
    let listing = "SELECT datname::text, shobj_description(oid, 'pg_database') FROM pg_database \
                   WHERE datname LIKE 'leadmill\\_test\\_%'";
    let found: Vec<(String, Option<String>)> =
        sqlx::query_as(listing).fetch_all(&mut *server).await.expect("the databases can be listed");
    for (name, comment) in found {
        // Another run may be doing the same: it doesn't matter who succeeds.
        if name.starts_with(TEMPLATE_PREFIX) {
            if comment.is_some_and(|made| is_older(&made, OLD_TEMPLATE_AFTER)) {
                lock(server, "pg_advisory_lock").await;
                let _ = server.execute(drop_statement(&name).as_str()).await;
                lock(server, "pg_advisory_unlock").await;
            }
        } else if name.strip_prefix(PREFIX).is_some_and(|made| is_older(made, LEFTOVER_AFTER)) {
            let _ = server.execute(drop_statement(&name).as_str()).await;
        }
    }
}

async fn exists(server: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(server)
        .await
        .expect("the databases can be listed")
}

/// Calls one of PostgreSQL's advisory lock functions.
async fn lock(server: &mut PgConnection, function: &str) {
    run(server, format!("SELECT {function}({TEMPLATE_LOCK})")).await;
}

/// Runs a statement of ours: all names in it were made here, of letters, digits and underscores.
async fn run(server: &mut PgConnection, statement: String) {
    let result = server.execute(statement.as_str()).await;
    result.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn database_name() -> String {
    format!("{PREFIX}{}", Uuid::now_v7().simple())
}

fn template_name(migrator: &Migrator) -> String {
    let mut fingerprint = Vec::new();
    for migration in migrator.iter() {
        fingerprint.extend_from_slice(&migration.version.to_be_bytes());
        fingerprint.extend_from_slice(&migration.checksum);
    }
    format!("{TEMPLATE_PREFIX}{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, &fingerprint).simple())
}

fn drop_statement(name: &str) -> String {
    format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#)
}

/// Whether a UUIDv7 was made longer ago than that. What isn't one is never old.
fn is_older(uuid: &str, than: Duration) -> bool {
    let made = Uuid::try_parse(uuid).ok().and_then(|uuid| uuid.get_timestamp()).map(|timestamp| timestamp.to_unix());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    made.is_some_and(|(seconds, _)| now.saturating_sub(Duration::from_secs(seconds)) > than)
}

/// The URL with another database in it.
fn with_database(url: &str, name: &str) -> String {
    let (before_query, query) = match url.split_once('?') {
        Some((before, query)) => (before, format!("?{query}")),
        None => (url, String::new()),
    };
    let authority = before_query.find("://").map_or(0, |at| at + 3);
    let end = before_query[authority..].find('/').map_or(before_query.len(), |at| authority + at);
    format!("{}/{name}{query}", &before_query[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_exchanged() {
        for (url, expected) in [
            ("postgres://me:pw@host:5432/old", "postgres://me:pw@host:5432/new"),
            ("postgres://host/old?sslmode=disable", "postgres://host/new?sslmode=disable"),
            ("postgres://host", "postgres://host/new"),
            ("postgres:///old?host=/run/postgresql", "postgres:///new?host=/run/postgresql"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }

    #[test]
    fn only_what_was_made_long_ago_is_old() {
        assert!(!is_older(&Uuid::now_v7().simple().to_string(), Duration::from_mins(1)));
        assert!(is_older("01890000-0000-7000-8000-000000000000", LEFTOVER_AFTER));
        assert!(!is_older("no id", Duration::ZERO));
        assert!(!is_older(&Uuid::new_v5(&Uuid::NAMESPACE_OID, b"x").to_string(), Duration::ZERO));
    }

    #[tokio::test]
    async fn a_database_comes_migrated_separate_and_goes_when_it_is_dropped() {
        let (one, two) = tokio::join!(TestDatabase::create(), TestDatabase::create());
        assert_ne!(one.name(), two.name());
        let migrations = workspace_migrations().await.unwrap();
        for database in [&one, &two] {
            let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
                .fetch_one(&mut database.connect().await)
                .await
                .unwrap();
            assert_eq!(applied, migrations.iter().count() as i64);
        }
        one.connect().await.execute("CREATE TABLE only_here ()").await.unwrap();
        assert!(two.connect().await.execute("SELECT FROM only_here").await.is_err());

        let names = [one.name().to_owned(), two.name().to_owned()];
        // Connections that were forgotten don't hold it.
        let _forgotten = (one.connect().await, two.connect().await);
        one.cleanup().await;
        drop(two);
        let mut server = connect_to_server(&server_url()).await;
        for name in names {
            assert!(!exists(&mut server, &name).await);
        }
    }

    #[tokio::test]
    async fn a_template_takes_migrations_that_run_outside_of_a_transaction() {
        let folder = std::env::temp_dir().join(format!("leadmill-migrations-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        // The digest of the migrations names the template: another one for each run of the test.
        let table = format!("CREATE TABLE things (name text); -- {}", Uuid::now_v7());
        let index = "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_by_name ON things (name);";
        std::fs::write(folder.join("1_things.sql"), table).unwrap();
        std::fs::write(folder.join("2_index.sql"), index).unwrap();
        let migrator = Migrator::new(folder.as_path()).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();

        let template = template_name(&migrator);
        let mut server = connect_to_server(&server_url()).await;
        ensure_template(&mut server, &server_url(), &template, &migrator).await.unwrap();
        let copy = TestDatabase::create_from(&mut server, &server_url(), &template).await;
        let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = 'things_by_name'::regclass AND indisvalid";
        assert_eq!(number(&mut copy.connect().await, valid).await.unwrap(), 1);
        copy.cleanup().await;
        run(&mut server, drop_statement(&template)).await;
    }

    #[tokio::test]
    async fn an_empty_database_is_empty() {
        let database = TestDatabase::create_empty().await;
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
        assert_eq!(tables, 0);
        database.cleanup().await;
    }

    #[tokio::test]
    async fn leftovers_of_a_killed_run_are_deleted_and_fresh_databases_arent() {
        let mut server = connect_to_server(&server_url()).await;
        let old = format!("{PREFIX}01890000000070008000{:012x}", rand_bits());
        run(&mut server, format!(r#"CREATE DATABASE "{old}" TEMPLATE template0"#)).await;
        let fresh = TestDatabase::create_empty().await;
        delete_leftovers(&mut server).await;
        assert!(!exists(&mut server, &old).await);
        assert!(exists(&mut server, fresh.name()).await);
        fresh.cleanup().await;
    }

    /// The random end of an id, so that two runs of the test don't meet.
    fn rand_bits() -> u64 {
        Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff_ffff
    }
}
