//! Migrations beside running services: what they wait for, who waits for them, and what is left when they are cut short.
//!
//! The lists are small samples; one test takes the real one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use retry::Policy;
use sqlx::{
    Executor as _, PgConnection,
    error::BoxDynError,
    migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator},
};
use store::schema::{self, MigrationError, MigrationReport, MigrationRunner, MigrationSettings, Progress};
use test_support::postgres::{TestDatabase, number, text, workspace_migrations};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Nothing here takes as long, on a machine however slow.
const TOO_LONG: Duration = Duration::from_mins(1);

const TABLE: (i64, &str) = (1, "CREATE TABLE things (name text); INSERT INTO things VALUES ('a'), ('b')");
const COLUMN: (i64, &str) = (2, "ALTER TABLE things ADD COLUMN colour text");
const INDEX: (i64, &str) =
    (3, "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_by_name ON things (name);");
const UNIQUE: (i64, &str) =
    (3, "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS things_by_name ON things (name);");

const SETTINGS: MigrationSettings = MigrationSettings {
    lock_timeout: Duration::from_millis(300),
    concurrent_lock_timeout: TOO_LONG,
    step_limit: TOO_LONG,
    other_run_limit: TOO_LONG,
    poll_interval: Duration::from_millis(20),
    backoff: Policy { initial: Duration::from_millis(20), max: Duration::from_millis(100) },
};

#[derive(Debug)]
struct Samples(Vec<(i64, String)>);

impl MigrationSource<'static> for Samples {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migration = |(version, sql): (i64, String)| {
            let no_tx = sql.starts_with("-- no-transaction");
            Migration::new(version, format!("sample {version}").into(), MigrationType::Simple, sql.into(), no_tx)
        };
        let migrations = self.0.into_iter().map(migration).collect();
        Box::pin(async move { Ok(migrations) })
    }
}

async fn samples(files: &[(i64, &str)]) -> Migrator {
    let files = files.iter().map(|(version, sql)| (*version, (*sql).to_owned())).collect();
    Migrator::new(Samples(files)).await.unwrap()
}

/// A migration run in the background.
struct Running {
    result: JoinHandle<Result<MigrationReport, MigrationError>>,
    progress: UnboundedReceiver<Progress>,
}

async fn start(database: &TestDatabase, files: &[(i64, &str)], settings: MigrationSettings) -> Running {
    let (url, migrator) = (database.url().to_owned(), Arc::new(samples(files).await));
    let (sender, progress) = unbounded_channel();
    let result = tokio::spawn(async move {
        let mut report = |progress| drop(sender.send(progress));
        MigrationRunner::new(&migrator, settings).run(&url, &mut report).await
    });
    Running { result, progress }
}

impl Running {
    async fn reports(&mut self, expected: impl Fn(&Progress) -> bool) -> Progress {
        let waiting = async {
            loop {
                match self.progress.recv().await {
                    Some(progress) if expected(&progress) => return progress,
                    Some(_) => {}
                    None => panic!("the run ended before it reported this: {:?}", (&mut self.result).await),
                }
            }
        };
        timeout(TOO_LONG, waiting).await.expect("the run reports this")
    }

    async fn ended(self) -> Result<MigrationReport, MigrationError> {
        timeout(TOO_LONG, self.result).await.expect("the run ends").unwrap()
    }
}

async fn migrate(database: &TestDatabase, files: &[(i64, &str)]) -> Result<MigrationReport, MigrationError> {
    start(database, files, SETTINGS).await.ended().await
}

/// A run of sqlx's own migrator, as that of an older release.
async fn start_older(database: &TestDatabase, files: &[(i64, &str)]) -> JoinHandle<Result<(), MigrateError>> {
    let (migrator, mut connection) = (samples(files).await, database.connect().await);
    tokio::spawn(async move { migrator.run_direct(&mut connection).await })
}

fn versions(report: &MigrationReport) -> Vec<i64> {
    report.applied.iter().map(|migration| migration.version).collect()
}

/// Waits until a query, which counts something, finds it.
async fn until(database: &TestDatabase, query: &str) {
    let mut connection = database.connect().await;
    let looking = async {
        while number(&mut connection, query).await.unwrap() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TOO_LONG, looking).await.unwrap_or_else(|_| panic!("never found: {query}"));
}

