//! `leadmill doctor` against servers that are there, that aren't, and that refuse.

use serde_json::{Value, json};
use test_support::llm::{Behaviour, FakeLlm};
use test_support::smtp::{Encryption, FakeSmtp};

use crate::bench::{Bench, bare, finish, stderr};

/// What a report says about one thing.
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name} in {report}"))
}

#[tokio::test]
async fn doctor_names_everything_that_is_missing_and_what_to_do() {
    let mut command = bare(["doctor", "--json"]);
    command
        .env("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/none")
        .env("AMQP_URL", "amqp://me:hunter2@127.0.0.1:1/");
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("hunter2") && !stderr(&output).contains("hunter2"), "no secret is shown: {text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["ok"], false);
    for name in ["master key", "postgresql", "rabbitmq"] {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["state"], "missing", "{check}");
        assert!(check["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{check}");
    }
}

#[tokio::test]
async fn doctor_finds_nothing_missing_where_nothing_is_and_a_key_that_opens_nothing() {
    let bench = Bench::new().await;
    bench.succeed(&["program", "create", "coffee"]).await;
    let report = bench.json(&["doctor"]).await;
    assert_eq!(report["ok"], true, "{report}");
    let found = |name: &str| {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("no check {name} in {report}"))["found"].to_string()
    };
    assert!(found("postgresql").contains("version"), "{report}");
    assert!(found("rabbitmq").contains("RabbitMQ"), "{report}");
    assert!(!report["settings"].to_string().contains("lmk1_"), "the master key is masked");

    let mut command = bench.command(["doctor"]);
    command.env("LEADMILL_MASTER_KEY", vault::MasterKey::generate().to_text().as_str());
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("LEADMILL_OLD_MASTER_KEYS"), "{text}");
    bench.cleanup().await;
}

#[tokio::test]
async fn doctor_says_why_a_configuration_sends_nothing_and_that_a_test_sink_reaches_nobody() {
    let server = FakeSmtp::builder().start().await;
    let port = server.address().port().to_string();
    let report = async |settings: &[(&str, &str)]| -> Value {
        let mut command = bare(["doctor", "--json"]);
        command
            .env("LEADMILL_MAILER_TRANSPORT", "smtp")
            .env("LEADMILL_MAILER_SMTP_HOST", "127.0.0.1")
            .env("LEADMILL_MAILER_SMTP_PORT", &port)
            .env("LEADMILL_MAILER_SMTP_TLS", "none")
            .envs(settings.iter().copied());
        serde_json::from_slice(&finish(command).await.stdout).unwrap()
    };
    for url in [None, Some("http://localhost:8082"), Some("https://10.1.2.3"), Some("https://mailer")] {
        let setting = url.map(|url| ("LEADMILL_MAILER_PUBLIC_URL", url));
        let refused = report(setting.as_slice()).await;
        let configuration = check(&refused, "configuration");
        assert_eq!(configuration["state"], "missing", "{refused}");
        assert!(configuration["found"].as_str().unwrap().contains("mailer.public_url"), "{refused}");
    }
    let real = report(&[("LEADMILL_MAILER_PUBLIC_URL", "https://mail.example.com")]).await;
    assert_eq!(check(&real, "mail")["state"], "ok", "{real}");
    assert!(check(&real, "mail")["found"].as_str().unwrap().contains("https://mail.example.com/u/"), "{real}");
    let sink = report(&[("LEADMILL_MAILER_TEST_SINK", "true")]).await;
    assert_eq!(check(&sink, "mail")["state"], "warning", "{sink}");
}

#[tokio::test]
async fn doctor_logs_in_to_the_mail_server_as_a_mail_would() {
    let bench = Bench::new().await;
    let server = FakeSmtp::builder().encryption(Encryption::StartTls).login("acme", "secret").start().await;
    let authority = bench.file("authority.pem", &server.authority_pem());
    let port = server.address().port().to_string();
    let report = async |password: &str| -> Value {
        let mut command = bench.command(["doctor", "--json"]);
        command
            .env("LEADMILL_MAILER_TRANSPORT", "smtp")
            .env("LEADMILL_MAILER_PUBLIC_URL", "https://mail.example.com")
            .env("LEADMILL_MAILER_SMTP_HOST", "localhost")
            .env("LEADMILL_MAILER_SMTP_PORT", &port)
            .env("LEADMILL_MAILER_SMTP_CA_FILE", &authority)
            .env("LEADMILL_MAILER_SMTP_USERNAME", "acme")
            .env("LEADMILL_MAILER_SMTP_PASSWORD", password);
        serde_json::from_slice(&finish(command).await.stdout).unwrap()
    };
    let good = report("secret").await;
    assert_eq!(check(&good, "mail")["state"], "ok", "{good}");
    assert!(check(&good, "mail")["found"].as_str().unwrap().contains("STARTTLS"), "{good}");

    let refused = report("wrong").await;
    assert_eq!((&refused["ok"], &check(&refused, "mail")["state"]), (&json!(false), &json!("missing")), "{refused}");
    assert!(check(&refused, "mail")["found"].as_str().unwrap().contains("535"), "{refused}");
    assert!(check(&refused, "mail")["advice"].as_str().unwrap().contains("password"), "{refused}");
    assert!(!refused.to_string().contains("wrong"), "no secret is shown: {refused}");

    drop(server);
    let away = report("secret").await;
    assert_eq!(check(&away, "mail")["state"], "missing", "{away}");
    bench.cleanup().await;
}

#[tokio::test]
async fn doctor_tells_whether_the_model_can_be_reached() {
    let bench = Bench::new().await;
    let model = FakeLlm::start(|_| Behaviour::Good).await.unwrap();
    let report = async |url: String, key: Option<&str>| -> Value {
        let mut command = bench.command(["doctor", "--json"]);
        command
            .env("LEADMILL_ENRICHER_PROVIDER", "openai")
            .env("LEADMILL_ENRICHER_MODEL_NAME", "some-model")
            .env("LEADMILL_ENRICHER_MODEL_BASE_URL", url);
        if let Some(key) = key {
            command.env("LEADMILL_ENRICHER_MODEL_API_KEY", key);
        }
        serde_json::from_slice(&finish(command).await.stdout).unwrap()
    };
    let good = report(model.base_url(), Some("sk-secret")).await;
    assert_eq!(check(&good, "analyst")["state"], "ok", "{good}");
    assert!(!good.to_string().contains("sk-secret"), "no secret is shown: {good}");
    let keyless = report(model.base_url(), None).await;
    assert_eq!(check(&keyless, "analyst")["state"], "warning", "{keyless}");
    // What it refuses, and which setting cures that.
    let picky = FakeLlm::start(|request| {
        if request.body.get("max_tokens").is_none() {
            return Behaviour::Good;
        }
        let message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
        Behaviour::Body(400, json!({ "error": { "message": message, "param": "max_tokens" } }))
    })
    .await
    .unwrap();
    let refused = report(picky.base_url(), Some("sk-secret")).await;
    assert_eq!(check(&refused, "analyst")["state"], "missing", "{refused}");
    assert!(check(&refused, "analyst")["found"].as_str().unwrap().contains("parameter max_tokens"), "{refused}");
    let advice = check(&refused, "analyst")["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains("enricher.model.max_tokens_parameter = \"max_completion_tokens\""), "{advice}");
    // Nothing stops without it: the built-in analyser does its work.
    let away = report("http://127.0.0.1:1/v1".to_owned(), Some("sk-secret")).await;
    assert_eq!((&away["ok"], &check(&away, "analyst")["state"]), (&json!(true), &json!("warning")), "{away}");
    bench.cleanup().await;
}
