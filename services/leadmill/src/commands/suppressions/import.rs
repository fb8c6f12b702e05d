//! `leadmill suppressions import`: a do-not-contact list.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use domain::id::CauseId;
use domain::suppression::{Cause, ContactList, Subject, SubjectKind};
use encoding_rs::Encoding;
use serde_json::json;
use service::config::Document;
use store::suppressions::{self, NewCause};

use super::LISTS;
use super::lines::{self, Line, Lines};
use super::scope::{self, OpenScope, ScopeArgs};
use crate::output;
use crate::progress::Progress;

/// Lines of one transaction.
const BATCH: usize = 1_000;
/// Wrong lines that are named; the others are counted.
const NAMED: usize = 20;

/// `leadmill suppressions import`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The list, one entry per line
    file: PathBuf,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Who these people are
    #[arg(long, value_parser = LISTS)]
    list: String,
    /// The file's encoding, when it is neither UTF-8 nor UTF-16: windows-1252, …
    #[arg(long, value_name = "LABEL")]
    encoding: Option<String>,
    /// Check the file and say what would be imported; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a file holds.
#[derive(Debug, Default)]
struct Contents {
    addresses: u64,
    handles: u64,
    domains: u64,
    wildcards: u64,
}

impl Contents {
    const fn add(&mut self, subject: &Subject) {
        match subject.kind() {
            SubjectKind::Email => self.addresses += 1,
            SubjectKind::Handle => self.handles += 1,
            SubjectKind::Domain if subject.is_wildcard() => self.wildcards += 1,
            SubjectKind::Domain => self.domains += 1,
        }
    }

    const fn total(&self) -> u64 {
        self.addresses + self.handles + self.domains + self.wildcards
    }
}

/// Does what was asked for.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let encoding = lines::encoding(args.encoding.as_deref())?;
    let list = ContactList::parse(&args.list)?;
    let cause = Cause::DoNotContact(list);
    let by = scope::person()?;
    let progress = Progress::new();
    let contents = check(&args.file, encoding, &progress)?;
    let open = OpenScope::open(document, args.scope).await?;
    let total = contents.total();
    let (mut seen, mut added, mut recipients) = (0, 0, 0);
    let label = if args.dry_run { "looked up" } else { "imported" };
    if !args.dry_run && contents.domains + contents.wildcards > 0 {
        open.hash_domains(&progress).await?;
    }
    let mut meter = progress.meter(label, Some(total));
    let mut lines = Lines::open(&args.file, encoding)?;
    loop {
        let batch = next_batch(&mut lines, &args.file)?;
        if batch.is_empty() {
            break;
        }
        seen += batch.len() as u64;
        if args.dry_run {
            let mut subjects: Vec<_> = batch.iter().map(|subject| open.hash(subject).index).collect();
            subjects.sort_unstable();
            subjects.dedup();
            let (scope, subjects) = (open.scope, subjects.as_slice());
            let known = open
                .db
                .transact("suppressions.count", |tx, _| Box::pin(suppressions::count(tx, scope, subjects, cause)))
                .await?;
            added += subjects.len() as u64 - known;
        } else {
            let (new, suppressed) = store(&open, &batch, cause, &by).await?;
            added += new;
            recipients += suppressed;
        }
        meter.set(seen, "entries");
    }
    meter.finish(seen, "entries");
    if seen != total {
        bail!("{} was changed while it was imported: start again", args.file.display());
    }
    if args.json {
        return output::json(&json!({
            "dry_run": args.dry_run, "list": list.name(), "scope": open.label, "entries": total,
            "addresses": contents.addresses, "handles": contents.handles, "domains": contents.domains,
            "wildcards": contents.wildcards, "added": added, "known": total - added, "recipients": recipients,
        }));
    }
    let Contents { addresses, handles, domains, wildcards } = contents;
    output::line(format_args!(
        "{total} entries: {addresses} addresses, {handles} user names, {domains} domains, {wildcards} wildcards"
    ))?;
    if args.dry_run {
        output::line(format_args!(
            "{added} would be added to the {} list of {}. Nothing was changed.",
            list.name(),
            open.label
        ))
    } else {
        output::line(format_args!(
            "{added} added to the {} list of {}, {} were there already; {recipients} recipients are newly suppressed",
            list.name(),
            open.label,
            total - added
        ))
    }
}

/// Reads the whole file; fails with the lines that are wrong if there are any.
fn check(path: &Path, encoding: Option<&'static Encoding>, progress: &Progress) -> anyhow::Result<Contents> {
    let mut lines = Lines::open(path, encoding)?;
    let (mut contents, mut wrong, mut named) = (Contents::default(), 0_usize, Vec::new());
    let mut meter = progress.meter("checked", None);
    while let Some((number, line)) = lines.next().with_context(|| format!("reading {}", path.display()))? {
        let why = match line {
            Line::Wrong(why) => why,
            Line::Text(text) => match Subject::parse(&text) {
                Ok(subject) => {
                    contents.add(&subject);
                    if contents.total().is_multiple_of(BATCH as u64) {
                        meter.set(contents.total(), "entries");
                    }
                    continue;
                }
                Err(error) => error.reason,
            },
        };
        wrong += 1;
        if named.len() < NAMED {
            named.push(format!("line {number}: {why}"));
        }
    }
    drop(meter);
    if wrong > named.len() {
        named.push(format!("and {} more", wrong - named.len()));
    }
    if wrong > 0 {
        let noun = if wrong == 1 { "line is" } else { "lines are" };
        bail!("{wrong} {noun} wrong in {}; nothing was imported:\n  {}", path.display(), named.join("\n  "));
    }
    if contents.total() == 0 {
        bail!("{} has no entry; nothing was imported", path.display());
    }
    Ok(contents)
}

fn next_batch(lines: &mut Lines, path: &Path) -> anyhow::Result<Vec<Subject>> {
    let mut batch = Vec::with_capacity(BATCH);
    while batch.len() < BATCH {
        let Some((number, line)) = lines.next().with_context(|| format!("reading {}", path.display()))? else { break };
        let subject = match line {
            Line::Text(text) => Subject::parse(&text).ok(),
            Line::Wrong(_) => None,
        };
        batch.push(subject.with_context(|| {
            format!("{} was changed while it was imported, at line {number}: start again", path.display())
        })?);
    }
    Ok(batch)
}

/// Stores a batch; returns how many entries were new, and how many recipients are suppressed now that were not before.
async fn store(open: &OpenScope, batch: &[Subject], cause: Cause, by: &str) -> anyhow::Result<(u64, u64)> {
    let causes: Vec<NewCause> = batch
        .iter()
        .map(|subject| NewCause { id: CauseId::generate(), subject: open.hash(subject), cause, evidence: None })
        .collect();
    let (mut added, mut recipients) = (0, 0);
    loop {
        let (scope, causes) = (open.scope, causes.as_slice());
        let recorded = open
            .db
            .transact("suppressions.record", |tx, _| Box::pin(suppressions::record(tx, scope, causes, by)))
            .await?;
        suppressions::cancel(&open.db, &recorded.suppressed).await?;
        added += recorded.added;
        recipients += recorded.suppressed.len() as u64;
        if !recorded.unfinished {
            return Ok((added, recipients));
        }
    }
}