/// A transaction that has read the table and stays open: it holds a lock on the table, and a snapshot.
async fn open_reader(database: &TestDatabase) -> PgConnection {
    let mut connection = database.connect().await;
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM things").await.unwrap();
    connection
}

/// A transaction that has written and stays open: a concurrent build waits for it before it reads the table. Whatever takes
/// its snapshot in that time is older than the build, which waits for it in the end.
async fn open_writer(database: &TestDatabase) -> PgConnection {
    let mut connection = database.connect().await;
    connection.execute("BEGIN; INSERT INTO things VALUES ('c')").await.unwrap();
    connection
}

async fn pid(connection: &mut PgConnection) -> i32 {
    number(connection, "SELECT pg_backend_pid()::bigint").await.unwrap() as i32
}

async fn index_is_valid(database: &TestDatabase) -> bool {
    let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('things_by_name') AND indisvalid";
    number(&mut database.connect().await, valid).await.unwrap() == 1
}

async fn recorded(database: &TestDatabase) -> String {
    let list =
        "SELECT string_agg(version::text || CASE success WHEN true THEN '' ELSE ' failed' END, ', ' ORDER BY version)
                FROM _sqlx_migrations";
    text(&mut database.connect().await, list).await.unwrap()
}

/// Deadlocks are looked for early; the runs of others are waited for by their age.
async fn find_deadlocks_early(database: &TestDatabase) {
    let statement = format!("ALTER DATABASE \"{}\" SET deadlock_timeout = '100ms'", database.name());
    database.connect().await.execute(statement.as_str()).await.unwrap();
}

const BUILD_WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                           AND wait_event_type = 'Lock' AND query LIKE '%CREATE INDEX CONCURRENTLY%'";
/// Somebody has waited for the migration lock for so long that the search for deadlocks that its wait starts is over.
const OLDER_WAITS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                           AND clock_timestamp() - waitstart > interval '300 ms'";

#[tokio::test]
async fn a_second_run_waits_for_a_concurrent_build_without_being_in_its_way() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE]).await.unwrap();
    let mut writer = open_writer(&database).await;

    let mut first = start(&database, &[TABLE, INDEX], SETTINGS).await;
    let waiting = first.reports(|progress| matches!(progress, Progress::WaitingForTransactions { .. })).await;
    let named = pid(&mut writer).await;
    assert!(waiting.to_string().contains(&format!("process {named} ")), "{waiting}");
    let mut second = start(&database, &[TABLE, INDEX], SETTINGS).await;
    let waiting = second.reports(|progress| matches!(progress, Progress::WaitingForMigration { .. })).await;
    assert!(waiting.to_string().contains("leadmill migrate"), "{waiting}");
    writer.execute("COMMIT").await.unwrap();

    let report = first.ended().await.unwrap();
    assert_eq!(versions(&report), [3]);
    let built = &report.applied[0];
    assert!(built.concurrently && built.tries == 1 && built.longest_lock.is_zero(), "{built:?}");
    assert_eq!(second.ended().await.unwrap(), MigrationReport::default());
    assert!(index_is_valid(&database).await);
    assert_eq!(recorded(&database).await, "1, 3");
    database.cleanup().await;
}

#[tokio::test]
async fn a_second_run_of_sqlx_deadlocks_with_a_concurrent_build() {
    // The reason why this isn't left to sqlx; when this test fails, a newer sqlx can be considered.
    let database = TestDatabase::create_empty().await;
    find_deadlocks_early(&database).await;
    migrate(&database, &[TABLE]).await.unwrap();
    let mut writer = open_writer(&database).await;

    let first = start_older(&database, &[TABLE, INDEX]).await;
    until(&database, BUILD_WAITS).await;
    let second = start_older(&database, &[TABLE, INDEX]).await;
    until(&database, OLDER_WAITS).await;
    writer.execute("COMMIT").await.unwrap();

    let results = timeout(TOO_LONG, async { [first.await.unwrap(), second.await.unwrap()] }).await.unwrap();
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    assert!(failures.iter().any(|failure| failure.contains("deadlock detected")), "{failures:?}");
    database.cleanup().await;
}

