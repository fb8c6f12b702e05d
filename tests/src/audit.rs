//! What must hold at the end of every scenario: the invariants of the design, asked of PostgreSQL and RabbitMQ.

use std::{collections::BTreeSet, fmt, time::Duration};

use domain::event::Queue;
use sqlx::{Executor as _, PgConnection};
use uuid::Uuid;

use crate::{
    stack::Stack,
    wait::{PATIENCE, within},
};

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

/// When a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// At every moment, whatever is under way.
    Always,
    /// Once everything has come through and every job has run.
    WhenSettled,
}

/// A rule, with a query for the leads that break it.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What must hold.
    pub name: &'static str,
    /// When.
    pub holds: Holds,
    /// Whether who breaks it waits for something that never comes.
    pub stranded: bool,
    /// Whether leads are excused that a scenario has made stuck: by an erasure, say.
    pub excusable: bool,
    query: &'static str,
}

const fn always(name: &'static str, query: &'static str) -> Rule {
    Rule { name, holds: Holds::Always, stranded: false, excusable: true, query }
}

const fn settled(name: &'static str, query: &'static str) -> Rule {
    Rule { name, holds: Holds::WhenSettled, stranded: false, excusable: true, query }
}

const fn stranded(name: &'static str, holds: Holds, query: &'static str) -> Rule {
    Rule { name, holds, stranded: true, excusable: true, query }
}

