//! Indexes that are built while others read and write, and those that were left INVALID.
//!
//! `CREATE INDEX CONCURRENTLY` runs in several transactions. If it is cut short, by a crash, a lock that it didn't get or a
//! duplicate key, it leaves an index that costs every write and helps no read, and that `IF NOT EXISTS` takes for the real
//! one.

use sqlx::{Executor, PgConnection, Postgres};

/// The statement of a migration that runs outside of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConcurrentStatement {
    /// Builds the index of this name.
    Create(String),
    /// Drops an index.
    Drop,
}

impl ConcurrentStatement {
    /// Reads the one statement of a migration's text. `None` if it is anything but a `CREATE INDEX CONCURRENTLY IF NOT
    /// EXISTS` or a `DROP INDEX CONCURRENTLY IF EXISTS`: nothing else can be run again after a crash.
    pub(super) fn parse(sql: &str) -> Option<Self> {
        let text = without_comments(sql);
        let statement = text.trim().trim_end_matches(';');
        if statement.contains(';') {
            return None;
        }
        let words: Vec<&str> =
            statement.split_whitespace().filter(|word| !word.eq_ignore_ascii_case("unique")).collect();
        if begins(&words, &["create", "index", "concurrently", "if", "not", "exists"]) {
            words.get(6).filter(|name| is_name(name)).map(|name| Self::Create((*name).to_owned()))
        } else {
            begins(&words, &["drop", "index", "concurrently", "if", "exists"]).then_some(Self::Drop)
        }
    }
}

/// The names of the indexes that a migration's text builds, whether concurrently or not.
pub(super) fn created(sql: &str) -> Vec<String> {
    let text = without_comments(sql);
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !["unique", "concurrently", "if", "not", "exists"].contains(&word.to_lowercase().as_str()))
        .collect();
    words
        .windows(3)
        .filter(|three| begins(three, &["create", "index"]) && is_name(three[2]))
        .map(|three| three[2].to_owned())
        .collect()
}

fn without_comments(sql: &str) -> String {
    sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn begins(words: &[&str], expected: &[&str]) -> bool {
    words.len() >= expected.len()
        && words.iter().zip(expected).all(|(word, expected)| word.eq_ignore_ascii_case(expected))
}

/// Whether a word is the name of an index: an index may also be created without one.
fn is_name(word: &str) -> bool {
    !word.eq_ignore_ascii_case("on") && word.chars().all(|c| c.is_alphanumeric() || "_.$\"".contains(c))
}

/// Those of the named indexes that exist and are INVALID, without those that are being built at the moment. The names
/// that are returned are quoted and qualified as the session needs it.
pub(super) async fn invalid<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    names: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT i.indexrelid::regclass::text
         FROM unnest($1) AS named (name)
         JOIN pg_index i ON i.indexrelid = to_regclass(named.name)
         JOIN pg_class c ON c.oid = i.indexrelid
         WHERE NOT i.indisvalid AND c.relkind = 'i'
           AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
         ORDER BY 1",
    )
    .bind(names)
    .fetch_all(executor)
    .await
}

/// What `REINDEX CONCURRENTLY` leaves beside an index when it is cut short.
pub(super) async fn leftovers(connection: &mut PgConnection, index: &str) -> Result<Vec<String>, sqlx::Error> {
    // The suffix is PostgreSQL's own; a long name is cut to make room for it.
    sqlx::query_scalar(
        "SELECT other.indexrelid::regclass::text
         FROM pg_index i
         JOIN pg_class c ON c.oid = i.indexrelid
         JOIN pg_index other ON other.indrelid = i.indrelid AND NOT other.indisvalid
         JOIN pg_class o ON o.oid = other.indexrelid
         WHERE i.indexrelid = to_regclass($1)
           AND o.relname ~ '_cc(new|old)[0-9]*$' AND starts_with(o.relname, left(c.relname, 40))",
    )
    .bind(index)
    .fetch_all(connection)
    .await
}

/// The statement that drops an index without a lock that reads or writes wait for.
pub(super) fn drop_statement(index: &str) -> String {
    format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")
}

/// The statement that builds an existing index again beside itself. It is not dropped first: if this is cut short, there
/// is still something that says which index is missing.
pub(super) fn rebuild_statement(index: &str) -> String {
    format!("REINDEX INDEX CONCURRENTLY {index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concurrent_statement_is_read_with_its_comments() {
        let create =
            "-- no-transaction\n-- why; and how\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS by_name\n ON t (n);\n";
        assert_eq!(ConcurrentStatement::parse(create), Some(ConcurrentStatement::Create("by_name".to_owned())));
        let drop = "-- no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS by_name;";
        assert_eq!(ConcurrentStatement::parse(drop), Some(ConcurrentStatement::Drop));
    }

    #[test]
    fn a_statement_that_cannot_be_run_again_is_no_concurrent_statement() {
        for sql in [
            "CREATE INDEX CONCURRENTLY by_name ON t (n)",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS ON t (n)",
            "DROP INDEX CONCURRENTLY by_name",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON t (n); CREATE INDEX CONCURRENTLY IF NOT EXISTS b ON t (n);",
            "ALTER TYPE colour ADD VALUE 'red'",
            "",
        ] {
            assert_eq!(ConcurrentStatement::parse(sql), None, "{sql}");
        }
    }

    #[test]
    fn every_index_that_a_text_builds_is_named() {
        let sql = "CREATE TABLE t (n int);\nCREATE INDEX a ON t (n); -- CREATE INDEX commented ON t (n)\n\
                   create unique index if not exists b on t (n);\nCREATE INDEX ON t (n);\n\
                   CREATE INDEX CONCURRENTLY IF NOT EXISTS c ON t (n)";
        assert_eq!(created(sql), ["a", "b", "c"]);
    }
}