#[tokio::test]
async fn an_older_release_that_waits_for_the_lock_goes_first_and_the_index_is_valid_in_the_end() {
    let database = TestDatabase::create_empty().await;
    find_deadlocks_early(&database).await;
    migrate(&database, &[TABLE]).await.unwrap();
    let mut writer = open_writer(&database).await;

    let mut newer = start(&database, &[TABLE, INDEX], SETTINGS).await;
    newer.reports(|progress| matches!(progress, Progress::WaitingForTransactions { .. })).await;
    let older = start_older(&database, &[TABLE, INDEX]).await;
    until(&database, OLDER_WAITS).await;
    writer.execute("COMMIT").await.unwrap();

    // The build waits for the older one's waiting statement, that one for the lock: the build lets go of it.
    newer.reports(|progress| matches!(progress, Progress::Retrying { .. })).await;
    timeout(TOO_LONG, older).await.unwrap().unwrap().unwrap();
    let report = newer.ended().await.unwrap();
    // The older one took the INVALID index for the real one and recorded the migration.
    assert!(report.applied.is_empty(), "{report:?}");
    assert_eq!(report.rebuilt.len(), 1, "{report:?}");
    assert!(index_is_valid(&database).await);
    assert_eq!(recorded(&database).await, "1, 3");
    database.cleanup().await;
}

#[tokio::test]
async fn the_lock_of_an_older_release_keeps_a_run_out_and_its_holder_is_named() {
    let database = TestDatabase::create_empty().await;
    let mut holder = database.hold_migration_lock().await;
    let impatient = MigrationSettings { other_run_limit: Duration::from_millis(50), ..SETTINGS };
    let error = start(&database, &[TABLE], impatient).await.ended().await.unwrap_err();
    let named = pid(&mut holder).await;
    assert!(
        matches!(&error, MigrationError::AlreadyRunning { holder: Some(session), .. } if session.pid == named),
        "{error:?}"
    );

    let mut waiting = start(&database, &[TABLE], SETTINGS).await;
    waiting.reports(|progress| matches!(progress, Progress::WaitingForMigration { .. })).await;
    drop(holder);
    assert_eq!(versions(&waiting.ended().await.unwrap()), [1]);
    database.cleanup().await;
}

#[tokio::test]
async fn a_migration_waits_for_a_lock_by_short_tries_and_readers_wait_no_longer_than_one() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE]).await.unwrap();
    let mut open = open_reader(&database).await;
    let mut running = start(&database, &[TABLE, COLUMN], SETTINGS).await;

    let (mut connection, mut longest, mut tries) = (database.connect().await, Duration::ZERO, 0);
    while tries < 3 {
        let begun = Instant::now();
        // Without a lock_timeout this waits behind the migration until the open transaction ends, and that is later.
        let read = timeout(TOO_LONG, connection.execute("SELECT count(*) FROM things")).await;
        read.expect("a reader isn't stuck behind the migration").unwrap();
        longest = longest.max(begun.elapsed());
        while let Ok(progress) = running.progress.try_recv() {
            if let Progress::Retrying { blockers, .. } = progress {
                tries += 1;
                assert_eq!(blockers.first().map(|session| session.pid), Some(pid(&mut open).await), "{blockers:?}");
            }
        }
    }
    assert!(longest < SETTINGS.lock_timeout * 10, "a reader waited for {longest:?}");
    open.execute("COMMIT").await.unwrap();

    let report = running.ended().await.unwrap();
    let column = &report.applied[0];
    assert!(column.tries >= 4 && column.longest_lock >= SETTINGS.lock_timeout, "{column:?}");
    assert_eq!(column.locks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["AccessExclusiveLock on things"]);
    database.cleanup().await;
}

#[tokio::test]
async fn a_run_that_never_gets_its_lock_gives_up_and_names_who_holds_it() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE]).await.unwrap();
    let mut open = open_reader(&database).await;
    let impatient = MigrationSettings { step_limit: Duration::from_millis(500), ..SETTINGS };
    let error = start(&database, &[TABLE, COLUMN], impatient).await.ended().await.unwrap_err();
    let named = format!("process {} ", pid(&mut open).await);
    assert!(matches!(error, MigrationError::Blocked { .. }) && error.to_string().contains(&named), "{error:?}");
    assert_eq!(recorded(&database).await, "1");
    database.cleanup().await;
}

#[tokio::test]
async fn a_migration_that_makes_a_table_of_its_own_reports_no_lock() {
    let database = TestDatabase::create_empty().await;
    let report = migrate(&database, &[TABLE, COLUMN]).await.unwrap();
    assert!(report.applied[0].locks.is_empty() && report.applied[0].longest_lock.is_zero(), "{report:?}");
    assert!(!report.applied[1].locks.is_empty() && !report.applied[1].longest_lock.is_zero(), "{report:?}");
    database.cleanup().await;
}

