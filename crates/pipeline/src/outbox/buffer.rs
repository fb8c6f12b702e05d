//! What was just committed and waits in memory to be published.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use store::outbox::Leased;
use tokio::{sync::Notify, time::Instant};

/// A bounded queue that forgets what is too old: those rows are about to be a sweeper's.
pub(super) struct Buffer {
    entries: Mutex<VecDeque<Entry>>,
    arrived: Notify,
    /// Told to all who wait for room when some was taken.
    taken: Notify,
    /// Rows that were offered and, of these, not published from here yet; those that found no room count for ever.
    unpublished: AtomicU64,
    capacity: usize,
    fresh: Duration,
}

/// A row and when it was offered.
pub(super) struct Entry {
    pub(super) row: Leased,
    offered_at: Instant,
}

impl Buffer {
    pub(super) fn new(capacity: usize, fresh: Duration) -> Self {
        Self {
            entries: Mutex::default(),
            arrived: Notify::new(),
            taken: Notify::new(),
            unpublished: AtomicU64::new(0),
            capacity,
            fresh,
        }
    }

    /// Takes what there is room for and says how many there was none for.
    pub(super) fn offer(&self, rows: Vec<Leased>) -> usize {
        let offered_at = Instant::now();
        self.unpublished.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let overflow = {
            let mut entries = self.entries();
            let room = self.capacity.saturating_sub(entries.len());
            let overflow = rows.len().saturating_sub(room);
            entries.extend(rows.into_iter().take(room).map(|row| Entry { row, offered_at }));
            overflow
        };
        self.arrived.notify_one();
        overflow
    }

    /// The oldest that are fresh, at most `max`.
    pub(super) fn take(&self, max: usize) -> Vec<Entry> {
        let mut entries = self.entries();
        // Entries are in the order of their age, but for those that were given back, which are older still.
        while entries.front().is_some_and(|entry| entry.offered_at.elapsed() > self.fresh) {
            entries.pop_front();
        }
        let count = entries.len().min(max);
        self.taken.notify_waiters();
        entries.drain(..count).collect()
    }

    /// Takes back what couldn't be published, to be tried again while it is fresh.
    pub(super) fn give_back(&self, back: Vec<Entry>) {
        let mut entries = self.entries();
        for entry in back.into_iter().rev() {
            entries.push_front(entry);
        }
    }

    /// Told when rows that were taken are confirmed.
    pub(super) fn published(&self, rows: usize) {
        self.unpublished.fetch_sub(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn unpublished(&self) -> u64 {
        self.unpublished.load(Ordering::Relaxed)
    }

    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether half of it is free.
    pub(super) fn has_room(&self) -> bool {
        self.len() <= self.capacity / 2
    }

    /// Until something is taken.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Until something was offered since the last call.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
