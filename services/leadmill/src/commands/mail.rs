//! `leadmill mail`: the captured mails, and what became of the others.

mod release;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use domain::hold;
use domain::id::{OutreachId, ProgramId};
use domain::outreach::OutreachState;
use domain::program::Slug;
use mail_parser::{Message, MessageParser};
use serde_json::{Value, json};
use service::config::Document;
use store::captured::{self, CapturedMail};
use store::outreach::release::Filter;
use store::outreach::{self, Listed};
use store::{Db, programs};
use time::format_description::well_known::Rfc3339;
use vault::Vault;

use crate::output::{self, Table};
use crate::settings;

/// How many mails are read at once.
const PAGE: i64 = 200;

/// `leadmill mail …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List mails: the captured ones with recipient and subject, or those in another state with the reason for it
    #[command(after_help = "\
Examples:
  leadmill mail list
  leadmill mail list --state held
  leadmill mail list --limit 0 --json | jq -r '.[].to'")]
    List(List),
    /// Show a captured mail
    Show(Show),
    /// Write captured mails as .eml files, which every mail program opens
    Export(Export),
    /// Release captured or held mails, so that they are sent
    #[command(after_help = "\
A captured mail goes back into the queue; while `mailer.transport` is capture it is captured again. A held one is decided
about again: it stays held as long as its reason holds. Whoever unsubscribed meanwhile gets nothing: such mails are cancelled.

Examples:
  leadmill mail release 0199c1e0-5b9c-7cc1-b0a5-5f3e7e1d9a42
  leadmill mail release --captured --program coffee
  leadmill mail release --held compose_failed
  leadmill mail list --state held        lists the reasons")]
    Release(Release),
    /// The same as `release --captured`
    #[command(hide = true)]
    Requeue(Requeue),
}

/// Whose mails.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// The program; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    program: Option<Slug>,
}

/// `leadmill mail list`
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    whose: Whose,
    /// queued, connecting, transmitting, sent, captured, deferred, failed, uncertain, held or cancelled
    #[arg(long, default_value = "captured")]
    state: OutreachState,
    /// How many, at most; 0 for all
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `leadmill mail show`
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The mail's id, as `list` shows it
    id: OutreachId,
    #[command(flatten)]
    whose: Whose,
    /// Print the complete message as it would have gone out
    #[arg(long)]
    raw: bool,
}

/// `leadmill mail export`
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The folder to write into; made if it isn't there
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    whose: Whose,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `leadmill mail release`
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["ids", "captured", "held"])]
pub struct Release {
    /// These mails, by the ids that `list` shows
    #[arg(value_name = "ID")]
    ids: Vec<OutreachId>,
    /// Every captured mail
    #[arg(long)]
    captured: bool,
    /// Every held mail; with a REASON, those held for it
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "")]
    held: Option<String>,
    #[command(flatten)]
    whose: Whose,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `leadmill mail requeue`
#[derive(Debug, clap::Args)]
pub struct Requeue {
    /// The captured mails
    #[arg(long, required = true)]
    captured: bool,
    #[command(flatten)]
    whose: Whose,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub async fn run(document: &Document, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) if args.state == OutreachState::Captured => {
            list_captured(&Captured::open(document, args.whose).await?, args.limit, args.json).await
        }
        Command::List(args) => list(document, args).await,
        Command::Show(args) => show(&Captured::open(document, args.whose).await?, args.id, args.raw).await,
        Command::Export(args) => export(&Captured::open(document, args.whose).await?, &args.out, args.json).await,
        Command::Release(args) => {
            let filter = match args.held {
                Some(reason) => Filter::Held((!reason.is_empty()).then_some(reason)),
                None if args.captured => Filter::Captured,
                None => Filter::Ids(args.ids),
            };
            release::run(document, args.whose, &filter, args.json).await
        }
        Command::Requeue(args) => release::run(document, args.whose, &Filter::Captured, args.json).await,
    }
}

/// A program's captured mails, read page by page.
struct Captured {
    db: Db,
    vault: Vault,
    program: ProgramId,
}

impl Captured {
    async fn open(document: &Document, whose: Whose) -> anyhow::Result<Self> {
        let vault = settings::vault(document)?;
        let (db, program) = find(document, whose).await?;
        Ok(Self { db, vault, program })
    }

    async fn page(
        &self,
        only: Option<OutreachId>,
        after: Option<OutreachId>,
    ) -> anyhow::Result<VecDeque<CapturedMail>> {
        let (vault, program) = (&self.vault, self.program);
        let page = self
            .db
            .transact("captured.page", |tx, _| Box::pin(captured::page(tx, vault, program, only, after, PAGE)))
            .await?;
        Ok(page.into())
    }

    /// Calls `each` for up to `limit` mails (0 for all), oldest first; returns how many there were.
    async fn each(
        &self,
        limit: usize,
        mut each: impl FnMut(&CapturedMail) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.page(None, after).await?;
            for mail in &page {
                each(mail)?;
                count += 1;
                if count == limit {
                    return Ok(count);
                }
            }
            // A page may be short for mails that can't be opened; only an empty one is the end.
            match page.back() {
                Some(last) => after = Some(last.outreach_id),
                None => return Ok(count),
            }
        }
    }
}

