//! Every state that a mail was ever in, written down by a trigger: what is committed is here, whoever died afterwards.
//!
//! Times are seconds since the epoch by PostgreSQL's clock. A statement that began after an answer of the system was read
//! sees everything that was committed before that answer; so the times of statements, not of commits, tell what a claim or
//! a move to the data phase must have known.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use sqlx::{Executor as _, Row as _};
use uuid::Uuid;

use crate::stack::Stack;

const RECORDER: &str = "
    CREATE TABLE test_history (
        number          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        outreach_id     uuid        NOT NULL,
        lead_id         uuid        NOT NULL,
        recipient_index bytea       NOT NULL,
        state           text        NOT NULL,
        statement_at    timestamptz NOT NULL DEFAULT statement_timestamp(),
        transaction_at  timestamptz NOT NULL DEFAULT transaction_timestamp()
    );
    CREATE FUNCTION test_history() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO test_history (outreach_id, lead_id, recipient_index, state)
        VALUES (NEW.id, NEW.lead_id, NEW.recipient_index, NEW.state::text);
        RETURN NULL;
    END $$;
    CREATE TRIGGER test_history AFTER INSERT OR UPDATE OF state ON outreach
        FOR EACH ROW EXECUTE FUNCTION test_history();";

/// A state that a mail was in.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The row.
    pub outreach: Uuid,
    /// Whom it is for.
    pub lead: Uuid,
    /// The blind index of the recipient that it had then.
    pub recipient: Vec<u8>,
    /// The state, as stored.
    pub state: String,
    /// When the statement began that put it there.
    pub statement_at: f64,
    /// When that statement's transaction began: what limits count by.
    pub transaction_at: f64,
}

/// Begins to write down.
pub async fn record(stack: &Stack) {
    stack.connect().await.execute(RECORDER).await.expect("the recorder can be installed");
}

/// The states of each mail so far.
pub async fn states(stack: &Stack) -> BTreeMap<Uuid, BTreeSet<String>> {
    let mut states: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for entry in entries(stack).await {
        states.entry(entry.outreach).or_default().insert(entry.state);
    }
    states
}

/// Everything so far; the entries of one mail are in their order.
pub async fn entries(stack: &Stack) -> Vec<Entry> {
    let rows = sqlx::query(
        "SELECT outreach_id, lead_id, recipient_index, state, extract(epoch FROM statement_at)::float8 AS statement_at,
                extract(epoch FROM transaction_at)::float8 AS transaction_at
         FROM test_history ORDER BY number",
    )
    .fetch_all(&mut stack.connect().await)
    .await
    .expect("the record can be read");
    rows.into_iter()
        .map(|row| Entry {
            outreach: row.get("outreach_id"),
            lead: row.get("lead_id"),
            recipient: row.get("recipient_index"),
            state: row.get("state"),
            statement_at: row.get("statement_at"),
            transaction_at: row.get("transaction_at"),
        })
        .collect()
}

/// The time of day here, comparable with the entries' where PostgreSQL runs on the same machine with the same clock.
///
/// # Panics
/// Before 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}
