//! The schema can be distributed by program, as Citus's `create_distributed_table(table, 'program_id')` does it, and the
//! statements that lock rows stay within one shard.
//!
//! What is held to are Citus's own limits: a primary key, unique or exclusion constraint of a distributed table contains
//! the distribution column; a foreign key leads from it to a table that is distributed alike, with the distribution
//! column on both sides at the same place, or to a reference table; nothing leads from a reference or local table to a
//! distributed one; `SELECT … FOR UPDATE` works on a single shard only.
//! (<https://docs.citusdata.com/en/stable/develop/reference_ddl.html>,
//! <https://docs.citusdata.com/en/stable/develop/reference_workarounds.html>)

use sqlx::{PgConnection, Row as _};
use test_support::postgres::TestDatabase;

use crate::sql::{statements, words};

/// Where the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Spread over the shards, by `program_id`.
    Distributed,
    /// On every node in full.
    Reference,
    /// On the coordinator.
    Local,
}

/// Every table, with the place that was decided on.
const PLACES: &[(&str, Place)] = &[
    ("organisations", Place::Reference),
    ("programs", Place::Reference),
    // Few beside the leads, and read for all programs of an organisation at once.
    ("suppression_causes", Place::Reference),
    ("suppression_lifts", Place::Reference),
    ("api_keys", Place::Distributed),
    ("leads", Place::Distributed),
    ("lead_keys", Place::Distributed),
    ("contact_evidence", Place::Distributed),
    ("collection_runs", Place::Distributed),
    ("rejected_leads", Place::Distributed),
    ("idempotent_answers", Place::Distributed),
    ("enriched_leads", Place::Distributed),
    ("outreach", Place::Distributed),
    ("captured_mails", Place::Distributed),
    ("suppressions", Place::Distributed),
    ("sender_refusals", Place::Distributed),
    ("send_budgets", Place::Distributed),
    ("model_usage", Place::Distributed),
    ("analysis_claims", Place::Distributed),
    // Short-lived, swept across programs, and never joined with the others.
    ("outbox", Place::Local),
    // A few rows about the installation as a whole.
    ("schema_requirements", Place::Local),
    ("leases", Place::Local),
    ("jobs", Place::Local),
    ("job_runs", Place::Local),
    ("queue_observations", Place::Local),
    ("_sqlx_migrations", Place::Local),
];

/// What is given up where tables are distributed, with what the guide tells an operator to run for it.
const GIVEN_UP: &[(&str, &str)] = &[(
    "the trigger `suppression_of_an_older_release` stands on `suppressions`",
    "DROP TRIGGER suppression_of_an_older_release ON suppressions;",
)];

const COLUMN: &str = "program_id";

fn place(table: &str) -> Option<Place> {
    PLACES.iter().find(|(name, _)| *name == table).map(|(_, place)| *place)
}