async fn find(document: &Document, whose: Whose) -> anyhow::Result<(Db, ProgramId)> {
    let db = settings::connect(document).await?;
    let slug = settings::program_slug(&db, whose.program).await?;
    let found = db.transact("program.find", |tx, _| Box::pin(programs::by_slug(tx, &slug))).await?;
    Ok((db, found.ok_or_else(|| settings::no_such_program(&slug))?.id))
}

async fn list_captured(captured: &Captured, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let mut table = Table::new(["ID", "CAPTURED", "TO", "SUBJECT"]);
    let count = captured
        .each(limit, |mail| {
            let (to, subject) = headline(&mail.message);
            let at = mail.captured_at.format(&Rfc3339)?;
            if as_json {
                values.push(json!({
                    "id": mail.outreach_id, "lead_id": mail.lead_id, "captured_at": at, "to": to, "subject": subject,
                    "bytes": mail.message.len(),
                }));
            } else {
                let minute = at.get(..16).unwrap_or(&at).replace('T', " ");
                table.row([mail.outreach_id.to_string(), minute, to, subject]);
            }
            Ok(())
        })
        .await?;
    if as_json {
        return output::json(&values);
    }
    if count == 0 {
        output::note("There are no captured mails.");
        return Ok(());
    }
    table.print()?;
    if count == limit {
        output::note(format_args!("The first {limit}; --limit 0 lists all. `leadmill mail show ID` shows one."));
    }
    Ok(())
}

async fn list(document: &Document, args: List) -> anyhow::Result<()> {
    let (db, program) = find(document, args.whose).await?;
    let limit = if args.limit == 0 { i64::MAX } else { args.limit as i64 };
    let state = args.state;
    let rows =
        db.transact("outreach.list", |tx, _| Box::pin(outreach::list(tx, program, Some(state), None, limit))).await?;
    if args.json {
        return output::json(&rows.iter().map(as_value).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        output::note(format_args!("There are no {state} mails."));
        return Ok(());
    }
    let held = state == OutreachState::Held;
    let mut table = Table::new(["ID", "LEAD", "CAMPAIGN", "STEP", "ATTEMPTS", "REASON"]);
    let mut ways_out = BTreeMap::new();
    for Listed { outreach: row, .. } in &rows {
        if let Some(reason) = row.reason.as_deref().filter(|_| held) {
            let code = reason.split(':').next().unwrap_or(reason);
            ways_out.insert(code.to_owned(), hold::way_out(reason).describe());
        }
        table.row([
            row.id.to_string(),
            row.lead_id.to_string(),
            row.step.campaign.clone(),
            row.step.step.to_string(),
            row.attempts.to_string(),
            row.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.print()?;
    for (reason, way_out) in ways_out {
        output::note(format_args!("{reason}: {way_out}"));
    }
    Ok(())
}

fn as_value(Listed { outreach: row, updated_at, due_at, law_rule, permitted_until }: &Listed) -> Value {
    json!({
        "id": row.id,
        "lead_id": row.lead_id,
        "campaign": row.step.campaign,
        "step": row.step.step,
        "state": row.state,
        "reason": row.reason,
        "attempts": row.attempts,
        "message_id": row.message_id,
        "updated_at": updated_at.format(&Rfc3339).ok(),
        "due_at": due_at.and_then(|due| due.format(&Rfc3339).ok()),
        "law_rule": law_rule,
        "permitted_until": permitted_until.and_then(|until| until.format(&Rfc3339).ok()),
        "released_by": row.reason.as_deref().filter(|_| row.state == OutreachState::Held)
            .map(|reason| hold::way_out(reason).describe()),
    })
}

async fn show(captured: &Captured, id: OutreachId, raw: bool) -> anyhow::Result<()> {
    let Some(mail) = captured.page(Some(id), None).await?.pop_front() else {
        bail!("there is no captured mail {id}; `leadmill mail list` shows them");
    };
    if raw {
        return output::bytes(&mail.message);
    }
    let Some(message) = MessageParser::default().parse(&mail.message) else {
        bail!("the captured mail {id} can't be read as a mail; --raw shows it as it is");
    };
    for (name, value) in message.headers_raw() {
        let unfolded = value.replace("\r\n", "");
        output::line(format_args!("{name}: {}", output::printable(unfolded.trim())))?;
    }
    output::line("")?;
    output::line(output::printable_lines(message.body_text(0).unwrap_or_default().trim_end()))
}

/// Recipient and subject.
fn headline(message: &[u8]) -> (String, String) {
    let parsed = MessageParser::default().parse_headers(message);
    let to = |parsed: &Message<'_>| {
        let first = parsed.to().and_then(|to| to.first())?;
        first.address().map(str::to_owned)
    };
    let to = parsed.as_ref().and_then(to).unwrap_or_else(|| "-".to_owned());
    let subject = parsed.as_ref().and_then(|parsed| parsed.subject()).unwrap_or("-").to_owned();
    (to, subject)
}

async fn export(captured: &Captured, folder: &Path, as_json: bool) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let count = captured
        .each(0, |mail| {
            let path = folder.join(format!("{}.eml", mail.outreach_id));
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(&mail.message))
                .with_context(|| format!("writing {}", path.display()))
        })
        .await?;
    if as_json {
        return output::json(&json!({ "mails": count, "folder": folder }));
    }
    output::line(format_args!("{count} mails written to {}", folder.display()))
}
