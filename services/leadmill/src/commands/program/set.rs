//! `leadmill program set`: writes what was named, and decides again about what depends on it.

use anyhow::bail;
use domain::clock::{Clock, SystemClock};
use domain::enrichment::Provider;
use domain::id::LeadId;
use domain::program::{Program, Slug};
use enricher::local::LocalAnalyser;
use serde_json::json;
use service::config::Document;
use store::Db;
use store::enrichments::{self, FoundEnriched};
use store::outreach::budget;
use store::outreach::reevaluate::{self, Turned};
use store::programs::{self, Change, Changed};
use store::reanalysis;
use store::sender_health;
use uuid::Uuid;

use super::{Json, options::Options, show};
use crate::output;
use crate::progress::Progress;
use crate::settings::{self, WrongUsage};

/// `leadmill program set`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The short name
    slug: Slug,
    #[command(flatten)]
    options: Options,
    /// Send nothing for now; mails stay queued
    #[arg(long, conflicts_with = "resume")]
    pause: bool,
    /// Why it is paused, for `program show` and `status`
    #[arg(long, value_name = "TEXT", requires = "pause", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Send again
    #[arg(long)]
    resume: bool,
    /// Change nothing; say how many decisions would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Json,
}

/// Changes the program, or says what the change would do.
pub async fn run(document: &Document, args: Args) -> anyhow::Result<()> {
    let db = settings::connect(document).await?;
    let slug = &args.slug;
    let found = db.transact("program.find", |tx, _| Box::pin(programs::by_slug_with_version(tx, slug))).await?;
    let Some((program, version)) = found else { return Err(settings::no_such_program(slug)) };
    let mut change = args.options.change_of(&program.settings)?;
    change.paused = if args.pause { Some(true) } else { args.resume.then_some(false) };
    if change.is_empty() {
        return Err(
            WrongUsage("nothing is named to be changed; `leadmill program set --help` lists it".to_owned()).into()
        );
    }
    if args.dry_run {
        return preview(document, &db, &program, &change, args.output.json).await;
    }
    let (before, change, now) = (&program, &change, SystemClock.now());
    // An automatic pause has a reason already; only a reason that a person gives replaces it.
    let pauses = args.pause && (args.reason.is_some() || !program.settings.paused);
    let (reason, resumes) = (args.reason.as_deref().unwrap_or("paused by hand"), args.resume);
    let changed = db
        .transact("program.set", |tx, _| {
            Box::pin(async move {
                let changed = programs::set(tx, before, version, change, now).await?;
                if matches!(changed, Changed::Done(_)) && pauses {
                    sender_health::explain_pause(tx, before.id, reason, now).await?;
                }
                if matches!(changed, Changed::Done(_)) && resumes {
                    sender_health::resume(tx, before.id, now).await?;
                }
                Ok(changed)
            })
        })
        .await?;
    let after = match changed {
        Changed::Done(after) => *after,
        Changed::Missing => return Err(settings::no_such_program(slug)),
        Changed::Conflict => bail!(
            "program `{slug}` was changed by somebody else at the same moment, or paused by itself; nothing was written: \
             look at `leadmill program show {slug}`, and try again"
        ),
    };
    if let Some(Some(limit)) = change.daily_cap {
        // Once more: a claim that was under way has taken no token.
        db.transact("program.count_day", |tx, _| Box::pin(budget::recount_day(tx, after.id, limit))).await?;
    }
    show(&db, &after, args.output.json).await?;
    let progress = Progress::new();
    let mut meter = progress.meter("decided", None);
    let turned = reevaluate::program(&db, after.id, |seen| meter.set(seen, "leads")).await?;
    meter.give_way(turned);
    let mut meter = progress.meter("analysed", None);
    let analysed = reanalysis::program(&db, after.id, SystemClock.now(), |count| meter.set(count, "leads")).await?;
    meter.give_way(analysed);
    if turned > 0 {
        output::note(format_args!("{turned} decisions about leads have changed with this."));
    }
    if analysed > 0 {
        output::note(format_args!("{analysed} leads are analysed again; `leadmill status` shows how far that is."));
    }
    Ok(())
}

async fn preview(
    document: &Document,
    db: &Db,
    program: &Program,
    change: &Change,
    as_json: bool,
) -> anyhow::Result<()> {
    let after = Program { settings: change.applied_to(&program.settings), ..program.clone() };
    let progress = Progress::new();
    let mut meter = progress.meter("decided", None);
    let (turned, analysed, unknown) = if change.touches_scores(&program.settings) {
        let preview = analyse(document, db, program, &after, |seen| meter.set(seen, "leads")).await?;
        (preview.turned, preview.analysed, preview.unknown)
    } else {
        (reevaluate::preview(db, program.id, &after.settings, |seen| meter.set(seen, "leads")).await?, 0, 0)
    };
    meter.give_way(turned.decided);
    if as_json {
        return output::json(&json!({
            "dry_run": true, "decided": turned.decided, "changed": turned.changed(), "to_planned": turned.to_planned,
            "to_held": turned.to_held, "to_declined": turned.to_declined, "analysed_again": analysed,
            "analysed_by_the_model": unknown,
        }));
    }
    output::line(format_args!("{} of {} decisions about leads would change:", turned.changed(), turned.decided))?;
    for (count, what) in [
        (turned.to_planned, "would get a mail"),
        (turned.to_held, "would be held"),
        (turned.to_declined, "would get no mail"),
    ] {
        output::line(format_args!("  {count:>9}  {what}"))?;
    }
    if analysed > 0 {
        output::line(format_args!("{analysed} leads would be analysed again"))?;
    }
    if unknown > 0 {
        output::line(format_args!(
            "  {unknown:>9}  of them by the model, which costs tokens; what it will say isn't known, so they aren't counted above"
        ))?;
    }
    output::line("Nothing was changed.")
}

/// What other niches would do.
#[derive(Debug, Default)]
struct Preview {
    turned: Turned,
    /// Leads that would be analysed again.
    analysed: u64,
    /// Those of them whose score only the model can say.
    unknown: u64,
}

/// Analyses every lead with the built-in analyser that it had analysed before, and decides with what comes of it.
async fn analyse(
    document: &Document,
    db: &Db,
    before: &Program,
    after: &Program,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Preview> {
    let vault = bootstrap::settings::vault(document)?;
    let analyser = LocalAnalyser::new();
    let mut preview = Preview::default();
    let mut last = LeadId::from_uuid(Uuid::nil());
    loop {
        let ids =
            db.transact("program.preview", |tx, _| Box::pin(reevaluate::decided_after(tx, before.id, last))).await?;
        let found = enrichments::open(db, &vault, &ids).await?;
        for lead in found.into_values() {
            let FoundEnriched::Enriched(mut lead) = lead else { continue };
            if lead.sent {
                continue;
            }
            let decided = mailer::plan::decide(&lead, before);
            preview.analysed += 1;
            if lead.enrichment.provider == Provider::Model {
                preview.unknown += 1;
                continue;
            }
            lead.enrichment = analyser.analyse(&lead.lead.lead, after);
            preview.turned.add(&decided, &mailer::plan::decide(&lead, after));
        }
        progress(preview.turned.decided);
        match ids.last() {
            Some((_, id)) => last = *id,
            None => return Ok(preview),
        }
    }
}
