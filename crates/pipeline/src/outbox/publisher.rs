//! Publishes what is in the buffer.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Context,
    buffer::{Buffer, Entry},
};

/// How many batches may be under way: enough that one is written while others wait for RabbitMQ's disks, and few enough
/// to leave the broker's publisher a channel for the sweeper.
const UNDER_WAY: usize = 3;

/// How long events wait for company while another batch is under way. Alone they never wait.
const COMPANY: Duration = Duration::from_millis(2);

/// Publishes the buffer in batches: at once when idle, in company when busy.
pub(super) struct BufferPublisher {
    context: Context,
    buffer: Arc<Buffer>,
}

impl BufferPublisher {
    pub(super) fn new(context: Context, buffer: Arc<Buffer>) -> Self {
        Self { context, buffer }
    }

    pub(super) async fn run(self) {
        let mut under_way: JoinSet<bool> = JoinSet::new();
        // While set, RabbitMQ is away or refuses: nothing is begun until waiting for it has come to an end.
        let mut waiting_for_broker = Some(Box::pin(self.context.wait_for_broker(Duration::ZERO)));
        let mut company_until: Option<Instant> = None;
        let mut give_up_at: Option<Instant> = None;
        loop {
            let buffered = self.buffer.len();
            self.context.metrics.buffered(buffered);
            if give_up_at.is_some() && under_way.is_empty() && buffered == 0 {
                return;
            }
            let may_begin = buffered > 0 && waiting_for_broker.is_none() && under_way.len() < UNDER_WAY;
            if may_begin {
                let now = Instant::now();
                let until = *company_until.get_or_insert(now + COMPANY);
                if under_way.is_empty() || buffered >= self.context.config.batch || until <= now {
                    company_until = None;
                    let entries = self.buffer.take(self.context.config.batch);
                    if !entries.is_empty() {
                        let (context, buffer) = (self.context.clone(), Arc::clone(&self.buffer));
                        under_way.spawn(publish(context, buffer, entries));
                    }
                    continue;
                }
            }
            tokio::select! {
                () = self.buffer.arrived() => {}
                Some(ended) = under_way.join_next() => {
                    let sound = ended.unwrap_or(false);
                    if !sound && waiting_for_broker.is_none() {
                        waiting_for_broker = Some(Box::pin(self.context.wait_for_broker(retry::jittered(PAUSE))));
                    }
                }
                () = async { waiting_for_broker.as_mut().expect("checked").await }, if waiting_for_broker.is_some() => {
                    waiting_for_broker = None;
                }
                () = sleep_until(company_until.unwrap_or_else(Instant::now)), if may_begin => {}
                () = self.context.cancel.cancelled(), if give_up_at.is_none() => {
                    give_up_at = Some(Instant::now() + self.context.config.drain);
                }
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => return,
            }
        }
    }
}

/// How long to leave RabbitMQ alone after a batch that it didn't take as a whole.
const PAUSE: Duration = Duration::from_millis(100);

/// Publishes a batch; what isn't confirmed goes back. Says whether all of it was.
async fn publish(context: Context, buffer: Arc<Buffer>, entries: Vec<Entry>) -> bool {
    let confirmed = context.publish(entries, |entry| &entry.row).await;
    let sound = confirmed.failed.is_empty();
    buffer.give_back(confirmed.failed);
    // Waiting for room here is the brake when PostgreSQL is away.
    let rows: Vec<_> = confirmed.confirmed.into_iter().map(|entry| entry.row).collect();
    buffer.published(rows.len());
    context.delete(rows).await;
    sound
}
