//! What must hold at the end of every scenario: the invariants of the design, asked of PostgreSQL and RabbitMQ.

use domain::event::Queue;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::stack::Stack;

/// What a scenario did on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted<'a> {
    /// Dead letters of `lead.created`.
    pub dead_created: u32,
    /// Dead letters of `lead.enriched`.
    pub dead_enriched: u32,
    /// Leads that can't come through.
    pub stuck: &'a [Uuid],
}

/// Each rule with a query for the leads that break it.
const RULES: &[(&str, &str)] = &[
    (
        "every accepted lead has its key",
        "SELECT l.id FROM leads l LEFT JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id
         WHERE k.lead_id IS NULL",
    ),
    (
        "every lead is enriched in its current revision",
        "SELECT l.id FROM leads l LEFT JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id
         WHERE e.lead_revision IS DISTINCT FROM l.revision",
    ),
    (
        "no lead is enriched more often than it changed",
        "SELECT l.id FROM leads l JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id
         WHERE e.enrichment_version > l.revision",
    ),
    (
        "every enrichment is decided about, in its newest version",
        "SELECT lead_id FROM enriched_leads
         WHERE decision IS NULL OR decided_version IS DISTINCT FROM enrichment_version",
    ),
    (
        "who is held or declined can say why, and only they can",
        "SELECT lead_id FROM enriched_leads WHERE (decision = 'planned') <> (cardinality(decision_reasons) = 0)",
    ),
    (
        "who is planned or held has a mail",
        "SELECT e.lead_id FROM enriched_leads e
         LEFT JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id
         WHERE e.decision IN ('planned', 'held') AND o.id IS NULL",
    ),
    (
        "nothing is on its way to who is declined",
        "SELECT e.lead_id FROM enriched_leads e
         JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id
         WHERE e.decision = 'declined'
           AND o.state IN ('queued', 'connecting', 'transmitting', 'deferred', 'held')",
    ),
    (
        "a mail waits under way only while somebody works",
        "SELECT lead_id FROM outreach WHERE state IN ('queued', 'connecting', 'transmitting')",
    ),
    (
        "a lead is marked as sent and contacted exactly when its mail was sent",
        "SELECT e.lead_id FROM enriched_leads e
         LEFT JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id AND o.state = 'sent'
         WHERE e.sent <> (o.id IS NOT NULL) OR e.contacted <> (o.id IS NOT NULL)",
    ),
    (
        "no mail goes out without a reason to send it",
        "SELECT o.lead_id FROM outreach o
         JOIN enriched_leads e ON e.program_id = o.program_id AND e.lead_id = o.lead_id
         JOIN programs p ON p.id = o.program_id
         WHERE o.state IN ('sent', 'captured', 'uncertain')
           AND (e.score < p.threshold OR NOT e.compliant OR p.sender_email IS NULL OR p.postal_address IS NULL)",
    ),
    (
        "nobody gets the same mail twice",
        "SELECT min(lead_id::text)::uuid FROM outreach WHERE state IN ('sent', 'captured', 'uncertain', 'transmitting')
         GROUP BY program_id, recipient_index, campaign, step HAVING count(*) > 1",
    ),
    (
        "every captured mail is kept, and no other",
        "SELECT coalesce(o.lead_id, c.lead_id) FROM (SELECT * FROM outreach WHERE state = 'captured') o
         FULL JOIN captured_mails c ON c.program_id = o.program_id AND c.outreach_id = o.id
         WHERE o.id IS NULL OR c.outreach_id IS NULL",
    ),
    (
        "the runs' counts add up to what is stored",
        "SELECT '00000000-0000-0000-0000-000000000000'::uuid
         FROM (SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(rejected_new), 0) AS rejected
               FROM collection_runs) run
         WHERE run.accepted <> (SELECT count(*) FROM leads)
            OR run.rejected <> (SELECT count(*) FROM rejected_leads)",
    ),
];

/// Asserts all of it. To be called when the work is done: [`Stack::settle`].
///
/// # Panics
/// When a rule is broken, naming the rule and one of the leads.
pub async fn audit(stack: &Stack, planted: Planted<'_>) {
    let unfinished = stack.unfinished().await;
    assert_eq!(unfinished.outbox, 0, "the outbox is not empty");
    let broken = broken_rules(&mut stack.connect().await, planted.stuck).await;
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    for (queue, dead) in [(Queue::LeadCreated, planted.dead_created), (Queue::LeadEnriched, planted.dead_enriched)] {
        stack.amqp().wait_for_depth(queue.name(), 0).await;
        // What a consumer still has in hand is in neither queue.
        stack.amqp().wait_for_depth(queue.dead_name(), dead).await;
    }
}

/// The rules that leads other than `except` break, each with how many do and one of them.
pub async fn broken_rules(connection: &mut PgConnection, except: &[Uuid]) -> Vec<String> {
    let mut broken = Vec::new();
    for (rule, query) in RULES {
        let query = format!("SELECT lead FROM ({query}) broken (lead) WHERE lead <> ALL ($1)");
        let leads: Vec<Uuid> = sqlx::query_scalar(&query)
            .bind(except)
            .fetch_all(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{rule}: {error}"));
        if let Some(lead) = leads.first() {
            broken.push(format!("{rule}: broken by {}, such as {lead}", leads.len()));
        }
    }
    broken
}
