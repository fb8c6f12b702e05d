//! Migrating, and refusing a schema that doesn't fit.

use crate::world::World;
use sqlx::{Connection as _, Executor as _, PgConnection};
use store::{Db, DbConfig, schema};
use test_support::postgres::TestDatabase;
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
