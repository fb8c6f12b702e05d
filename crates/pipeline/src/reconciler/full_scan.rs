//! The nightly look at all leads, for what the ordinary scans can't see.

use std::time::Duration;

use domain::id::LeadId;
use store::{Db, programs, reconcile};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::SHARE;
use crate::jobs::{Completed, InvalidCron, Job, JobContext, JobError, Schedule, Stopped};

/// How many leads are looked at in one transaction.
const PAGE: i64 = 1_000;

/// The job that looks at all leads and lets those wait for an enrichment whose revision isn't enriched; the reconciler then
/// sees them. A version that doesn't know of waiting changes leads without saying so, which is why this runs once after an
/// upgrade and every night. It takes a small part of the time, so with millions of leads it goes on for minutes.
///
/// # Errors
/// When its schedule is no cron expression.
pub fn full_scan_job() -> Result<Job, InvalidCron> {
    let job = Job::new(
        "reconciler-full",
        "Checks for every lead whether it waits for an enrichment, also those that older versions changed",
        full_scan,
    );
    Ok(job.scheduled(Schedule::cron("41 2 * * *")?))
}

async fn full_scan(context: JobContext) -> Result<Completed, JobError> {
    let JobContext { db, cancel, progress } = context;
    let mut checked: u64 = 0;
    for program in db.transact("reconciler.programs", |tx, _| Box::pin(programs::ids(tx))).await? {
        let mut next = Some(LeadId::from_uuid(Uuid::nil()));
        while let Some(after) = next {
            let began = Instant::now();
            let page = check(&db, program, after).await?;
            checked += page.leads;
            progress.add(page.marked);
            next = page.next;
            let rest = began.elapsed() * (SHARE - 1);
            if cancel.run_until_cancelled(sleep(rest.min(LONGEST_REST))).await.is_none() {
                return Err(Stopped.into());
            }
        }
    }
    Ok(Completed { rows: progress.rows(), detail: Some(format!("{checked} leads checked")) })
}

/// No page is worth a longer rest, however slow PostgreSQL was.
const LONGEST_REST: Duration = Duration::from_secs(10);

async fn check(
    db: &Db,
    program: domain::id::ProgramId,
    after: LeadId,
) -> Result<reconcile::Checked, store::StoreError> {
    db.transact("reconciler.check", |tx, _| {
        Box::pin(async move { reconcile::check_waiting(tx, program, after, PAGE).await })
    })
    .await
}
