//! `leadmill suppress`: nobody writes to somebody any more.

use clap::ValueEnum;
use domain::id::CauseId;
use domain::suppression::{Cause, Subject};
use serde_json::json;
use service::config::Document;
use store::suppressions::{self, NewCause};
use vault::Column;

use super::suppressions::scope::{self, OpenScope, ScopeArgs};
use crate::output;
use crate::progress::Progress;
use crate::settings::WrongUsage;

/// The most characters of a reason.
const REASON_CHARS: usize = 1_000;

/// `leadmill suppress`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
An address is written as it is, a user name with `@` in front, a domain without. `*.example.com` covers every domain below
example.com, and not example.com itself. Mails that are not out yet are cancelled, leads that are covered are not analysed any
more, and those that are collected later are covered too. Only a keyed hash is stored, with your reason (encrypted) and the
name of your account on this machine.

Causes are separate: `leadmill suppressions lift` takes one away and leaves the others. With --cause objection it takes the
person's new consent to end it.

Examples:
  leadmill suppress ann@example.com --reason 'is a friend of the founder'
  leadmill suppress ann@example.com --cause objection --reason 'wrote a letter on 3 May' --organisation acme
  leadmill suppress @ann.bakes --program coffee --reason 'under contract'
  leadmill suppress '*.example.com' --organisation acme --reason 'our own shops'")]
pub struct Args {
    /// An address, a user name with `@` in front, a domain, or `*.` and a domain
    #[arg(value_name = "ADDRESS|HANDLE|DOMAIN", value_parser = scope::subject)]
    subject: Subject,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why, in your own words; stored encrypted
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The cause
    #[arg(long, value_enum, default_value_t = CauseChoice::Manual)]
    cause: CauseChoice,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a person can record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CauseChoice {
    /// You decided it
    Manual,
    /// The person objected, on the phone or by letter
    Objection,
    /// The person complained
    Complaint,
}

/// Does what was asked for.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let reason = args.reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS {
        return Err(WrongUsage(format!("--reason: expected 1 to {REASON_CHARS} characters")).into());
    }
    let is_domain = matches!(args.subject, Subject::Domain(_));
    let cause = match args.cause {
        CauseChoice::Manual => Cause::Manual,
        CauseChoice::Objection => Cause::Objection,
        CauseChoice::Complaint => Cause::Complaint,
    };
    if is_domain && cause != Cause::Manual {
        return Err(
            WrongUsage("--cause: a person objects or complains, not a domain; name the address".to_owned()).into()
        );
    }
    let by = scope::person()?;
    let open = OpenScope::open(document, args.scope).await?;
    let progress = Progress::new();
    if is_domain {
        open.hash_domains(&progress).await?;
    }
    let id = CauseId::generate();
    let causes = [NewCause {
        id,
        subject: open.hash(&args.subject),
        cause,
        evidence: Some(open.sealing.seal_row(Column::SuppressionEvidence, id.as_uuid(), reason.as_bytes())),
    }];
    let mut meter = progress.meter("suppressed", None);
    let (mut added, mut recipients) = (0, 0);
    loop {
        let (scope, causes, by) = (open.scope, causes.as_slice(), by.as_str());
        let recorded = open
            .db
            .transact("suppressions.record", |tx, _| Box::pin(suppressions::record(tx, scope, causes, by)))
            .await?;
        suppressions::cancel(&open.db, &recorded.suppressed).await?;
        added += recorded.added;
        recipients += recorded.suppressed.len();
        meter.set(recipients as u64, "recipients");
        if !recorded.unfinished {
            break;
        }
    }
    drop(meter);
    if args.json {
        return output::json(&json!({
            "kind": args.subject.kind().name(),
            "cause": cause.name(),
            "scope": open.label,
            "added": added == 1,
            "recipients": recipients,
        }));
    }
    let what = scope::describe(&args.subject);
    if added == 0 {
        return output::line(format_args!("{what} is suppressed for {} by this cause already", open.label));
    }
    output::line(format_args!(
        "suppressed for {}: {what} ({recipients} {} newly covered; unsent mails are cancelled)",
        open.label,
        if recipients == 1 { "recipient" } else { "recipients" }
    ))
}
