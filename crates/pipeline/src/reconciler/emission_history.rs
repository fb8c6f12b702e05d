//! What was emitted before, and when.

use std::{collections::HashMap, time::Duration};

use domain::{
    event::{Event, Outgoing},
    id::LeadId,
};
use tokio::time::Instant;

/// The longest time between two emissions of the same.
const LONGEST: Duration = Duration::from_hours(24);
/// How many leads are remembered: a few megabytes. Beyond that all is forgotten, at the price of emitting too often.
const CAPACITY: usize = 50_000;

/// What was emitted, so that an event which nobody can handle is emitted with backoff. A process that starts with an empty
/// history does no harm: it only begins the backoff anew.
#[derive(Debug, Default)]
pub(super) struct EmissionHistory(HashMap<LeadId, Emission>);

#[derive(Debug)]
struct Emission {
    what: (i32, i32),
    at: Instant,
    times: u32,
}

impl Emission {
    fn wait(&self, again_after: Duration) -> Duration {
        again_after.saturating_mul(1 << (self.times - 1).min(16)).min(LONGEST)
    }
}

impl EmissionHistory {
    /// Those that weren't emitted lately.
    pub(super) fn unknown(&self, mut lost: Vec<Outgoing>, again_after: Duration) -> Vec<Outgoing> {
        lost.retain(|outgoing| {
            self.0.get(&outgoing.envelope.lead_id).is_none_or(|emission| {
                emission.what != what(outgoing) || emission.at.elapsed() >= emission.wait(again_after)
            })
        });
        lost
    }

    /// These were emitted now.
    pub(super) fn emitted(&mut self, events: &[Outgoing]) {
        if self.0.len() + events.len() > CAPACITY {
            self.0.clear();
        }
        for event in events {
            let what = what(event);
            let emission =
                self.0.entry(event.envelope.lead_id).or_insert_with(|| Emission { what, at: Instant::now(), times: 0 });
            if emission.what != what {
                *emission = Emission { what, at: Instant::now(), times: 0 };
            }
            emission.at = Instant::now();
            emission.times += 1;
        }
    }

    /// Forgets those that could have been emitted again long ago and weren't: they were handled.
    pub(super) fn prune(&mut self, again_after: Duration) {
        self.0.retain(|_, emission| emission.at.elapsed() < emission.wait(again_after) * 2);
    }
}

/// What a lead waits for: an enrichment of a revision, or a decision about an enrichment.
const fn what(outgoing: &Outgoing) -> (i32, i32) {
    match outgoing.envelope.event {
        Event::LeadEnriched { enrichment_version, .. } => (outgoing.envelope.revision, enrichment_version),
        _ => (outgoing.envelope.revision, 0),
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        event::{Envelope, Queue, Route, TraceContext},
        id::ProgramId,
    };
    use time::OffsetDateTime;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn event(lead: LeadId, revision: i32) -> Outgoing {
        let envelope =
            Envelope::new(ProgramId::generate(), lead, revision, OffsetDateTime::UNIX_EPOCH, Event::LeadCreated {});
        Outgoing { envelope, route: Route::Queue(Queue::LeadCreated), trace: TraceContext::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_emitted_ever_more_seldom() {
        let mut history = EmissionHistory::default();
        let lead = LeadId::generate();
        let is_due = |history: &EmissionHistory| !history.unknown(vec![event(lead, 1)], HOUR).is_empty();
        assert!(is_due(&history));
        history.emitted(&[event(lead, 1)]);
        assert!(!is_due(&history));
        tokio::time::advance(HOUR).await;
        assert!(is_due(&history));
        history.emitted(&[event(lead, 1)]);
        tokio::time::advance(HOUR).await;
        assert!(!is_due(&history));
        tokio::time::advance(HOUR).await;
        assert!(is_due(&history));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_revision_isnt_the_same() {
        let mut history = EmissionHistory::default();
        let lead = LeadId::generate();
        history.emitted(&[event(lead, 1)]);
        assert_eq!(history.unknown(vec![event(lead, 2)], HOUR).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_handled_is_forgotten() {
        let mut history = EmissionHistory::default();
        history.emitted(&[event(LeadId::generate(), 1)]);
        history.prune(HOUR);
        assert_eq!(history.0.len(), 1);
        tokio::time::advance(HOUR * 2).await;
        history.prune(HOUR);
        assert!(history.0.is_empty());
    }
}
