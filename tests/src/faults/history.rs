//! Every state that a mail was ever in, written down by a trigger: what is committed is here, whoever died afterwards.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Executor as _, Row as _};
use uuid::Uuid;

use crate::stack::Stack;

const RECORDER: &str = "
    CREATE TABLE test_history (outreach_id uuid NOT NULL, state text NOT NULL);
    CREATE FUNCTION test_history() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO test_history VALUES (NEW.id, NEW.state::text);
        RETURN NULL;
    END $$;
    CREATE TRIGGER test_history AFTER INSERT OR UPDATE OF state ON outreach
        FOR EACH ROW EXECUTE FUNCTION test_history();";

/// Begins to write down.
pub async fn record(stack: &Stack) {
    stack.connect().await.execute(RECORDER).await.expect("the recorder can be installed");
}

/// The states of each mail so far.
pub async fn states(stack: &Stack) -> BTreeMap<Uuid, BTreeSet<String>> {
    let rows = sqlx::query("SELECT DISTINCT outreach_id, state FROM test_history")
        .fetch_all(&mut stack.connect().await)
        .await
        .expect("the record can be read");
    let mut states: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        states.entry(row.get(0)).or_default().insert(row.get(1));
    }
    states
}
