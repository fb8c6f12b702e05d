//! `leadmill rejects`: rows that were refused.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use domain::id::RunId;
use domain::program::Slug;
use serde_json::json;
use service::config::Document;
use store::programs::Directory;

use crate::output;
use crate::settings;

/// `leadmill rejects …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give them back as CSV: line, field, reason, detail, and the row itself
    #[command(after_help = "\
Examples:
  leadmill rejects export --program coffee --out rejects.csv
  leadmill rejects export --program coffee --run 0190b5a0-1c3d-7def-8123-456789abcdef | less")]
    Export(Export),
}

/// `leadmill rejects export`
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The program; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    program: Option<Slug>,
    /// Only what this run refused first
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// Write them into this file, readable by its owner only [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print as JSON how many there are; needs --out
    #[arg(long, requires = "out")]
    json: bool,
}

/// Does what was asked for.
pub async fn run(document: &Document, Command::Export(args): Command) -> anyhow::Result<()> {
    let vault = settings::vault(document)?;
    let db = settings::connect(document).await?;
    let slug = settings::program_slug(&db, args.program).await?;
    let found = Directory::new(db.clone(), vault).by_slug(&slug).await?;
    let program = found.ok_or_else(|| settings::no_such_program(&slug))?;
    let Some(path) = args.out else {
        let printed = collector::rejects::export(&db, &program, args.run, std::io::stdout()).await;
        return printed.map(drop).map_err(output::while_printing);
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("writing {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let rows = collector::rejects::export(&db, &program, args.run, &mut file).await?;
    file.flush().with_context(|| format!("writing {}", path.display()))?;
    if args.json {
        return output::json(&json!({ "rows": rows, "file": path }));
    }
    let noun = if rows == 1 { "row" } else { "rows" };
    output::line(format_args!("{rows} {noun} written to {}", path.display()))
}
