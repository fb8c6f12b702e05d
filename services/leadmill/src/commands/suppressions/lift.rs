//! `leadmill suppressions lift`: one cause ends, the others stand.

use anyhow::bail;
use domain::id::LiftId;
use domain::suppression::{Cause, Subject};
use serde_json::json;
use service::config::Document;
use store::leads::{self, Found};
use store::suppressions::{self, Evidence, Filter, Lift, Lifted};
use vault::Column;

use super::CAUSES;
use super::scope::{self, OpenScope, ScopeArgs};
use crate::output;
use crate::settings::WrongUsage;

/// The most characters of a source or a wording.
const EVIDENCE_CHARS: usize = 4_000;

/// `leadmill suppressions lift`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An address, a user name with `@` in front, a domain, or `*.` and a domain
    #[arg(value_name = "ADDRESS|HANDLE|DOMAIN", value_parser = scope::subject)]
    subject: Subject,
    #[command(flatten)]
    scope: ScopeArgs,
    /// The cause that ends
    #[arg(long, value_parser = CAUSES)]
    cause: String,
    /// Where and when the person gave a new consent; an objection takes one
    #[arg(long, value_name = "TEXT", requires = "evidence_wording")]
    evidence_source: Option<String>,
    /// What exactly the person agreed to
    #[arg(long, value_name = "TEXT", requires = "evidence_source")]
    evidence_wording: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let consent = consent(args.evidence_source, args.evidence_wording)?;
    let by = scope::person()?;
    let open = OpenScope::open(document, args.scope).await?;
    let subject = open.hash(&args.subject);
    let what = scope::describe(&args.subject);
    let filter = Filter { scope: Some(open.scope), subject: Some(subject.index), ..Filter::default() };
    let filter = &filter;
    let stored =
        open.db.transact("suppressions.find", |tx, _| Box::pin(suppressions::page(tx, filter, None, 100))).await?;
    let in_scope = |program: bool| program == open.scope.program.is_some();
    let found = stored.iter().find(|cause| cause.cause.name() == args.cause && in_scope(cause.program.is_some()));
    let Some(cause) = found.map(|stored| stored.cause) else {
        let others: Vec<String> =
            stored.iter().map(|cause| format!("{} ({})", cause.cause.name(), super::scope_of(cause))).collect();
        let others =
            if others.is_empty() { "nothing does".to_owned() } else { format!("what does: {}", others.join(", ")) };
        bail!("{} does not stand against {what} for {}; {others}", args.cause, open.label);
    };
    if cause.needs_consent() && consent.is_none() {
        bail!("{}", needs_consent(cause));
    }
    let id = LiftId::generate();
    let evidence = match consent {
        Some(text) => Some(seal(&open, &args.subject, id, &text).await?),
        None => None,
    };
    let lift = Lift { id, scope: open.scope, subject, cause, evidence, by };
    let lift = &lift;
    let lifted = open.db.transact("suppressions.lift", |tx, _| Box::pin(suppressions::lift(tx, lift))).await?;
    let (covered, others) = match lifted {
        Lifted::Done { subject, others } => (subject, others),
        Lifted::NeedsConsent => bail!("{}", needs_consent(cause)),
        Lifted::NotThere { .. } => bail!("somebody else has lifted it at the same moment"),
    };
    let leads = suppressions::decide_again(&open.db, open.scope.organisation, id, &covered).await?;
    let others: Vec<&str> = others.iter().map(|cause| cause.name()).collect();
    if args.json {
        return output::json(&json!({ "lifted": cause.name(), "scope": open.label, "others": others, "leads": leads }));
    }
    output::line(format_args!("{} no longer stands against {what} for {}", cause.name(), open.label))?;
    if others.is_empty() {
        output::line(format_args!("{leads} {} decided about again", if leads == 1 { "lead is" } else { "leads are" }))
    } else {
        output::line(format_args!("still suppressed by {}", others.join(", ")))
    }
}

fn needs_consent(cause: Cause) -> String {
    format!(
        "{} ends only by the person's new consent: name it with --evidence-source (where and when it was given) and \
         --evidence-wording (what exactly was agreed to)",
        if cause == Cause::Erased { "what remains of an erased person" } else { "an objection" }
    )
}

/// The consent as it is sealed.
fn consent(source: Option<String>, wording: Option<String>) -> anyhow::Result<Option<String>> {
    let (Some(source), Some(wording)) = (source, wording) else { return Ok(None) };
    for (option, text) in [("--evidence-source", &source), ("--evidence-wording", &wording)] {
        if text.trim().is_empty() || text.chars().count() > EVIDENCE_CHARS {
            return Err(WrongUsage(format!("{option}: expected 1 to {EVIDENCE_CHARS} characters")).into());
        }
    }
    Ok(Some(json!({ "source": source, "wording": wording }).to_string()))
}

/// Seals a consent under the key of a lead of that person, or where there is none, of the program or organisation.
async fn seal(open: &OpenScope, subject: &Subject, id: LiftId, text: &str) -> anyhow::Result<Evidence> {
    let row = id.as_uuid();
    if !matches!(subject, Subject::Domain(_)) {
        let (scope, index) = (open.scope, open.hash(subject));
        let ids =
            open.db.transact("suppressions.leads", |tx, _| Box::pin(suppressions::leads_of(tx, scope, index))).await?;
        let found = leads::open(&open.db, &open.vault, &ids).await?;
        for id in &ids {
            if let Some(Found::Lead(lead)) = found.get(id) {
                let sealed = lead.key.seal_row(Column::LiftEvidence, row, text.as_bytes());
                return Ok(Evidence { sealed, lead: Some(*id) });
            }
        }
    }
    Ok(Evidence { sealed: open.sealing.seal_row(Column::LiftEvidence, row, text.as_bytes()), lead: None })
}
