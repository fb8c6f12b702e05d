//! `leadmill jobs`.

use crate::bench::Bench;
use serde_json::json;

#[tokio::test]
async fn jobs_are_listed_run_and_shown_in_the_history() {
    let bench = Bench::new().await;
    let listed = bench.json(&["jobs", "list"]).await;
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"reconciler") && names.contains(&"job-history"), "{names:?}");
    let job = listed.as_array().unwrap().iter().find(|job| job["name"] == "job-history").unwrap();
    assert_eq!(
        (&job["schedule"], &job["running"], &job["last_run"]),
        (&json!("17 4 * * * (UTC)"), &json!(null), &json!(null))
    );
    assert!(bench.json(&["jobs", "history"]).await.as_array().unwrap().is_empty());

    let ran = bench.json(&["jobs", "run", "job-history"]).await;
    assert_eq!((&ran["outcome"], &ran["rows"]), (&json!("done"), &json!(0)), "{ran}");
    let history = bench.json(&["jobs", "history", "job-history", "--limit", "5"]).await;
    assert_eq!((&history[0]["id"], &history[0]["trigger"]), (&ran["id"], &json!("manual")), "{history}");
    let shown = bench.succeed(&["jobs", "history"]).await;
    assert!(shown.contains("job-history") && shown.contains("manual"), "{shown}");
    let shown = bench.succeed(&["jobs", "list"]).await;
    assert!(shown.contains("done, ") && shown.contains("Deletes records"), "{shown}");
    bench.cleanup().await;
}

#[tokio::test]
async fn the_reconciler_can_be_run_by_hand_and_declares_queues_that_are_missing() {
    let bench = Bench::new().await;
    let ran = bench.json(&["jobs", "run", "reconciler"]).await;
    assert_eq!(ran["outcome"], "done", "{ran}");
    assert_eq!(bench.broker.depth("lead.created").await, Some(0));
    assert_eq!(bench.count("SELECT count(*) FROM leases").await, 0, "the lease is given back");
    bench.cleanup().await;
}

#[tokio::test]
async fn a_run_that_fails_ends_with_1_and_a_job_that_is_unknown_with_the_list_of_names() {
    let bench = Bench::new().await;
    let mut command = bench.command(["jobs", "run", "reconciler"]);
    command.env("AMQP_URL", "amqp://127.0.0.1:1/");
    let output = crate::bench::finish(command).await;
    assert_eq!(output.status.code(), Some(1), "{}", crate::bench::stderr(&output));
    let history = bench.json(&["jobs", "history", "reconciler"]).await;
    assert_eq!(history[0]["outcome"], "failed", "{history}");

    for args in [["jobs", "run", "sweep"], ["jobs", "history", "sweep"]] {
        let said = bench.fail(2, &args).await;
        assert!(said.contains("`sweep`") && said.contains("reconciler, "), "{said}");
    }
    bench.cleanup().await;
}
