//! Rows that this version can't read: written by a newer one, or damaged. Whoever reads many rows skips such a row and goes
//! on with the others; it is counted each time, and logged once per process.

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

use opentelemetry::{KeyValue, metrics::Counter};
use uuid::Uuid;

use crate::StoreError;

/// How many rows are remembered as logged; beyond that all are forgotten, at the price of logging them again.
const CAPACITY: usize = 10_000;

static LOGGED: LazyLock<Mutex<HashSet<(&'static str, Uuid)>>> = LazyLock::new(Mutex::default);

static SKIPPED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("leadmill")
        .u64_counter("leadmill.store.skipped")
        .with_description("Rows that were skipped since they can't be read, by table")
        .build()
});

/// The value, or `None` for a row that is to be skipped, which is counted, and logged if it is the first time.
pub(crate) fn readable<T>(
    table: &'static str,
    row: Uuid,
    result: Result<T, impl std::borrow::Borrow<StoreError>>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            SKIPPED.add(1, &[KeyValue::new("table", table)]);
            if is_first_time(table, row) {
                let error = error.borrow() as &dyn std::error::Error;
                tracing::error!(table, row_id = %row, error, "a row cannot be read and is skipped");
            }
            None
        }
    }
}

fn is_first_time(table: &'static str, row: Uuid) -> bool {
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.len() >= CAPACITY {
        logged.clear();
    }
    logged.insert((table, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_logged_once_and_another_one_as_well() {
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        assert!(is_first_time("outbox", one) && is_first_time("programs", one) && is_first_time("outbox", other));
        assert!(!is_first_time("outbox", one) && !is_first_time("outbox", other));
    }
}
