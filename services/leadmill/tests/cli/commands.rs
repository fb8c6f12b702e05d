//! The commands that need servers, but no services.

use crate::bench::{Bench, finish, mode, stderr};
use serde_json::json;
use test_support::postgres::{TestDatabase, execute};

const CREATORS: &str = "\
network,handle,full name,email,followers,bio,country
instagram,ann.bakes,Ann,ann@bakes.example.com,12.3K,I bake bread,US
instagram,bob.bikes,Bob,bob@bikes.example.com,4500,Bikes and more,US
instagram,ann.bakes,Ann,ann@bakes.example.com,12.3K,I bake bread,US
instagram,,Nobody,nobody@example.com,1,no user name,US
instagram,carl,Carl,carl-at-nowhere,many,no count,US
";

#[tokio::test]
async fn migrating_tells_what_was_applied_and_does_nothing_the_second_time() {
    let bench = Bench::on(TestDatabase::create_empty().await).await;
    let said = bench.fail(1, &["status"]).await;
    assert!(said.contains("leadmill migrate"), "{said}");
    bench.fail(1, &["migrate", "--check"]).await;

    let first = bench.json(&["migrate"]).await;
    let applied = first["applied"].as_array().unwrap();
    assert!(applied.len() >= 5, "{first}");
    assert_eq!(applied.last(), Some(&first["version"]));
    let migrations = first["migrations"].as_array().unwrap();
    assert_eq!(migrations.len(), applied.len(), "{first}");
    for (migration, version) in migrations.iter().zip(applied) {
        assert_eq!(&migration["version"], version, "{migration}");
        assert!(migration["duration_ms"].as_f64().unwrap() > 0.0, "{migration}");
        assert!(migration["longest_lock_ms"].is_number() && migration["locks"].is_array(), "{migration}");
    }
    assert_eq!(bench.json(&["migrate"]).await["applied"], json!([]));
    assert!(bench.succeed(&["migrate"]).await.starts_with("nothing to do"));
    bench.succeed(&["migrate", "--check"]).await;
    bench.cleanup().await;
}

#[tokio::test]
async fn an_index_that_was_left_invalid_is_named_and_built_again() {
    let bench = Bench::new().await;
    let invalidate = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outreach_due'::regclass";
    execute(&mut bench.database.connect().await, invalidate).await.unwrap();
    let report = bench.json(&["doctor"]).await;
    let schema = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "schema").unwrap();
    assert_eq!(schema["state"], "warning", "{report}");
    assert!(schema["found"].as_str().unwrap().contains("outreach_due"), "{schema}");
    assert!(schema["advice"].as_str().unwrap().contains("leadmill migrate"), "{schema}");
    assert_eq!(bench.json(&["migrate", "--check"]).await["invalid_indexes"], json!(["outreach_due"]));

    let said = bench.succeed(&["migrate"]).await;
    assert!(said.starts_with("rebuilt index outreach_due in "), "{said}");
    assert_eq!(bench.json(&["migrate", "--check"]).await["invalid_indexes"], json!([]));
    bench.cleanup().await;
}

#[tokio::test]
async fn a_migration_says_who_holds_the_lock_of_another_one() {
    let bench = Bench::on(TestDatabase::create_empty().await).await;
    let holder = bench.database.hold_migration_lock().await;
    let said = bench.fail(1, &["migrate", "--max-wait", "0"]).await;
    assert!(said.contains("another migration") && said.contains("pg_terminate_backend"), "{said}");
    drop(holder);
    bench.cleanup().await;
}

#[tokio::test]
async fn a_program_is_made_shown_changed_and_paused() {
    let bench = Bench::new().await;
    let said = bench.fail(2, &["simulate", "--leads", "1"]).await;
    assert!(said.contains("leadmill program create"), "{said}");

    let made = bench.json(&["program", "create", "coffee", "--name", "Coffee", "--niches", "coffee, food"]).await;
    assert_eq!((&made["slug"], &made["threshold"], &made["can_send"]), (&json!("coffee"), &json!(70), &json!(false)));
    assert_eq!(made["niches"], json!(["coffee", "food"]));
    let said = bench.fail(1, &["program", "create", "coffee"]).await;
    assert!(said.contains("program set"), "{said}");
    bench.succeed(&["program", "create", "coffee", "--if-missing"]).await;

    let set =
        ["program", "set", "coffee", "--sender-email", "ann@example.com", "--postal-address", "1 Main St", "--pause"];
    let changed = bench.json(&set).await;
    assert_eq!(
        (&changed["can_send"], &changed["paused"], &changed["name"]),
        (&json!(true), &json!(true), &json!("Coffee"))
    );
    let shown = bench.json(&["program", "set", "coffee", "--resume", "--threshold", "75"]).await;
    assert_eq!((&shown["paused"], &shown["threshold"]), (&json!(false), &json!(75)));
    assert_eq!(bench.json(&["program", "show", "coffee"]).await, shown);
    assert_eq!(bench.json(&["program", "list"]).await, json!([shown]));

    let said = bench.fail(2, &["program", "set", "coffee", "--sender-email", "ann"]).await;
    assert!(said.contains("--sender-email"), "{said}");
    bench.fail(2, &["program", "set", "coffee", "--threshold", "101"]).await;
    let said = bench.fail(1, &["program", "show", "tea"]).await;
    assert!(said.contains("`tea`"), "{said}");
    bench.cleanup().await;
}

