//! Every job of the installation. Each process can run each of them; a lease decides which one does.

use broker::Admin;
use pipeline::{
    Outbox, ReconcilerConfig,
    jobs::{CatchUp, InvalidCron, Job, Schedule},
    reconciler,
};

/// What bodies need apart from the database.
pub struct JobParts {
    /// For events.
    pub outbox: Outbox,
    /// For looking at the queues.
    pub admin: Admin,
    /// How eagerly lost messages are looked for.
    pub reconciler: ReconcilerConfig,
}

/// The jobs. How to add one is said at [`pipeline::jobs`].
///
/// # Errors
/// When a schedule is no cron expression, which is a defect of this list.
pub fn catalogue(parts: JobParts) -> Result<Vec<Job>, InvalidCron> {
    let JobParts { outbox, admin, reconciler } = parts;
    Ok(vec![
        reconciler::job(reconciler, outbox, admin),
        reconciler::full_scan_job()?,
        Job::of_rows("job-history", "Deletes records of job runs that nobody needs any more", store::jobs::prune)
            .scheduled(Schedule::cron("17 4 * * *")?)
            .catching_up(CatchUp::Skip),
    ])
}
