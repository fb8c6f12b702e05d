//! The audit that ends every scenario finds what it is there for.

use leadmill_tests::{
    audit::{Planted, audit, broken_rules},
    creators,
    stack::Stack,
    wait::PATIENCE,
};
use sqlx::{Connection as _, Executor as _};
use test_support::transitions;

/// Ways to break the database, each with the rule that must notice.
const DAMAGE: &[(&str, &str)] = &[
    ("DELETE FROM lead_keys WHERE lead_id = (SELECT max(lead_id::text)::uuid FROM lead_keys)", "has its key"),
    (
        "WITH one AS (SELECT e.lead_id FROM enriched_leads e WHERE decision = 'declined' LIMIT 1)
         DELETE FROM enriched_leads WHERE lead_id IN (SELECT lead_id FROM one)",
        "is enriched in its current revision",
    ),
    ("UPDATE leads SET revision = 2", "is enriched in its current revision"),
    ("UPDATE enriched_leads SET enrichment_version = 2, decided_version = 2", "more often than it changed"),
    ("UPDATE enriched_leads SET decision = NULL, decided_version = NULL", "is decided about"),
    ("UPDATE enriched_leads SET decision_reasons = '{}'", "can say why"),
    ("UPDATE enriched_leads SET decision = 'planned', decision_reasons = '{}'", "has a mail"),
    (
        "UPDATE outreach SET state = 'queued', due_at = now() WHERE state = 'captured'",
        "waits under way only while somebody works",
    ),
    (
        "UPDATE enriched_leads SET decision = 'declined', decision_reasons = '{suppressed}';
         UPDATE outreach SET state = 'deferred', reason = 'busy', due_at = now() WHERE state = 'captured'",
        "on its way to who is declined",
    ),
    ("UPDATE enriched_leads SET sent = true", "marked as sent and contacted"),
    ("UPDATE outreach SET state = 'sent', sent_at = now() WHERE state = 'captured'", "marked as sent and contacted"),
    ("UPDATE enriched_leads SET score = 0", "without a reason to send it"),
    ("UPDATE enriched_leads SET compliant = false", "without a reason to send it"),
    (
        "UPDATE outreach SET law_rule = 'v2/email/de/opt_in/consent' WHERE state = 'captured';
         DELETE FROM contact_evidence",
        "without the evidence that its rule asks for",
    ),
    ("UPDATE outreach SET law_rule = NULL WHERE state = 'captured'", "names the rule that allows it"),
    (
        "UPDATE outreach SET state = 'deferred', reason = 'busy', due_at = now() - interval '1 minute',
                             permitted_until = now() WHERE state = 'captured'",
        "a mail that is due can be claimed",
    ),
    (
        "UPDATE outreach SET recipient_key = NULL, state = 'held', reason = 'x' WHERE state = 'captured'",
        "every captured mail is kept",
    ),
    ("DELETE FROM captured_mails", "every captured mail is kept"),
    ("UPDATE collection_runs SET accepted = accepted + 1", "the runs' counts add up"),
    (
        "UPDATE outreach SET state = 'cancelled', reason = 'no_longer_qualified', recipient_key = NULL
         WHERE state = 'captured'",
        "one that is cancelled has a reason that holds",
    ),
    (
        "UPDATE outreach SET state = 'deferred', reason = 'busy', due_at = now() - interval '1 minute',
                             recipient_index = '\\x00000000000000000000000000000000',
                             recipient_key = '\\x00000000000000000000000000000000'
         WHERE id = (SELECT min(id::text)::uuid FROM outreach WHERE state = 'captured')",
        "a mail that is due can be claimed",
    ),
    (
        "UPDATE outreach SET state = 'deferred', reason = 'busy', due_at = now() + interval '1 minute',
                             recipient_index = '\\x00000000000000000000000000000000',
                             recipient_key = '\\x00000000000000000000000000000000'
         WHERE id = (SELECT min(id::text)::uuid FROM outreach WHERE state = 'captured')",
        "planned for its lead's address",
    ),
    (
        "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
         SELECT program_id, recipient_index, index_version, 'manual', now() FROM outreach WHERE state = 'captured';
         UPDATE outreach SET state = 'queued', due_at = now() + interval '1 minute' WHERE state = 'captured'",
        "left for a suppressed recipient",
    ),
    (
        "UPDATE outreach SET state = 'queued', due_at = now() + interval '1 minute' WHERE state = 'captured';
         DELETE FROM lead_keys",
        "left for an erased lead",
    ),
    (
        "UPDATE outreach SET state = 'held', reason = 'who_knows', due_at = now() WHERE state = 'captured'",
        "known way out",
    ),
    ("UPDATE outreach SET state = 'held', reason = 'unreadable' WHERE state = 'captured'", "due to be looked at again"),
    (
        "UPDATE outreach SET state = 'held', reason = 'duplicate_recipient', due_at = now(), recipient_key = NULL
         WHERE state = 'captured'",
        "a duplicate is held only while",
    ),
    (
        "UPDATE outreach SET state = 'held', reason = 'incomplete_sender', due_at = now() WHERE state = 'captured'",
        "held for an incomplete sender only while",
    ),
    (
        "UPDATE leads SET country = 'US';
         UPDATE outreach SET state = 'held', reason = 'legal_unknown:v1', due_at = now() WHERE state = 'captured'",
        "held for an unknown country only while",
    ),
    (
        "UPDATE outreach SET state = 'held', reason = 'program_paused', due_at = now() WHERE state = 'captured'",
        "held for a pause only while",
    ),
    (
        "UPDATE enriched_leads SET decision = 'declined', decision_reasons = '{score_below_threshold:39<40}', score = 50",
        "declined for the score alone",
    ),
    (
        "UPDATE outreach SET state = 'queued', due_at = now() + interval '1 minute' WHERE state = 'captured';
         UPDATE programs SET threshold = 100",
        "a mail waits only for who reaches the threshold",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_the_audit_notices_when_it_is_broken() {
    let stack = Stack::start().await;
    let fleet = stack.fleet(&["collector", "enricher", "mailer"], 1, &[]).await;
    let ingest = fleet[0].address("ingest.address").await;
    creators::post(ingest, &stack.api_key().await, &creators::creators(51, 200)).await;
    stack.settle(PATIENCE).await;
    audit(&stack, Planted::default()).await;
    drop(fleet);

    let mut connection = stack.connect().await;
    transitions::allow_all(&mut connection).await;
    for (damage, rule) in DAMAGE {
        let mut transaction = connection.begin().await.expect("a transaction");
        transaction.execute(*damage).await.unwrap_or_else(|error| panic!("{damage}: {error}"));
        let broken = broken_rules(&mut transaction, &[]).await;
        let noticed = broken.iter().any(|broken| broken.rule.name.contains(rule));
        assert!(noticed, "`{rule}` doesn't notice {damage}: {broken:?}");
        transaction.rollback().await.expect("the damage is undone");
    }
    audit(&stack, Planted::default()).await;
    stack.cleanup().await;
}
