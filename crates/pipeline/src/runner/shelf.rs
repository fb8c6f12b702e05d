//! What is prepared and waits to be applied.

use std::collections::{HashSet, VecDeque};

use super::item::Item;

/// A batch in the making.
pub(super) type Batch<T> = Vec<(Item, T)>;

/// Prepared deliveries, oldest first.
pub(super) struct Shelf<T> {
    waiting: VecDeque<(Item, T)>,
    alone: VecDeque<(Item, T)>,
}

impl<T> Shelf<T> {
    pub(super) const fn new() -> Self {
        Self { waiting: VecDeque::new(), alone: VecDeque::new() }
    }

    pub(super) fn put(&mut self, item: Item, prepared: T) {
        let to = if item.is_alone() { &mut self.alone } else { &mut self.waiting };
        to.push_back((item, prepared));
    }

    /// How many may be applied together with others.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_alone(&self) -> bool {
        !self.alone.is_empty()
    }

    /// One that is to be applied by itself.
    pub(super) fn take_alone(&mut self) -> Option<Batch<T>> {
        self.alone.pop_front().map(|one| vec![one])
    }

    /// Up to `max`, sorted by lead, so that concurrent transactions lock rows in the same order; and each lead once, so
    /// that no set-based statement meets a row a second time. What comes second waits for the next batch.
    pub(super) fn take(&mut self, max: usize) -> Batch<T> {
        let mut leads = HashSet::with_capacity(max.min(self.waiting.len()));
        let mut batch = Vec::with_capacity(max.min(self.waiting.len()));
        let mut again = Vec::new();
        while batch.len() < max {
            let Some(next) = self.waiting.pop_front() else { break };
            if leads.insert(next.0.lead()) { batch.push(next) } else { again.push(next) }
        }
        for waiting in again.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        batch.sort_by_key(|(item, _)| item.lead());
        batch
    }
}