/// What stands in the way of distributing the tables, each with its name.
async fn obstacles(connection: &mut PgConnection) -> Vec<String> {
    let tables = list(
        connection,
        "SELECT c.relname::text, coalesce(format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull, 'none')
         FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'program_id'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition",
    )
    .await;
    let mut obstacles = Vec::new();
    for [table, column] in &tables {
        match place(table) {
            None => obstacles.push(format!("`{table}` has no place yet: add it to PLACES")),
            // Tables are colocated only by columns of one type.
            Some(Place::Distributed) if column != "uuid true" => {
                obstacles.push(format!("`{table}` has no `{COLUMN} uuid NOT NULL` to be distributed by ({column})"));
            }
            Some(_) => {}
        }
    }
    let known: Vec<&str> = tables.iter().map(|[table, _]| table.as_str()).collect();
    let stale = PLACES.iter().filter(|(table, _)| !known.contains(table));
    obstacles.extend(stale.map(|(table, _)| format!("PLACES names `{table}`, which is no table")));

    let unique = list(
        connection,
        "SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text
         FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
         WHERE (i.indisunique OR i.indisexclusion) AND c.relnamespace = 'public'::regnamespace AND NOT EXISTS (
             SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k (number)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE a.attname = 'program_id')",
    )
    .await;
    let unique = unique.iter().filter(|[table, _]| place(table) == Some(Place::Distributed));
    obstacles.extend(unique.map(|[table, index]| format!("`{index}` of `{table}` is unique without {COLUMN}")));

    // A foreign key, from where, to where, and whether the column stands on both sides at the same place.
    let keys = list(
        connection,
        "SELECT conname::text, conrelid::regclass::text, confrelid::regclass::text, EXISTS (
             SELECT FROM unnest(conkey, confkey) AS k (own, other)
             JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.own
             JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = k.other
             WHERE a.attname = 'program_id' AND b.attname = 'program_id')::text
         FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
    )
    .await;
    for [key, from, to, aligned] in &keys {
        let why = match (place(from), place(to)) {
            (Some(Place::Distributed), Some(Place::Reference)) => continue,
            (Some(Place::Distributed), Some(Place::Distributed)) if aligned == "true" => continue,
            (Some(Place::Distributed), Some(Place::Distributed)) => "doesn't pair program_id with program_id",
            (_, Some(Place::Distributed)) | (Some(Place::Distributed), _) => "crosses from one place to another",
            _ => continue,
        };
        obstacles.push(format!("the foreign key `{key}` of `{from}` to `{to}` {why}"));
    }

    for (what, query) in [
        ("the trigger", "SELECT tgname::text, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"),
        ("the rule", "SELECT rulename::text, ev_class::regclass::text FROM pg_rewrite WHERE rulename <> '_RETURN'"),
        ("the policy", "SELECT polname::text, polrelid::regclass::text FROM pg_policy"),
        (
            "the number generator of column",
            "SELECT attname::text, attrelid::regclass::text FROM pg_attribute a
             JOIN pg_class c ON c.oid = attrelid AND c.relnamespace = 'public'::regnamespace
             LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
             WHERE attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE '%nextval(%'",
        ),
        (
            "the inheriting or partitioned table",
            "SELECT inhrelid::regclass::text, inhparent::regclass::text FROM pg_inherits
             JOIN pg_class c ON c.oid = inhrelid AND c.relkind IN ('r', 'p')
             WHERE c.relnamespace = 'public'::regnamespace",
        ),
    ] {
        let found = list::<2>(connection, query).await;
        let found = found.iter().filter(|[_, table]| place(table) == Some(Place::Distributed));
        obstacles.extend(found.map(|[name, table]| format!("{what} `{name}` stands on `{table}`")));
    }
    obstacles.sort();
    obstacles
}

async fn list<const COLUMNS: usize>(connection: &mut PgConnection, query: &'static str) -> Vec<[String; COLUMNS]> {
    let rows = sqlx::query(query).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| std::array::from_fn(|column| row.get(column))).collect()
}

#[tokio::test]
async fn every_table_that_is_distributed_by_program_keeps_to_the_rules_of_citus() {
    let database = TestDatabase::create().await;
    let given_up: Vec<&str> = GIVEN_UP.iter().map(|(obstacle, _)| *obstacle).collect();
    assert_eq!(obstacles(&mut database.connect().await).await, given_up);
    for (obstacle, statement) in GIVEN_UP {
        assert!(GUIDE.lines().any(|line| line == *statement), "the guide says nothing of this: {obstacle}");
    }
    database.cleanup().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_named() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    for (statement, expected) in [
        ("CREATE TABLE notes (id uuid PRIMARY KEY)", "`notes` has no place yet: add it to PLACES"),
        (
            "CREATE UNIQUE INDEX one_message ON outreach (message_id) INCLUDE (program_id)",
            "`one_message` of `outreach` is unique without program_id",
        ),
        (
            "ALTER TABLE captured_mails ADD CONSTRAINT crossed FOREIGN KEY (lead_id, program_id)
             REFERENCES leads (program_id, id)",
            "the foreign key `crossed` of `captured_mails` to `leads` doesn't pair program_id with program_id",
        ),
        (
            "ALTER TABLE leases ADD COLUMN program_id uuid, ADD COLUMN lead_id uuid, ADD CONSTRAINT astray
             FOREIGN KEY (program_id, lead_id) REFERENCES leads (program_id, id)",
            "the foreign key `astray` of `leases` to `leads` crosses from one place to another",
        ),
        (
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER nosy BEFORE INSERT ON leads FOR EACH ROW EXECUTE FUNCTION nothing()",
            "the trigger `nosy` stands on `leads`",
        ),
        (
            "ALTER TABLE leads ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
            "the number generator of column `number` stands on `leads`",
        ),
        (
            "ALTER TABLE model_usage ALTER COLUMN program_id TYPE text",
            "`model_usage` has no `program_id uuid NOT NULL` to be distributed by (text true)",
        ),
    ] {
        sqlx::raw_sql(&format!("BEGIN; {statement}")).execute(&mut connection).await.unwrap();
        let mut found = obstacles(&mut connection).await;
        found.retain(|obstacle| GIVEN_UP.iter().all(|(given_up, _)| obstacle != given_up));
        assert_eq!(found, [expected]);
        sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
    }
    database.cleanup().await;
}

