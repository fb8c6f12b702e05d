//! `leadmill simulate`: made-up creators.

use collector::simulate::{Simulation, simulate};
use collector::source::simulated::SimulationMix;
use domain::program::Slug;
use service::config::Document;

use super::import::named_or_only;
use crate::collecting::Collecting;
use crate::progress::Progress;

/// `leadmill simulate`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The creators of one seed are always the same, so that the same simulation again adds nothing. They have addresses under
example domains, which nobody gets mail at. Services need not be running.

Examples:
  leadmill simulate --program coffee --leads 1000 --seed 7
  leadmill simulate --program coffee --leads 500 --mix duplicates=0.2,junk=0.1,missing=0.1,hostile=0.1
  leadmill simulate --program coffee --leads 100000 --rate 50")]
pub struct Args {
    /// The program; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    program: Option<Slug>,
    /// How many rows, the ones that are not as they should be included
    #[arg(long, value_name = "N", default_value_t = 1000)]
    leads: u64,
    /// Tells one population of creators from another
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The shares of rows that are not as they should be: duplicates, junk, missing, hostile; those not named are 0
    #[arg(long, value_name = "KIND=SHARE,…", value_parser = mix)]
    mix: Option<SimulationMix>,
    /// Rows per second [default: as fast as they are taken in]
    #[arg(long, value_name = "ROWS", value_parser = rate)]
    rate: Option<f64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let slug = named_or_only(document, args.program).await?;
    let collecting = Collecting::begin(document, slug).await?;
    let simulation =
        Simulation { seed: args.seed, count: args.leads, mix: args.mix.unwrap_or_default(), rate: args.rate };
    let progress = Progress::new();
    let mut meter = progress.meter("rows", Some(args.leads));
    let program = collecting.program.clone();
    let summary = simulate(&collecting.intake, program, &simulation, &collecting.cancel, |counts| {
        meter.set(counts.rows(), "");
    })
    .await?;
    meter.finish(summary.counts.rows(), "");
    collecting.end(&summary, args.json).await
}

fn mix(text: &str) -> Result<SimulationMix, String> {
    let hint = "write it like duplicates=0.1,junk=0.05,missing=0.05,hostile=0.02";
    text.parse::<SimulationMix>().map_err(|error| format!("{error}; {hint}"))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err("expected a number above 0, at most 100000".to_owned()),
    }
}
