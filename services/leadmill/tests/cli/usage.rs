//! What needs no server: help, keys, wrong usage, wrong configuration.

use crate::bench::{bare, finish, mode, stderr};

async fn run(args: &[&str]) -> (i32, String, String) {
    let output = finish(bare(args)).await;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), stdout, stderr(&output))
}

#[tokio::test]
async fn every_command_explains_itself() {
    let (status, help, _) = run(&["--help"]).await;
    assert_eq!(status, 0);
    for command in [
        "demo", "up", "migrate", "program", "simulate", "import", "rejects", "status", "mail", "dead", "jobs", "keys",
        "law", "doctor", "bench",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in {help}");
        let (status, help, error) = run(&[command, "--help"]).await;
        assert_eq!(status, 0, "{command}: {error}");
        assert!(help.len() > 100, "{command}: {help}");
    }
    let (status, version, _) = run(&["--version"]).await;
    assert_eq!((status, version.trim()), (0, concat!("leadmill ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    for (args, said) in [
        (&["fly"][..], "fly"),
        (&["import"], "<FILE>"),
        (&["simulate", "--leads", "many"], "many"),
        (&["simulate", "--mix", "duplicates=2"], "duplicates=0.1"),
        (&["import", "x.csv", "--map", "Handle=nonsense"], "nonsense"),
        (&["program", "create", "Not A Slug"], "lower-case"),
        (&["dead", "replay"], "--all"),
        (&["mail", "requeue"], "--captured"),
        (&["law", "show", "XX"], "no country of ISO 3166-1"),
        (&["law", "show", "Germany"], "no country of ISO 3166-1"),
    ] {
        let (status, _, error) = run(args).await;
        assert_eq!(status, 2, "{args:?}: {error}");
        assert!(error.contains(said), "{args:?} does not mention {said}: {error}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_2_and_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leadmill.toml");
    std::fs::write(&path, "[mailer]\ntransprot = \"smtp\"\n").unwrap();
    let path = path.to_str().unwrap();
    let (status, _, error) = run(&["--config", path, "status"]).await;
    assert_eq!(status, 2, "{error}");
    assert!(error.contains("mailer.transprot") && error.contains("mailer.transport"), "{error}");

    let mut command = bare(["status"]);
    command.env("LEADMILL_DATABASE_MAX_CONNECTIONS", "plenty");
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    assert!(
        error.contains("database.max_connections") && error.contains("LEADMILL_DATABASE_MAX_CONNECTIONS"),
        "{error}"
    );
}

#[tokio::test]
async fn the_printed_configuration_is_a_valid_configuration_of_everything() {
    let (status, text, error) = run(&["--print-config"]).await;
    assert_eq!(status, 0, "{error}");
    for section in ["[database]", "[amqp]", "[collector]", "[enricher]", "[mailer]"] {
        assert!(text.contains(section), "{section} is missing");
    }
}

#[tokio::test]
async fn a_generated_key_is_for_its_owner_only_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let out = path.to_str().unwrap();
    let (status, said, error) = run(&["keys", "generate", "--out", out]).await;
    assert_eq!(status, 0, "{error}");
    let key = std::fs::read_to_string(&path).unwrap();
    let parsed: vault::MasterKey = key.parse().unwrap();
    assert!(said.contains(&parsed.id()) && !said.contains(key.trim()), "the id is shown, the key isn't: {said}");
    assert_eq!(mode(&path), 0o600);

    let (status, _, error) = run(&["keys", "generate", "--out", out]).await;
    assert_eq!(status, 1);
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), key);

    let (status, printed, _) = run(&["keys", "generate"]).await;
    assert_eq!(status, 0);
    assert!(printed.trim().parse::<vault::MasterKey>().is_ok());
}

#[tokio::test]
async fn a_health_check_of_nobody_fails() {
    let mut command = bare(["healthcheck"]);
    command.env("LEADMILL_ADMIN_LISTEN", "127.0.0.1:1");
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("127.0.0.1:1"), "{}", stderr(&output));
}

#[tokio::test]
async fn the_law_is_shown_with_source_date_and_version() {
    let (status, shown, _) = run(&["law", "show", "--json"]).await;
    assert_eq!(status, 0);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["version"], &shown["default"]), (&2.into(), &"denied".into()));
    let rules = shown["rules"].as_array().unwrap();
    let rule = |code: &str| rules.iter().find(|rule| rule["country"] == code).unwrap();
    for (code, expected) in [("US", "opt_out"), ("FR", "business_address"), ("DE", "opt_in"), ("SE", "denied")] {
        assert_eq!(rule(code)["rule"], expected, "{code}");
        assert!(!rule(code)["source"].as_str().unwrap().is_empty() && rule(code)["as_of"] == "2026-11-29", "{code}");
    }
    let (_, shown, _) = run(&["law", "show"]).await;
    assert!(shown.starts_with("version 2;") && shown.contains("UWG § 7"), "{shown}");
    let (status, shown, _) = run(&["law", "show", "ke"]).await;
    assert!(status == 0 && shown.contains("denied (not listed)") && !shown.contains("UWG"), "{shown}");
}
