//! How many mails may be in hand at once, from their claim until they are settled.
//!
//! A mail in hand was read, and its row is under lease: claimed too late, connections wait for it; claimed too early, it
//! waits longer than its lease lasts, goes back, and was read in vain. So as many are in hand as the connections are likely
//! to send within [`AHEAD`], by how long their last turns took.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Transport;
use crate::config::MailerConfig;

/// How long the mails that wait for a connection are likely to wait.
const AHEAD: Duration = Duration::from_secs(1);
/// The most mails that wait for a connection: bounds the memory that they take.
const MAX_AHEAD: usize = 256;
/// How many mails may be captured at once: bounds the memory that they take.
const CAPTURE_SLOTS: usize = 1_024;
/// One part in so many of the average is the latest turn.
const MEMORY: f64 = 16.0;

/// The slots of a sender. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
    /// How many connections there are, if their turns decide about the number of slots.
    connections: Option<usize>,
    /// Slots that were waited for together, for those who wait one by one.
    /// Whoever waits for free ones holds it, empty: what lies here while others wait would be missing for ever.
    pouch: tokio::sync::Mutex<Option<OwnedSemaphorePermit>>,
    /// The fewest that are worth a transaction of their own.
    portion: usize,
}

#[derive(Debug)]
struct Size {
    /// How many slots there are, free or not.
    now: usize,
    /// How many there shall be; those that are too many end when they are free.
    wanted: usize,
    /// The average turn of a connection; none before the first.
    turn: Option<Duration>,
}

