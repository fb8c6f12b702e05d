//! What a migration's transaction locks of the tables that others use.

use sqlx::{PgConnection, postgres::types::Oid};

use super::report::TableLock;

/// The tables that there are before a migration.
pub(super) async fn existing_tables(connection: &mut PgConnection) -> Result<Vec<Oid>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT oid FROM pg_class
         WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
           AND relname <> '_sqlx_migrations'",
    )
    .fetch_all(connection)
    .await
}

/// The locks of this transaction on `tables` that some reads or writes have to wait for.
pub(super) async fn held(connection: &mut PgConnection, tables: &[Oid]) -> Result<Vec<TableLock>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "WITH modes AS (
             SELECT ARRAY['RowExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']
                 AS by_strength
         )
         SELECT l.relation::regclass::text, by_strength[max(array_position(by_strength, l.mode))]
         FROM pg_locks l, modes
         WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.relation = ANY($1)
           AND l.mode = ANY(by_strength)
         GROUP BY l.relation, by_strength
         ORDER BY 1",
    )
    .bind(tables)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(table, mode)| TableLock { table, mode }).collect())
}
