//! What the tables say of a measured run: counts, instants, latencies. Their own instants are what speed is computed from,
//! so that nobody has to watch while it is measured.

use domain::id::ProgramId;
use sqlx::Row as _;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{CeilingError, postgres::Database};

/// What a run left in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Leads taken in.
    pub leads: i64,
    /// Of them, those with a key.
    pub keys: i64,
    /// Of them, those enriched.
    pub enriched: i64,
    /// Of them, those analysed by the built-in analyser because the model failed.
    pub fallbacks: i64,
    /// Of them, those decided about.
    pub decided: i64,
    /// Of them, those with a mail planned or held.
    pub qualified: i64,
    /// Mails captured, with the captured message beside them.
    pub captured: i64,
    /// Mails sent.
    pub sent: i64,
    /// Mails held for a reason that can pass.
    pub held: i64,
    /// Mails on their way.
    pub moving: i64,
    /// Mails that failed, are put off or of unknown fate.
    pub failed: i64,
    /// When each stage wrote its first and its last row.
    pub collected: Span,
    /// The same of enrichments.
    pub enriching: Span,
    /// The same of decisions.
    pub deciding: Span,
    /// The same of captured or sent mails.
    pub mailing: Span,
}

/// From the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first; `None` when there is none.
    pub first: Option<OffsetDateTime>,
    /// The last.
    pub last: Option<OffsetDateTime>,
}

impl Span {
    /// Its length in seconds.
    pub fn seconds(&self) -> Option<f64> {
        Some((self.last? - self.first?).as_seconds_f64())
    }
}

/// Times from a lead's acceptance to its mail, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latencies {
    /// Half of them are shorter.
    pub p50: f64,
    /// 95 of 100 are shorter.
    pub p95: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
}

/// The least UUIDv7 of an instant (RFC 9562 §5.7): ids sort by the time they were made, and the primary key finds by them
/// what was created since, however much there is from before.
fn first_id(instant: OffsetDateTime) -> Uuid {
    let milliseconds = u128::try_from(instant.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}

/// What still moves; cheap to ask for while it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moving {
    /// Whether events wait to be published or deleted.
    pub events: bool,
    /// Whether mails want attention.
    pub mails: bool,
}

impl Database {
    /// What the leads that were created from `since` on have become. Reads them all: for afterwards.
    pub async fn outcome(&self, program: ProgramId, since: OffsetDateTime) -> Result<Outcome, CeilingError> {
        let refused = CeilingError::postgres("counting what became of the leads");
        let mut tx = self.pool.begin().await.map_err(&refused)?;
        // Right after a run the statistics know nothing of it, and nested loops look cheap: 16 s for 10,000 leads, which
        // count as PostgreSQL's. Hence the ranges as well: whatever belongs to these leads was made after them.
        sqlx::query("SET LOCAL enable_nestloop = off").execute(&mut *tx).await.map_err(&refused)?;
        let row = sqlx::query(
            "SELECT count(*) AS leads, count(k.lead_id) AS keys, count(e.lead_id) AS enriched,
                    count(*) FILTER (WHERE e.provider = 'local_fallback') AS fallbacks,
                    count(e.decision) AS decided,
                    count(*) FILTER (WHERE e.decision IN ('planned', 'held')) AS qualified,
                    count(c.outreach_id) FILTER (WHERE o.state = 'captured') AS captured,
                    count(*) FILTER (WHERE o.state = 'sent' AND e.sent AND e.contacted) AS sent,
                    count(*) FILTER (WHERE o.state = 'held') AS held,
                    count(*) FILTER (WHERE o.state IN ('queued', 'connecting', 'transmitting')) AS moving,
                    count(*) FILTER (WHERE o.state IN ('failed', 'deferred', 'uncertain')) AS failed,
                    min(l.created_at) AS collected_first, max(l.created_at) AS collected_last,
                    min(e.created_at) AS enriched_first, max(e.created_at) AS enriched_last,
                    min(e.decided_at) AS decided_first, max(e.decided_at) AS decided_last,
                    min(coalesce(c.captured_at, o.sent_at)) AS mailed_first,
                    max(coalesce(c.captured_at, o.sent_at)) AS mailed_last
             FROM leads l
             LEFT JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id AND k.lead_id >= $2
             LEFT JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id AND e.lead_id >= $2
             LEFT JOIN outreach o ON o.program_id = l.program_id AND o.lead_id = l.id AND o.lead_id >= $2
             LEFT JOIN captured_mails c
                  ON c.program_id = o.program_id AND c.outreach_id = o.id AND c.outreach_id >= $2
             WHERE l.program_id = $1 AND l.id >= $2",
        )
        .bind(program.as_uuid())
        .bind(first_id(since))
        .fetch_one(&mut *tx)
        .await
        .map_err(&refused)?;
        tx.rollback().await.map_err(&refused)?;
        let span = |first, last| Span { first: row.get(first), last: row.get(last) };
        Ok(Outcome {
            leads: row.get("leads"),
            keys: row.get("keys"),
            enriched: row.get("enriched"),
            fallbacks: row.get("fallbacks"),
            decided: row.get("decided"),
            qualified: row.get("qualified"),
            captured: row.get("captured"),
            sent: row.get("sent"),
            held: row.get("held"),
            moving: row.get("moving"),
            failed: row.get("failed"),
            collected: span("collected_first", "collected_last"),
            enriching: span("enriched_first", "enriched_last"),
            deciding: span("decided_first", "decided_last"),
            mailing: span("mailed_first", "mailed_last"),
        })
    }

    /// How long the leads that were created from `since` on took until their mail was captured or sent; `None` when none was.
    pub async fn latencies(
        &self,
        program: ProgramId,
        since: OffsetDateTime,
    ) -> Result<Option<Latencies>, CeilingError> {
        let found: Option<Vec<f64>> = sqlx::query_scalar(
            "SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (
                        ORDER BY extract(epoch FROM coalesce(c.captured_at, o.sent_at) - l.created_at)::float8 * 1000)
             FROM leads l
             JOIN outreach o ON o.program_id = l.program_id AND o.lead_id = l.id
             LEFT JOIN captured_mails c ON c.program_id = o.program_id AND c.outreach_id = o.id
             WHERE l.program_id = $1 AND l.id >= $2 AND coalesce(c.captured_at, o.sent_at) IS NOT NULL",
        )
        .bind(program.as_uuid())
        .bind(first_id(since))
        .fetch_one(&self.pool)
        .await
        .map_err(CeilingError::postgres("computing latencies"))?;
        Ok(found.and_then(|found| match found[..] {
            [p50, p95, p99] => Some(Latencies { p50, p95, p99 }),
            _ => None,
        }))
    }

    /// Whether anything still moves, without counting: both questions are answered by an index.
    pub async fn moving(&self) -> Result<Moving, CeilingError> {
        let (events, mails) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM outbox), EXISTS (SELECT FROM outreach WHERE due_at IS NOT NULL AND state <> 'held')",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(CeilingError::postgres("looking for what still moves"))?;
        Ok(Moving { events, mails })
    }
}

#[cfg(test)]
mod tests {
    use domain::id::LeadId;

    use super::*;

    #[test]
    fn ids_made_since_an_instant_are_found_and_older_ones_are_not() {
        let id = LeadId::generate().as_uuid();
        let made = id.get_timestamp().map(|timestamp| timestamp.to_unix()).expect("a UUIDv7 knows its time");
        let instant =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(made.0) * 1_000_000_000 + i128::from(made.1))
                .expect("now is in range");
        assert!(first_id(instant) <= id);
        assert!(first_id(instant + time::Duration::milliseconds(2)) > id);
    }
}
