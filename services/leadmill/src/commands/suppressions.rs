//! `leadmill suppressions`: who must not be written to, and why.

mod import;
mod lift;
mod lines;
pub mod scope;

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use domain::id::CauseId;
use domain::suppression::{ContactList, Subject};
use serde_json::{Value, json};
use service::config::Document;
use store::suppressions::{self, Filter, StoredCause};
use time::format_description::well_known::Rfc3339;

use self::scope::{OpenScope, ScopeArgs};
use crate::output::{self, Table};

/// Causes that are read at once.
const PAGE: i64 = 1_000;
/// The names of causes.
const CAUSES: [&str; 6] = ["objection", "hard_bounce", "complaint", "manual", "erased", "do_not_contact"];
/// The names of lists.
const LISTS: [&str; 4] = ["customer", "partner", "colleague", "competitor"];

/// `leadmill suppressions …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List causes, newest first; or what stands against one address, user name or domain
    #[command(after_help = "\
Nothing personal is stored: HASH is a keyed hash, which only this installation can make. Name an address, a user name (with `@`
in front) or a domain to see what stands against exactly that.

Examples:
  leadmill suppressions list --program coffee
  leadmill suppressions list ann@example.com
  leadmill suppressions list --organisation acme --cause do_not_contact --list customer --limit 20 --json")]
    List(Listing),
    /// Import a do-not-contact list: who is not written to, and not even analysed
    #[command(after_help = "\
One entry per line: an address, a user name with `@` in front, a domain, or `*.example.com` for every domain below example.com
(which leaves example.com itself out: give it a line of its own). Empty lines and lines that begin with `#` are left out. The
file may be UTF-8 or UTF-16; name any other encoding.

The whole file is read first. If any line is wrong, the lines are named and nothing is imported. Then it is stored in steps of
1,000 lines: if that is interrupted, start it again with the same file, and it goes on where it was; what is there already stays
as it is. Mails that are not out yet are cancelled, and the leads that are covered are not analysed any more.

Examples:
  leadmill suppressions import customers.txt --list customer --organisation acme --dry-run
  leadmill suppressions import customers.txt --list customer --organisation acme
  leadmill suppressions import rivals.txt --list competitor --program coffee --encoding windows-1252 --json")]
    Import(import::Args),
    /// Write all causes as CSV: hashes, causes and times
    #[command(after_help = "\
The file holds no personal data: neither addresses nor names are stored, only keyed hashes. It shows what stands and since when,
and can be compared with another export of the same installation.

Examples:
  leadmill suppressions export --program coffee --out suppressions.csv
  leadmill suppressions export --organisation acme | wc -l")]
    Export(Export),
    /// Take one cause away; the others stand
    #[command(after_help = "\
Whoever is covered by no other cause is decided about again, and mails that were cancelled for this one are planned anew.

An objection, and what remains of an erased person, ends only by that person's new consent: say where it was given and what
exactly was agreed to. Both are stored encrypted, with your account's name.

Examples:
  leadmill suppressions lift ann@example.com --cause manual --program coffee
  leadmill suppressions lift example.com --cause do_not_contact --organisation acme
  leadmill suppressions lift ann@example.com --cause objection --program coffee \\
    --evidence-source 'sign-up form on acme.example, 3 May 2026, 14:02 UTC' \\
    --evidence-wording 'Yes, write to me about the partner program'")]
    Lift(lift::Args),
}

/// `leadmill suppressions list`
#[derive(Debug, clap::Args)]
pub struct Listing {
    /// Only what stands against exactly this
    #[arg(value_name = "ADDRESS|HANDLE|DOMAIN", value_parser = scope::subject)]
    subject: Option<Subject>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Only this cause
    #[arg(long, value_parser = CAUSES)]
    cause: Option<String>,
    /// Only this do-not-contact list
    #[arg(long, value_parser = LISTS)]
    list: Option<String>,
    /// How many, at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `leadmill suppressions export`
#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Write them into this file, readable by its owner only [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print as JSON how many there are; needs --out
    #[arg(long, requires = "out")]
    json: bool,
}

