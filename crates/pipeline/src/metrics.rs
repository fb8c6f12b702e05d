//! The numbers that the pipeline records with OpenTelemetry's global meter `leadmill`.
//!
//! The instruments are made when a runner or an outbox is started, so the process must have installed its meter
//! provider before. Durations are in seconds.

use std::time::Duration;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram, Meter},
};
use store::outbox::Depth;

const METER: &str = "leadmill";

/// From a fraction of a millisecond, for work in memory, to the minute that a slow model may take.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

const BATCH_SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 350.0, 500.0];

fn seconds(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    meter.f64_histogram(name).with_unit("s").with_description(description).with_boundaries(SECONDS.to_vec()).build()
}

fn sizes(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<u64> {
    meter.u64_histogram(name).with_description(description).with_boundaries(BATCH_SIZES.to_vec()).build()
}

/// What a stage records; each number carries the attribute `stage`.
#[derive(Debug)]
pub(crate) struct StageMetrics {
    stage: KeyValue,
    handled: Counter<u64>,
    failed: Counter<u64>,
    retried: Counter<u64>,
    dead_lettered: Counter<u64>,
    batch_size: Histogram<u64>,
    prepare: Histogram<f64>,
    apply: Histogram<f64>,
    commit: Histogram<f64>,
    in_hand: Gauge<u64>,
}

impl StageMetrics {
    pub(crate) fn new(stage: &'static str) -> Self {
        let meter = global::meter(METER);
        let count = |name, description| meter.u64_counter(name).with_description(description).build();
        Self {
            stage: KeyValue::new("stage", stage),
            handled: count("leadmill.stage.handled", "Deliveries that came to their end, by result"),
            failed: count("leadmill.stage.failed", "Defects: panics and database errors other than an outage"),
            retried: count("leadmill.stage.retried", "Deliveries that were put off"),
            dead_lettered: count("leadmill.stage.dead_lettered", "Deliveries that became dead letters"),
            batch_size: sizes(&meter, "leadmill.stage.batch.size", "Deliveries per transaction"),
            prepare: seconds(&meter, "leadmill.stage.prepare.duration", "Time to prepare one delivery"),
            apply: seconds(&meter, "leadmill.stage.apply.duration", "Time to apply one batch, without its COMMIT"),
            commit: seconds(&meter, "leadmill.stage.commit.duration", "Time of a batch's COMMIT"),
            in_hand: meter
                .u64_gauge("leadmill.stage.in_hand")
                .with_description("Deliveries taken from RabbitMQ and not yet acknowledged")
                .build(),
        }
    }

    pub(crate) fn handled(&self, result: &'static str) {
        self.handled.add(1, &[self.stage.clone(), KeyValue::new("result", result)]);
    }

    /// `phase` is `prepare`, `apply` or `committed`.
    pub(crate) fn failed(&self, phase: &'static str) {
        self.failed.add(1, &[self.stage.clone(), KeyValue::new("phase", phase)]);
    }

    pub(crate) fn retried(&self, count: usize) {
        self.retried.add(count as u64, std::slice::from_ref(&self.stage));
    }

    pub(crate) fn dead_lettered(&self, count: usize) {
        self.dead_lettered.add(count as u64, std::slice::from_ref(&self.stage));
    }

    pub(crate) fn prepared(&self, took: Duration) {
        self.prepare.record(took.as_secs_f64(), std::slice::from_ref(&self.stage));
    }

    pub(crate) fn committed(&self, size: usize, apply: Duration, commit: Duration) {
        let attributes = std::slice::from_ref(&self.stage);
        self.batch_size.record(size as u64, attributes);
        self.apply.record(apply.as_secs_f64(), attributes);
        self.commit.record(commit.as_secs_f64(), attributes);
    }

    pub(crate) fn in_hand(&self, count: usize) {
        self.in_hand.record(count as u64, std::slice::from_ref(&self.stage));
    }
}

/// What an outbox records.
#[derive(Debug)]
pub(crate) struct OutboxMetrics {
    publishes: Counter<u64>,
    publish: Histogram<f64>,
    batch_size: Histogram<u64>,
    buffered: Gauge<u64>,
    overflowed: Counter<u64>,
    swept: Counter<u64>,
    skipped: Counter<u64>,
    due: Gauge<u64>,
    scheduled: Gauge<u64>,
    oldest_due: Gauge<f64>,
}

impl OutboxMetrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter(METER);
        let count = |name, description| meter.u64_counter(name).with_description(description).build();
        let gauge = |name, description| meter.u64_gauge(name).with_description(description).build();
        Self {
            publishes: count("leadmill.outbox.publishes", "Messages published, by whether RabbitMQ confirmed them"),
            publish: seconds(
                &meter,
                "leadmill.outbox.publish.duration",
                "Time from a batch's first byte to its last confirm",
            ),
            batch_size: sizes(&meter, "leadmill.outbox.batch.size", "Messages per published batch"),
            buffered: gauge("leadmill.outbox.buffered", "Events in memory that wait to be published"),
            overflowed: count("leadmill.outbox.overflowed", "Events that found the buffer full and are the sweeper's"),
            swept: count("leadmill.outbox.swept", "Events that the sweeper has claimed"),
            skipped: count("leadmill.outbox.skipped", "Due rows that this version can't read and leaves to others"),
            due: gauge("leadmill.outbox.due", "Rows of the outbox that are due"),
            scheduled: gauge("leadmill.outbox.scheduled", "Rows of the outbox that are leased or put off"),
            oldest_due: meter
                .f64_gauge("leadmill.outbox.oldest_due")
                .with_unit("s")
                .with_description("For how long the oldest due row has been due")
                .build(),
        }
    }

    pub(crate) fn published(&self, confirmed: usize, failed: usize, took: Duration) {
        self.batch_size.record((confirmed + failed) as u64, &[]);
        self.publish.record(took.as_secs_f64(), &[]);
        for (result, count) in [("confirmed", confirmed), ("failed", failed)] {
            self.publishes.add(count as u64, &[KeyValue::new("result", result)]);
        }
    }

    pub(crate) fn buffered(&self, count: usize) {
        self.buffered.record(count as u64, &[]);
    }

    pub(crate) fn overflowed(&self, count: usize) {
        self.overflowed.add(count as u64, &[]);
    }

    pub(crate) fn swept(&self, count: usize) {
        self.swept.add(count as u64, &[]);
    }

    pub(crate) fn skipped(&self, count: usize) {
        if count > 0 {
            self.skipped.add(count as u64, &[]);
        }
    }

    pub(crate) fn depth(&self, depth: &Depth) {
        self.due.record(depth.due.unsigned_abs(), &[]);
        self.scheduled.record(depth.scheduled.unsigned_abs(), &[]);
        self.oldest_due.record(depth.oldest_due_seconds, &[]);
    }
}
