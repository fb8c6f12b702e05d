//! `leadmill mail release`: captured and held mails, on their way.

use anyhow::bail;
use service::config::Document;
use store::outreach::release::{self, Filter, Released};

use super::{Whose, find};
use crate::output;
use crate::progress::Progress;

/// Releases the mails and says what became of them.
///
/// # Errors
/// When a mail was named that there isn't, or that can't be released; the others are released all the same.
pub async fn run(document: &Document, whose: Whose, filter: &Filter, as_json: bool) -> anyhow::Result<()> {
    let (db, program) = find(document, whose).await?;
    let progress = Progress::new();
    let mut meter = progress.meter("released", None);
    let released = release::release(&db, program, filter, |count| meter.set(count, "mails")).await?;
    meter.give_way(released.queued);
    if as_json {
        output::json(&serde_json::json!({
            "queued": released.queued,
            "requeued": released.queued,
            "cancelled": released.cancelled,
            "held": released.held,
            "not_releasable": released.others.iter().map(|(id, state)| serde_json::json!({ "id": id, "state": state }))
                .collect::<Vec<_>>(),
            "unknown": released.unknown,
        }))?;
    } else {
        say(&released)?;
    }
    match (released.unknown.first(), released.others.first()) {
        (Some(id), _) => bail!(
            "{} of the ids are no mail of this program, such as {id}; `leadmill mail list` shows them",
            released.unknown.len()
        ),
        (None, Some((id, state))) => bail!(
            "{} of the mails can't be released, such as {id}, which is {state}: only captured and held mails can",
            released.others.len()
        ),
        (None, None) => Ok(()),
    }
}

fn say(released: &Released) -> anyhow::Result<()> {
    let found = released.queued + released.cancelled + released.held.values().sum::<u64>();
    if found == 0 && released.others.is_empty() && released.unknown.is_empty() {
        return output::line(
            "there was no such mail; `leadmill mail list` shows the captured ones, `leadmill mail list --state held` why the others \
             are held",
        );
    }
    output::line(format_args!("mails queued now: {}", released.queued))?;
    if released.cancelled > 0 {
        output::line(format_args!(
            "cancelled instead: {}; who they were for has unsubscribed, bounced, been erased, or doesn't qualify any more",
            released.cancelled
        ))?;
    }
    for (reason, count) in &released.held {
        let way_out = domain::hold::way_out(reason).describe();
        output::line(format_args!("still held: {count}, {} ({way_out})", output::printable(reason)))?;
    }
    Ok(())
}
