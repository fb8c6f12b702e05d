//! Holds transactions at a chosen moment: whoever makes a certain change waits there, in PostgreSQL itself, until the gate
//! is opened. No failpoint in the programs is needed for it.

use std::time::Duration;

use sqlx::{Executor as _, PgConnection};

use crate::{
    stack::Stack,
    wait::{PATIENCE, eventually},
};

/// The advisory lock that a closed gate holds.
const KEY: i64 = 0x6761_7465;

/// Where a transaction waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In the statement that makes the change.
    Statement,
    /// In COMMIT, when everything else of the transaction is done.
    Commit,
}

/// A closed gate. It opens when it is dropped, too.
#[derive(Debug)]
pub struct Gate {
    keeper: PgConnection,
}

impl Gate {
    /// Holds whoever makes a row of `outreach` fulfil `condition`, such as `NEW.state = 'sent'`. One gate a stack.
    pub async fn close(stack: &Stack, moment: Moment, condition: &str) -> Self {
        let mut keeper = stack.connect().await;
        let trigger = match moment {
            Moment::Statement => "CREATE TRIGGER test_gate AFTER INSERT OR UPDATE ON outreach",
            Moment::Commit => {
                "CREATE CONSTRAINT TRIGGER test_gate AFTER INSERT OR UPDATE ON outreach DEFERRABLE INITIALLY DEFERRED"
            }
        };
        let statements = format!(
            "CREATE FUNCTION test_gate() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM pg_advisory_xact_lock_shared({KEY});
                 RETURN NULL;
             END $$;
             {trigger} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION test_gate();"
        );
        keeper.execute(statements.as_str()).await.expect("the gate can be installed");
        sqlx::query("SELECT pg_advisory_lock($1)").bind(KEY).execute(&mut keeper).await.expect("the gate closes");
        Self { keeper }
    }

    /// Waits until somebody waits at the gate; gives the server processes of those who do.
    pub async fn visitors(&mut self) -> Vec<i32> {
        eventually("somebody waits at the gate", PATIENCE, async || {
            let waiting: Vec<i32> = sqlx::query_scalar(
                "SELECT pid FROM pg_locks
                 WHERE locktype = 'advisory' AND NOT granted AND (classid::bigint << 32) + objid::bigint = $1
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .bind(KEY)
            .fetch_all(&mut self.keeper)
            .await
            .expect("locks can be listed");
            if waiting.is_empty() { Err("nobody does") } else { Ok(waiting) }
        })
        .await
    }

    /// Makes the server forget those who wait: their transactions are rolled back.
    pub async fn dismiss(&mut self, visitors: &[i32]) {
        for pid in visitors {
            sqlx::query("SELECT pg_terminate_backend($1, $2)")
                .bind(pid)
                .bind(Duration::from_secs(10).as_millis() as i64)
                .execute(&mut self.keeper)
                .await
                .expect("a backend can be ended");
        }
    }

    /// Lets everybody through, now and later.
    pub async fn open(mut self) {
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(KEY).execute(&mut self.keeper).await.expect("the gate opens");
        self.keeper.execute("DROP TRIGGER test_gate ON outreach").await.expect("the gate can be removed");
    }
}
