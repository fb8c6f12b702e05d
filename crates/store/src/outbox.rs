//! The outbox: events that are committed together with the change they tell of, and published afterwards.
//!
//! A row is leased to the process that wrote it until `available_at`, which the rows of one batch share; whoever publishes
//! it deletes it by that instant and its id. A lease that ran out belongs to the first sweeper that claims it.

use std::time::Duration;

use domain::event::{Envelope, Outgoing, Queue, Route, TraceContext};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Connection, StoreError, unreadable};

/// How long a row belongs to the process that wrote or claimed it, in seconds.
pub const LEASE_SECONDS: i32 = 15;

/// A row of the outbox that this process has to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Leased {
    /// What to publish.
    pub outgoing: Outgoing,
    /// When the lease ends, by PostgreSQL's clock; names the row together with the event's id.
    pub available_at: OffsetDateTime,
}

/// What a sweeper gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The rows to publish.
    pub rows: Vec<Leased>,
    /// How many more were claimed that this version can't read.
    pub skipped: usize,
}

/// Rows of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Depth {
    /// Nobody's lease: to be swept now.
    pub due: i64,
    /// Leased, or retries with a due time to come.
    pub scheduled: i64,
    /// How long the oldest due row has been due, in seconds; 0 when none is.
    pub oldest_due_seconds: f64,
}

/// Inserts events, leased to this process, which must publish them after COMMIT.
pub async fn insert(connection: &mut Connection, events: Vec<Outgoing>) -> Result<Vec<Leased>, StoreError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let delays = vec![f64::from(LEASE_SECONDS); events.len()];
    let available_at = insert_delayed(connection, &events, &delays).await?;
    Ok(events.into_iter().zip(available_at).map(|(outgoing, available_at)| Leased { outgoing, available_at }).collect())
}

/// Inserts events that are to be published after their delays, by whoever sweeps then: retries.
pub async fn schedule(connection: &mut Connection, events: &[(Outgoing, Duration)]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let (outgoing, delays): (Vec<_>, Vec<_>) =
        events.iter().map(|(outgoing, delay)| (outgoing.clone(), delay.as_secs_f64())).unzip();
    insert_delayed(connection, &outgoing, &delays).await?;
    Ok(())
}

async fn insert_delayed(
    connection: &mut Connection,
    events: &[Outgoing],
    delays: &[f64],
) -> Result<Vec<OffsetDateTime>, StoreError> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.envelope.event_id.as_uuid()).collect();
    let envelopes: Vec<Vec<u8>> = events.iter().map(|event| event.envelope.encode()).collect();
    let queues: Vec<Option<String>> = events
        .iter()
        .map(|event| match event.route {
            Route::Exchange => None,
            Route::Queue(queue) => Some(queue.name().to_owned()),
        })
        .collect();
    let parents: Vec<Option<String>> = events.iter().map(|event| event.trace.traceparent.clone()).collect();
    let states: Vec<Option<String>> = events.iter().map(|event| event.trace.tracestate.clone()).collect();
    let available_at = sqlx::query_scalar!(
        r#"INSERT INTO outbox (id, available_at, envelope, queue, traceparent, tracestate, created_at)
           SELECT id, now() + delay * interval '1 second', envelope, queue, traceparent, tracestate, now()
           FROM UNNEST($1::uuid[], $2::float8[], $3::bytea[], $4::text[], $5::text[], $6::text[])
                AS e (id, delay, envelope, queue, traceparent, tracestate)
           RETURNING available_at"#,
        &ids,
        delays,
        &envelopes,
        &queues as &[Option<String>],
        &parents as &[Option<String>],
        &states as &[Option<String>],
    )
    .fetch_all(connection)
    .await?;
    Ok(available_at)
}

/// Claims up to `limit` due rows by extending their lease. Commit before publishing.
///
/// Rows are named by where they stand, which needs no index on their ids; that is a place in a table, and the outbox may
/// be several (`deploy/outbox-partitions.sql`). The array of places is what keeps the planner from reading all of them.
///
/// A row that this version can't read (an envelope or a queue of a newer one, or a damaged row) is skipped: it stays where it
/// is, and comes due again when its lease ends.
pub async fn claim_due(connection: &mut Connection, limit: i64) -> Result<Claimed, StoreError> {
    let rows = sqlx::query!(
        r#"WITH due AS (
               SELECT tableoid, ctid FROM outbox
               WHERE available_at <= now() ORDER BY available_at LIMIT $1
               FOR UPDATE SKIP LOCKED
           )
           UPDATE outbox SET available_at = now() + $2 * interval '1 second'
           WHERE ctid = ANY(ARRAY(SELECT ctid FROM due)) AND (tableoid, ctid) IN (SELECT tableoid, ctid FROM due)
           RETURNING id, available_at, envelope, queue, traceparent, tracestate"#,
        limit,
        f64::from(LEASE_SECONDS),
    )
    .fetch_all(connection)
    .await?;
    let claimed = rows.len();
    let rows: Vec<Leased> = rows
        .into_iter()
        .filter_map(|row| {
            let outgoing = decode(row.id, &row.envelope, row.queue.as_deref(), row.traceparent, row.tracestate);
            let outgoing = unreadable::readable("outbox", row.id, outgoing)?;
            Some(Leased { outgoing, available_at: row.available_at })
        })
        .collect();
    Ok(Claimed { skipped: claimed - rows.len(), rows })
}

fn decode(
    row: Uuid,
    envelope: &[u8],
    queue: Option<&str>,
    traceparent: Option<String>,
    tracestate: Option<String>,
) -> Result<Outgoing, StoreError> {
    let inconsistent = |column, detail| StoreError::Inconsistent { table: "outbox", column, row, detail };
    let envelope = Envelope::decode(envelope).map_err(|error| inconsistent("envelope", error.to_string()))?;
    let route = match queue {
        None => Route::Exchange,
        Some(name) => Route::Queue(name.parse::<Queue>().map_err(|error| inconsistent("queue", error.to_string()))?),
    };
    Ok(Outgoing { envelope, route, trace: TraceContext { traceparent, tracestate } })
}

/// Deletes rows that the broker has confirmed; returns how many were still this process's.
pub async fn delete(connection: &mut Connection, published: &[Leased]) -> Result<u64, StoreError> {
    if published.is_empty() {
        return Ok(0);
    }
    let mut instants: Vec<OffsetDateTime> = published.iter().map(|row| row.available_at).collect();
    instants.sort_unstable();
    instants.dedup();
    let ids: Vec<Uuid> = published.iter().map(|row| row.outgoing.envelope.event_id.as_uuid()).collect();
    // IS TRUE keeps it a look into a hash table per row. As `id = ANY($2)`, a plan that is kept compares each row with each
    // id; as a join, the planner takes the ids for a handful and does the same.
    let deleted = sqlx::query!(
        "DELETE FROM outbox WHERE available_at = ANY($1) AND (id IN (SELECT UNNEST($2::uuid[]))) IS TRUE",
        &instants,
        &ids,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// How many rows wait.
pub async fn depth(connection: &mut Connection) -> Result<Depth, StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE available_at <= now()) AS "due!",
                  count(*) FILTER (WHERE available_at > now()) AS "scheduled!",
                  coalesce(extract(epoch FROM now() - min(available_at) FILTER (WHERE available_at <= now())), 0)::float8
                      AS "oldest_due_seconds!"
           FROM outbox"#
    )
    .fetch_one(connection)
    .await?;
    Ok(Depth { due: row.due, scheduled: row.scheduled, oldest_due_seconds: row.oldest_due_seconds })
}
