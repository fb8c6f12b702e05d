//! Whatever becomes of PostgreSQL, the network or a lock, a transaction comes to its end.

use std::time::{Duration, Instant};

use store::{Db, DbConfig, StoreError};
use test_support::{postgres::TestDatabase, proxy::TcpProxy};

const LIMIT: Duration = Duration::from_millis(500);
/// Far more than the limit, far less than TCP takes to give a connection up.
const SOON: Duration = Duration::from_secs(20);

/// One connection, so that a transaction which keeps it shows.
fn impatient(url: &str) -> Db {
    let config = DbConfig { max_connections: 1, transaction_timeout: LIMIT, ..DbConfig::new(url) };
    Db::new(&config).unwrap()
}

async fn run(db: &Db, statement: &'static str) -> Result<(), StoreError> {
    let work = db.transact("test", |tx, _| {
        Box::pin(async move {
            sqlx::query(statement).execute(tx).await?;
            Ok(())
        })
    });
    work.await
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_postgresql_and_may_be_tried_again() {
    let database = TestDatabase::create_empty().await;
    let db = impatient(database.url());
    let began = Instant::now();
    let error = run(&db, "SELECT pg_sleep(60)").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    run(&db, "SELECT 1").await.unwrap();
    let mut witness = database.connect().await;
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep%'
                  AND state = 'active' AND pid <> pg_backend_pid()";
    assert_eq!(test_support::postgres::number(&mut witness, asleep).await.unwrap(), 0);
    database.cleanup().await;
}

#[tokio::test]
async fn a_transaction_that_was_idle_for_too_long_is_ended_by_postgresql_and_may_be_tried_again() {
    let database = TestDatabase::create_empty().await;
    let db = impatient(database.url());
    let mut witness = database.connect().await;
    let witness = tokio::sync::Mutex::new(&mut witness);
    let work = db.transact("test", |tx, _| {
        let witness = &witness;
        Box::pin(async move {
            let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
            let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {own}");
            while test_support::postgres::number(&mut **witness.lock().await, &alive).await? > 0 {}
            sqlx::query("SELECT 1").execute(tx).await?;
            Ok(())
        })
    });
    let error = work.await.unwrap_err();
    assert!(format!("{error:?}").contains("25P03"), "{error:?}");
    assert!(error.is_transient(), "{error:?}");
    run(&db, "SELECT 1").await.unwrap();
    database.cleanup().await;
}

#[tokio::test]
async fn a_connection_that_dies_without_a_word_is_given_up_and_replaced() {
    let database = TestDatabase::create_empty().await;
    let server = url_authority(database.url());
    let proxy = TcpProxy::start(server).await.unwrap();
    let db = impatient(&proxy.through(database.url()));
    let began = Instant::now();
    // In the middle of a statement, and on the way back into the pool.
    let stranding = async {
        proxy.wait_for(|counts| counts.open == 1).await;
        tokio::time::sleep(LIMIT / 4).await;
        proxy.strand();
    };
    let (result, ()) = tokio::join!(run(&db, "SELECT pg_sleep(0.3)"), stranding);
    let error = result.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    run(&db, "SELECT 1").await.unwrap();
    proxy.strand();
    run(&db, "SELECT 1").await.unwrap();
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    database.cleanup().await;
}

/// `host:port` of a URL that names both.
fn url_authority(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned()
}
