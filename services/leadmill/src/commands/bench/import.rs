//! `leadmill bench import`: a file through `leadmill import`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use collector::source::Field;
use collector::source::simulated::{SimulatedSource, SimulationMix};
use domain::clock::{Clock, SystemClock};
use serde_json::Value;

use super::ceiling::measure_intake;
use super::load::{Population, creator};
use super::machine::Machine;
use super::place::{self, BenchProgram, Place};
use super::report::{Report, Section, Unit};
use super::{Bench, Options, ensure_agreement, fleet, procfs};

/// The small file has one row for so many of the large one.
const SMALLER: u64 = 10;
/// Time between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The creators of the small and of the large file.
const SEEDS: (u64, u64) = (3, 4);

/// `leadmill bench import`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two CSV files of made-up creators, the second ten times as long as the first, go through `leadmill import`, a process of its
own with no services beside it. It reads, validates, deduplicates, seals and stores the rows, and publishes their events.

  rows/s         of the large file, from the start of the process to its end
  memory         the most resident memory for each file: the same, if it doesn't depend on the length
  Per row        rows written to the tables (inserted, updated, deleted), and bytes of write-ahead log
  CPU            seconds per 1,000 rows of the process and of the servers; of these everything that they did meanwhile
  Ceiling        the same rows and messages without any logic, afterwards on the same cores; see `leadmill bench ceiling --help`

Examples:
  leadmill bench import
  leadmill bench import --rows 1000000 --json")]
pub struct Args {
    /// How many rows the large file has
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10..=50_000_000))]
    rows: u64,
    #[command(flatten)]
    pub options: Options,
}

/// What an import has shown.
struct Imported {
    took: Duration,
    peak_memory: Option<f64>,
    cpu: Option<f64>,
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let small_rows = args.rows / SMALLER;
        bench.say(&format!("making files of {small_rows} and {} rows", args.rows));
        let small = make_file(place, "small.csv", SEEDS.0, small_rows).await?;
        let large = make_file(place, "large.csv", SEEDS.1, args.rows).await?;
        let bytes = std::fs::metadata(&large).context("looking at the file")?.len();

        bench.say("importing the small file");
        let program = place.program("small-file", false).await?;
        let of_small = import(bench, place, &program, &small, small_rows).await?;
        bench.say("importing the large file");
        let program = place.program("large-file", false).await?;
        place.empty_queues().await?;
        place.database.checkpoint().await;
        let servers_before = machine.servers().cpu(&place.database).await?;
        let counters_before = place.database.counters().await?;
        let of_large = import(bench, place, &program, &large, args.rows).await?;
        let servers = machine.servers().cpu(&place.database).await? - servers_before;
        let counters = place.database.counters().await? - counters_before;

        let seconds = of_large.took.as_secs_f64();
        let mut report = Report::default();
        let mut section = Section::new("speed", format!("Speed, {} rows", args.rows));
        section
            .add("rows_per_second", "rows", Unit::PerSecond("rows"), args.rows as f64 / seconds)
            .add("mebibytes_per_second", "file", Unit::PerSecond("MiB"), bytes as f64 / f64::from(1 << 20) / seconds)
            .add("seconds", "in", Unit::Seconds, seconds);
        report.section(section);
        let mut section = Section::new("memory", "Peak resident memory");
        section.add("small_file", format!("{small_rows} rows"), Unit::Mebibytes, of_small.peak_memory).add(
            "large_file",
            format!("{} rows", args.rows),
            Unit::Mebibytes,
            of_large.peak_memory,
        );
        report.section(section);
        let thousand = |cpu: Option<f64>| cpu.map(|cpu| 1000.0 * cpu / args.rows as f64);
        let mut section = Section::new("cpu", "CPU per 1,000 rows");
        section
            .add("import", "leadmill import", Unit::Seconds, thousand(of_large.cpu))
            .add("postgresql", "PostgreSQL", Unit::Seconds, thousand(servers.postgresql))
            .add("rabbitmq", "RabbitMQ", Unit::Seconds, thousand(servers.rabbitmq));
        report.section(section);
        let each = |count: i64| count as f64 / args.rows as f64;
        let mut section = Section::new("per_row", "Per row of the file");
        section.add("rows", "rows written", Unit::Count, each(counters.rows())).add(
            "wal_bytes",
            "write-ahead log",
            Unit::Bytes,
            each(counters.wal.bytes),
        );
        report.section(section);
        place.empty_queues().await?;
        let servers_before = machine.servers().cpu(&place.database).await?;
        let bare = measure_intake(bench, place, args.rows).await?;
        let servers = machine.servers().cpu(&place.database).await? - servers_before;
        let thousand = |cpu: Option<f64>| cpu.map(|cpu| 1000.0 * cpu / bare.leads as f64);
        let each = |count: i64| count as f64 / bare.leads as f64;
        let mut section = Section::new("ceiling", "Beside the bare ceiling, measured in the same run");
        section
            .add("bare_rows_per_second", "bare", Unit::PerSecond("rows"), bare.leads_per_second())
            .add("percent", "reached", Unit::Percent, 100.0 * args.rows as f64 / seconds / bare.leads_per_second())
            .add("bare_rows", "rows written per row, bare", Unit::Count, each(bare.counters.rows()))
            .add("bare_wal_bytes", "write-ahead log per row, bare", Unit::Bytes, each(bare.counters.wal.bytes))
            .add("bare_postgresql", "PostgreSQL, CPU per 1,000 rows", Unit::Seconds, thousand(servers.postgresql))
            .add("bare_rabbitmq", "RabbitMQ, CPU per 1,000 rows", Unit::Seconds, thousand(servers.rabbitmq));
        report.section(section);
        Ok((machine, report))
    })
    .await
}

