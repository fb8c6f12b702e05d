//! `leadmill bench growth`: whether a full table slows the pipeline down.

use ceiling::postgres::Database;

use super::machine::Machine;
use super::pipeline::{Run, Transport};
use super::place;
use super::report::{Report, Section, Unit};
use super::{Bench, FleetArgs, Options};

/// `leadmill bench growth`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For each size a database is filled with as many leads that have been through everything, two in five with a captured mail,
so that tables and indexes are as large as theirs; then it is vacuumed and analysed, and the speed of
`leadmill bench pipeline` with capture is measured on it, for the same program. It begins with an empty one.

  speed          leads/s end to end, with so many leads in the tables
  of empty       the same of 100 of the speed with none
  database       how large it was, indexes included

A million leads take about 4 GiB, and a minute or two to fill in.

Examples:
  leadmill bench growth --sizes 10k,100k
  leadmill bench growth --sizes 1m --leads 50000 --runs 3 --json")]
pub struct Args {
    /// How many leads there are already: numbers, or such as 10k and 5m
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10k,100k,1m,5m", value_parser = size)]
    sizes: Vec<u64>,
    /// How many leads are posted at full speed
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    leads: u64,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub options: Options,
}

/// The most leads that tables are filled with.
const LARGEST: u64 = 100_000_000;

fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, factor) = match (lower.strip_suffix('k'), lower.strip_suffix('m')) {
        (Some(digits), _) => (digits, 1_000),
        (_, Some(digits)) => (digits, 1_000_000),
        _ => (lower.as_str(), 1),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| (1..=LARGEST).contains(size))
        .ok_or_else(|| format!("expected numbers such as 10k, 100k, 1m, 5m, each from 1 to {LARGEST}"))
}

/// Measures once.
pub async fn measure(bench: &Bench<'_>, args: &Args) -> anyhow::Result<(Machine, Report)> {
    let mut speeds = Section::new("speed", format!("Speed with so many leads in the tables, {} new ones", args.leads));
    let mut shares = Section::new("percent", "Of the speed of an empty database");
    let mut volumes = Section::new("database", "Size of the database");
    let (machine, empty, volume) = at(bench, args, 0).await?;
    speeds.add("0", "none", Unit::PerSecond("leads"), empty);
    volumes.add("0", "none", Unit::Mebibytes, volume);
    for size in &args.sizes {
        let (_, speed, volume) = at(bench, args, *size).await?;
        let (key, label) = (size.to_string(), format!("{size}"));
        speeds.add(key.clone(), label.clone(), Unit::PerSecond("leads"), speed);
        shares.add(key.clone(), label.clone(), Unit::Percent, 100.0 * speed / empty);
        volumes.add(key, label, Unit::Mebibytes, volume);
    }
    let mut report = Report::default();
    report.section(speeds);
    report.section(shares);
    report.section(volumes);
    Ok((machine, report))
}

/// Leads a second with so many leads in the tables, and the database's size in MiB.
async fn at(bench: &Bench<'_>, args: &Args, size: u64) -> anyhow::Result<(Machine, f64, f64)> {
    place::within(bench, async |place| {
        let machine = Machine::look(place).await?;
        let program = place.program("growth", false).await?;
        if size > 0 {
            bench.say(&format!("filling the tables with {size} leads"));
            let mut meter = bench.progress.meter("filled", Some(size));
            place.database.fill(program.id, size, |leads| meter.set(leads, "")).await?;
            meter.give_way(size);
        }
        let volume = mebibytes(&place.database).await?;
        let run = Run { bench, place, machine: &machine, transport: Transport::Capture, settings: Vec::new() };
        let full = run.at_full_speed_for(&program, args.leads).await?;
        Ok((machine, args.leads as f64 / full.seconds(), volume))
    })
    .await
}

async fn mebibytes(database: &Database) -> anyhow::Result<f64> {
    Ok(database.bytes().await? as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_suffixes() {
        for (text, expected) in [("10k", 10_000), ("5M", 5_000_000), ("42", 42)] {
            assert_eq!(size(text), Ok(expected));
        }
        for text in ["", "0", "k", "1g", "-1", "1e6", "101m", "99999999999999999999m"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
