//! 4: PostgreSQL stopped, killed, full, read-only; connections ended; races lost.

use std::time::Duration;

use leadmill_tests::{
    faults::{
        servers::{POSTGRES, Servers},
        verdict::Done,
        world::{Plan, World},
    },
    truth,
    wait::{PATIENCE, eventually},
};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;

use crate::short_or;

/// Ends every connection but one's own.
const END_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_goes_away_is_full_or_read_only_costs_nothing() {
    let world = World::start_on(Servers::start().await, Plan { seed: 401, ..Plan::default() }).await;
    let servers = world.servers();
    let a_while = short_or(Duration::from_secs(2), Duration::from_secs(10));
    let breaking = async {
        for mode in ["fast", "immediate"] {
            sleep(Duration::from_secs(1)).await;
            servers.stop(POSTGRES, mode).await;
            sleep(a_while).await;
            servers.start_again(POSTGRES).await;
        }
        sleep(Duration::from_secs(1)).await;
        world.stack.connect().await.execute(END_ALL).await.expect("connections can be ended");
        sleep(Duration::from_secs(1)).await;
        full_of_connections(&world, a_while).await;
        sleep(Duration::from_secs(1)).await;
        read_only(&world, a_while).await;
    };
    let leads = short_or(2_000, 10_000);
    let (fed, ()) = tokio::join!(world.feed(leads, Duration::from_secs(10) + 4 * a_while), breaking);
    let fault = "PostgreSQL stopped, killed, connections ended, full, read-only";
    // Each trouble may find a mail on each of the four connections.
    let done = Done { row: 4, fault, runs: 5, fed: Some(fed), in_doubt: 5 * 4, ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.leads, leads);
    world.end().await;
}

/// Takes every connection there is, those of the services too.
async fn full_of_connections(world: &World, time: Duration) {
    let mut taken: Vec<PgConnection> = Vec::new();
    let mut ended = 0;
    loop {
        match PgConnection::connect(world.stack.database().url()).await {
            Ok(connection) => taken.push(connection),
            Err(_) if ended == 3 => break,
            Err(_) => {
                let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                              WHERE application_name LIKE 'leadmill%'";
                taken[0].execute(others).await.expect("connections can be ended");
                ended += 1;
            }
        }
    }
    sleep(time).await;
    for connection in taken {
        // Closing is a courtesy.
        let _ = connection.close().await;
    }
}

/// As a standby is, or a server whose disk is about to be full.
async fn read_only(world: &World, time: Duration) {
    let mut connection = world.stack.connect().await;
    connection.execute("SET default_transaction_read_only = off").await.expect("a setting of one's own");
    for (setting, time) in [("on", time), ("off", Duration::ZERO)] {
        let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {setting}");
        connection.execute(setting.as_str()).await.expect("a private server's settings can be changed");
        connection.execute("SELECT pg_reload_conf()").await.expect("the settings can be read again");
        sleep(time).await;
    }
}

/// Statements of both stages fail now and then as they do in a race.
const RACES: &str = "
    CREATE SEQUENCE test_races;
    CREATE FUNCTION test_race() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.96 THEN RETURN NULL; END IF;
        -- What a sequence has counted outlives the transaction.
        PERFORM nextval('test_races');
        IF random() < 0.5 THEN RAISE EXCEPTION 'provoked' USING ERRCODE = 'serialization_failure'; END IF;
        RAISE EXCEPTION 'provoked' USING ERRCODE = 'deadlock_detected';
    END $$;
    CREATE TRIGGER test_race AFTER INSERT OR UPDATE ON leads FOR EACH STATEMENT EXECUTE FUNCTION test_race();
    CREATE TRIGGER test_race AFTER INSERT OR UPDATE ON enriched_leads FOR EACH STATEMENT EXECUTE FUNCTION test_race();
    CREATE TRIGGER test_race AFTER INSERT OR UPDATE ON outreach FOR EACH STATEMENT EXECUTE FUNCTION test_race();";

/// Whoever enriches takes two locks, one after the other.
const TWO_LOCKS: &str = "
    CREATE FUNCTION test_two_locks() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(1);
        PERFORM pg_advisory_xact_lock(2);
        RETURN NULL;
    END $$;
    CREATE TRIGGER test_two_locks AFTER INSERT ON enriched_leads FOR EACH STATEMENT EXECUTE FUNCTION test_two_locks();";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_that_are_lost_are_run_again() {
    let world = World::start(Plan { seed: 402, ..Plan::default() }).await;
    world.stack.connect().await.execute(RACES).await.expect("the trigger can be installed");
    world.stack.connect().await.execute(TWO_LOCKS).await.expect("the trigger can be installed");
    let leads = short_or(500, 5_000);
    let (fed, ()) = tokio::join!(world.feed(leads, Duration::from_secs(4)), deadlock(&world));
    let fault = "serialization failures and deadlocks";
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks = eventually("PostgreSQL has counted the deadlock", PATIENCE, async || {
        match truth::count(&world.stack, deadlocks).await {
            0 => Err("there was none"),
            count => Ok(count as u64),
        }
    })
    .await;
    world.settle().await.expect("everything comes through");
    let provoked = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM test_races";
    let provoked = truth::count(&world.stack, provoked).await as u64;
    assert!(provoked > 5, "only {provoked} races were lost");
    let runs = provoked + deadlocks;
    let tally = world.judge(Done { row: 4, fault, runs, fed: Some(fed), ..Done::default() }).await;
    assert_eq!(tally.leads, leads, "{tally}");
    world.end().await;
}

/// Takes the same two locks the other way round, when somebody has the first.
async fn deadlock(world: &World) {
    let mut connection = world.stack.connect().await;
    let mut contrary = connection.begin().await.expect("a transaction");
    contrary.execute("SELECT pg_advisory_xact_lock(2)").await.expect("nobody has it");
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("somebody waits for the second lock", PATIENCE, async || {
        if truth::count(&world.stack, waiting).await > 0 { Ok(()) } else { Err("nobody does") }
    })
    .await;
    // One of both gives way; which one is PostgreSQL's choice.
    let _ = contrary.execute("SELECT pg_advisory_xact_lock(1)").await;
    // Whoever lost, the locks have to go.
    let _ = contrary.rollback().await;
    world
        .stack
        .connect()
        .await
        .execute("DROP TRIGGER test_two_locks ON enriched_leads")
        .await
        .expect("the trigger can be removed");
}
