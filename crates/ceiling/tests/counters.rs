//! What the server counts of a run, against a real PostgreSQL.

use ceiling::postgres::Database;
use sqlx::{Connection as _, PgConnection};
use test_support::postgres::{TestDatabase, execute};

/// Runs statements in a session of their own, and ends it.
async fn in_a_session(database: &TestDatabase, statement: &str, times: usize) {
    let mut session: PgConnection = database.connect().await;
    for _ in 0..times {
        execute(&mut session, statement).await.unwrap();
    }
    session.close().await.unwrap();
}

#[tokio::test]
async fn what_others_did_is_counted_in_full_and_what_the_benchmark_did_before_is_not() {
    let database = TestDatabase::create_empty().await;
    let measured = Database::new(database.url(), 4).unwrap();
    in_a_session(&database, "CREATE TABLE numbers (n int)", 1).await;
    measured.wait_until_alone().await.unwrap();
    for _ in 0..500 {
        measured.now().await.unwrap();
    }

    let before = measured.counters().await.unwrap();
    in_a_session(&database, "INSERT INTO numbers SELECT generate_series(1, 3)", 10).await;
    in_a_session(&database, "UPDATE numbers SET n = 4 WHERE n = 1", 1).await;
    in_a_session(&database, "DELETE FROM numbers WHERE n = 2", 1).await;
    measured.wait_until_alone().await.unwrap();
    let counted = measured.counters().await.unwrap() - before;

    assert_eq!((counted.inserted, counted.updated, counted.deleted), (30, 10, 10), "{counted:?}");
    assert_eq!(counted.rows(), 50);
    // Twelve, and a few of its own by which the benchmark waits and asks.
    assert!((12..200).contains(&counted.transactions), "{counted:?}");
    // Others may write to the log of this server as well.
    assert!(counted.wal.records >= counted.rows(), "{counted:?}");
    assert!(counted.wal.bytes > counted.wal.records, "{counted:?}");
    measured.close().await;
    database.cleanup().await;
}