/// What must hold.
pub const RULES: &[Rule] = &[
    always(
        "every accepted lead has its key",
        "SELECT l.id FROM leads l LEFT JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id
         WHERE k.lead_id IS NULL",
    ),
    settled(
        "every lead is enriched in its current revision, or of somebody who must not be written to",
        "SELECT l.id FROM leads l LEFT JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id
         WHERE e.lead_revision IS DISTINCT FROM l.revision
           AND NOT EXISTS (SELECT FROM suppressions s
                           WHERE s.program_id = l.program_id AND s.recipient_index = l.email_index)",
    ),
    always(
        "no lead is enriched more often than it changed",
        "SELECT l.id FROM leads l JOIN enriched_leads e ON e.program_id = l.program_id AND e.lead_id = l.id
         WHERE e.enrichment_version > l.revision",
    ),
    settled(
        "every enrichment is decided about, in its newest version",
        "SELECT lead_id FROM enriched_leads
         WHERE decision IS NULL OR decided_version IS DISTINCT FROM enrichment_version",
    ),
    always(
        "who is held or declined can say why, and only they can",
        "SELECT lead_id FROM enriched_leads WHERE (decision = 'planned') <> (cardinality(decision_reasons) = 0)",
    ),
    settled(
        "who is planned or held has a mail",
        "SELECT e.lead_id FROM enriched_leads e
         LEFT JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id
         WHERE e.decision IN ('planned', 'held') AND o.id IS NULL",
    ),
    settled(
        "nothing is on its way to who is declined",
        "SELECT e.lead_id FROM enriched_leads e
         JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id
         WHERE e.decision = 'declined'
           AND o.state IN ('queued', 'connecting', 'transmitting', 'deferred', 'held')",
    ),
    settled(
        "a mail waits under way only while somebody works",
        "SELECT lead_id FROM outreach WHERE state IN ('queued', 'connecting', 'transmitting')",
    ),
    always(
        "a lead is marked as sent and contacted exactly when its mail was sent",
        "SELECT e.lead_id FROM enriched_leads e
         LEFT JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id AND o.state = 'sent'
         WHERE e.sent <> (o.id IS NOT NULL) OR e.contacted <> (o.id IS NOT NULL)",
    ),
    always(
        "no mail goes out without a reason to send it",
        "SELECT o.lead_id FROM outreach o
         JOIN enriched_leads e ON e.program_id = o.program_id AND e.lead_id = o.lead_id
         JOIN programs p ON p.id = o.program_id
         WHERE o.state IN ('sent', 'captured', 'uncertain')
           AND (e.score < p.threshold OR NOT e.compliant OR p.sender_email IS NULL OR p.postal_address IS NULL)",
    ),
    always(
        "no mail goes out without the evidence that its rule asks for",
        "SELECT o.lead_id FROM outreach o
         WHERE o.state IN ('sent', 'captured', 'uncertain')
           AND (o.law_rule LIKE '%/consent' OR o.law_rule LIKE '%/published')
           AND NOT EXISTS (SELECT FROM contact_evidence c WHERE c.program_id = o.program_id AND c.lead_id = o.lead_id
                           AND c.recipient_index = o.recipient_index
                           AND c.kind = CASE WHEN o.law_rule LIKE '%/consent' THEN 1 ELSE 2 END)",
    ),
    always(
        "a mail names the rule that allows it with its version, and an expiry only with a rule",
        "SELECT lead_id FROM outreach
         WHERE (law_rule IS NULL) <> (law_version IS NULL) OR law_rule IS NULL AND permitted_until IS NOT NULL",
    ),
    always(
        "nobody gets the same mail twice",
        "SELECT min(lead_id::text)::uuid FROM outreach WHERE state IN ('sent', 'captured', 'uncertain', 'transmitting')
         GROUP BY program_id, recipient_index, campaign, step HAVING count(*) > 1",
    ),
    always(
        "every captured mail is kept, and no other",
        "SELECT coalesce(o.lead_id, c.lead_id) FROM (SELECT * FROM outreach WHERE state = 'captured') o
         FULL JOIN captured_mails c ON c.program_id = o.program_id AND c.outreach_id = o.id
         WHERE o.id IS NULL OR c.outreach_id IS NULL",
    ),
    always(
        "the runs' counts add up to what is stored",
        "SELECT '00000000-0000-0000-0000-000000000000'::uuid
         FROM (SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(rejected_new), 0) AS rejected
               FROM collection_runs) run
         WHERE run.accepted <> (SELECT count(*) FROM leads)
            OR run.rejected <> (SELECT count(*) FROM rejected_leads)",
    ),
    stranded(
        "a planned decision has a mail, and one that is cancelled has a reason that holds",
        Holds::WhenSettled,
        "SELECT e.lead_id FROM enriched_leads e
         LEFT JOIN outreach o ON o.program_id = e.program_id AND o.lead_id = e.lead_id
         WHERE e.decision = 'planned'
           AND EXISTS (SELECT FROM lead_keys k WHERE k.program_id = e.program_id AND k.lead_id = e.lead_id)
           AND (o.id IS NULL
                OR o.state = 'cancelled'
                   AND NOT (o.reason IN ('suppressed', 'do_not_contact')
                            AND EXISTS (SELECT FROM suppressions s WHERE s.program_id = o.program_id
                                        AND s.recipient_index = o.recipient_index))
                   AND NOT (o.reason = 'duplicate_recipient'
                            AND EXISTS (SELECT FROM outreach other WHERE other.program_id = o.program_id
                                        AND other.recipient_key = o.recipient_index AND other.campaign = o.campaign
                                        AND other.step = o.step AND other.id <> o.id
                                        AND other.state IN ('sent', 'failed', 'uncertain'))))",
    ),
    stranded(
        "a mail that is due can be claimed",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o
         JOIN programs p ON p.id = o.program_id
         JOIN leads l ON l.program_id = o.program_id AND l.id = o.lead_id
         WHERE o.state IN ('queued', 'deferred') AND o.due_at < now() - interval '10 seconds' AND NOT p.paused
           AND coalesce(p.rest_until <= now(), true)
           AND (EXISTS (SELECT FROM suppressions s
                        WHERE s.program_id = o.program_id AND s.recipient_index = o.recipient_index)
                OR NOT EXISTS (SELECT FROM lead_keys k WHERE k.program_id = o.program_id AND k.lead_id = o.lead_id)
                OR l.email_index IS DISTINCT FROM o.recipient_index OR o.permitted_until <= now())",
    ),
    stranded(
        "nothing unsent is left for a suppressed recipient",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o
         JOIN suppressions s ON s.program_id = o.program_id AND s.recipient_index = o.recipient_index
         WHERE o.state IN ('queued', 'deferred', 'held')",
    ),
    Rule {
        name: "nothing unsent is left for an erased lead",
        holds: Holds::WhenSettled,
        stranded: true,
        excusable: false,
        query: "SELECT o.lead_id FROM outreach o
         JOIN programs p ON p.id = o.program_id
         LEFT JOIN lead_keys k ON k.program_id = o.program_id AND k.lead_id = o.lead_id
         -- a claim cancels it, and nothing of a paused program is claimed
         WHERE (o.state = 'held' OR o.state IN ('queued', 'deferred') AND NOT p.paused) AND k.lead_id IS NULL",
    },
    stranded(
        "a mail that waits is planned for its lead's address",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o
         JOIN leads l ON l.program_id = o.program_id AND l.id = o.lead_id
         WHERE o.state IN ('queued', 'deferred', 'held') AND l.email_index IS DISTINCT FROM o.recipient_index",
    ),
    stranded(
        "a mail is held for a reason that has a known way out",
        Holds::Always,
        "SELECT lead_id FROM outreach
         WHERE state = 'held'
           AND split_part(reason, ':', 1) NOT IN ('duplicate_recipient', 'incomplete_sender', 'legal_unknown',
                                                  'program_paused', 'compose_failed', 'bad_envelope',
                                                  'unreadable')",
    ),
    stranded(
        "a mail that is held is due to be looked at again",
        Holds::Always,
        "SELECT lead_id FROM outreach WHERE state = 'held' AND due_at IS NULL",
    ),
    stranded(
        "a duplicate is held only while another mail to its recipient may still go out or be given up",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o
         WHERE o.state = 'held' AND o.reason = 'duplicate_recipient'
           AND NOT EXISTS (SELECT FROM outreach other WHERE other.program_id = o.program_id
                           AND other.recipient_key = o.recipient_index AND other.campaign = o.campaign
                           AND other.step = o.step AND other.id <> o.id
                           AND other.state NOT IN ('sent', 'failed', 'uncertain', 'cancelled'))",
    ),
    stranded(
        "a mail is held for an incomplete sender only while the program lacks one",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o JOIN programs p ON p.id = o.program_id
         WHERE o.state = 'held' AND o.reason = 'incomplete_sender'
           AND p.sender_email IS NOT NULL AND p.postal_address IS NOT NULL",
    ),
    stranded(
        "a mail is held for an unknown country only while it is unknown",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o JOIN leads l ON l.program_id = o.program_id AND l.id = o.lead_id
         WHERE o.state = 'held' AND o.reason LIKE 'legal_unknown:%' AND l.country IS NOT NULL",
    ),
    stranded(
        "a mail is held for a pause only while the program is paused",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o JOIN programs p ON p.id = o.program_id
         WHERE o.state = 'held' AND o.reason = 'program_paused' AND NOT p.paused",
    ),
    stranded(
        "who is declined for the score alone is below the threshold",
        Holds::WhenSettled,
        "SELECT e.lead_id FROM enriched_leads e JOIN programs p ON p.id = e.program_id
         WHERE e.decision = 'declined' AND cardinality(e.decision_reasons) = 1
           AND e.decision_reasons[1] LIKE 'score_below_threshold:%' AND e.score >= p.threshold",
    ),
    stranded(
        "a mail waits only for who reaches the threshold",
        Holds::WhenSettled,
        "SELECT o.lead_id FROM outreach o
         JOIN enriched_leads e ON e.program_id = o.program_id AND e.lead_id = o.lead_id
         JOIN programs p ON p.id = o.program_id
         WHERE o.state IN ('queued', 'deferred', 'held') AND e.score < p.threshold",
    ),
];

