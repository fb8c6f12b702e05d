//! Whatever comes in wrong is refused in its place, with a reason that helps, and everything else goes on.

use std::time::Duration;

use domain::{
    clock::{Clock, SystemClock},
    event::{Envelope, Event},
    id::LeadId,
};
use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    stack::Stack,
    truth,
    wait::PATIENCE,
};
use reqwest::Response;
use serde_json::{Value, json};

/// A program that is refused its start ends well before this.
const START: Duration = Duration::from_secs(30);

/// Asserts that an answer is a problem (RFC 9457) of this status, and gives it.
async fn problem(answer: Response, status: u16) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let is_last = answer.headers().get("connection").is_some_and(|value| value == "close");
    assert!(is_last || ![401, 404, 413].contains(&status), "the body wasn't read: nothing may follow it");
    let body: Value = answer.json().await.expect("a problem is JSON");
    assert_eq!(body["status"], status);
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_malformed_or_not_allowed_is_told_why_and_stores_nothing() {
    let stack = Stack::start().await;
    let collector = stack.service("collector").start().await;
    let url = format!("http://{}/v1/leads", collector.address("ingest.address").await);
    let key = stack.api_key().await;
    let client = reqwest::Client::new();
    let post = |body: String| client.post(&url).bearer_auth(&key).header("content-type", "application/json").body(body);
    let one = creators::item(&creators::creators(41, 1)[0]);
    let wrapped = |second: Value| json!({ "leads": [one, second] }).to_string();

    let too_large = format!("{{\"bio\":\"{}\"}}", "x".repeat(3 << 20));
    problem(post(too_large).send().await.expect("an answer"), 413).await;
    let too_many = json!({ "leads": vec![&one; 1_001] }).to_string();
    problem(post(too_many).send().await.expect("an answer"), 413).await;
    for (body, path) in [
        (wrapped(json!({ "username": ["a"] })), "leads[1].username"),
        (wrapped(json!({ "usrname": "a" })), "leads[1]"),
        (wrapped(json!(7)), "leads[1]"),
    ] {
        let told = problem(post(body).send().await.expect("an answer"), 400).await;
        assert!(told["path"].as_str().is_some_and(|told| told.starts_with(path)), "{path}: {told}");
    }
    for body in ["", "no JSON", "{\"leads\":[{\"username\":"] {
        problem(post(body.to_owned()).send().await.expect("an answer"), 400).await;
    }
    let unknown = "lmi_0123456789abcdef0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for wrong in ["", "nonsense", unknown] {
        let answer = client.post(&url).bearer_auth(wrong).body(one.to_string()).send().await.expect("an answer");
        problem(answer, 401).await;
    }
    problem(client.post(&url).body(one.to_string()).send().await.expect("an answer"), 401).await;
    let of_another = client.post(format!("{url}?program=another")).bearer_auth(&key).body(one.to_string());
    problem(of_another.send().await.expect("an answer"), 404).await;
    problem(client.post(format!("{url}/nowhere")).send().await.expect("an answer"), 404).await;

    for table in ["leads", "rejected_leads", "outbox"] {
        let count: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}"))
            .fetch_one(&mut stack.connect().await)
            .await
            .expect("a count");
        assert_eq!(count, 0, "{table}");
    }
    let taken = post(one.to_string()).send().await.expect("an answer");
    assert_eq!(taken.status(), 200, "what is right is taken all the same");
    drop(collector);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_with_an_idempotency_key_gets_the_same_answer_and_stores_nothing_twice() {
    let stack = Stack::start().await;
    let collector = stack.service("collector").start().await;
    let url = format!("http://{}/v1/leads", collector.address("ingest.address").await);
    let key = stack.api_key().await;
    let people: Vec<Value> = creators::creators(43, 20).iter().map(creators::item).collect();
    let request = || reqwest::Client::new().post(&url).bearer_auth(&key).header("idempotency-key", "request-1");
    let first: Value = request().json(&people).send().await.expect("an answer").json().await.expect("JSON");
    let again: Value = request().json(&people).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(first, again);
    assert_eq!(first["counts"]["accepted"], 20);
    let another = request().json(&people[..1]).send().await.expect("an answer");
    problem(another, 422).await;
    assert_eq!(truth::count(&stack, "SELECT count(*) FROM leads").await, 20);
    drop(collector);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_none_or_names_nobody_becomes_a_dead_letter_that_can_be_replayed_or_dropped() {
    let stack = Stack::start().await;
    let fleet = stack.fleet(&["collector", "enricher", "mailer"], 1, &[]).await;
    let nobody = LeadId::generate();
    let event = |event| Envelope::new(stack.program(), nobody, 1, SystemClock.now(), event).encode();
    let about_nobody = event(Event::LeadCreated {});
    stack.amqp().publish("lead.created", b"\xff no event", None).await;
    stack.amqp().publish("lead.created", &about_nobody, None).await;
    let enriched = event(Event::LeadEnriched { enrichment_version: 1, score: 80 });
    stack.amqp().publish("lead.enriched", &enriched, None).await;
    // The queues go on.
    let ingest = fleet[0].address("ingest.address").await;
    creators::post(ingest, &stack.api_key().await, &creators::creators(45, 50)).await;
    stack.settle(PATIENCE).await;
    stack.amqp().wait_for_depth("lead.created.dead", 2).await;
    stack.amqp().wait_for_depth("lead.enriched.dead", 1).await;
    audit(&stack, Planted { dead_created: 2, dead_enriched: 1, ..Planted::default() }).await;

    let letters = stack.leadmill(&["dead", "list", "--json"]).await.json().to_string();
    assert!(letters.contains("decoded"), "the undecodable one says so: {letters}");
    assert!(letters.contains(&format!("there is no lead {nobody}")), "{letters}");
    let status = stack.leadmill(&["status", "--json"]).await.json();
    assert_eq!(status["queues"]["dead"], 3, "{status}");

    // A replay of what can't work comes back, with its attempts counted from 0; a dropped one is gone.
    stack.leadmill(&["dead", "replay", "--queue", "lead.created", "--all"]).await.ok();
    stack.amqp().wait_for_depth("lead.created.dead", 2).await;
    stack.leadmill(&["dead", "drop", "--queue", "lead.created", "--all"]).await.ok();
    stack.leadmill(&["dead", "drop", "--queue", "lead.enriched", "--all"]).await.ok();
    stack.amqp().wait_for_depth("lead.created.dead", 0).await;
    stack.amqp().wait_for_depth("lead.enriched.dead", 0).await;
    audit(&stack, Planted::default()).await;
    drop(fleet);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_ends_every_program_with_2_naming_key_source_and_what_is_allowed() {
    let stack = Stack::start().await;
    let file = stack.file("wrong.toml", "[runtime]\nworker_thraeds = 2\n");
    let file = file.to_str().expect("a path of ours");
    for binary in ["collector", "enricher", "mailer", "leadmill"] {
        let args: &[&str] = if binary == "leadmill" { &["up"] } else { &[] };
        for (name, value, expected) in [
            ("LEADMILL_LOG_FORMAT", "xml", vec!["`log.format`", "LEADMILL_LOG_FORMAT", "pretty", "json"]),
            ("LEADMILL_RUNTIME_SHUTDOWN_GRACE", "soon", vec!["`runtime.shutdown_grace`", "_SHUTDOWN_GRACE"]),
            ("LEADMILL_AMQP_PREFETCH", "-1", vec!["`amqp.prefetch`", "LEADMILL_AMQP_PREFETCH"]),
            ("LEADMILL_VAULT_MASTER_KEY", "hunter2", vec!["`vault.master_key`", "leadmill keys generate"]),
            ("LEADMILL_AMQP_PREFETHC", "5", vec!["LEADMILL_AMQP_PREFETHC", "LEADMILL_AMQP_PREFETCH"]),
            ("LEADMILL_CONFIG", file, vec!["`runtime.worker_thraeds`", "wrong.toml", "runtime.worker_threads"]),
        ] {
            let mut process = stack.service(binary).args(args).envs(&[(name, value)]).spawn();
            let status = process.ended(START).await;
            let log = process.log();
            assert_eq!(status.code(), Some(2), "{binary} with {name}={value}\n{log}");
            for part in expected {
                assert!(log.contains(part), "{binary} with {name}={value} doesn't say `{part}`\n{log}");
            }
            assert!(!log.contains("hunter2"), "a secret is shown\n{log}");
        }
        let mut process = stack.service(binary).args(args).without("LEADMILL_MASTER_KEY").spawn();
        assert_eq!(process.ended(START).await.code(), Some(2), "{binary} without a master key\n{}", process.log());
        assert!(process.log().contains("leadmill keys generate"), "{}", process.log());
    }
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_says_what_is_wrong_with_a_schema_and_never_migrates_by_itself() {
    let stack = Stack::start_empty().await;
    let services = ["collector", "enricher", "mailer"];
    let refused = async |expected: &str| {
        for binary in services {
            let mut process = stack.service(binary).spawn();
            let status = process.ended(START).await;
            assert_eq!(status.code(), Some(1), "{binary}\n{}", process.log());
            assert!(process.log().contains(expected), "{binary} doesn't say `{expected}`\n{}", process.log());
        }
    };
    refused("run `leadmill migrate`").await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(truth::count(&stack, tables).await, 0, "nobody but `leadmill migrate` migrates");

    stack.leadmill(&["migrate"]).await.ok();
    assert!(truth::count(&stack, tables).await > 10);
    let again = stack.leadmill(&["migrate"]).await.ok();
    assert_eq!(again.status, Some(0), "a second run has nothing to do");
    for process in stack.fleet(&services, 1, &[]).await {
        drop(process);
    }

    let mut connection = stack.connect().await;
    let forget =
        "UPDATE _sqlx_migrations SET success = false WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    sqlx::query(forget).execute(&mut connection).await.expect("a migration can be forgotten");
    refused("this program needs").await;
    sqlx::query("UPDATE _sqlx_migrations SET success = true")
        .execute(&mut connection)
        .await
        .expect("and be remembered");
    sqlx::query("UPDATE schema_requirements SET minimum_program_version = 1000")
        .execute(&mut connection)
        .await
        .expect("the schema can ask for another program");
    refused("install a newer release").await;
    stack.cleanup().await;
}