/// The right to have one mail in hand, from its claim until it is settled.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// As many as `transport` begins with.
    pub(super) fn new(transport: &Transport, config: &MailerConfig) -> Self {
        let connections = config.smtp.connections.get() as usize;
        let (size, portion, connections) = match transport {
            Transport::Capture => (CAPTURE_SLOTS, CAPTURE_SLOTS / 4, None),
            // Nobody knows how long a pause is: what would wait for the end of one is better claimed later.
            Transport::Smtp(_) if !config.smtp.delay_between.is_zero() => (connections, connections.div_ceil(2), None),
            Transport::Smtp(_) => (2 * connections, connections, Some(connections)),
        };
        Self::with(size, portion, connections)
    }

    fn with(size: usize, portion: usize, connections: Option<usize>) -> Self {
        let free = Arc::new(Semaphore::new(size));
        let size = Mutex::new(Size { now: size, wanted: size, turn: None });
        Self { shared: Arc::new(Shared { free, size, connections, pouch: tokio::sync::Mutex::default(), portion }) }
    }

    /// One, if it is free and nobody waits for it.
    pub(super) fn take(&self) -> Option<Slot> {
        let kept = self.shared.pouch.try_lock().ok().and_then(|mut pouch| pouch.as_mut()?.split(1));
        kept.or_else(|| Arc::clone(&self.shared.free).try_acquire_owned().ok()).map(|permit| self.slot(permit))
    }

    /// One, in the order of those who wait; once none is free, they come in portions, so that the mails that wait for them
    /// are planned together.
    pub(super) async fn wait(&self) -> Slot {
        let mut pouch = self.shared.pouch.lock().await;
        loop {
            let kept = pouch.as_mut().and_then(|kept| kept.split(1));
            if let Some(permit) = kept.or_else(|| Arc::clone(&self.shared.free).try_acquire_owned().ok()) {
                return self.slot(permit);
            }
            let portion = self.shared.portion.max(self.size().now / 4);
            *pouch = Some(self.acquire(portion).await);
        }
    }

    /// As many as are worth a claim, in the order of those who wait.
    pub(super) async fn wait_for_portion(&self) -> Vec<Slot> {
        let mut pouch = self.shared.pouch.lock().await;
        let mut permits = match pouch.take() {
            Some(kept) => kept,
            None => self.acquire(0).await,
        };
        let missing = self.shared.portion.saturating_sub(permits.num_permits());
        permits.merge(self.acquire(missing).await);
        drop(pouch);
        std::iter::from_fn(|| permits.split(1)).map(|permit| self.slot(permit)).collect()
    }

    async fn acquire(&self, count: usize) -> OwnedSemaphorePermit {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Arc::clone(&self.shared.free).acquire_many_owned(count).await.expect("the semaphore is never closed")
    }

    /// Says how long a connection was taken by one mail, or a mail waited for one in vain.
    pub(super) fn turn_took(&self, turn: Duration) {
        let Some(connections) = self.shared.connections else { return };
        let mut size = self.size();
        let average = size.turn.map_or(turn, |average| average.mul_f64(1.0 - 1.0 / MEMORY) + turn.div_f64(MEMORY));
        size.turn = Some(average);
        size.wanted = connections + ahead(connections, average);
        if size.wanted > size.now {
            self.shared.free.add_permits(size.wanted - size.now);
            size.now = size.wanted;
        }
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot { slots: self.clone(), permit: Some(permit) }
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.shared.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many mails wait for `connections` whose turns last `turn`.
fn ahead(connections: usize, turn: Duration) -> usize {
    let turns = AHEAD.as_secs_f64() / turn.as_secs_f64().max(1e-6);
    ((connections as f64 * turns) as usize).clamp(connections, MAX_AHEAD.max(connections))
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut size = self.slots.size();
        if size.now > size.wanted
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            size.now -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn as_many_wait_as_are_sent_in_a_second_within_bounds() {
        let hour = Duration::from_hours(1);
        for (connections, turn, expected) in [
            (4, Duration::from_millis(100), 40),
            (4, Duration::from_secs(10), 4),
            (4, hour, 4),
            (32, Duration::from_millis(20), MAX_AHEAD),
            (4, Duration::ZERO, MAX_AHEAD),
            (1_000, hour, 1_000),
        ] {
            assert_eq!(ahead(connections, turn), expected, "{connections} {turn:?}");
        }
    }

    #[tokio::test]
    async fn fast_turns_make_more_slots_and_slow_ones_take_them_back() {
        let slots = Slots::with(8, 4, Some(4));
        let first: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(first.len(), 8);
        slots.turn_took(Duration::from_millis(100));
        let more: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(more.len(), 44 - 8);
        for _ in 0..100 {
            slots.turn_took(Duration::from_secs(15));
        }
        drop((first, more));
        assert_eq!(slots.wait_for_portion().await.len(), 4);
        assert!(slots.wait().now_or_never().is_some());
        assert_eq!(std::iter::from_fn(|| slots.take()).collect::<Vec<_>>().len(), 8);
    }

    #[tokio::test]
    async fn what_was_left_of_a_portion_is_not_missing_when_slots_grow_few() {
        let slots = Slots::with(8, 4, Some(4));
        slots.turn_took(Duration::ZERO);
        let mut held: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(held.len(), 4 + MAX_AHEAD);
        let planner = tokio::spawn({
            let slots = slots.clone();
            async move { slots.wait().await }
        });
        tokio::task::yield_now().await;
        let poller = tokio::spawn({
            let slots = slots.clone();
            async move { slots.wait_for_portion().await }
        });
        tokio::task::yield_now().await;
        held.truncate(held.len() - 65);
        held.push(planner.await.unwrap());
        for _ in 0..200 {
            slots.turn_took(Duration::from_secs(15));
        }
        drop(held);
        let portion = tokio::time::timeout(Duration::from_secs(5), poller).await.unwrap().unwrap();
        assert!(portion.len() >= 4, "{}", portion.len());
        drop(portion);
        assert_eq!(std::iter::from_fn(|| slots.take()).collect::<Vec<_>>().len(), 8);
    }

    #[tokio::test]
    async fn whoever_waits_longest_is_first() {
        let slots = Slots::with(2, 2, None);
        let (one, two) = (slots.take().unwrap(), slots.take().unwrap());
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.wait_for_portion().await }
        });
        tokio::task::yield_now().await;
        drop(one);
        assert!(slots.take().is_none());
        drop(two);
        assert_eq!(waiting.await.unwrap().len(), 2);
    }
}
