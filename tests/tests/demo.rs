//! `leadmill demo`: one command shows the whole way, and its numbers are true.

use leadmill_tests::{
    audit::{Planted, audit},
    stack::Stack,
    truth,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_of_the_demo_agree_with_the_database() {
    let stack = Stack::start_empty().await;
    let args = ["demo", "--exit", "--leads", "500", "--json"];
    let summary = stack.leadmill(&args).await.json();
    for (number, query) in [
        ("collected", "SELECT count(*) FROM leads"),
        ("rejected", "SELECT count(*) FROM rejected_leads"),
        ("duplicates", "SELECT sum(duplicates)::bigint FROM collection_runs"),
        ("enriched", "SELECT count(*) FROM enriched_leads"),
        ("qualified", "SELECT count(*) FROM enriched_leads WHERE decision IN ('planned', 'held')"),
        ("declined", "SELECT count(*) FROM enriched_leads WHERE decision = 'declined'"),
        ("captured", "SELECT count(*) FROM outreach WHERE state = 'captured'"),
    ] {
        let expected = truth::count(&stack, query).await;
        assert_eq!(summary[number], expected, "{number}: {summary:#}");
        assert!(expected > 0, "a demo without {number} shows little");
    }
    let rows: i64 = ["collected", "rejected", "duplicates"].iter().filter_map(|name| summary[name].as_i64()).sum();
    assert_eq!(rows, 500, "every row is accounted for: {summary:#}");
    assert_eq!(summary["agrees_with_sql"], true, "{summary:#}");
    audit(&stack, Planted::default()).await;

    // Whoever runs it again gets numbers of that run alone.
    let again = stack.leadmill(&args).await.json();
    assert_eq!(again["collected"], summary["collected"], "{again:#}");
    assert_ne!(again["program"], summary["program"]);
    audit(&stack, Planted::default()).await;
    stack.cleanup().await;
}
