//! How many mails were begun in each window of a limit, by PostgreSQL's clock.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::{
    faults::{history, verdict::Complaint},
    stack::Stack,
};

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * 60;

/// The limits of a program, of all replicas together.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Mails a minute of the clock.
    pub per_minute: Option<u64>,
    /// Mails a day, in UTC.
    pub per_day: Option<u64>,
}

/// PostgreSQL's clock, in seconds since the epoch.
pub async fn clock(stack: &Stack) -> f64 {
    let now = "SELECT extract(epoch FROM clock_timestamp())::float8";
    sqlx::query_scalar(now).fetch_one(&mut stack.connect().await).await.expect("PostgreSQL says what time it is")
}

/// Claims of which something came, by the time that their limit was taken at, in seconds since the epoch. A claim of which
/// nothing went out gives its token back.
pub async fn used(stack: &Stack) -> Vec<f64> {
    let mut claimed: HashMap<Uuid, f64> = HashMap::new();
    let mut used = Vec::new();
    for entry in history::entries(stack).await {
        match entry.state.as_str() {
            "connecting" => _ = claimed.insert(entry.outreach, entry.transaction_at),
            "transmitting" | "deferred" | "failed" => used.extend(claimed.remove(&entry.outreach)),
            _ => _ = claimed.remove(&entry.outreach),
        }
    }
    used
}

/// Complains about each window before the time `until` in which more mails were begun than its limit allows.
pub async fn complaints(stack: &Stack, limits: Limits, until: f64) -> Vec<Complaint> {
    let mut used = used(stack).await;
    used.retain(|at| *at < until);
    let spans = [(MINUTE, "minute", limits.per_minute), (DAY, "day", limits.per_day)];
    let mut complaints = Vec::new();
    for (length, name, limit) in spans {
        let Some(limit) = limit else { continue };
        let mut windows: BTreeMap<i64, u64> = BTreeMap::new();
        for at in &used {
            *windows.entry(*at as i64 / length).or_default() += 1;
        }
        for count in windows.into_values().filter(|count| *count > limit) {
            let detail = format!("{count} within a {name}, of {limit}");
            complaints.push(Complaint::new("more mails were begun within a window than its limit allows", detail));
        }
    }
    complaints
}
