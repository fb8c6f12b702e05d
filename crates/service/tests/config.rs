//! The layers of a configuration, and what is said when one of them is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use service::config::{
    AdminConfig, AmqpConfig, ConfigError, DatabaseConfig, Defaults, Document, Loader, LogConfig, LogFormat, Origin,
    ReconcilerSection, RuntimeConfig, Secret, TelemetryConfig, VaultConfig, duration, size,
};
use tempfile::TempDir;

const MAILER: Defaults = Defaults {
    name: "mailer",
    text: r#"
[mailer]
admin_listen = "127.0.0.1:9103"
delay = "30s"
pause = ""
body_limit = "64KiB"
cap_per_minute = 60
enabled = true
ratio = 0.5
niches = ["fitness", "travel"]
transport = "capture"

[mailer.smtp]
host = ""
port = 587
reply_port = ""
password = ""

[mailer.headers]
"#,
    secrets: &["mailer.smtp.password"],
};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mailer {
    admin_listen: std::net::SocketAddr,
    #[serde(with = "duration")]
    delay: Duration,
    #[serde(deserialize_with = "duration::option::deserialize")]
    pause: Option<Duration>,
    #[serde(with = "size")]
    body_limit: u64,
    cap_per_minute: u32,
    enabled: bool,
    ratio: f64,
    niches: Vec<String>,
    transport: Transport,
    smtp: Smtp,
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Smtp {
    host: Option<String>,
    port: u16,
    reply_port: Option<u16>,
    password: Option<Secret<String>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Capture,
    Smtp,
}

/// A configuration from the test defaults, the text of a file (if any), and variables.
fn load(file: &str, variables: &[(&str, &str)]) -> Result<Document, ConfigError> {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "leadmill.toml", file);
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Loader::new().defaults(&[MAILER]).file(Some(&path)).env(variables).load()
}

