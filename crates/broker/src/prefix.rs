//! Which deliveries of a channel can be acknowledged.
//!
//! Acknowledging one by one costs a frame each, so acknowledgements are gathered: `basic.ack` with `multiple` covers
//! every delivery up to a tag. It must never cover one whose effect isn't committed, hence the *prefix*: the deliveries
//! from the oldest on, without a gap, that are all finished.

use std::collections::VecDeque;

/// What to send to RabbitMQ now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// Acknowledge everything up to this tag, with `multiple`.
    pub multiple: Option<u64>,
    /// Acknowledge each of these alone.
    pub singles: Vec<u64>,
}

impl Acks {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.multiple.is_none() && self.singles.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Handed out; nothing known yet.
    Open,
    /// Its effect is committed; RabbitMQ doesn't know yet.
    Settled,
    /// RabbitMQ knows: requeued, or acknowledged alone.
    Done,
}

/// Follows the deliveries of one channel. Delivery tags count from 1 on each channel (AMQP 0-9-1, 1.8.3.12), so a new
/// channel needs a new tracker.
#[derive(Debug)]
pub struct PrefixTracker {
    /// The tag of `states[0]`.
    base: u64,
    states: VecDeque<State>,
    open: usize,
    settled: usize,
    stranded_limit: usize,
}

impl PrefixTracker {
    /// A tracker for a fresh channel. When more than `stranded_limit` settled deliveries wait behind an open one, they
    /// are acknowledged alone: else a single slow delivery would fill the prefetch window and stop the queue.
    pub fn new(stranded_limit: usize) -> Self {
        Self { base: 1, states: VecDeque::new(), open: 0, settled: 0, stranded_limit }
    }

    /// Takes note of a delivery. Tags come in order; should one be left out, it stays open and is never acknowledged.
    pub fn delivered(&mut self, tag: u64) {
        while self.base + (self.states.len() as u64) <= tag {
            self.states.push_back(State::Open);
            self.open += 1;
        }
    }

    /// The delivery's effect is committed. False if that, or its release, was known already or the tag is unknown.
    pub fn settle(&mut self, tag: u64) -> bool {
        let changed = self.leave_open(tag, State::Settled);
        self.settled += usize::from(changed);
        changed
    }

    /// The delivery goes back to the queue. False if it was finished already or the tag is unknown; if true, the caller
    /// sends the `basic.nack`.
    pub fn release(&mut self, tag: u64) -> bool {
        self.leave_open(tag, State::Done)
    }

    /// Takes what can be acknowledged now; it is the caller's to send.
    pub fn take_acks(&mut self) -> Acks {
        let mut acks = Acks::default();
        while let Some(state) = self.states.front().filter(|state| **state != State::Open) {
            if *state == State::Settled {
                // Only a tag that RabbitMQ still counts as unacknowledged may be named: given one that was already
                // requeued, it searches on past it, acknowledges everything, and closes the channel.
                acks.multiple = Some(self.base);
                self.settled -= 1;
            }
            self.states.pop_front();
            self.base += 1;
        }
        if self.settled > self.stranded_limit {
            for (tag, state) in (self.base..).zip(self.states.iter_mut()) {
                if *state == State::Settled {
                    *state = State::Done;
                    acks.singles.push(tag);
                }
            }
            self.settled = 0;
        }
        acks
    }

    /// How many deliveries are neither settled nor released.
    pub const fn open(&self) -> usize {
        self.open
    }

    /// How many deliveries RabbitMQ counts as unacknowledged, up to what is still to be sent.
    pub const fn unacknowledged(&self) -> usize {
        self.open + self.settled
    }

    fn leave_open(&mut self, tag: u64, to: State) -> bool {
        let state = tag
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.states.get_mut(index))
            .filter(|state| **state == State::Open);
        let Some(state) = state else { return false };
        *state = to;
        self.open -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tracker(deliveries: u64) -> PrefixTracker {
        let mut tracker = PrefixTracker::new(usize::MAX);
        (1..=deliveries).for_each(|tag| tracker.delivered(tag));
        tracker
    }

    fn multiple(tag: u64) -> Acks {
        Acks { multiple: Some(tag), singles: vec![] }
    }