#[tokio::test]
async fn an_index_that_a_failed_build_left_invalid_is_built_anew() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE]).await.unwrap();
    database.connect().await.execute("INSERT INTO things VALUES ('a')").await.unwrap();
    let error = migrate(&database, &[TABLE, UNIQUE]).await.unwrap_err();
    assert!(matches!(error, MigrationError::Failed { .. }), "{error:?}");
    let left = "SELECT count(*) FROM pg_index WHERE indexrelid = 'things_by_name'::regclass AND NOT indisvalid";
    assert_eq!(number(&mut database.connect().await, left).await.unwrap(), 1);
    assert_eq!(recorded(&database).await, "1");

    let once = "DELETE FROM things WHERE ctid <> (SELECT min(ctid) FROM things t WHERE t.name = things.name)";
    database.connect().await.execute(once).await.unwrap();
    assert_eq!(versions(&migrate(&database, &[TABLE, UNIQUE]).await.unwrap()), [3]);
    assert!(index_is_valid(&database).await);
    database.cleanup().await;
}

#[tokio::test]
async fn an_invalid_index_that_is_recorded_as_built_is_rebuilt_and_what_earlier_rebuilds_left_is_dropped() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE, INDEX]).await.unwrap();
    database
        .connect()
        .await
        .execute(
            "CREATE INDEX things_by_name_ccnew ON things (name);
             CREATE INDEX of_somebody_else ON things (name);
             UPDATE pg_index SET indisvalid = false
             WHERE indexrelid IN ('things_by_name'::regclass, 'things_by_name_ccnew'::regclass, 'of_somebody_else'::regclass)",
        )
        .await
        .unwrap();
    let report = migrate(&database, &[TABLE, INDEX]).await.unwrap();
    assert_eq!(report.rebuilt.iter().map(|index| index.name.as_str()).collect::<Vec<_>>(), ["things_by_name"]);
    assert!(index_is_valid(&database).await);
    let left = "SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index WHERE NOT indisvalid";
    assert_eq!(text(&mut database.connect().await, left).await.unwrap(), "of_somebody_else");
    database.cleanup().await;
}

#[tokio::test]
async fn a_concurrent_build_that_is_killed_is_finished_by_the_next_run() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE]).await.unwrap();
    let mut reader = open_reader(&database).await;
    let mut killed = start(&database, &[TABLE, INDEX], SETTINGS).await;
    killed.reports(|progress| matches!(progress, Progress::WaitingForTransactions { .. })).await;
    kill_migration(&database).await;
    killed.ended().await.unwrap_err();
    assert!(!index_is_valid(&database).await);
    reader.execute("COMMIT").await.unwrap();

    assert_eq!(versions(&migrate(&database, &[TABLE, INDEX]).await.unwrap()), [3]);
    assert!(index_is_valid(&database).await);
    assert_eq!(recorded(&database).await, "1, 3");
    database.cleanup().await;
}

#[tokio::test]
async fn a_migration_that_is_killed_in_its_transaction_leaves_nothing_and_is_applied_by_the_next_run() {
    let database = TestDatabase::create_empty().await;
    let tables = (1, "CREATE TABLE things (name text); CREATE TABLE others (name text)");
    let columns = (2, "ALTER TABLE others ADD COLUMN colour text; ALTER TABLE things ADD COLUMN colour text");
    migrate(&database, &[tables]).await.unwrap();
    let mut reader = open_reader(&database).await;
    let patient = MigrationSettings { lock_timeout: TOO_LONG, ..SETTINGS };
    let killed = start(&database, &[tables, columns], patient).await;
    let half_done = "SELECT count(*) FROM pg_locks WHERE relation = 'things'::regclass AND NOT granted";
    until(&database, half_done).await;
    kill_migration(&database).await;
    killed.ended().await.unwrap_err();
    reader.execute("COMMIT").await.unwrap();

    let coloured = "SELECT count(*) FROM pg_attribute WHERE attname = 'colour' AND attrelid = ANY (
                        ARRAY['things'::regclass, 'others'::regclass])";
    assert_eq!(number(&mut database.connect().await, coloured).await.unwrap(), 0);
    assert_eq!(versions(&migrate(&database, &[tables, columns]).await.unwrap()), [2]);
    assert_eq!(number(&mut database.connect().await, coloured).await.unwrap(), 2);
    database.cleanup().await;
}

