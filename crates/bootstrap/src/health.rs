//! The readiness checks of what the services of one process share.

use pipeline::{Health, Part};
use service::readiness::{Readiness, ReadinessHandle};

/// The checks of the database and of publishing, registered once per process.
#[derive(Debug, Clone)]
pub struct Surroundings {
    database: ReadinessHandle,
    publishing: ReadinessHandle,
}

impl Surroundings {
    /// Registers both.
    pub fn new(readiness: &Readiness) -> Self {
        Self {
            database: readiness.register(Part::Database.name()),
            publishing: readiness.register(Part::Publishing.name()),
        }
    }

    /// Says why PostgreSQL doesn't let this program in.
    pub(crate) fn database_is_away(&self, reason: &str) {
        self.database.set_not_ready(reason);
    }

    /// For one user of the pipeline; who consumes has a check of its own for that.
    pub fn health(&self, consuming: Option<ReadinessHandle>) -> Health {
        let Self { database, publishing } = self.clone();
        Health::new(move |part, state| {
            let check = match part {
                Part::Database => Some(&database),
                Part::Publishing => Some(&publishing),
                Part::Consuming => consuming.as_ref(),
            };
            match (check, state) {
                (Some(check), Ok(())) => check.set_ready(),
                (Some(check), Err(reason)) => check.set_not_ready(reason),
                (None, _) => {}
            }
        })
    }
}
