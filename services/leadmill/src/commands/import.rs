//! `leadmill import`: a file of leads.

use std::path::PathBuf;

use clap::ValueEnum;
use collector::import::{ImportOptions, import_file};
use collector::source::columns::Mapping;
use collector::source::file::FileOptions;
use domain::lead::SourceName;
use domain::program::Slug;
use service::config::Document;
use store::intake::Dedupe;
use store::runs::ORIGIN_CHARS;

use crate::collecting::Collecting;
use crate::progress::Progress;
use crate::settings;

/// `leadmill import`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Delimiter, quoting, byte order mark, line ends and encoding are found out, and the columns of the usual exports are
recognised. A file without usable columns is refused before anything is written. A row that is wrong is rejected with its
line, field and reason, and the rest goes on. The same file again adds nothing, so an import that broke off is simply
started again. Services need not be running.

Whether a lead may be written to depends on their country (`leadmill law show`). Where that needs consent, these columns show it:
  consent_source, consent_wording, consent_at    where it was given, the words that were agreed to, and when; all three
  consent_expires_at                             from when on it doesn't hold any more, if it was given for a time
Where it needs an address that is published for business:
  address_source_url                             the page where the address of this row is published
  address_seen_at                                when it was seen there [default: now]
Times are such as 2026-03-04T15:30:00Z or 2026-03-04 (its beginning, UTC). They are about the e-mail address of their row. A row
with half a consent, one from the future or one that has expired is rejected. `--dedupe update` takes newer evidence over. The
same names are the fields of POST /v1/leads.

Examples:
  leadmill import creators.csv --program coffee
  leadmill import export.csv --program coffee --source instagram --map 'Owner Handle=username' --map Mail=email
  leadmill import more.jsonl --program coffee --dedupe update --json")]
pub struct Args {
    /// CSV (or TSV, or with semicolons) or JSON Lines
    file: PathBuf,
    /// The program; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    program: Option<Slug>,
    /// The network of rows that name none, such as instagram
    #[arg(long, value_name = "NETWORK", value_parser = source_name)]
    source: Option<SourceName>,
    /// What a column means: source, username, name, email, profile_url, follower_count, bio, verified, location, country,
    /// consent_source, consent_wording, consent_at, consent_expires_at, address_source_url, address_seen_at
    #[arg(long = "map", value_name = "COLUMN=FIELD", value_parser = mapping)]
    mappings: Vec<Mapping>,
    /// What to do with a lead that is known already
    #[arg(long, value_enum, default_value_t = DedupeChoice::Skip)]
    dedupe: DedupeChoice,
    /// The terms under which the data may be used, such as the address of a contract; kept with the run
    #[arg(long, value_name = "TEXT", value_parser = terms)]
    terms: Option<String>,
    /// The file's encoding, when it is found out wrongly: utf-8, utf-16le, windows-1252, …
    #[arg(long, value_name = "LABEL")]
    encoding: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What to do with a lead that is known already.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum DedupeChoice {
    /// Leave it as it is
    Skip,
    /// Take over what is new or different, and enrich it again
    Update,
}

/// Does what was asked for.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let slug = named_or_only(document, args.program).await?;
    let collecting = Collecting::begin(document, slug).await?;
    let options = ImportOptions {
        file: FileOptions {
            mappings: args.mappings,
            source: args.source,
            encoding: args.encoding,
            ..FileOptions::default()
        },
        dedupe: match args.dedupe {
            DedupeChoice::Skip => Dedupe::Skip,
            DedupeChoice::Update => Dedupe::Update,
        },
        terms: args.terms,
    };
    let progress = Progress::new();
    let mut meter = progress.meter("rows", None);
    let program = collecting.program.clone();
    let summary = import_file(&collecting.intake, program, &args.file, &options, &collecting.cancel, |counts| {
        meter.set(counts.rows(), &format!("{} rejected, {} duplicates", counts.rejected, counts.duplicates));
    })
    .await?;
    meter.finish(summary.counts.rows(), "read");
    collecting.end(&summary, args.json).await
}

/// The program that was named, or the only one.
pub async fn named_or_only(document: &Document, named: Option<Slug>) -> anyhow::Result<Slug> {
    let db = settings::connect(document).await?;
    settings::program_slug(&db, named).await
}

fn terms(text: &str) -> Result<String, String> {
    let clean = domain::text::single_line(text, ORIGIN_CHARS + 1).filter(|clean| clean.chars().count() <= ORIGIN_CHARS);
    clean.ok_or_else(|| format!("the terms must have 1 to {ORIGIN_CHARS} characters"))
}

fn source_name(text: &str) -> Result<SourceName, String> {
    SourceName::parse(text).map_err(|error| error.to_string())
}

fn mapping(text: &str) -> Result<Mapping, String> {
    text.parse::<Mapping>().map_err(|error| error.to_string())
}
