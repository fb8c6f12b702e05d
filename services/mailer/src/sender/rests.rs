//! Which programs this process must not send for at the moment.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::id::ProgramId;

/// For so long at most: until the mails that were in hand are back in the queue. A person may end a rest or a pause at any moment,
/// and this process doesn't hear of it.
const LONGEST: Duration = Duration::from_secs(5);

/// The programs that began to rest or were paused a moment ago, as this process learnt it from the mail server's replies.
///
/// The database has the last word: nothing is claimed of a resting or paused program. This is for the mails that were claimed
/// before, which would go to a server that refuses them.
#[derive(Debug, Default)]
pub(super) struct Rests {
    until: Mutex<HashMap<ProgramId, Instant>>,
}

impl Rests {
    /// Keeps this process from sending for a program for so long, and a few seconds at most.
    pub(super) fn begin(&self, program: ProgramId, length: Duration) {
        let now = Instant::now();
        let mut rests = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        rests.retain(|_, until| *until > now);
        rests.insert(program, now + length.min(LONGEST));
    }

    /// How much longer; `None` when it may send.
    pub(super) fn remaining(&self, program: ProgramId) -> Option<Duration> {
        let rests = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let remaining = rests.get(&program)?.saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then_some(remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_ends_by_itself_and_concerns_its_program_alone() {
        let rests = Rests::default();
        let (one, other) = (ProgramId::generate(), ProgramId::generate());
        rests.begin(one, Duration::from_hours(1));
        assert!(rests.remaining(one).is_some_and(|remaining| remaining <= LONGEST) && rests.remaining(other).is_none());
        rests.begin(one, Duration::ZERO);
        assert_eq!(rests.remaining(one), None);
    }
}