    #[test]
    fn nothing_is_acknowledged_beyond_an_open_delivery() {
        let mut tracker = tracker(4);
        assert!(tracker.settle(2) && tracker.settle(4));
        assert!(tracker.take_acks().is_empty());
        assert!(tracker.settle(1));
        assert_eq!(tracker.take_acks(), multiple(2));
        assert!(tracker.settle(3));
        assert_eq!(tracker.take_acks(), multiple(4));
        assert!(tracker.take_acks().is_empty());
    }

    #[test]
    fn a_released_delivery_counts_as_finished_but_is_never_named() {
        let mut tracker = tracker(3);
        assert!(tracker.settle(1) && tracker.release(2));
        assert_eq!(tracker.take_acks(), multiple(1));
        assert!(tracker.release(3));
        assert!(tracker.take_acks().is_empty());
        assert_eq!(tracker.open(), 0);
    }

    #[test]
    fn finishing_twice_changes_nothing() {
        let mut tracker = tracker(2);
        assert!(tracker.settle(1));
        assert!(!tracker.settle(1) && !tracker.release(1));
        assert_eq!(tracker.take_acks(), multiple(1));
        assert!(!tracker.settle(1) && !tracker.settle(0) && !tracker.settle(99));
    }

    #[test]
    fn what_is_stranded_behind_a_slow_delivery_is_acknowledged_alone() {
        let mut tracker = PrefixTracker::new(2);
        (1..=5).for_each(|tag| tracker.delivered(tag));
        assert!(tracker.settle(2) && tracker.settle(3));
        assert!(tracker.take_acks().is_empty());
        assert!(tracker.settle(5));
        assert_eq!(tracker.take_acks(), Acks { multiple: None, singles: vec![2, 3, 5] });
        assert!(tracker.settle(1));
        assert_eq!(tracker.take_acks(), multiple(1));
    }

    /// What RabbitMQ does with acknowledgements, as `rabbit_channel:collect_acks` does it.
    struct Channel {
        unacked: BTreeSet<u64>,
        acked: BTreeSet<u64>,
    }

    impl Channel {
        fn apply(&mut self, acks: &Acks) {
            if let Some(upto) = acks.multiple {
                assert!(self.unacked.contains(&upto), "PRECONDITION_FAILED - unknown delivery tag {upto}");
                let rest = self.unacked.split_off(&(upto + 1));
                self.acked.extend(std::mem::replace(&mut self.unacked, rest));
            }
            for tag in &acks.singles {
                assert!(self.unacked.remove(tag), "PRECONDITION_FAILED - unknown delivery tag {tag}");
                self.acked.insert(*tag);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Deliver,
        Settle(u64),
        Release(u64),
        Flush,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Deliver),
            4 => (1_u64..60).prop_map(Step::Settle),
            1 => (1_u64..60).prop_map(Step::Release),
            2 => Just(Step::Flush),
        ]
    }

    proptest! {
        #[test]
        fn exactly_the_settled_deliveries_get_acknowledged_and_the_channel_never_fails(
            steps in proptest::collection::vec(step(), 0..300),
            stranded_limit in 0_usize..20,
        ) {
            let mut tracker = PrefixTracker::new(stranded_limit);
            let mut channel = Channel { unacked: BTreeSet::new(), acked: BTreeSet::new() };
            let (mut last, mut settled, mut released) = (0, BTreeSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Deliver => {
                        last += 1;
                        channel.unacked.insert(last);
                        tracker.delivered(last);
                    }
                    Step::Settle(tag) => {
                        let fresh = tag <= last && !settled.contains(&tag) && !released.contains(&tag);
                        prop_assert_eq!(tracker.settle(tag), fresh);
                        if fresh { settled.insert(tag); }
                    }
                    Step::Release(tag) => {
                        let fresh = tag <= last && !settled.contains(&tag) && !released.contains(&tag);
                        prop_assert_eq!(tracker.release(tag), fresh);
                        if fresh { released.insert(tag); channel.unacked.remove(&tag); }
                    }
                    Step::Flush => channel.apply(&tracker.take_acks()),
                }
                prop_assert!(channel.acked.is_subset(&settled));
                prop_assert_eq!(tracker.open() as u64, last - (settled.len() + released.len()) as u64);
            }
            for tag in 1..=last {
                if tracker.settle(tag) { settled.insert(tag); }
            }
            channel.apply(&tracker.take_acks());
            prop_assert_eq!(channel.acked, settled);
            prop_assert!(channel.unacked.is_empty());
        }
    }
}
