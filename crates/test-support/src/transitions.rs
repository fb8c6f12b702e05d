//! Holds every UPDATE of a mail's state against the life cycle in `domain`, while a test runs.
//!
//! SQL carries the transitions of `outreach` as literals, which no compiler compares with [`OutreachState::allows`]. A
//! trigger does, in throw-away databases alone: a statement that makes a transition which isn't allowed fails, and every
//! other is recorded.

use std::collections::BTreeSet;

use domain::outreach::OutreachState;
use sqlx::{Executor as _, PgConnection};

/// The SQLSTATE of the refusal: `check_violation`.
pub const REFUSED: &str = "23514";

/// Installs the trigger in a migrated database.
///
/// # Panics
/// When it can't be installed: no schema, or it is there already.
pub async fn enforce(connection: &mut PgConnection) {
    connection.execute(trigger().as_str()).await.expect("the database is migrated and has no such trigger yet");
}

/// Ends what [`enforce`] began, for a test that breaks the database on purpose.
///
/// # Panics
/// When the trigger isn't installed.
pub async fn allow_all(connection: &mut PgConnection) {
    let disable = "ALTER TABLE outreach DISABLE TRIGGER test_transition";
    connection.execute(disable).await.expect("the trigger is installed");
}

/// The transitions that were committed since [`enforce`], by the names of the states.
///
/// # Panics
/// When the trigger isn't installed.
pub async fn seen(connection: &mut PgConnection) -> BTreeSet<(String, String)> {
    let seen: Vec<(String, String)> = sqlx::query_as("SELECT DISTINCT old_state, new_state FROM test_transitions")
        .fetch_all(connection)
        .await
        .expect("the trigger is installed");
    seen.into_iter().collect()
}

/// The record has no key, so that concurrent transactions don't wait for one another; the function has its owner's rights,
/// so that a service under a role of its own may be tested.
fn trigger() -> String {
    let allowed: Vec<String> = OutreachState::ALL
        .into_iter()
        .flat_map(|old| OutreachState::ALL.map(|new| (old, new)))
        .filter(|(old, new)| old.allows(*new))
        .map(|(old, new)| format!("'{old} {new}'"))
        .collect();
    format!(
        "CREATE TABLE test_transitions (old_state text NOT NULL, new_state text NOT NULL);
         CREATE FUNCTION test_transition() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
         BEGIN
             IF (OLD.state::text || ' ' || NEW.state::text) <> ALL (ARRAY[{}]) THEN
                 RAISE EXCEPTION 'the life cycle of a mail does not allow % -> % (reason %, then %)',
                     OLD.state, NEW.state, OLD.reason, NEW.reason USING ERRCODE = '{REFUSED}';
             END IF;
             INSERT INTO test_transitions VALUES (OLD.state::text, NEW.state::text);
             RETURN NULL;
         END $$;
         CREATE TRIGGER test_transition AFTER UPDATE ON outreach FOR EACH ROW WHEN (OLD.state <> NEW.state)
             EXECUTE FUNCTION test_transition();",
        allowed.join(", ")
    )
}