/// Writes a file of creators as they come.
async fn make_file(place: &Place, name: &str, seed: u64, rows: u64) -> anyhow::Result<PathBuf> {
    let path = place.folder.path().join(name);
    let (made, shown) = (path.clone(), path.display().to_string());
    let making = tokio::task::spawn_blocking(move || {
        let creators = SimulatedSource::new(seed, rows, SimulationMix::CLEAN);
        let mut file = csv::Writer::from_path(&made)?;
        // As exports have them: nobody's consent is in there.
        let fields = || Field::ALL.into_iter().filter(|field| !Field::EVIDENCE.contains(field));
        file.write_record(fields().map(Field::name))?;
        for index in 0..rows {
            let creator = creator(&creators, Population::Usual, index);
            file.write_record(fields().map(|field| creator.get(field).unwrap_or_default()))?;
        }
        file.flush()?;
        anyhow::Ok(())
    });
    making.await.context("making a file")?.with_context(|| format!("writing {shown}"))?;
    Ok(path)
}

/// Runs the command on a file, and checks what it says.
async fn import(
    bench: &Bench<'_>,
    place: &Place,
    program: &BenchProgram,
    file: &Path,
    rows: u64,
) -> anyhow::Result<Imported> {
    let leadmill = std::env::current_exe().context("finding this program")?;
    let me = std::process::id();
    let since = SystemClock.now();
    let reaped_before = procfs::cpu_of_ended_children(me);
    let started = Instant::now();
    let mut child = fleet::command(&leadmill, bench.file, place, &[])
        .arg("import")
        .arg(file)
        .args(["--program", program.slug.as_str(), "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("starting leadmill import")?;
    let pid = child.id().context("leadmill import ended at once")?;
    let mut peak_memory = None;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("waiting for leadmill import")?,
            () = tokio::time::sleep(LOOK_EVERY) => peak_memory = procfs::peak_memory(pid).or(peak_memory),
        }
    };
    let took = started.elapsed();
    let cpu = procfs::cpu_of_ended_children(me).zip(reaped_before).map(|(after, before)| after - before);
    ensure!(status.success(), "leadmill import failed ({status})");
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said).await.context("reading what it said")?;
    }
    let said: Value = serde_json::from_str(&said).context("reading what leadmill import said")?;
    place.database.wait_until_alone().await?;
    let outcome = place.database.outcome(program.id, since).await?;
    ensure_agreement(&[
        ("rows of the file and rows accepted", rows as i64, said["accepted"].as_i64().unwrap_or_default()),
        ("rows of the file and leads", rows as i64, outcome.leads),
        ("leads and keys", outcome.leads, outcome.keys),
        (
            "events and events published",
            outcome.leads,
            outcome.leads - said["outbox"].as_i64().unwrap_or(outcome.leads),
        ),
    ])?;
    Ok(Imported { took, peak_memory, cpu })
}
