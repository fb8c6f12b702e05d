//! `leadmill organisation`: the controllers above programs.

use anyhow::bail;
use clap::Subcommand;
use domain::clock::{Clock, SystemClock};
use domain::program::Slug;
use serde_json::{Value, json};
use service::config::Document;
use store::organisations::{self, Organisation};
use time::format_description::well_known::Rfc3339;

use crate::output::{self, Table};
use crate::settings;

/// `leadmill organisation …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all organisations, with their programs
    List(Json),
    /// Create an organisation
    #[command(after_help = "\
An organisation is who decides why and how personal data is used (the controller of GDPR Art. 4). Its programs share its
suppressions: what is suppressed for the organisation is suppressed in each of them, also in those that come later. A program
that names no organisation gets one of its own, and a program stays in the organisation that it was created in.

Examples:
  leadmill organisation create acme --name 'Acme Ltd'
  leadmill program create coffee --organisation acme
  leadmill suppress ann@example.com --organisation acme --reason 'asked us on the phone'")]
    Create(Create),
    /// Show an organisation
    Show(Show),
}

/// How to print.
#[derive(Debug, clap::Args)]
pub struct Json {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `leadmill organisation create`
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The short name, for commands: lower-case letters, digits and `-`
    slug: Slug,
    /// The name [default: the short name]
    #[arg(long)]
    name: Option<String>,
    /// Leave an organisation of this name that is there already as it is, and count that as done
    #[arg(long)]
    if_missing: bool,
    #[command(flatten)]
    output: Json,
}

/// `leadmill organisation show`
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
        Command::Show(args) => {
            let db = settings::connect(document).await?;
            let slug = &args.slug;
            let found = db.transact("organisation.find", |tx, _| Box::pin(organisations::by_slug(tx, slug))).await?;
            show(&found.ok_or_else(|| settings::no_such_organisation(slug))?, args.output.json)
        }
    }
}

async fn list(document: &Document, as_json: bool) -> anyhow::Result<()> {
    let db = settings::connect(document).await?;
    let all = db.transact("organisation.list", |tx, _| Box::pin(organisations::list(tx))).await?;
    if as_json {
        return output::json(&all.iter().map(as_value).collect::<Vec<_>>());
    }
    if all.is_empty() {
        output::note(
            "There is no organisation yet; `leadmill program create NAME` makes a program with one of its own.",
        );
        return Ok(());
    }
    let mut table = Table::new(["ORGANISATION", "NAME", "PROGRAMS"]);
    for organisation in &all {
        table.row([organisation.slug.to_string(), organisation.name.clone(), programs(organisation)]);
    }
    table.print()
}

async fn create(document: &Document, args: Create) -> anyhow::Result<()> {
    let vault = settings::vault(document)?;
    let db = settings::connect(document).await?;
    let slug = &args.slug;
    let name = args.name.unwrap_or_else(|| slug.to_string());
    if name.trim().is_empty() {
        return Err(settings::WrongUsage("--name: an organisation has to have a name".to_owned()).into());
    }
    let organisation = match organisations::create(&db, &vault, slug, &name, SystemClock.now()).await {
        Ok(organisation) => organisation,
        Err(error) if error.conflict().is_some() && args.if_missing => {
            let found = db.transact("organisation.find", |tx, _| Box::pin(organisations::by_slug(tx, slug))).await?;
            found.ok_or_else(|| settings::no_such_organisation(slug))?
        }
        Err(error) if error.conflict().is_some() => bail!(
            "there is an organisation `{slug}` already: take another short name (each program that was created without \
             --organisation has one of its own name)"
        ),
        Err(error) => return Err(error.into()),
    };
    show(&organisation, args.output.json)
}

fn show(organisation: &Organisation, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(&as_value(organisation));
    }
    for (label, value) in [
        ("organisation", organisation.slug.to_string()),
        ("id", organisation.id.to_string()),
        ("name", organisation.name.clone()),
        ("created", organisation.created_at.format(&Rfc3339)?),
        ("programs", programs(organisation)),
    ] {
        output::line(format_args!("{label:<15} {}", output::printable(&value)))?;
    }
    Ok(())
}

fn programs(organisation: &Organisation) -> String {
    if organisation.programs.is_empty() { "none".to_owned() } else { organisation.programs.join(", ") }
}

fn as_value(organisation: &Organisation) -> Value {
    json!({
        "slug": organisation.slug.as_str(),
        "id": organisation.id,
        "name": organisation.name,
        "created_at": organisation.created_at.format(&Rfc3339).ok(),
        "programs": organisation.programs,
    })
}
