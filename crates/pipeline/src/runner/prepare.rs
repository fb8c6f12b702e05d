//! Preparing one delivery.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use retry::Policy;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Context,
    item::{Item, Verdict},
};
use crate::{
    error::chain,
    health::Part,
    stage::{Outcome, Stage},
};

/// Asks the stage. Waits while the database is away.
pub(super) async fn prepare<S: Stage>(context: Arc<Context<S>>, item: Item) -> Verdict<S::Prepared> {
    let Some(envelope) = item.envelope() else {
        return Verdict::Dead(item, "the event can't be decoded".to_owned());
    };
    let mut waits = Policy::OUTAGE.start();
    loop {
        let began = Instant::now();
        let asking = async { context.stage.prepare(envelope).await };
        let answer = AssertUnwindSafe(asking).catch_unwind().instrument(item.span().clone()).await;
        context.metrics.prepared(began.elapsed());
        return match answer {
            Ok(Outcome::Apply(prepared)) => Verdict::Apply(item, prepared),
            Ok(Outcome::Done(result)) => Verdict::Done(item, result),
            Ok(Outcome::RetryLater { after, reason }) => Verdict::Later(item, after, reason),
            Ok(Outcome::InProgress { after, reason }) => Verdict::InProgress(item, after, reason),
            Ok(Outcome::Reject { reason }) => Verdict::Dead(item, reason),
            Ok(Outcome::Failed(error)) if error.is_transient() => {
                context.health.missing(Part::Database, &chain(&*error));
                tokio::select! {
                    () = context.soft.cancelled() => Verdict::Left(item),
                    () = waits.pause() => continue,
                }
            }
            Ok(Outcome::Failed(error)) => {
                context.metrics.failed("prepare");
                let reason = chain(&*error);
                tracing::error!(parent: item.span(), stage = S::NAME, error = %reason, "preparing failed");
                Verdict::Failed(item, reason)
            }
            // What a panic says may quote personal data, so it stays out of headers and spans.
            Err(_) => {
                context.metrics.failed("prepare");
                tracing::error!(parent: item.span(), stage = S::NAME, "preparing panicked");
                Verdict::Failed(item, "the stage panicked while preparing it".to_owned())
            }
        };
    }
}
