//! `leadmill program`: the tenants, whom mails come from and what they look for.

mod key;
mod options;
mod set;

use std::collections::HashMap;

use clap::Subcommand;
use domain::clock::{Clock, SystemClock};
use domain::email::EmailAddress;
use domain::id::ProgramId;
use domain::program::{Program, ProgramSettings, Slug};
use serde_json::{Value, json};
use service::config::Document;
use store::organisations;
use store::sender_health::SenderHealth;
use store::{Db, programs};

use self::options::Options;
use crate::output::{self, Table};
use crate::{sending, settings};

/// `leadmill program …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all programs
    List(Json),
    /// Create a program
    #[command(after_help = "\
Without a sender's address and a postal address leads are collected, enriched and planned, but nothing goes out: their
mails are held until both are there.

Examples:
  leadmill program create coffee
  leadmill program create coffee --organisation acme
  leadmill program create coffee --name 'Coffee Partners' --sender-name Ann --sender-email ann@example.com \\
    --postal-address '1 Main St, Springfield, IL 62701, USA' --niches coffee,food --threshold 75 \\
    --product 'A subscription for freshly roasted coffee; partners get 15 % of each sale.'")]
    Create(Create),
    /// Change a program; what isn't named stays as it is
    #[command(after_help = "\
A new threshold, sender, postal address or niches decide again about every lead: mails that are not out yet are queued, held or
cancelled accordingly. New niches also have every lead analysed again that no mail was sent to. If the command is
interrupted, a job finishes it. --dry-run says how many decisions would change, and changes nothing.
A paused program keeps its mails queued; --resume ends a pause and a rest, and what mail servers refused before doesn't
count any more. An empty text removes a value.

Examples:
  leadmill program set coffee --postal-address '1 Main St, Springfield, IL 62701, USA'
  leadmill program set coffee --threshold 80 --dry-run
  leadmill program set coffee --pause --reason 'a new domain on Monday'
  leadmill program set coffee --reply-to '' --daily-cap 0")]
    Set(set::Args),
    /// Show a program
    Show(Show),
    /// Keys for `POST /v1/leads`
    #[command(subcommand)]
    Key(key::Command),
}

/// How to print.
#[derive(Debug, clap::Args)]
pub struct Json {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `leadmill program create`
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The short name, for commands: lower-case letters, digits and `-`
    slug: Slug,
    /// The organisation that it belongs to, for good [default: one of its own]
    #[arg(long, value_name = "NAME")]
    organisation: Option<Slug>,
    #[command(flatten)]
    options: Options,
    /// Leave a program of this name that is there already as it is, and count that as done
    #[arg(long)]
    if_missing: bool,
    #[command(flatten)]
    output: Json,
}

/// `leadmill program show`
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The short name
    slug: Slug,
    #[command(flatten)]
    output: Json,
}

/// Does what was asked for.
pub async fn run(document: &Document, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(output) => list(document, output.json).await,
        Command::Create(args) => create(document, args).await,
        Command::Set(args) => set::run(document, args).await,
        Command::Show(args) => {
            let db = settings::connect(document).await?;
            show(&db, &find(&db, &args.slug).await?, args.output.json).await
        }
        Command::Key(command) => key::run(document, command).await,
    }
}

/// The program of that name.
async fn find(db: &Db, slug: &Slug) -> anyhow::Result<Program> {
    let found = db.transact("program.find", |tx, _| Box::pin(programs::by_slug(tx, slug))).await?;
    found.ok_or_else(|| settings::no_such_program(slug))
}

async fn list(document: &Document, as_json: bool) -> anyhow::Result<()> {
    let db = settings::connect(document).await?;
    let all = db.transact("program.list", |tx, _| Box::pin(programs::list(tx))).await?;
    let health: HashMap<ProgramId, SenderHealth> =
        sending::read(&db, None).await?.into_iter().map(|health| (health.program_id, health)).collect();
    if as_json {
        let organisations = db.transact("program.organisations", |tx, _| Box::pin(organisations::list(tx))).await?;
        let of = |program: &Program| {
            let slug = program.slug.as_str();
            organisations.iter().find(|organisation| organisation.programs.iter().any(|other| other == slug))
        };
        let values = all.iter().map(|program| {
            as_value(program, of(program).map(|organisation| organisation.slug.as_str()), health.get(&program.id))
        });
        return output::json(&values.collect::<Vec<_>>());
    }
    if all.is_empty() {
        output::note("There is no program yet; `leadmill program create NAME` makes one.");
        return Ok(());
    }
    let mut table = Table::new(["PROGRAM", "NAME", "SENDER", "THRESHOLD", "NICHES", "SENDS"]);
    for Program { id, slug, settings } in &all {
        let sender = settings.sender_email.as_ref().map_or("-", EmailAddress::as_str);
        let niches = if settings.niches.is_empty() { "all".to_owned() } else { settings.niches.join(",") };
        table.row([
            slug.to_string(),
            settings.name.clone(),
            sender.to_owned(),
            settings.threshold.to_string(),
            niches,
            sends(settings, health.get(id)),
        ]);
    }
    table.print()
}

