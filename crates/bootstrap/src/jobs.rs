//! Every job of the installation. Each process can run each of them; a lease decides which one does.

use std::time::Duration;

use broker::Admin;
use pipeline::{
    Outbox, ReconcilerConfig,
    jobs::{CatchUp, Completed, InvalidCron, Job, JobContext, JobError, Schedule},
    reconciler,
};
use store::{outreach::reevaluate, suppressions};
use vault::Vault;

/// How often mails are looked after. What waits for these jobs waits for an exception: the events do the rest at once.
const UPKEEP: Duration = Duration::from_secs(30);

/// What bodies need apart from the database.
pub struct JobParts {
    /// For events.
    pub outbox: Outbox,
    /// For looking at the queues.
    pub admin: Admin,
    /// How eagerly lost messages are looked for.
    pub reconciler: ReconcilerConfig,
    /// For what is sealed; without it the jobs that open leads fail.
    pub vault: Option<Vault>,
}

/// The jobs. How to add one is said at [`pipeline::jobs`].
///
/// # Errors
/// When a schedule is no cron expression, which is a defect of this list.
pub fn catalogue(parts: JobParts) -> Result<Vec<Job>, InvalidCron> {
    let JobParts { outbox, admin, reconciler, vault } = parts;
    Ok(vec![
        reconciler::job(reconciler, outbox, admin),
        reconciler::full_scan_job()?,
        Job::of_rows(
            "decide-again",
            "Decides again about leads, or has them analysed again, after a change of a program's settings or the law's rules",
            reevaluate::all_programs,
        )
        .scheduled(Schedule::every(UPKEEP)),
        Job::of_rows("held-mails", "Looks whether held mails can be released", reevaluate::all_held)
            .scheduled(Schedule::every(UPKEEP)),
        Job::of_rows(
            "suppressed-mails",
            "Cancels unsent mails to suppressed recipients that were planned while these objected",
            suppressions::apply_all,
        )
        .scheduled(Schedule::every(UPKEEP)),
        Job::of_rows(
            "suppressed-leads",
            "Suppresses leads by user name and domain, and decides again about leads whose suppression was lifted",
            suppressions::apply_causes,
        )
        .scheduled(Schedule::every(UPKEEP)),
        Job::new("lead-domains", "Hashes the domains of addresses that an older release has stored", move |context| {
            hash_domains(context, vault.clone())
        })
        .scheduled(Schedule::every(UPKEEP)),
        Job::of_rows("job-history", "Deletes records of job runs that nobody needs any more", store::jobs::prune)
            .scheduled(Schedule::cron("17 4 * * *")?)
            .catching_up(CatchUp::Skip),
    ])
}

async fn hash_domains(context: JobContext, vault: Option<Vault>) -> Result<Completed, JobError> {
    let vault = vault.ok_or("no master key is configured: set vault.master_key")?;
    let mut seen = 0;
    let hashed = suppressions::hash_domains(&context.db, &vault, None, |count| {
        context.progress.add(count - seen);
        seen = count;
    })
    .await?;
    let skipped = hashed.skipped;
    let detail = (skipped > 0).then(|| format!("{skipped} leads can't be opened and were skipped"));
    Ok(Completed { rows: hashed.leads + skipped, detail })
}
