//! The same rows, messages and mails as the pipeline makes per lead, and nothing else: no reading, no deciding, no sealing,
//! no waiting of one for another. What is left is what PostgreSQL, RabbitMQ and a mail sink can take on this machine.
//!
//! Everything that is written is made before the clock starts, or costs next to nothing: what would be sealed has the right
//! length and no meaning.

mod mails;
mod messages;
mod rows;

use std::time::{Duration, Instant};

use domain::id::ProgramId;

pub use self::{mails::MailSink, messages::Messages, rows::Rows};

use crate::{CeilingError, counters::Counters, postgres::Database};

/// How mails leave in the pipeline that is compared: it decides which rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// They are kept in the database.
    Capture,
    /// They are sent: three updates instead of a captured mail, and an event more.
    Smtp,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Leads.
    pub leads: u64,
    /// Mails to them, at most one for each.
    pub mails: u64,
    /// How these leave.
    pub transport: Transport,
}

impl Amount {
    /// Whether the lead of this number gets a mail: the mails are spread evenly.
    const fn has_mail(&self, lead: u64) -> bool {
        (lead + 1) * self.mails / self.leads > lead * self.mails / self.leads
    }

    /// Messages that are published.
    pub const fn messages(&self) -> u64 {
        match self.transport {
            Transport::Capture => 2 * self.leads,
            Transport::Smtp => 2 * self.leads + self.mails,
        }
    }
}

/// What all of it together took.
#[derive(Debug, Clone, Copy)]
pub struct Together {
    /// Leads.
    pub leads: u64,
    /// Until the last part was done.
    pub took: Duration,
    /// What PostgreSQL counted.
    pub counters: Counters,
    /// Messages published and confirmed, and consumed where somebody does.
    pub messages: u64,
}

impl Together {
    /// Leads a second.
    pub fn leads_per_second(&self) -> f64 {
        self.leads as f64 / self.took.as_secs_f64()
    }
}

/// What is measured: the parts that there are.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The database, which is written to as `program`.
    pub database: &'a Database,
    /// Whom the leads belong to.
    pub program: ProgramId,
    /// RabbitMQ.
    pub messages: &'a Messages,
    /// A mail sink, where mails are to leave.
    pub sink: Option<&'a MailSink>,
}

impl Parts<'_> {
    /// Everything at once.
    pub async fn together(&self, amount: Amount) -> Result<Together, CeilingError> {
        let before = self.database.counters().await?;
        let rows = Rows::prepare(self.program, amount);
        let started = Instant::now();
        let mailing = async {
            match (self.sink, amount.transport) {
                (Some(sink), Transport::Smtp) => sink.send(amount.mails).await,
                _ => Ok(Duration::ZERO),
            }
        };
        tokio::try_join!(rows.write(self.database), self.messages.pass(amount), mailing)?;
        let took = started.elapsed();
        self.database.wait_until_alone().await?;
        let counters = self.database.counters().await? - before;
        Ok(Together { leads: amount.leads, took, counters, messages: amount.messages() })
    }

    /// Only the intake of leads: their rows, and the messages that tell of them, which nobody consumes.
    pub async fn intake(&self, leads: u64) -> Result<Together, CeilingError> {
        let before = self.database.counters().await?;
        let rows = Rows::prepare_intake(self.program, leads);
        let started = Instant::now();
        tokio::try_join!(rows.write(self.database), self.messages.publish_created(leads))?;
        let took = started.elapsed();
        self.database.wait_until_alone().await?;
        let counters = self.database.counters().await? - before;
        Ok(Together { leads, took, counters, messages: leads })
    }

    /// The rows alone: how long they took.
    pub async fn rows(&self, amount: Amount) -> Result<Duration, CeilingError> {
        Rows::prepare(self.program, amount).write(self.database).await
    }

    /// The messages alone: how long it took until all were confirmed and consumed.
    pub async fn messages(&self, amount: Amount) -> Result<Duration, CeilingError> {
        self.messages.pass(amount).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mails_are_spread_evenly_and_none_is_lost() {
        for (leads, mails) in [(10, 10), (10, 0), (10, 3), (1_000, 357), (3, 2)] {
            let amount = Amount { leads, mails, transport: Transport::Capture };
            assert_eq!((0..leads).filter(|lead| amount.has_mail(*lead)).count() as u64, mails, "{mails} of {leads}");
        }
    }
}