#[tokio::test]
async fn a_program_that_does_not_send_says_why_wherever_one_looks() {
    let bench = Bench::new().await;
    bench
        .succeed(&["program", "create", "coffee", "--sender-email", "a@example.com", "--postal-address", "1 Main St"])
        .await;
    bench.succeed(&["program", "create", "tea"]).await;
    bench.fail(2, &["program", "set", "coffee", "--reason", "no pause"]).await;
    let shown = bench.json(&["program", "set", "coffee", "--pause", "--reason", "a new domain"]).await;
    assert_eq!((&shown["paused_reason"], &shown["refused_recipients"]), (&json!("a new domain"), &json!(0)));
    assert!(shown["paused_at"].is_string(), "{shown}");
    let by_hand = bench.json(&["program", "set", "tea", "--pause"]).await;
    assert_eq!(by_hand["paused_reason"], json!("paused by hand"));

    // As a mail server's refusals leave it.
    bench.succeed(&["program", "set", "coffee", "--resume"]).await;
    let mut connection = bench.database.connect().await;
    for statement in [
        "UPDATE programs SET paused = true, paused_reason = 'policy_refused:smtp_550_5.7.1', paused_at = now()
         WHERE slug = 'coffee'",
        "INSERT INTO sender_refusals (program_id, recipient_index, kind, reason)
         SELECT id, decode(repeat('0' || n, 16), 'hex'), 'policy', 'smtp_550_5.7.1'
         FROM programs, generate_series(1, 3) n WHERE slug = 'coffee'",
        "UPDATE programs SET paused = false, rest_from = now(), rest_until = now() + interval '1 hour',
                             rest_reason = 'smtp_550_5.4.5' WHERE slug = 'tea'",
    ] {
        test_support::postgres::execute(&mut connection, statement).await.unwrap();
    }
    let why = "recipients' servers refuse its mails by policy (smtp_550_5.7.1), mails to 3 recipients refused";
    let resting = "the mail server limits our account (smtp_550_5.4.5)";
    for args in [&["program", "show", "coffee"][..], &["program", "list"], &["status"]] {
        let said = bench.succeed(args).await;
        assert!(said.contains(why), "{args:?}: {said}");
    }
    assert!(bench.succeed(&["program", "show", "tea"]).await.contains(resting));
    let shown = bench.json(&["program", "show", "coffee"]).await;
    assert_eq!(
        (&shown["paused_reason"], &shown["refused_recipients"]),
        (&json!("policy_refused:smtp_550_5.7.1"), &json!(3))
    );
    let status = bench.json(&["status"]).await;
    assert_eq!(status["not_sending"][0]["slug"], json!("coffee"), "{status}");
    assert_eq!(status["not_sending"][1]["rest_reason"], json!("smtp_550_5.4.5"), "{status}");
    assert_eq!(bench.json(&["status", "--program", "tea"]).await["not_sending"].as_array().unwrap().len(), 1);

    let report = bench.json(&["doctor"]).await;
    let findings: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "sending").collect();
    assert_eq!(findings.len(), 2, "{report}");
    assert!(findings[0]["found"].as_str().unwrap().contains(why), "{report}");
    assert!(findings[0]["advice"].as_str().unwrap().contains("leadmill program set coffee --resume"), "{report}");

    // One command ends either.
    for slug in ["coffee", "tea"] {
        let resumed = bench.json(&["program", "set", slug, "--resume"]).await;
        assert_eq!((&resumed["paused"], &resumed["refused_recipients"]), (&json!(false), &json!(0)), "{resumed}");
        assert!(resumed["paused_reason"].is_null() && resumed["rest_until"].is_null(), "{resumed}");
    }
    assert_eq!(bench.json(&["status"]).await["not_sending"], json!([]));
    bench.cleanup().await;
}

