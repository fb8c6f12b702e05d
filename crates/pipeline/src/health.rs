//! What the pipeline is missing, told to whoever keeps the readiness probe.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

/// A part of the surroundings that the pipeline can't work without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// PostgreSQL.
    Database,
    /// RabbitMQ, for publishing.
    Publishing,
    /// RabbitMQ, for consuming.
    Consuming,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Database, Self::Publishing, Self::Consuming];

    /// A name for operators.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Publishing => "broker.publishing",
            Self::Consuming => "broker.consuming",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Where the state of the parts is reported. Clones share it; reporting the same good news again costs one atomic load.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

type Listener = dyn Fn(Part, Result<(), &str>) + Send + Sync;

struct Shared {
    /// The parts that were last reported as present.
    present: AtomicU8,
    listener: Box<Listener>,
}

impl Health {
    /// Calls `listener` when a part becomes present, and each time that using it fails, with the reason: one line
    /// without secrets and without personal data. The listener must not block.
    pub fn new(listener: impl Fn(Part, Result<(), &str>) + Send + Sync + 'static) -> Self {
        Self { shared: Arc::new(Shared { present: AtomicU8::new(0), listener: Box::new(listener) }) }
    }

    /// Nobody listens.
    pub fn unobserved() -> Self {
        Self::new(|_, _| {})
    }

    pub(crate) fn present(&self, part: Part) {
        if self.shared.present.load(Ordering::Relaxed) & part.bit() == 0 {
            self.shared.present.fetch_or(part.bit(), Ordering::Relaxed);
            (self.shared.listener)(part, Ok(()));
        }
    }

    pub(crate) fn missing(&self, part: Part, reason: &str) {
        self.shared.present.fetch_and(!part.bit(), Ordering::Relaxed);
        (self.shared.listener)(part, Err(reason));
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("present", &self.shared.present).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn good_news_is_told_once_and_bad_news_each_time() {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&heard);
        let health = Health::new(move |part, state| log.lock().unwrap().push(format!("{} {state:?}", part.name())));
        health.present(Part::Database);
        health.present(Part::Database);
        health.missing(Part::Database, "gone");
        health.missing(Part::Database, "still gone");
        health.present(Part::Publishing);
        health.present(Part::Database);
        assert_eq!(
            *heard.lock().unwrap(),
            [
                "database Ok(())",
                "database Err(\"gone\")",
                "database Err(\"still gone\")",
                "broker.publishing Ok(())",
                "database Ok(())",
            ]
        );
    }
}
