//! A large, messy file, cut off half-way by a power cut and imported again: nothing is missing, nothing is there twice.

use std::{env, path::Path, time::Duration};

use leadmill_tests::{
    audit::{Planted, audit},
    stack::{PROGRAM, Stack, settings},
    truth,
    wait::{PATIENCE, eventually},
};
use serde_json::Value;
use sqlx::Row as _;
use test_support::messy;

/// Rows of the file; `LEADMILL_TEST_ROWS` changes it. 200,000 is what the product promises, fewer show the same faster.
const ROWS: u64 = 20_000;
/// How long all of them may take to come through, on a busy machine.
const LIMIT: Duration = Duration::from_mins(10);

async fn import(stack: &Stack, file: &Path) -> Value {
    stack.leadmill(&["import", text(file), "--program", PROGRAM, "--json"]).await.json()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

fn count(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {summary}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_messy_file_that_is_cut_off_by_kill_9_and_imported_again_adds_up_and_comes_through_once() {
    // Nobody gets a mail: this is about what comes in.
    let stack = Stack::start_with(domain::program::ProgramSettings { threshold: 100, ..settings() }).await;
    let rows = env::var("LEADMILL_TEST_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROWS);
    let file = stack.folder().join("messy.csv");
    let expected = messy::generate(&file, rows, 5).expect("the file is written");

    let args = ["import", text(&file), "--program", PROGRAM, "--json"];
    let mut first = stack.service("leadmill").args(&args).spawn();
    let half = expected.accepted / 2;
    eventually("half of the leads are in", LIMIT, async || {
        let leads = truth::count(&stack, "SELECT count(*) FROM leads").await as u64;
        if leads >= half { Ok(()) } else { Err(format!("{leads} of {}", expected.accepted)) }
    })
    .await;
    first.kill().await;
    let before = truth::count(&stack, "SELECT count(*) FROM leads").await as u64;
    assert!(before < expected.accepted, "the power cut came too late");
    let waiting = truth::count(&stack, "SELECT count(*) FROM outbox").await;

    let second = import(&stack, &file).await;
    let [accepted, updated, duplicates, rejected] =
        ["accepted", "updated", "duplicates", "rejected"].map(|name| count(&second, name));
    assert_eq!(count(&second, "rows"), expected.rows);
    assert_eq!(accepted + updated + duplicates + rejected, expected.rows, "every row is accounted for: {second}");
    assert_eq!(rejected, expected.rejected_total(), "{second}");
    assert_eq!(before + accepted, expected.accepted, "no lead is missing and none is new twice: {second}");
    rejects_are_there_once_with_their_reasons(&stack, &expected).await;

    let third = import(&stack, &file).await;
    assert_eq!((count(&third, "accepted"), count(&third, "rejected_new")), (0, 0), "{third}");
    assert_eq!(count(&third, "duplicates"), expected.rows - expected.rejected_total(), "{third}");
    let status = stack.leadmill(&["status", "--json"]).await.json();
    assert_eq!(status["leads"]["accepted"], expected.accepted);
    assert_eq!(status["leads"]["rejected"], expected.rejected_total());

    // Every event is there: each lead comes through, those too whose events waited for a process that was killed.
    let fleet = stack.fleet(&["enricher", "mailer"], 1, &[]).await;
    stack.settle(LIMIT).await;
    let enriched =
        truth::count(&stack, "SELECT count(*) FROM enriched_leads WHERE enrichment_version = 1").await as u64;
    assert_eq!(enriched, expected.accepted, "{waiting} events waited when the power went");
    audit(&stack, Planted::default()).await;
    drop(fleet);
    stack.cleanup().await;
}

async fn rejects_are_there_once_with_their_reasons(stack: &Stack, expected: &messy::Expected) {
    let found = sqlx::query("SELECT reason, count(*) FROM rejected_leads GROUP BY reason")
        .fetch_all(&mut stack.connect().await)
        .await
        .expect("the rejects can be counted");
    let found: std::collections::BTreeMap<String, u64> =
        found.iter().map(|row| (row.get(0), row.get::<i64, _>(1) as u64)).collect();
    let expected_reasons = expected.rejected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    assert_eq!(found, expected_reasons);

    let out = stack.folder().join("rejects.csv");
    let told = stack.leadmill(&["rejects", "export", "--program", PROGRAM, "--out", text(&out), "--json"]).await.json();
    assert!(told.to_string().contains(&expected.rejected_total().to_string()), "{told}");
    let exported = std::fs::read(&out).expect("the export is there");
    assert!(exported.starts_with(b"line,field,reason"), "{:?}", String::from_utf8_lossy(&exported[..80]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_table_of_creators_is_refused_before_anything_is_written() {
    let stack = Stack::start().await;
    let binary = stack.file("photo.csv", [0x89, b'P', b'N', b'G', 0, 0, 0, 13, 0xff, 0xd8]);
    let columns = stack.file("colours.csv", "colour,size\nred,1\nblue,2\n");
    let empty = stack.file("empty.csv", "");
    for (file, expected) in [(binary, "neither CSV nor JSON"), (columns, "--map"), (empty, "is empty")] {
        let complaint = stack.leadmill(&["import", text(&file), "--program", PROGRAM]).await.fails_with(1);
        assert!(complaint.contains(expected), "`{expected}` for {}: {complaint}", file.display());
    }
    let missing = stack.leadmill(&["import", "nowhere.csv", "--program", PROGRAM]).await.fails_with(1);
    assert!(missing.contains("nowhere.csv"), "{missing}");
    for query in ["SELECT count(*) FROM leads", "SELECT count(*) FROM rejected_leads"] {
        assert_eq!(truth::count(&stack, query).await, 0);
    }

    // What it says about the columns works.
    let mapped = stack.file("mapped.csv", "wer,wohin\nann.b,ann@example.org\n");
    let args = ["--map", "wer=username", "--map", "wohin=email", "--source", "instagram", "--json"];
    let args = [&["import", text(&mapped), "--program", PROGRAM][..], &args].concat();
    assert_eq!(stack.leadmill(&args).await.json()["accepted"], 1);
    let fleet = stack.fleet(&["enricher", "mailer"], 1, &[]).await;
    stack.settle(PATIENCE).await;
    audit(&stack, Planted::default()).await;
    drop(fleet);
    stack.cleanup().await;
}