#[tokio::test]
async fn what_was_held_for_a_missing_sender_is_released_when_it_is_there() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    bench.succeed(&["import", &bench.file("a.csv", CREATORS), "--program", "coffee"]).await;
    let mut connection = bench.database.connect().await;
    for statement in [
        "UPDATE leads SET country = 'US'",
        "INSERT INTO enriched_leads (program_id, lead_id, id, niche, score, compliant, ai_confidence, provider, lead_revision,
                                     decision, decision_reasons, decided_version, decided_at, created_at, updated_at)
         SELECT program_id, id, gen_random_uuid(), 'food', 90, true, 0.9, 'local', revision, 'held', '{incomplete_sender}', 1,
                now(), now(), now() FROM leads WHERE email_index IS NOT NULL",
        "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version, state,
                               reason, message_id, enrichment_version, created_at, updated_at)
         SELECT program_id, gen_random_uuid(), id, 'intro', 1, email_index, email_index, index_version, 'held',
                'incomplete_sender', '<' || id || '@example.com>', 1, now(), now() FROM leads WHERE email_index IS NOT NULL",
    ] {
        test_support::postgres::execute(&mut connection, statement).await.unwrap();
    }
    assert_eq!(bench.json(&["mail", "list", "--state", "held"]).await.as_array().unwrap().len(), 2);

    let held = "SELECT count(*) FROM outreach WHERE state = 'held'";
    bench.succeed(&["program", "set", "coffee", "--sender-email", "ann@example.com"]).await;
    assert_eq!(bench.count(held).await, 2, "the postal address is still missing");
    bench.succeed(&["program", "set", "coffee", "--postal-address", "1 Main St, Springfield"]).await;
    assert_eq!(bench.count(held).await, 0);
    assert_eq!(bench.count("SELECT count(*) FROM outreach WHERE state = 'queued' AND due_at <= now()").await, 2);
    bench.cleanup().await;
}

#[tokio::test]
async fn a_key_for_the_ingest_is_shown_once_listed_and_revoked() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let key = bench.succeed(&["program", "key", "create", "coffee", "--label", "site"]).await;
    assert!(key.starts_with("lmi_"), "{key}");
    let listed = bench.json(&["program", "key", "list", "coffee"]).await;
    assert_eq!(listed[0]["label"], "site");
    assert!(!listed.to_string().contains(key.trim()));
    let id = listed[0]["id"].as_str().unwrap();
    bench.succeed(&["program", "key", "revoke", "coffee", id]).await;
    bench.fail(1, &["program", "key", "revoke", "coffee", id]).await;
    assert!(bench.json(&["program", "key", "list", "coffee"]).await[0]["revoked_at"].is_string());
    bench.cleanup().await;
}

#[tokio::test]
async fn an_import_adds_up_publishes_its_events_and_adds_nothing_the_second_time() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let file = bench.file("creators.csv", CREATORS);
    let first = bench.json(&["import", &file, "--program", "coffee"]).await;
    assert_eq!(first["rows"], 5, "{first}");
    assert_eq!(
        (&first["accepted"], &first["duplicates"], &first["rejected"]),
        (&json!(2), &json!(1), &json!(2)),
        "{first}"
    );
    assert_eq!(bench.count("SELECT count(*) FROM leads").await, 2);
    // No service runs: the import has published its events itself.
    assert_eq!(first["outbox"], 0, "{first}");
    bench.broker.wait_for_depth("lead.created", 2).await;

    let second = bench.json(&["import", &file]).await;
    assert_eq!(
        (&second["accepted"], &second["duplicates"], &second["rejected_new"]),
        (&json!(0), &json!(3), &json!(0))
    );
    assert_eq!(bench.count("SELECT count(*) FROM leads").await, 2);

    let rejects = bench.succeed(&["rejects", "export", "--program", "coffee"]).await;
    assert_eq!(rejects.lines().count(), 3, "{rejects}");
    assert!(rejects.contains("username") && rejects.contains("nobody@example.com"), "{rejects}");
    let path = bench.folder.path().join("rejects.csv");
    bench.succeed(&["rejects", "export", "--out", path.to_str().unwrap()]).await;
    assert_eq!(mode(&path), 0o600);

    let status = bench.json(&["status", "--program", "coffee"]).await;
    assert_eq!((&status["leads"]["accepted"], &status["leads"]["rejected"]), (&json!(2), &json!(2)), "{status}");
    assert_eq!(status["leads"]["duplicates"], 4, "{status}");
    assert_eq!(status["queues"], json!({ "lead.created": 2, "lead.enriched": 0, "dead": 0 }));
    bench.cleanup().await;
}

