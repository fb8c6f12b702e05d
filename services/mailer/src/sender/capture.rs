//! The capturing transport: the complete mail is kept, sealed, and nothing leaves.

use std::{sync::Arc, time::Duration};

use domain::hold;
use futures_util::future::join_all;
use store::{
    captured,
    outreach::settle::{Outcome, Settlement},
};

use super::{Job, Sender, compose};

/// Composes, seals and settles a batch; its commits come together in the group commit.
pub(super) async fn capture(sender: &Sender, jobs: Vec<Job>) {
    let composer = Arc::clone(&sender.inner.parts.composer);
    let clock = Arc::clone(&sender.inner.parts.clock);
    // Rendering, compressing and sealing a few hundred mails takes tens of milliseconds: too long for an async thread.
    let composing = tokio::task::spawn_blocking(move || {
        jobs.into_iter()
            .map(|job| {
                let outcome = match compose(&composer, clock.as_ref(), &job) {
                    // Planned again by the next claim, for the address that the lead has now.
                    _ if !job.is_for_its_recipient() => Outcome::Returned { after: Duration::ZERO },
                    Ok(message) => {
                        Outcome::Captured(captured::seal(&job.lead.lead.key, job.claimed.id, &message.bytes))
                    }
                    Err(error) => {
                        tracing::error!(outreach.id = %job.claimed.id, error = &error as &dyn std::error::Error, "no mail can be made");
                        Outcome::Held { reason: hold::COMPOSE_FAILED.to_owned() }
                    }
                };
                let settlement = Settlement {
                    program_id: job.claimed.program_id,
                    id: job.claimed.id,
                    lead_id: job.claimed.lead_id,
                    token: job.claimed.token,
                    outcome,
                    reply_code: None,
                    reply: None,
                };
                (settlement, job.trace, job.slot)
            })
            .collect::<Vec<_>>()
    });
    let Ok(settlements) = composing.await else {
        tracing::error!("composing a batch panicked; its leases will run out");
        return;
    };
    sender.count("captured", settlements.len() as u64);
    let settling = settlements.into_iter().map(|(settlement, trace, slot)| async move {
        sender.settle_until_known(settlement, trace).await;
        drop(slot);
    });
    join_all(settling).await;
}