/// Does what was asked for.
pub async fn run(document: &Document, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(document, args).await,
        Command::Import(args) => import::run(document, args).await,
        Command::Export(args) => export(document, args).await,
        Command::Lift(args) => lift::run(document, args).await,
    }
}

async fn list(document: &Document, args: Listing) -> anyhow::Result<()> {
    let open = OpenScope::open(document, args.scope).await?;
    let filter = Filter {
        scope: Some(open.scope),
        subject: args.subject.as_ref().map(|subject| open.hash(subject).index),
        cause: args.cause,
        list: args.list,
    };
    let limit = i64::from(args.limit);
    let filter = &filter;
    let found =
        open.db.transact("suppressions.list", |tx, _| Box::pin(suppressions::page(tx, filter, None, limit))).await?;
    if args.json {
        return output::json(&found.iter().map(as_value).collect::<Vec<_>>());
    }
    if found.is_empty() {
        output::note(format_args!("Nothing is suppressed for {} that matches.", open.label));
        return Ok(());
    }
    let mut table = Table::new(["SINCE", "KIND", "CAUSE", "SCOPE", "BY", "HASH"]);
    for cause in &found {
        table.row([
            cause.created_at.format(&Rfc3339)?,
            kind(cause),
            cause.cause.list().map_or_else(
                || cause.cause.name().to_owned(),
                |list| format!("{}: {}", cause.cause.name(), list.name()),
            ),
            scope_of(cause),
            cause.created_by.clone(),
            hex::encode(&cause.index),
        ]);
    }
    table.print()?;
    if found.len() as i64 == limit {
        output::note("There may be more: --limit shows more of them.");
    }
    Ok(())
}

fn kind(cause: &StoredCause) -> String {
    if cause.subdomains { "subdomains".to_owned() } else { cause.kind.clone() }
}

fn scope_of(cause: &StoredCause) -> String {
    cause.program.as_ref().map_or_else(|| "organisation".to_owned(), |program| format!("program {program}"))
}

fn as_value(cause: &StoredCause) -> Value {
    json!({
        "id": cause.id,
        "kind": cause.kind,
        "subdomains": cause.subdomains,
        "hash": hex::encode(&cause.index),
        "cause": cause.cause.name(),
        "list": cause.cause.list().map(ContactList::name),
        "program": cause.program,
        "created_at": cause.created_at.format(&Rfc3339).ok(),
        "created_by": cause.created_by,
    })
}

async fn export(document: &Document, args: Export) -> anyhow::Result<()> {
    let open = OpenScope::open(document, args.scope).await?;
    let rows = match &args.out {
        None => write_all(&open, std::io::stdout().lock()).await.map_err(output::while_printing)?,
        Some(path) => {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            let file = file.with_context(|| format!("writing {}", path.display()))?;
            write_all(&open, BufWriter::new(file)).await.with_context(|| format!("writing {}", path.display()))?
        }
    };
    if args.json {
        return output::json(&json!({ "rows": rows, "file": args.out }));
    }
    output::note(format_args!(
        "{rows} {} exported: keyed hashes, causes and times. No personal data is in it, since none is stored.",
        if rows == 1 { "cause" } else { "causes" }
    ));
    Ok(())
}

async fn write_all(open: &OpenScope, output: impl Write) -> anyhow::Result<u64> {
    let mut file = csv::Writer::from_writer(output);
    file.write_record(["kind", "hash", "cause", "list", "scope", "created_at"])?;
    let filter = Filter { scope: Some(open.scope), ..Filter::default() };
    let (mut before, mut rows): (Option<CauseId>, u64) = (None, 0);
    loop {
        let filter = &filter;
        let page = open
            .db
            .transact("suppressions.export", |tx, _| Box::pin(suppressions::page(tx, filter, before, PAGE)))
            .await?;
        for cause in &page {
            file.write_record([
                kind(cause).as_str(),
                &hex::encode(&cause.index),
                cause.cause.name(),
                cause.cause.list().map_or("", ContactList::name),
                &scope_of(cause),
                &cause.created_at.format(&Rfc3339)?,
            ])?;
            rows += 1;
        }
        match page.last() {
            Some(last) if page.len() as i64 == PAGE => before = Some(last.id),
            _ => break,
        }
    }
    file.flush()?;
    Ok(rows)
}