/// What an operator is told to run.
const GUIDE: &str = include_str!("../../../../deploy/PERFORMANCE.md");

#[tokio::test]
async fn the_guide_distributes_every_table_that_is_to_be_and_each_after_those_it_refers_to() {
    let names = |line: &'static str| {
        let rest = ["SELECT create_distributed_table('", "SELECT create_reference_table('"]
            .iter()
            .find_map(|function| line.strip_prefix(function))?;
        rest.split('\'').next()
    };
    let told: Vec<&str> = GUIDE.lines().filter_map(names).collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    let mut wanted: Vec<&str> =
        PLACES.iter().filter(|(_, place)| *place != Place::Local).map(|(table, _)| *table).collect();
    wanted.sort_unstable();
    assert_eq!(sorted, wanted);

    let database = TestDatabase::create().await;
    let keys = list(
        &mut database.connect().await,
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'",
    )
    .await;
    let at = |table: &str| told.iter().position(|told| *told == table);
    for [from, to] in &keys {
        assert!(at(to) < at(from), "`{from}` refers to `{to}`, which comes later");
    }
    database.cleanup().await;
}

/// The tables that a statement reads or writes.
fn tables(words: &[String]) -> Vec<(&str, Place)> {
    let named = words.windows(2).filter(|pair| ["from", "join", "into", "update"].contains(&pair[0].as_str()));
    named.filter_map(|pair| Some((pair[1].as_str(), place(&pair[1])?))).collect()
}

/// Why a statement can't be run against distributed tables, as far as that can be read off it.
fn complaint(statement: &str) -> Option<&'static str> {
    let words = words(statement);
    let tables = tables(&words);
    let has = |wanted| tables.iter().any(|(_, place)| *place == wanted);
    if !has(Place::Distributed) {
        return None;
    }
    let text = words.join(" ");
    let locks =
        ["for update", "for no key update", "for share", "for key share"].iter().any(|lock| text.contains(lock));
    let of_one_program = words.windows(2).any(|pair| pair[0].ends_with(COLUMN) && pair[1].starts_with('$'));
    if has(Place::Local) {
        Some("it mixes tables of the coordinator with distributed ones")
    } else if locks && !of_one_program {
        Some("it locks rows of several programs")
    } else if tables.len() > 1 && !text.contains(COLUMN) {
        Some("it joins tables, but not by program")
    } else {
        None
    }
}

#[test]
fn every_statement_that_locks_rows_does_so_in_one_program_and_none_mixes_local_and_distributed_tables() {
    let statements = statements();
    let locking = statements.values().filter(|statement| statement.contains("FOR UPDATE")).count();
    assert!(statements.len() > 50 && locking > 2, "these are not all statements");
    let complaints: Vec<String> = statements
        .iter()
        .filter_map(|(file, statement)| Some(format!("{}: {file}\n{statement}", complaint(statement)?)))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn a_statement_that_leaves_its_program_is_found() {
    for (statement, expected) in [
        ("SELECT id FROM outreach WHERE due_at < now() FOR UPDATE", Some("it locks rows of several programs")),
        ("SELECT id FROM outreach o WHERE o.program_id = $1 FOR UPDATE OF o SKIP LOCKED", None),
        (
            "SELECT 1 FROM leads l JOIN outbox b ON b.id = l.id",
            Some("it mixes tables of the coordinator with distributed ones"),
        ),
        ("SELECT 1 FROM leads l\nJOIN outreach o ON o.lead_id = l.id", Some("it joins tables, but not by program")),
        ("SELECT id FROM outbox FOR UPDATE SKIP LOCKED", None),
    ] {
        assert_eq!(complaint(statement), expected, "{statement}");
    }
}
