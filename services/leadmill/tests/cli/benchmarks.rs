//! `leadmill bench`: that it measures what is there, and leaves nothing behind. How fast anything is here says nothing; what
//! part it is of the bare run beside it must not collapse.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use broker::{Admin, BrokerConfig};
use serde_json::Value;

use crate::bench::{Bench, bare, finish, stderr};

/// What the pipeline and the import reach at least of 100 of the bare run beside them: with a few hundred leads about 60, on a
/// busy machine less.
const LEAST_OF_BARE: f64 = 10.0;
/// What the enricher reaches at least of 100 of what the model allows: with a hundred leads about 88.
const LEAST_OF_IDEAL: f64 = 30.0;

/// Runs a benchmark to its end, expects it to succeed and to have cleared away, and returns what it printed.
async fn measured(bench: &Bench, args: &[&str]) -> String {
    let output: Output = bench.run(&[&["bench"], args].concat()).await;
    assert_eq!(output.status.code(), Some(0), "leadmill bench {args:?}: {}", stderr(&output));
    let places: Vec<String> = stderr(&output).lines().filter_map(place).collect();
    assert!(!places.is_empty(), "it says where it works: {}", stderr(&output));
    for place in places {
        assert_is_gone(bench, &place).await;
    }
    assert_eq!(bench.count("SELECT count(*) FROM leads").await, 0, "nothing gets into the database of DATABASE_URL");
    String::from_utf8(output.stdout).expect("the output is text")
}