async fn create(document: &Document, args: Create) -> anyhow::Result<()> {
    let vault = settings::vault(document)?;
    let db = settings::connect(document).await?;
    let empty = options::empty(&args.slug);
    let wanted = args.options.change_of(&empty)?.applied_to(&empty);
    let now = SystemClock.now();
    let created = match &args.organisation {
        None => programs::create(&db, &vault, &args.slug, &wanted, now).await,
        Some(slug) => {
            let found = organisations::open(&db, &vault, slug).await?;
            let organisation = found.ok_or_else(|| settings::no_such_organisation(slug))?;
            programs::create_in(&db, &vault, &organisation, &args.slug, &wanted, now).await
        }
    };
    let program = match created {
        Ok(open) => open.program,
        Err(error) if error.conflict().is_some() && args.if_missing => find(&db, &args.slug).await?,
        Err(error) if error.conflict().is_some() => {
            anyhow::bail!("there is a program `{}` already; `leadmill program set` changes it", args.slug)
        }
        Err(error) => return Err(error.into()),
    };
    show(&db, &program, args.output.json).await?;
    if !program.settings.can_send() && !args.output.json {
        output::note(format_args!(
            "Its mails will be held until it has a sender and a postal address:\n  leadmill program set {} \
             --sender-email ADDRESS --postal-address ADDRESS",
            program.slug
        ));
    }
    Ok(())
}

async fn show(db: &Db, program: &Program, as_json: bool) -> anyhow::Result<()> {
    let health = sending::read(db, Some(program.id)).await?.pop();
    let id = program.id;
    let organisation = db.transact("program.organisation", |tx, _| Box::pin(organisations::of_program(tx, id))).await?;
    let organisation = organisation.map(|organisation| organisation.slug.to_string());
    if as_json {
        return output::json(&as_value(program, organisation.as_deref(), health.as_ref()));
    }
    let Program { id, slug, settings } = program;
    let address = |address: &Option<EmailAddress>| {
        address.as_ref().map_or_else(|| "-".to_owned(), |address| address.as_str().to_owned())
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("program", slug.to_string()),
        ("id", id.to_string()),
        ("organisation", organisation.unwrap_or_else(|| "-".to_owned())),
        ("name", settings.name.clone()),
        ("sender name", settings.sender_name.clone()),
        ("sender address", address(&settings.sender_email)),
        ("reply to", address(&settings.reply_to)),
        ("postal address", text(&settings.postal_address)),
        ("privacy notice", text(&settings.privacy_url)),
        ("threshold", settings.threshold.to_string()),
        ("niches", if settings.niches.is_empty() { "all".to_owned() } else { settings.niches.join(", ") }),
        ("product", settings.product.clone()),
        ("lawful basis", settings.basis.name().to_owned()),
        ("daily cap", settings.daily_cap.map_or_else(|| "none".to_owned(), |cap| cap.to_string())),
        ("sends", sends(settings, health.as_ref())),
    ];
    for (label, value) in rows {
        output::line(format_args!("{label:<15} {}", output::printable(&value)))?;
    }
    Ok(())
}

/// Whether mails of a program go out, and if not, why.
fn sends(settings: &ProgramSettings, health: Option<&SenderHealth>) -> String {
    let stopped = health.and_then(sending::describe);
    stopped
        .unwrap_or_else(|| if settings.can_send() { "yes" } else { "no: sender or postal address missing" }.to_owned())
}

fn as_value(program: &Program, organisation: Option<&str>, health: Option<&SenderHealth>) -> Value {
    let Program { id, slug, settings } = program;
    let mut value = json!({
        "slug": slug.as_str(),
        "id": id,
        "organisation": organisation,
        "name": settings.name,
        "sender_name": settings.sender_name,
        "sender_email": settings.sender_email.as_ref().map(EmailAddress::as_str),
        "reply_to": settings.reply_to.as_ref().map(EmailAddress::as_str),
        "postal_address": settings.postal_address,
        "privacy_url": settings.privacy_url,
        "threshold": settings.threshold,
        "niches": settings.niches,
        "product": settings.product,
        "basis": settings.basis,
        "daily_cap": settings.daily_cap,
        "paused": settings.paused,
        "can_send": settings.can_send(),
    });
    if let (Value::Object(fields), Some(Value::Object(more))) = (&mut value, health.map(sending::as_value)) {
        fields.extend(more);
    }
    value
}