#[tokio::test]
async fn an_update_takes_over_what_changed_and_has_it_enriched_again() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let rows = |followers: &str| {
        format!("network,handle,email,followers\ninstagram,ann,ann@example.com,{followers}\nx,bob,bob@example.com,7\n")
    };
    let (before, after) = (bench.file("before.csv", &rows("1000")), bench.file("after.csv", &rows("2000")));
    assert_eq!(bench.json(&["import", &before]).await["accepted"], 2);

    let skipped = bench.json(&["import", &after]).await;
    assert_eq!((&skipped["updated"], &skipped["duplicates"]), (&json!(0), &json!(2)), "{skipped}");
    assert_eq!(bench.count("SELECT sum(follower_count)::bigint FROM leads").await, 1007);

    let updated = bench.json(&["import", &after, "--dedupe", "update"]).await;
    assert_eq!((&updated["updated"], &updated["duplicates"]), (&json!(1), &json!(1)), "{updated}");
    assert_eq!(bench.count("SELECT sum(follower_count)::bigint FROM leads").await, 2007);
    assert_eq!(bench.count("SELECT sum(revision)::bigint FROM leads").await, 3);
    bench.broker.wait_for_depth("lead.created", 3).await;
    bench.cleanup().await;
}

#[tokio::test]
async fn a_file_without_usable_columns_is_refused_before_anything_is_written() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let said = bench.fail(1, &["import", &bench.file("x.csv", "colour,size\nred,5\n")]).await;
    assert!(said.contains("colour") && said.contains("--map"), "{said}");
    assert_eq!(bench.count("SELECT count(*) FROM collection_runs").await, 0);

    let mapped = bench.file("y.csv", "Owner;Mail\nann;ann@example.com\n");
    let result = bench
        .json(&["import", &mapped, "--source", "instagram", "--map", "Owner=username", "--map", "Mail=email"])
        .await;
    assert_eq!(result["accepted"], 1, "{result}");
    bench.cleanup().await;
}

#[tokio::test]
async fn a_simulation_goes_on_without_rabbitmq_and_leaves_its_events_in_the_outbox() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let mut command = bench.command(["simulate", "--leads", "50", "--mix", "", "--json"]);
    command.env("AMQP_URL", "amqp://127.0.0.1:1/");
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["accepted"], &result["outbox"]), (&json!(50), &json!(50)), "{result}");

    let mut command = bench.command(["status", "--json"]);
    command.env("AMQP_URL", "amqp://127.0.0.1:1/");
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(status["queues"].is_null(), "{status}");
    assert_eq!(status["errors"].as_array().unwrap().len(), 1, "{status}");
    for state in ["queued", "sending", "sent", "captured", "deferred", "failed", "uncertain", "held", "cancelled"] {
        assert_eq!(status["outreach"][state], 0, "{status}");
    }
    assert_eq!(status["enriched"]["by_provider"], json!({}));
    bench.cleanup().await;
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_dropped() {
    let bench = Bench::new().await;
    assert_eq!(bench.json(&["dead", "list"]).await, json!([]), "queues that aren't there yet hold none");
    // The first import declares the topology.
    bench.succeed(&["program", "create", "coffee"]).await;
    bench.succeed(&["import", &bench.file("a.csv", CREATORS)]).await;
    bench.broker.wait_for_depth("lead.created", 2).await;
    for body in [&b"not an event"[..], b"nor this"] {
        let id = if body.len() > 8 { "first" } else { "second" };
        bench.broker.publish("lead.created.dead", body, Some(id)).await;
    }
    bench.broker.wait_for_depth("lead.created.dead", 2).await;

    let listed = bench.json(&["dead", "list", "--queue", "lead.created"]).await;
    assert_eq!((&listed[0]["id"], &listed[1]["id"]), (&json!("first"), &json!("second")), "{listed}");
    let shown = bench.json(&["dead", "show", "first"]).await;
    assert_eq!((&shown["queue"], shown.get("body")), (&json!("lead.created"), None), "{shown}");
    bench.fail(1, &["dead", "show", "third"]).await;

    assert_eq!(bench.json(&["dead", "replay", "first"]).await, json!({ "replayed": 1 }));
    bench.broker.wait_for_depth("lead.created", 3).await;
    assert_eq!(bench.json(&["dead", "drop", "--all"]).await, json!({ "dropped": 1 }));
    assert_eq!(bench.json(&["dead", "list"]).await, json!([]));
    bench.cleanup().await;
}