/// The same with `--json`.
async fn report(bench: &Bench, args: &[&str]) -> Value {
    let text = measured(bench, &[args, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("leadmill bench {args:?}: {error}: {text}"))
}

/// The database that a line of progress names.
fn place(line: &str) -> Option<String> {
    line.strip_prefix("working in ").map(str::to_owned)
}

/// Neither the database nor its queues exist.
async fn assert_is_gone(bench: &Bench, place: &str) {
    let query = format!("SELECT count(*) FROM pg_database WHERE datname = '{place}'");
    assert_eq!(bench.count(query.leak()).await, 0, "the database {place} is left");
    let namespace = format!("{}.", place.replace('_', "-"));
    let queues = Admin::new(BrokerConfig::new(bench.broker.url()).in_namespace(&namespace)).depths().await.unwrap();
    assert!(queues.iter().all(|queue| queue.depth.is_none()), "queues of {namespace} are left: {queues:?}");
}

fn number(report: &Value, section: &str, key: &str) -> f64 {
    let value = &report["median"][section][key];
    value.as_f64().unwrap_or_else(|| panic!("{section}.{key} is {value} in {report}"))
}

#[tokio::test]
async fn the_pipelines_numbers_are_there_and_agree_with_each_other() {
    let bench = Bench::new().await;
    let pipeline = report(&bench, &["pipeline", "--leads", "300", "--trickle", "5", "--runs", "2"]).await;
    assert_eq!(pipeline["bench"], "pipeline");
    assert_eq!(pipeline["runs"].as_array().unwrap().len(), 2, "{pipeline}");
    assert!(pipeline["machine"]["postgresql"].is_string() && pipeline["machine"]["build"].is_string(), "{pipeline}");
    let mails = number(&pipeline, "speed", "mails");
    assert!(mails > 10.0 && mails <= number(&pipeline, "speed", "qualified"), "{pipeline}");
    let range = &pipeline["range"]["speed"]["leads_per_second"];
    let speed = number(&pipeline, "speed", "leads_per_second");
    assert!(range[0].as_f64().unwrap() <= speed && speed <= range[1].as_f64().unwrap(), "{pipeline}");
    for (section, key) in [("latency", "p50_ms"), ("trickle", "p99_ms")] {
        assert!(number(&pipeline, section, key) > 0.0, "{section}.{key} of {pipeline}");
    }
    assert!(number(&pipeline, "ceiling", "percent") > LEAST_OF_BARE, "{pipeline}");
    // Both sides write and publish the same, but for what the stages note about themselves.
    let (rows, bare_rows) = (number(&pipeline, "per_lead", "rows"), number(&pipeline, "ceiling", "bare_rows"));
    assert!((0.8..1.5).contains(&(rows / bare_rows)), "{rows} rows per lead, bare {bare_rows}");
    for key in ["messages", "confirms"] {
        assert!((2.0..2.5).contains(&number(&pipeline, "per_lead", key)), "{key} of {pipeline}");
    }
    assert_costs_add_up(&pipeline);
    bench.cleanup().await;
}

/// What a lead costs PostgreSQL is there and possible. The write-ahead log includes what other tests write meanwhile.
fn assert_costs_add_up(pipeline: &Value) {
    let per_lead = |key: &str| number(pipeline, "per_lead", key);
    assert!(per_lead("transactions") > 0.0, "{pipeline}");
    let records = per_lead("wal_records");
    assert!(records >= per_lead("rows"), "each row that is written is logged: {pipeline}");
    assert!(per_lead("wal_bytes") > 24.0 * records, "a record's header alone takes 24 bytes: {pipeline}");
    assert!(per_lead("wal_full_page_images") < records, "{pipeline}");
    assert!(number(pipeline, "whole_run", "checkpoints") >= 0.0, "{pipeline}");
}

#[tokio::test]
async fn a_process_for_each_service_is_measured_by_itself() {
    let bench = Bench::new().await;
    let args = ["pipeline", "--processes", "--replicas", "2", "--leads", "200", "--trickle", "0"];
    let pipeline = report(&bench, &args).await;
    assert!(number(&pipeline, "ceiling", "percent") > LEAST_OF_BARE, "{pipeline}");
    for service in ["collector", "enricher", "mailer"] {
        assert!(number(&pipeline, "memory", service) > 0.0, "{pipeline}");
    }
    bench.cleanup().await;
}

#[tokio::test]
async fn with_smtp_every_lead_gets_a_mail() {
    let bench = Bench::new().await;
    let smtp = report(&bench, &["pipeline", "--transport", "smtp", "--leads", "60", "--trickle", "0"]).await;
    assert!((number(&smtp, "speed", "mails") - 60.0).abs() < 0.5, "{smtp}");
    assert!(smtp["median"]["trickle"].is_null(), "{smtp}");
    assert_costs_add_up(&smtp);
    let mail = report(&bench, &["mail", "--mails", "40"]).await;
    for section in ["plain", "tls"] {
        assert!(number(&mail, section, "mails_per_second") > 0.0, "{mail}");
    }
    bench.cleanup().await;
}

#[tokio::test]
async fn the_ceiling_is_printed_as_a_table_with_the_machine_that_it_is_of() {
    let bench = Bench::new().await;
    let table = measured(&bench, &["ceiling", "--leads", "300", "--runs", "2"]).await;
    for expected in ["PostgreSQL", "RabbitMQ", "Each alone", "All at once, with smtp", "median", "rows per lead"] {
        assert!(table.contains(expected), "{expected} is missing in {table}");
    }
    let start = report(&bench, &["start", "--times", "1", "--late", "1s"]).await;
    for order in ["start", "servers_late", "rabbitmq_late"] {
        assert!(number(&start, order, "leadmill_up_median_ms") > 0.0, "{start}");
    }
    bench.cleanup().await;
}

#[tokio::test]
async fn import_enrichment_and_growth_are_measured() {
    let bench = Bench::new().await;
    let import = report(&bench, &["import", "--rows", "2000"]).await;
    assert!(number(&import, "ceiling", "percent") > LEAST_OF_BARE, "{import}");
    // Both sides take in the same, but for the run's own counts.
    let (rows, bare_rows) = (number(&import, "per_row", "rows"), number(&import, "ceiling", "bare_rows"));
    assert!((0.95..1.05).contains(&(rows / bare_rows)), "{rows} rows written per row, bare {bare_rows}");
    // Each question to the model waits for the commit of its claim, some milliseconds: little beside the seconds of a real model,
    // and much beside 20 ms.
    let enrich = report(&bench, &["enrich", "--latency", "100ms", "--concurrency", "8", "--leads", "80"]).await;
    assert!((LEAST_OF_IDEAL..=101.0).contains(&number(&enrich, "speed", "percent")), "{enrich}");
    assert!(number(&enrich, "speed", "most_at_once") <= 8.0, "{enrich}");
    let two = ["enrich", "--latency", "100ms", "--concurrency", "8", "--leads", "160", "--replicas", "2"];
    let two = report(&bench, &two).await;
    assert!((LEAST_OF_IDEAL..=101.0).contains(&number(&two, "speed", "percent")), "{two}");
    assert!((9.0..=16.0).contains(&number(&two, "speed", "most_at_once")), "both are asked: {two}");
    let growth = report(&bench, &["growth", "--sizes", "2k", "--leads", "200"]).await;
    assert!(number(&growth, "database", "2000") > number(&growth, "database", "0") + 1.0, "{growth}");
    bench.cleanup().await;
}

#[tokio::test]
async fn a_benchmark_that_is_interrupted_clears_away() {
    let bench = Bench::new().await;
    let mut running = bench
        .command(["bench", "pipeline", "--leads", "5000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap());
    let ended = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        let place = loop {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it began");
            if let Some(place) = place(line.trim_end()) {
                break place;
            }
        };
        // Long enough for its processes to be at work; whenever it comes, it has to work.
        std::thread::sleep(Duration::from_secs(1));
        assert!(Command::new("kill").arg("-INT").arg(running.id().to_string()).status().unwrap().success());
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        (place, running.wait().unwrap(), rest)
    });
    let (place, status, said) = tokio::time::timeout(Duration::from_mins(1), ended).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_is_gone(&bench, &place).await;
    bench.cleanup().await;
}

#[tokio::test]
async fn a_benchmark_refuses_what_it_must_not_do() {
    for (args, said) in [
        (&["bench"][..], "pipeline"),
        (&["bench", "fly"], "fly"),
        (&["bench", "pipeline", "--leads", "0"], "--leads"),
        (&["bench", "pipeline", "--transport", "smtp", "--sink", "192.0.2.1:25"], "loopback"),
        (&["bench", "mail", "--sink", "mx.example.com:25"], "127.0.0.1"),
        (&["bench", "growth", "--sizes", "10k,many"], "10k"),
        (&["bench", "enrich", "--latency", "soon"], "200ms"),
        (&["bench", "start", "--late", "1h"], "from 0s to 30s"),
    ] {
        let output = finish(bare(args)).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?} does not mention {said}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_benchmark_without_servers_says_which_is_missing() {
    let bench = Bench::new().await;
    let said = bench.fail(2, &["bench", "pipeline", "--sink", "127.0.0.1:25"]).await;
    assert!(said.contains("--transport smtp"), "{said}");
    for (variable, url) in [("DATABASE_URL", "postgres://127.0.0.1:1/none"), ("AMQP_URL", "amqp://127.0.0.1:1/")] {
        let mut command = bench.command(["bench", "pipeline", "--leads", "10"]);
        command.env(variable, url);
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(variable), "{}", stderr(&output));
    }
    bench.cleanup().await;
}
