//! Migrating, refusing a schema that doesn't fit, and the states that it shares with the code.

use std::collections::BTreeSet;

use crate::world::{World, profile};
use domain::outreach::OutreachState;
use sqlx::{Connection as _, Executor as _, PgConnection, error::DatabaseError};
use store::{Db, DbConfig, schema};
use test_support::{postgres::TestDatabase, transitions};
use uuid::Uuid;

#[tokio::test]
async fn a_database_without_a_schema_is_named_as_such_and_then_migrated_once() {
    let database = TestDatabase::create_empty().await;
    let db = Db::new(&DbConfig::new(database.url())).unwrap();
    assert!(matches!(schema::check(&db).await, Err(schema::SchemaError::Missing)));
    let migrate =
        async || schema::migrate(database.url(), schema::MigrationSettings::default(), &mut |_| {}).await.unwrap();
    assert!(!migrate().await.applied.is_empty());
    schema::check(&db).await.unwrap();
    assert!(migrate().await.applied.is_empty());
}

#[tokio::test]
async fn an_older_schema_and_one_for_newer_programs_are_refused() {
    let world = World::new().await;
    world.execute("UPDATE schema_requirements SET minimum_program_version = 99").await;
    assert!(matches!(schema::check(&world.db).await, Err(schema::SchemaError::TooNew { needed: 99 })));
    let newest = schema::newest_migration();
    world
        .execute(&format!(
            "UPDATE schema_requirements SET minimum_program_version = 1;
             DELETE FROM _sqlx_migrations WHERE version = {newest}"
        ))
        .await;
    assert!(
        matches!(schema::check(&world.db).await, Err(schema::SchemaError::TooOld { needed, .. }) if needed == newest)
    );
}

#[tokio::test]
async fn a_mail_is_found_by_its_key_in_a_table_that_nobody_has_analysed() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    // As a foreign key asks, which plans once and for any row.
    let asking = "SET plan_cache_mode = force_generic_plan;
                  PREPARE mail (uuid, uuid) AS
                      SELECT 1 FROM ONLY outreach WHERE program_id = $1 AND id = $2 FOR KEY SHARE";
    connection.execute(asking).await.unwrap();
    let nobody = Uuid::nil();
    let explain = format!("EXPLAIN EXECUTE mail ('{nobody}', '{nobody}')");
    let plan: Vec<String> = sqlx::query_scalar(&explain).persistent(false).fetch_all(&mut connection).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("Index Scan using outreach_pkey")), "{plan:#?}");
}

#[tokio::test]
async fn the_states_of_the_schema_are_those_of_the_life_cycle() {
    let world = World::new().await;
    let labels = "SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum
                  WHERE enumtypid = 'outreach_state'::regtype";
    assert_eq!(world.text(labels).await, OutreachState::ALL.map(OutreachState::name).join(" "));
    world.database.cleanup().await;
}

#[tokio::test]
async fn a_transition_is_possible_in_a_test_exactly_if_the_life_cycle_allows_it() {
    let world = World::new().await;
    let lead = world.enriched(profile("ann")).await;
    world
        .execute(&format!(
            "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                                   state, reason, message_id, enrichment_version, due_at, lease_token, created_at, updated_at)
             SELECT program_id, gen_random_uuid(), id, 'intro', 1, email_index, email_index, 1, 'held', 'test', 'm', 1,
                    now(), gen_random_uuid(), now(), now()
             FROM leads WHERE id = '{lead}'"
        ))
        .await;
    let mut connection = world.database.connect().await;
    let mut allowed = BTreeSet::new();
    for old in OutreachState::ALL {
        for new in OutreachState::ALL {
            let set = |state: OutreachState| {
                let sent_at = if state == OutreachState::Sent { "now()" } else { "NULL" };
                format!("UPDATE outreach SET state = '{state}', sent_at = {sent_at}")
            };
            // The first step is nobody's transition.
            let bypass = format!(
                "ALTER TABLE outreach DISABLE TRIGGER test_transition; {}; ALTER TABLE outreach ENABLE TRIGGER test_transition",
                set(old)
            );
            connection.execute(bypass.as_str()).await.unwrap();
            match connection.execute(set(new).as_str()).await {
                Ok(_) if old == new => {}
                Ok(_) => {
                    assert!(old.allows(new), "{old} -> {new} was let through");
                    allowed.insert((old.name().to_owned(), new.name().to_owned()));
                }
                Err(error) => {
                    assert!(!old.allows(new), "{old} -> {new} was refused: {error}");
                    let code = error.as_database_error().and_then(DatabaseError::code).unwrap();
                    assert_eq!(code, transitions::REFUSED, "{error}");
                }
            }
        }
    }
    assert_eq!(transitions::seen(&mut connection).await, allowed);
    world.database.cleanup().await;
}
