//! The demo, from profile to captured mail.

use std::time::Duration;

use crate::bench::{Bench, finish, stderr};
use serde_json::{Value, json};
use test_support::postgres::TestDatabase;

#[tokio::test]
async fn the_demos_numbers_are_those_that_sql_counts() {
    let bench = Bench::on(TestDatabase::create_empty().await).await;
    let report = bench.json(&["demo", "--exit", "--leads", "300", "--seed", "5"]).await;
    assert_eq!(report["agrees_with_sql"], true, "{report}");
    assert_eq!(report["rows"], 300);
    for (name, query) in [
        ("collected", "SELECT count(*) FROM leads"),
        ("rejected", "SELECT count(*) FROM rejected_leads"),
        ("duplicates", "SELECT sum(duplicates)::bigint FROM collection_runs"),
        ("enriched", "SELECT count(*) FROM enriched_leads"),
        ("qualified", "SELECT count(*) FROM enriched_leads WHERE decision IN ('planned', 'held')"),
        ("captured", "SELECT count(*) FROM captured_mails"),
    ] {
        assert_eq!(report[name], bench.count(query).await, "{name} of {report}");
        assert!(report[name].as_i64().unwrap() > 0, "{name} of {report}");
    }
    let rows = ["collected", "rejected", "duplicates"].iter().map(|name| report[*name].as_i64().unwrap()).sum::<i64>();
    assert_eq!(rows, 300, "{report}");
    assert_eq!(bench.count("SELECT count(*) FROM outbox").await, 0);

    // What it says to look at next is there.
    let program = report["program"].as_str().unwrap();
    let mails = bench.json(&["mail", "list", "--program", program, "--limit", "0"]).await;
    let mails = mails.as_array().unwrap();
    assert_eq!(mails.len() as i64, report["captured"].as_i64().unwrap());
    let id = mails[0]["id"].as_str().unwrap();
    let raw = bench.succeed(&["mail", "show", id, "--program", program, "--raw"]).await;
    assert!(raw.contains("List-Unsubscribe:"), "{raw}");
    let shown = bench.succeed(&["mail", "show", id, "--program", program]).await;
    assert!(shown.contains("Springfield"), "the postal address is in the text: {shown}");
    let folder = bench.folder.path().join("mails");
    let exported = bench.json(&["mail", "export", "--out", folder.to_str().unwrap(), "--program", program]).await;
    assert_eq!(exported["mails"], mails.len());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), mails.len());

    let requeued = bench.json(&["mail", "requeue", "--captured", "--program", program]).await;
    assert_eq!(requeued["requeued"], mails.len());
    assert_eq!(bench.count("SELECT count(*) FROM outreach WHERE state = 'queued'").await, mails.len() as i64);
    bench.cleanup().await;
}

#[tokio::test]
async fn the_demo_keeps_its_own_key_and_stays_out_of_a_database_with_programs_of_ones_own() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "mine"]).await;
    let keys = bench.folder.path().join("keys");
    let demo = async || -> Value {
        let mut command = bench.command(["demo", "--exit", "--leads", "60", "--json", "--dir"]);
        command.arg(&keys).env_remove("LEADMILL_MASTER_KEY");
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = demo().await;
    let key = std::fs::read_to_string(keys.join("demo.key")).unwrap();
    let second = demo().await;
    assert_eq!(std::fs::read_to_string(keys.join("demo.key")).unwrap(), key, "the key is kept");
    assert_ne!(first["program"], second["program"], "each run has a program of its own");
    for report in [&first, &second] {
        assert!(report["database"].as_str().unwrap().ends_with("_demo"), "{report}");
        assert_eq!(report["collected"].as_i64(), first["collected"].as_i64());
    }
    assert_eq!(bench.json(&["program", "list"]).await.as_array().unwrap().len(), 1, "only one's own");
    assert_eq!(bench.count("SELECT count(*) FROM leads").await, 0);

    let sibling = format!("{}_demo", bench.database.name());
    let mut connection = bench.database.connect().await;
    let drop_it = format!(r#"DROP DATABASE "{sibling}" WITH (FORCE)"#);
    test_support::postgres::execute(&mut connection, &drop_it).await.unwrap();
    drop(connection);
    bench.cleanup().await;
}

#[tokio::test]
async fn the_demo_says_at_once_which_server_is_missing() {
    let bench = Bench::new().await;
    for (variable, url) in [("DATABASE_URL", "postgres://127.0.0.1:1/none"), ("AMQP_URL", "amqp://127.0.0.1:1/")] {
        let mut command = bench.command(["demo", "--exit"]);
        command.env(variable, url);
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains(variable) && said.contains("refused"), "{said}");
    }
    bench.cleanup().await;
}

#[tokio::test]
async fn up_serves_until_it_is_told_to_end() {
    let bench = Bench::new().await;
    bench
        .succeed(&["program", "create", "coffee", "--sender-email", "ann@example.com", "--postal-address", "1 Main St"])
        .await;
    bench.succeed(&["simulate", "--leads", "100", "--mix", ""]).await;
    let mut up = bench.command(["up"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let through = async {
        loop {
            let status = bench.json(&["status"]).await;
            let enriched = &status["enriched"];
            if enriched["total"] == 100 && enriched["undecided"] == 0 && status["outreach"]["queued"] == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), through).await.expect("all leads come through");
    let kill = std::process::Command::new("kill").arg("-TERM").arg(up.id().to_string()).status().unwrap();
    assert!(kill.success());
    let status = tokio::task::spawn_blocking(move || up.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(bench.json(&["status"]).await["enriched"]["total"], json!(100));
    bench.cleanup().await;
}
