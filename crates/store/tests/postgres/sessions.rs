//! Nothing is left behind on a server connection: behind a pooler in transaction mode the next transaction has another.

use store::{Db, DbConfig, outbox, programs};

use crate::{
    sql::{sources, statements, words},
    world::World,
};

/// What outlives a transaction, or is looked for by the next one, as it stands among the words of a statement.
const SESSION_STATE: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_advisory_unlock",
    "set_config",
    "temp",
    "temporary",
    "unlogged",
    "hold",
    "cursor",
    "listen",
    "unlisten",
    "notify",
    "prepare",
    "execute",
    "deallocate",
    "discard",
    "currval",
    "lastval",
];

/// What a statement may begin with: anything else, such as SET, changes more than rows. SET LOCAL may be: it ends with the
/// transaction.
const VERBS: &[&str] = &["select", "insert", "update", "delete", "with"];

fn complaint(statement: &str) -> Option<String> {
    let words = words(statement);
    let verb = words.first().map_or("", String::as_str);
    if words.starts_with(&["set".to_owned(), "local".to_owned()]) {
        return None;
    }
    if !VERBS.contains(&verb) {
        return Some(format!("it begins with `{verb}`"));
    }
    let left = words.iter().find(|word| SESSION_STATE.contains(&word.rsplit('.').next().unwrap_or_default()));
    left.map(|word| format!("`{word}` belongs to a session"))
}

#[test]
fn no_statement_leaves_anything_on_its_connection() {
    let complaints: Vec<String> = statements()
        .into_iter()
        .filter_map(|(file, statement)| Some(format!("{}: {file}\n{statement}", complaint(&statement)?)))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn what_belongs_to_a_session_is_found() {
    for (statement, expected) in [
        ("SET search_path TO other", Some("it begins with `set`")),
        ("SELECT pg_catalog.pg_try_advisory_lock(1)", Some("`pg_catalog.pg_try_advisory_lock` belongs to a session")),
        ("SELECT set_config('a.b', 'c', false)", Some("`set_config` belongs to a session")),
        ("LISTEN outbox", Some("it begins with `listen`")),
        ("SELECT pg_advisory_xact_lock(1)", None),
        ("UPDATE leads SET name = $1", None),
        ("SET LOCAL enable_sort = off", None),
    ] {
        assert_eq!(complaint(statement).as_deref(), expected, "{statement}");
    }
}

/// The files and folders that may hold a connection outside of a transaction, and why.
const OUTSIDE: &[(&str, &str)] = &[
    ("schema/", "migrating, on a connection of its own to the direct URL"),
    ("connection.rs", "what a transaction is made of"),
    ("db.rs", "the pool itself, and two probes"),
    ("server.rs", "reaching a server before there is a schema"),
];

#[test]
fn whatever_else_talks_to_postgresql_does_so_inside_a_transaction() {
    let telling = ["PgPool", "PgConnection", "PgListener", "PoolConnection", "Acquire", "raw_sql"];
    for (path, text) in sources() {
        let name = path.to_string_lossy().into_owned();
        let found: Vec<&str> = telling.into_iter().filter(|word| text.contains(word)).collect();
        let may = OUTSIDE.iter().any(|(file, _)| name == *file || file.ends_with('/') && name.starts_with(file));
        assert!(
            may || found.is_empty(),
            "{name} uses {found:?}: take a `Connection`, which is inside of a transaction"
        );
    }
}

#[test]
fn statements_that_are_not_checked_by_the_compiler_are_few_and_harmless() {
    let mut count = 0;
    // Migrating has a session of its own.
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.starts_with("schema")) {
        for opening in ["query(\"", "query_scalar(\"", "query_as(\n        \""] {
            for (at, _) in text.match_indices(opening) {
                let statement = text[at + opening.len()..].split('"').next().unwrap_or_default();
                assert_eq!(complaint(statement), None, "{}: {statement}", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 3, "only {count} were found");
}

#[tokio::test]
async fn prepared_statements_stay_on_a_connection_only_where_they_are_to_be_kept() {
    let world = World::new().await;
    for cache_statements in [true, false] {
        // One connection, which all of it uses.
        let config = DbConfig { max_connections: 1, cache_statements, ..DbConfig::new(world.database.url()) };
        let db = Db::new(&config).unwrap();
        db.check_statements().await.unwrap();
        let mut left = 0;
        for _ in 0..3 {
            let asking = db.transact("test.ask", |tx, _| {
                Box::pin(async move {
                    programs::list(&mut *tx).await?;
                    outbox::depth(&mut *tx).await?;
                    let count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%outbox%'";
                    Ok(sqlx::query_scalar::<_, i64>(count).fetch_one(tx).await?)
                })
            });
            left = asking.await.unwrap();
        }
        assert_eq!(left, if cache_statements { 2 } else { 0 }, "kept: {cache_statements}");
        db.close().await;
    }
}