async fn kill_migration(database: &TestDatabase) {
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'leadmill migrate' AND wait_event_type = 'Lock'";
    assert_eq!(number(&mut database.connect().await, kill).await.unwrap(), 1);
}

#[tokio::test]
async fn a_built_index_whose_record_is_missing_or_says_failed_needs_nobody() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE]).await.unwrap();
    database.connect().await.execute("CREATE INDEX things_by_name ON things (name)").await.unwrap();
    assert_eq!(versions(&migrate(&database, &[TABLE, INDEX]).await.unwrap()), [3]);
    database
        .connect()
        .await
        .execute("UPDATE _sqlx_migrations SET success = false, checksum = '' WHERE version = 3")
        .await
        .unwrap();
    assert_eq!(versions(&migrate(&database, &[TABLE, INDEX]).await.unwrap()), [3]);
    assert_eq!(recorded(&database).await, "1, 3");
    assert!(index_is_valid(&database).await);
    database.cleanup().await;
}

#[tokio::test]
async fn a_list_that_does_not_fit_the_database_is_refused_before_anything_is_applied() {
    let database = TestDatabase::create_empty().await;
    migrate(&database, &[TABLE, COLUMN]).await.unwrap();
    let unknown = migrate(&database, &[TABLE, INDEX]).await.unwrap_err();
    assert!(matches!(unknown, MigrationError::Unknown { version: 2 }), "{unknown:?}");
    let changed = migrate(&database, &[TABLE, (2, "SELECT 1"), INDEX]).await.unwrap_err();
    assert!(matches!(changed, MigrationError::Changed { version: 2 }), "{changed:?}");
    let once_only = (3, "-- no-transaction\nCREATE INDEX CONCURRENTLY things_by_name ON things (name)");
    let refused = migrate(&database, &[TABLE, COLUMN, once_only]).await.unwrap_err();
    assert!(matches!(refused, MigrationError::NotRepeatable { version: 3 }), "{refused:?}");
    assert_eq!(recorded(&database).await, "1, 2");
    database.cleanup().await;
}

#[tokio::test]
async fn a_time_limit_that_a_database_has_for_its_services_does_not_end_a_migration() {
    let database = TestDatabase::create_empty().await;
    let limit = format!("ALTER DATABASE \"{}\" SET statement_timeout = '300ms'", database.name());
    database.connect().await.execute(limit.as_str()).await.unwrap();
    let slow = (1, "CREATE TABLE things AS SELECT pg_sleep(0.5)::text AS name");
    assert_eq!(versions(&migrate(&database, &[slow, INDEX]).await.unwrap()), [1, 3]);
    database.cleanup().await;
}

#[tokio::test]
async fn sqlx_and_the_runner_make_the_same_schema_and_the_same_records_of_the_real_migrations() {
    let (ours, theirs) = (TestDatabase::create_empty().await, TestDatabase::create_empty().await);
    let report = schema::migrate(ours.url(), SETTINGS, &mut |_| {}).await.unwrap();
    let migrator = workspace_migrations().await.unwrap();
    migrator.run_direct(&mut theirs.connect().await).await.unwrap();
    assert_eq!(versions(&report), migrator.iter().map(|migration| migration.version).collect::<Vec<_>>());
    for query in [
        "SELECT version || ' ' || description || ' ' || success || ' ' || encode(checksum, 'hex') FROM _sqlx_migrations",
        "SELECT c.relkind::text || ' ' || c.oid::regclass || ' ' || coalesce(c.reloptions::text, '') FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace",
        "SELECT a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' '
             || a.attnotnull || ' ' || a.attstorage::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped",
        "SELECT conrelid::regclass || ' ' || conname || ' ' || convalidated || ' ' || pg_get_constraintdef(oid)
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
        "SELECT pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid FROM pg_index i
         JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace",
        "SELECT t.typname || ' ' || e.enumlabel || ' ' || e.enumsortorder FROM pg_enum e
         JOIN pg_type t ON t.oid = e.enumtypid",
    ] {
        let sorted = format!("SELECT string_agg(line, E'\\n' ORDER BY line) FROM ({query}) AS lines (line)");
        let lines = async |database: &TestDatabase| text(&mut database.connect().await, &sorted).await.unwrap();
        assert_eq!(lines(&ours).await, lines(&theirs).await);
    }
    ours.cleanup().await;
    theirs.cleanup().await;
}