/// A rule that is broken.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    /// The leads that break it; there is one at least.
    pub leads: Vec<Uuid>,
}

impl Broken {
    /// By how many, and an example.
    pub fn by(&self) -> String {
        format!("broken by {}, such as {}", self.leads.len(), self.leads[0])
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name, self.by())
    }
}

/// Asserts all of it. To be called when the work is done ([`Stack::settle`]) and while somebody still runs the jobs.
///
/// # Panics
/// When a rule is broken, naming the rule and one of the leads.
pub async fn audit(stack: &Stack, planted: Planted<'_>) {
    let unfinished = stack.unfinished().await;
    assert_eq!(unfinished.outbox, 0, "the outbox is not empty");
    let broken = lasting(stack, planted, PATIENCE).await;
    let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    queues_are_drained(stack, planted).await;
}

/// Lets the time come at which jobs look once more at what is held, at who is suppressed and at changed settings. They wait
/// some minutes, for transactions that are under way; to be called when there are none.
pub async fn let_jobs_look(connection: &mut PgConnection) {
    for statement in [
        "UPDATE outreach SET due_at = now() WHERE state = 'held' AND due_at > now()",
        "UPDATE suppressions SET created_at = created_at - interval '5 minutes' WHERE applied_at IS NULL",
        "UPDATE programs SET rules_changed_at = rules_changed_at - interval '5 minutes',
                             rules_applied_at = rules_applied_at - interval '5 minutes'
         WHERE rules_changed_at > now() - interval '5 minutes'",
        "UPDATE jobs SET next_due_at = now() WHERE next_due_at > now()",
    ] {
        connection.execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// The rules that are still broken after `limit`, within which the jobs look at what is held.
pub async fn lasting(stack: &Stack, planted: Planted<'_>, limit: Duration) -> Vec<Broken> {
    let mut connection = stack.connect().await;
    let looking = within(limit, async || {
        let broken = broken_rules(&mut connection, planted.stuck).await;
        // Only what is stranded can still be found by a job.
        if broken.iter().any(|broken| broken.rule.stranded) {
            let_jobs_look(&mut connection).await;
            Err(broken)
        } else {
            Ok(broken)
        }
    });
    looking.await.unwrap_or_else(|broken| broken)
}

/// Waits until both queues are empty and the dead letters are those that were planted.
///
/// # Panics
/// When they don't become so.
pub async fn queues_are_drained(stack: &Stack, planted: Planted<'_>) {
    for (queue, dead) in [(Queue::LeadCreated, planted.dead_created), (Queue::LeadEnriched, planted.dead_enriched)] {
        stack.amqp().wait_for_depth(queue.name(), 0).await;
        // What a consumer still has in hand is in neither queue.
        stack.amqp().wait_for_depth(queue.dead_name(), dead).await;
    }
}

/// The rules that are broken; leads in `except` are excused wherever they may be.
pub async fn broken_rules(connection: &mut PgConnection, except: &[Uuid]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for rule in RULES {
        let query = format!("SELECT lead FROM ({}) broken (lead) WHERE lead <> ALL ($1)", rule.query);
        let except = if rule.excusable { except } else { &[] };
        let leads: Vec<Uuid> = sqlx::query_scalar(&query)
            .bind(except)
            .fetch_all(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", rule.name));
        if !leads.is_empty() {
            broken.push(Broken { rule: *rule, leads });
        }
    }
    broken
}

/// How many leads wait for something that never comes.
pub fn stranded_leads(broken: &[Broken]) -> u64 {
    let leads: BTreeSet<Uuid> =
        broken.iter().filter(|broken| broken.rule.stranded).flat_map(|broken| broken.leads.iter().copied()).collect();
    leads.len() as u64
}