fn mailer(file: &str, variables: &[(&str, &str)]) -> Result<Mailer, ConfigError> {
    load(file, variables)?.section("mailer")
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_embedded_defaults_fit_their_types() {
    let config = Loader::new().load().unwrap();
    config.section::<RuntimeConfig>("runtime").unwrap();
    config.section::<LogConfig>("log").unwrap();
    let telemetry: TelemetryConfig = config.section("telemetry").unwrap();
    assert_eq!(telemetry.otlp_endpoint, None);
    config.section::<AdminConfig>("admin").unwrap();
    config.section::<ReconcilerSection>("reconciler").unwrap();
    let database: DatabaseConfig = config.section("database").unwrap();
    assert_eq!(database.direct_url(), &database.url);
    config.section::<AmqpConfig>("amqp").unwrap();
    config.section::<VaultConfig>("vault").unwrap();
}

#[test]
fn statements_are_kept_unless_a_pooler_is_named_or_somebody_says_otherwise() {
    let keeps = |database: &str| {
        let text = format!("[database]\nurl = \"postgres://pooler/leads\"\n{database}");
        load(&text, &[]).unwrap().section::<DatabaseConfig>("database").unwrap().caches_statements()
    };
    assert!(keeps(""));
    assert!(keeps("direct_url = \"postgres://pooler/leads\""), "the same server twice is no pooler");
    assert!(!keeps("direct_url = \"postgres://server/leads\""));
    assert!(keeps("direct_url = \"postgres://server/leads\"\nstatement_cache = \"on\""), "it tracks them");
    assert!(!keeps("statement_cache = \"off\""));
}

#[test]
fn the_printed_defaults_are_a_valid_configuration_file() {
    let printed = service::run::default_text(&[MAILER]);
    assert_eq!(mailer(&printed, &[]).unwrap(), mailer("", &[]).unwrap());
}

#[test]
fn a_later_layer_beats_an_earlier_one() {
    let file = "[mailer.smtp]\nhost = \"file\"\nport = 25\n";
    assert_eq!(mailer("", &[]).unwrap().smtp.port, 587);
    assert_eq!(mailer(file, &[]).unwrap().smtp.port, 25);
    let smtp = mailer(file, &[("LEADMILL_MAILER_SMTP_PORT", "2525")]).unwrap().smtp;
    assert_eq!((smtp.host.as_deref(), smtp.port), (Some("file"), 2525));

    let from_option = Loader::new()
        .defaults(&[MAILER])
        .env([("LEADMILL_MAILER_SMTP_PORT".to_owned(), "2525".to_owned())])
        .option("--port", "mailer.smtp.port", "26")
        .load()
        .unwrap();
    assert_eq!(from_option.get::<u16>("mailer.smtp.port").unwrap(), 26);
}

#[test]
fn text_from_the_environment_takes_the_type_that_is_asked_for() {
    let read = mailer(
        "",
        &[
            ("LEADMILL_MAILER_DELAY", "200ms"),
            ("LEADMILL_MAILER_PAUSE", "5m"),
            ("LEADMILL_MAILER_BODY_LIMIT", "1MiB"),
            ("LEADMILL_MAILER_CAP_PER_MINUTE", "7"),
            ("LEADMILL_MAILER_ENABLED", "false"),
            ("LEADMILL_MAILER_RATIO", "0.25"),
            ("LEADMILL_MAILER_NICHES", "beauty, gaming,"),
            ("LEADMILL_MAILER_TRANSPORT", "smtp"),
            ("LEADMILL_MAILER_SMTP_REPLY_PORT", "2526"),
        ],
    )
    .unwrap();
    assert_eq!(read.delay, Duration::from_millis(200));
    assert_eq!(read.pause, Some(Duration::from_mins(5)));
    assert_eq!(read.body_limit, 1 << 20);
    assert_eq!(read.cap_per_minute, 7);
    assert!(!read.enabled);
    assert!((read.ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(read.niches, ["beauty", "gaming"]);
    assert_eq!(read.transport, Transport::Smtp);
    assert_eq!(read.smtp.reply_port, Some(2526));
}

#[test]
fn an_empty_variable_counts_as_not_set_and_an_empty_text_as_none() {
    let read = mailer("", &[("LEADMILL_MAILER_SMTP_PORT", ""), ("LEADMILL_MAILER_SMTP_PORT_FILE", "")]).unwrap();
    assert_eq!(read.smtp.port, 587);
    assert_eq!((read.smtp.host, read.pause), (None, None));
}

#[test]
fn the_well_known_names_are_aliases_that_the_long_name_beats() {
    let url = |variables: &[(&str, &str)]| {
        load("", variables).unwrap().section::<DatabaseConfig>("database").unwrap().url.expose().clone()
    };
    assert_eq!(url(&[("DATABASE_URL", "postgres://a/b")]), "postgres://a/b");
    assert_eq!(
        url(&[("DATABASE_URL", "postgres://a/b"), ("LEADMILL_DATABASE_URL", "postgres://c/d")]),
        "postgres://c/d"
    );
    let config = load(
        "",
        &[
            ("AMQP_URL", "amqp://mq"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"),
            ("LEADMILL_MASTER_KEY", "k3y"),
            ("LEADMILL_WORKER_THREADS", "3"),
        ],
    )
    .unwrap();
    assert_eq!(config.section::<AmqpConfig>("amqp").unwrap().url.expose(), "amqp://mq");
    let telemetry: TelemetryConfig = config.section("telemetry").unwrap();
    assert_eq!(telemetry.otlp_endpoint.as_deref(), Some("http://otel:4318"));
    assert_eq!(config.section::<RuntimeConfig>("runtime").unwrap().worker_threads, 3);
    assert_eq!(config.section::<VaultConfig>("vault").unwrap().require_master_key().unwrap().expose(), "k3y");
}

#[test]
fn a_file_variable_gives_the_content_of_the_file_without_its_line_break() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "password", "hunter2\n");
    let read = mailer("", &[("LEADMILL_MAILER_SMTP_PASSWORD_FILE", path.to_str().unwrap())]).unwrap();
    assert_eq!(read.smtp.password.unwrap().expose(), "hunter2");

    let key = write(&folder, "key", "k3y\r\n");
    let config = load("", &[("LEADMILL_MASTER_KEY_FILE", key.to_str().unwrap())]).unwrap();
    let vault: VaultConfig = config.section("vault").unwrap();
    assert_eq!(vault.require_master_key().unwrap().expose(), "k3y");
}

#[test]
fn a_variable_and_its_file_sibling_together_are_refused() {
    let error = load("", &[("DATABASE_URL", "a"), ("DATABASE_URL_FILE", "/b")]).unwrap_err();
    assert_eq!(error.to_string(), "DATABASE_URL and DATABASE_URL_FILE are both set; keep one of them");
}

#[test]
fn a_secret_file_that_is_missing_is_named() {
    let error = load("", &[("DATABASE_URL_FILE", "/no/such/file")]).unwrap_err();
    assert_eq!(error.to_string(), "the file /no/such/file that DATABASE_URL_FILE names can't be read");
}

#[test]
fn an_unknown_key_in_a_file_is_refused_by_name_and_line_with_a_suggestion() {
    let error = load("# mine\n[mailer.smtp]\nprot = 25\n", &[]).unwrap_err();
    let ConfigError::UnknownKey { key, origin: Origin::File(_, line), suggestion } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((key.as_str(), *line, suggestion.as_deref()), ("mailer.smtp.prot", 3, Some("mailer.smtp.port")));
    assert!(error.to_string().ends_with("leadmill.toml line 3; did you mean `mailer.smtp.port`?"), "{error}");

    let section = load("[databse]\nurl = \"x\"\n", &[]).unwrap_err();
    assert!(section.to_string().starts_with("unknown key `databse` in "), "{section}");
    assert!(section.to_string().ends_with("did you mean `database`?"), "{section}");
}

#[test]
fn an_unknown_variable_is_refused_by_name_with_a_suggestion() {
    let error = load("", &[("LEADMILL_MAILER_SMTP_HOTS", "x")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown environment variable LEADMILL_MAILER_SMTP_HOTS; did you mean `LEADMILL_MAILER_SMTP_HOST`?"
    );
    let stranger = load("", &[("LEADMILL_WEATHER", "fine")]).unwrap_err();
    assert_eq!(stranger.to_string(), "unknown environment variable LEADMILL_WEATHER");
    load("", &[("WEATHER", "fine")]).unwrap();
}

#[test]
fn sections_of_other_services_are_left_to_them() {
    load("[enricher]\nmodel = \"x\"\n", &[("LEADMILL_ENRICHER_MODEL", "y")]).unwrap();
    load("[weather]\nmodel = \"x\"\n", &[]).unwrap_err();
}

#[test]
fn variables_of_the_tools_around_the_programs_are_left_alone() {
    load("", &[("LEADMILL_STACK_DIR", "/tmp/stack"), ("LEADMILL_TEST_SEED", "7")]).unwrap();
}

#[test]
fn a_wrong_value_says_key_source_what_was_found_and_what_is_allowed() {
    let error = mailer("", &[("LEADMILL_MAILER_SMTP_PORT", "smtp")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`mailer.smtp.port` is string \"smtp\" (environment variable LEADMILL_MAILER_SMTP_PORT): \
         expected a whole number from 0 to 65535"
    );
    for (file, found, allowed) in [
        (
            "[mailer.smtp]\nport = 70000\n",
            "`mailer.smtp.port` is integer `70000` (",
            "expected a whole number from 0 to 65535",
        ),
        ("[mailer]\nenabled = \"yes\"\n", "`mailer.enabled` is string \"yes\" (", "expected true or false"),
        ("[mailer]\ndelay = \"soon\"\n", "`mailer.delay` is \"soon\" (", "expected a duration such as"),
        ("[mailer]\ntransport = \"pigeon\"\n", "`mailer.transport` is \"pigeon\" (", "expected one of capture, smtp"),
        ("[mailer]\nniches = [\"a\", 5]\n", "`mailer.niches[1]` is integer `5` (", "expected text in quotes"),
        ("[mailer]\nadmin_listen = \"here\"\n", "`mailer.admin_listen` is \"here\" (", "invalid socket address"),
    ] {
        let error = mailer(file, &[]).unwrap_err().to_string();
        assert!(
            error.starts_with(found) && error.contains("leadmill.toml line 2): ") && error.contains(allowed),
            "{error}"
        );
    }
}

#[test]
fn a_table_in_place_of_a_value_and_a_value_in_place_of_a_table_are_refused() {
    let error = mailer("[mailer]\nsmtp = 5\n", &[]).unwrap_err().to_string();
    assert!(error.contains("`mailer.smtp` is 5") && error.contains("expected a table"), "{error}");
    let error = mailer("[mailer.delay]\nseconds = 5\n", &[]).unwrap_err().to_string();
    assert!(error.contains("`mailer.delay`") && error.contains("expected text in quotes"), "{error}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line_but_without_its_content() {
    let error = load("[mailer.smtp]\npassword = hunter2\n", &[]).unwrap_err();
    assert!(error.to_string().contains("is not valid TOML, line 2: "), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn secrets_stay_out_of_errors_listings_and_debug_output() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "password", "hunter2");
    let config = load(
        "[vault]\nold_master_keys = [\"hunter2\"]\n",
        &[
            ("DATABASE_URL", "postgres://u:hunter2@db/x"),
            ("LEADMILL_MASTER_KEY", "hunter2"),
            ("LEADMILL_MAILER_SMTP_PASSWORD_FILE", path.to_str().unwrap()),
        ],
    )
    .unwrap();
    let read: Mailer = config.section("mailer").unwrap();
    let vault: VaultConfig = config.section("vault").unwrap();
    let database: DatabaseConfig = config.section("database").unwrap();
    let refused = config.refuse("database.url", "expected another database");
    let shown = format!("{config:?} {:?} {read:?} {vault:?} {database:?} {refused} {refused:?}", config.settings());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        refused.to_string().starts_with("`database.url` is a value that is not shown (environment variable"),
        "{refused}"
    );

    // A wrong type, and a type whose parser repeats what it was given.
    let wrong_type = load("[vault]\nmaster_key = 1234567\n", &[]).unwrap().section::<VaultConfig>("vault").unwrap_err();
    assert!(!wrong_type.to_string().contains("1234567"), "{wrong_type}");
    let talkative = config.get::<Chatty>("mailer.smtp.password").unwrap_err();
    assert!(!format!("{talkative} {talkative:?}").contains("hunter2"), "{talkative}");
}

/// Refuses everything and repeats it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Chatty;

impl TryFrom<String> for Chatty {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Err(format!("{text} is not good enough"))
    }
}

#[test]
fn the_effective_configuration_lists_every_key_with_its_origin() {
    let config = load("[mailer]\ndelay = \"1s\"\n", &[("LEADMILL_MAILER_SMTP_PASSWORD", "x")]).unwrap();
    let settings = config.settings();
    let setting = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap();
    assert_eq!(setting("mailer.delay").value, "\"1s\"");
    assert!(matches!(setting("mailer.delay").origin, Origin::File(_, 2)));
    assert_eq!(setting("mailer.cap_per_minute").origin, Origin::Defaults("mailer"));
    assert_eq!(setting("mailer.smtp.password").value, "***");
    assert_eq!(setting("mailer.smtp.password").origin, Origin::Variable("LEADMILL_MAILER_SMTP_PASSWORD".to_owned()));
    // A secret that isn't set says so, which is what someone looking for it wants to know.
    assert_eq!(setting("vault.master_key").value, "\"\"");
}

#[test]
fn a_table_that_is_empty_in_the_defaults_takes_any_keys() {
    let read = mailer("[mailer.headers]\nx-team = \"growth\"\n", &[]).unwrap();
    assert_eq!(read.headers, BTreeMap::from([("x-team".to_owned(), "growth".to_owned())]));
}

#[test]
fn without_a_master_key_the_error_says_how_to_make_one() {
    let vault: VaultConfig = Loader::new().load().unwrap().section("vault").unwrap();
    let error = vault.require_master_key().unwrap_err().to_string();
    assert!(error.starts_with("`vault.master_key` is not set") && error.contains("leadmill keys generate"), "{error}");
}

#[test]
fn the_configuration_file_can_be_named_by_a_variable_and_must_exist() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "named.toml", "[log]\nformat = \"json\"\n");
    let named = ("LEADMILL_CONFIG".to_owned(), path.to_str().unwrap().to_owned());
    let log: LogConfig = Loader::new().env([named]).load().unwrap().section("log").unwrap();
    assert_eq!(log.format, LogFormat::Json);

    let missing = ("LEADMILL_CONFIG".to_owned(), "/no/such.toml".to_owned());
    let error = Loader::new().env([missing]).load().unwrap_err();
    assert_eq!(error.to_string(), "the configuration file /no/such.toml can't be read");
}

#[test]
fn common_values_are_checked_when_read() {
    let log = |filter| load("", &[("RUST_LOG", filter)]).unwrap().section::<LogConfig>("log");
    log("info,mailer=debug").unwrap();
    let error = log("mailer=loud").unwrap_err().to_string();
    assert!(
        error.starts_with("`log.filter` is \"mailer=loud\" (environment variable RUST_LOG): expected off,"),
        "{error}"
    );

    let telemetry = |file| load(file, &[]).unwrap().section::<TelemetryConfig>("telemetry");
    telemetry("[telemetry]\nsample_ratio = 1\n").unwrap();
    telemetry("[telemetry]\nsample_ratio = 1.5\n").unwrap_err();
    telemetry("[telemetry]\notlp_endpoint = \"collector:4318\"\n").unwrap_err();

    let database = load("[database]\nmax_connections = 0\n", &[]).unwrap().section::<DatabaseConfig>("database");
    assert!(database.unwrap_err().to_string().ends_with("expected a whole number from 1 to 4294967295"));
}

#[test]
fn defaults_that_clash_are_a_defect_that_is_reported() {
    const TWICE: Defaults = Defaults { name: "twice", text: "[log]\nformat = \"json\"\n", secrets: &[] };
    const SAME_VARIABLE: Defaults = Defaults { name: "same", text: "[a]\nb_c = 1\n[a.b]\nc = 1\n", secrets: &[] };
    for (defaults, expected) in
        [(TWICE, "`log.format`: declared again by twice"), (SAME_VARIABLE, "LEADMILL_A_B_C would also set")]
    {
        let error = Loader::new().defaults(&[defaults]).load().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
