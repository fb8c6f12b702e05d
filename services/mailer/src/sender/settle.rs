//! From what the transport says to what is written down.

use std::time::Duration;

use domain::event::TraceContext;
use retry::Policy;
use store::outreach::settle::{Outcome, Settlement};
use tokio::time::Instant;
use vault::Column;

use super::{Job, Sender};
use crate::transport::Reply;

/// Between two tries to settle a mail after an error that a repetition alone doesn't mend.
const AFTER_DEFECT: Policy = Policy { initial: Duration::from_millis(500), max: Duration::from_secs(15) };

/// The longest exponent of the backoff, so that it can't overflow.
const MAX_DOUBLINGS: i32 = 20;

/// A mail that waits through no fault of its own. `in_data` says whether the move to the data phase was committed: such a row
/// can't go back to the queue, only be deferred.
pub(super) fn again(reason: String, after: Duration, in_data: bool) -> Outcome {
    if in_data { Outcome::Postponed { reason, after } } else { Outcome::Returned { after } }
}

/// How long a mail waits after its `attempts`th attempt: doubling from `first` to `longest`, give or take a fifth.
pub(super) fn backoff(attempts: i32, first: Duration, longest: Duration) -> Duration {
    let doublings = (attempts - 1).clamp(0, MAX_DOUBLINGS);
    let nominal = first.saturating_mul(1 << doublings).min(longest);
    nominal.mul_f64(rand::random_range(0.8..=1.2))
}

impl Sender {
    /// Settles a job, and goes on trying for as long as the database is away: what is known about a mail must not get
    /// lost. If the process ends first, the lease runs out.
    pub(super) async fn settle(&self, job: &Job, outcome: Outcome, reply: Option<&Reply>) {
        let settlement = Settlement {
            program_id: job.claimed.program_id,
            id: job.claimed.id,
            lead_id: job.claimed.lead_id,
            token: job.claimed.token,
            outcome,
            reply_code: reply.and_then(|reply| i16::try_from(reply.code).ok()),
            reply: reply.map(|reply| {
                job.lead.lead.key.seal_row(Column::ServerReply, job.claimed.id.as_uuid(), reply.text.as_bytes())
            }),
        };
        self.settle_until_known(settlement, job.trace.clone()).await;
    }

    /// While the database is away, it is waited for. Any other error is a defect, which may lie in what surrounds the row
    /// and be mended: what a mail server has said about a mail is tried again, ever more seldom, until the mail's lease is
    /// certainly over. Where nothing has gone out, the end of the lease puts it right.
    pub(super) async fn settle_until_known(&self, settlement: Settlement, trace: TraceContext) {
        let mut waits = Policy::OUTAGE.start();
        let mut after_defect = AFTER_DEFECT.start();
        let lease_over = Instant::now() + self.longest_lease();
        let reached_server = reached_server(&settlement.outcome);
        loop {
            match self.inner.committer.settle(settlement.clone(), trace.clone()).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!(outreach.id = %settlement.id, "a mail was settled after its lease had gone to another");
                    return;
                }
                Err(error) if error.is_transient() => waits.pause().await,
                Err(error) => {
                    let gives_up = !reached_server || Instant::now() >= lease_over;
                    if gives_up || after_defect.is_news() {
                        let error = error.as_ref() as &dyn std::error::Error;
                        tracing::error!(outreach.id = %settlement.id, error, gives_up, "a mail could not be settled");
                    }
                    if gives_up {
                        return;
                    }
                    after_defect.pause().await;
                }
            }
        }
    }
}

/// Whether a mail was offered to a server: then only who offered it knows what came of it.
const fn reached_server(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Sent
        | Outcome::Deferred { .. }
        | Outcome::Postponed { .. }
        | Outcome::Failed { .. }
        | Outcome::Uncertain { .. } => true,
        Outcome::Captured(_) | Outcome::Returned { .. } | Outcome::Held { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_to_its_limit() {
        let (first, longest) = (Duration::from_mins(5), Duration::from_hours(6));
        for (attempts, minutes) in [(0, 5), (1, 5), (2, 10), (3, 20), (8, 360), (10_000, 360)] {
            let found = backoff(attempts, first, longest).as_secs_f64() / 60.0;
            let nominal = f64::from(minutes);
            assert!((0.8 * nominal..=1.2 * nominal).contains(&found), "{attempts}: {found}");
        }
    }

    #[test]
    fn a_mail_in_the_data_phase_never_goes_back_to_the_queue() {
        let (reason, wait) = ("account_limited:smtp_550_5.4.5", Duration::from_hours(1));
        assert!(matches!(again(reason.to_owned(), wait, false), Outcome::Returned { after } if after == wait));
        assert!(matches!(again(reason.to_owned(), wait, true), Outcome::Postponed { after, .. } if after == wait));
    }
}
