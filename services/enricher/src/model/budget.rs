//! The spending limit: tokens a day, of all replicas together.
//!
//! Each replica counts what it spends at once, and takes over the day's total of all whenever it is told ([`Budget::learn`]).
//! So a limit can be passed by what is on its way in that moment, not by more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use time::Date;

/// Counts a day's tokens against a limit.
#[derive(Debug)]
pub struct Budget {
    /// `None` means no limit.
    limit: Option<u64>,
    spent: Mutex<Spent>,
}

#[derive(Debug)]
struct Spent {
    day: Date,
    tokens: u64,
}

impl Budget {
    /// A budget of `daily_limit` tokens; 0 means no limit.
    pub fn new(daily_limit: u64) -> Self {
        Self { limit: (daily_limit > 0).then_some(daily_limit), spent: Mutex::new(Spent { day: Date::MIN, tokens: 0 }) }
    }

    /// Whether there is a limit at all.
    pub const fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether anything may be spent on `today` (UTC).
    pub fn allows(&self, today: Date) -> bool {
        self.limit.is_none_or(|limit| self.of(today).tokens < limit)
    }

    /// Counts tokens that this replica spent.
    pub fn spend(&self, today: Date, tokens: u64) {
        let mut spent = self.of(today);
        spent.tokens = spent.tokens.saturating_add(tokens);
    }

    /// Takes over the total of all replicas.
    pub fn learn(&self, day: Date, total: u64) {
        let mut spent = self.of(day);
        // Our own count may be ahead by what isn't written yet.
        spent.tokens = spent.tokens.max(total);
    }

    fn of(&self, day: Date) -> MutexGuard<'_, Spent> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if day > spent.day {
            *spent = Spent { day, tokens: 0 };
        }
        spent
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn a_days_tokens_are_limited_and_a_new_day_starts_anew() {
        let budget = Budget::new(100);
        let (today, tomorrow) = (date!(2026 - 11 - 22), date!(2026 - 11 - 23));
        budget.spend(today, 60);
        assert!(budget.allows(today));
        budget.learn(today, 100);
        assert!(!budget.allows(today));
        assert!(budget.allows(tomorrow));
    }

    #[test]
    fn a_total_that_is_behind_our_own_count_takes_nothing_back() {
        let budget = Budget::new(100);
        let today = date!(2026 - 11 - 22);
        budget.spend(today, 100);
        budget.learn(today, 10);
        assert!(!budget.allows(today));
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let budget = Budget::new(0);
        budget.spend(date!(2026 - 11 - 22), u64::MAX);
        assert!(budget.allows(date!(2026 - 11 - 22)));
    }
}
