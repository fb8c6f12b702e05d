//! Do-not-contact lists: who is on one is neither analysed nor written to, however the import and the pipeline meet.

use std::fmt::Write as _;

use collector::source::RawProfile;
use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    stack::Stack,
    truth,
    wait::{PATIENCE, eventually},
};

const LEADS: u64 = 120;
/// The most memory that an import may take, whatever its file holds.
const MEMORY: u64 = 64 * 1024 * 1024;

/// Creators of a company whose addresses are below `rivals.example.org`, and as many of nobody's.
fn both(seed: u64, label: &str) -> Vec<RawProfile> {
    let mut profiles = creators::reachable(seed, label, LEADS * 2);
    for (index, profile) in profiles.iter_mut().enumerate().filter(|(index, _)| index % 2 == 0) {
        profile.source = Some("rivals".to_owned());
        profile.email = Some(format!("{label}{index}@shop.rivals.example.org"));
    }
    profiles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_is_imported_while_leads_are_enriched_gets_no_mail_and_no_further_analysis() {
    let stack = Stack::start().await;
    let services = stack.fleet(&["collector", "enricher"], 1, &[]).await;
    let ingest = services[0].address("ingest.address").await;
    let key = stack.api_key().await;
    creators::post(ingest, &key, &both(1, "before")).await;
    let analysed = "SELECT count(*) FROM enriched_leads";
    eventually("all are analysed", PATIENCE, async || {
        let count = truth::count(&stack, analysed).await;
        if count == LEADS as i64 * 2 { Ok(()) } else { Err(format!("{count} are")) }
    })
    .await;

    let list = stack.file("rivals.txt", "# their shops\n*.rivals.example.org\n");
    let list = list.to_str().expect("a path that is text");
    let import = ["suppressions", "import", list, "--list", "competitor", "--json"];
    let during = both(2, "during");
    let (imported, _) = tokio::join!(stack.leadmill(&import), creators::post(ingest, &key, &during));
    let imported = imported.json();
    assert_eq!((&imported["added"], &imported["wildcards"]), (&1.into(), &1.into()), "{imported}");
    let mut after = both(3, "after");
    for profile in after.iter_mut().filter(|profile| profile.source.as_deref() == Some("rivals")) {
        profile.source = Some("rivals-after".to_owned());
    }
    creators::post(ingest, &key, &after).await;

    let mailer = stack.service("mailer").start().await;
    stack.settle(PATIENCE).await;
    let of = "SELECT count(*) FROM leads l JOIN";
    for (what, query, expected) in [
        (
            "who came after the import is not analysed",
            format!("{of} enriched_leads e ON e.lead_id = l.id WHERE l.source = 'rivals-after'"),
            0,
        ),
        (
            "no mail is kept for them",
            format!("{of} outreach o ON o.lead_id = l.id WHERE l.source LIKE 'rivals%' AND o.state <> 'cancelled'"),
            0,
        ),
        (
            "who was analysed before is told from the others by a reason of its own",
            format!(
                "{of} enriched_leads e ON e.lead_id = l.id WHERE l.source = 'rivals' AND e.decision = 'declined'
                 AND e.decided_at IS NOT NULL AND 'do_not_contact:competitor' <> ALL (e.decision_reasons)"
            ),
            0,
        ),
        (
            "the others get theirs",
            format!("{of} outreach o ON o.lead_id = l.id WHERE l.source NOT LIKE 'rivals%' AND o.state = 'cancelled'"),
            0,
        ),
    ] {
        let found: i64 =
            sqlx::query_scalar(&query).fetch_one(&mut stack.connect().await).await.expect("the query counts");
        assert_eq!(found, expected, "{what}");
    }
    assert!(truth::count(&stack, "SELECT count(*) FROM outreach WHERE state = 'captured'").await > LEADS as i64 / 4);
    audit(&stack, Planted::default()).await;
    drop(mailer);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_lines_are_imported_in_little_memory_and_nothing_of_a_file_with_a_wrong_one() {
    let stack = Stack::start().await;
    let mut text = String::with_capacity(32_000_000);
    for line in 0..1_000_000 {
        let at = if line % 10 == 0 { "@customers.example.com" } else { "" };
        let sign = if at.is_empty() { "@" } else { "" };
        writeln!(text, "{sign}person.{line}{at}").expect("memory takes it");
    }
    let list = stack.file("customers.txt", &text);
    let wrong = stack.file("wrong.txt", format!("{text}*@example.com\n"));
    let import = async |file: &std::path::Path, more: &[&str]| {
        let file = file.to_str().expect("a path that is text");
        let import = ["suppressions", "import", file, "--list", "customer", "--json"];
        stack.leadmill(&[&import[..], more].concat()).await
    };
    let complaint = import(&wrong, &[]).await.fails_with(1);
    assert!(complaint.contains("line 1000001: "), "{complaint}");
    let causes = "SELECT count(*) FROM suppression_causes";
    assert_eq!(truth::count(&stack, causes).await, 0);

    let imported = import(&list, &[]).await.ok();
    assert!(imported.peak_memory > 0 && imported.peak_memory < MEMORY, "{} bytes", imported.peak_memory);
    assert_eq!(truth::count(&stack, causes).await, 1_000_000);
    assert_eq!(truth::count(&stack, "SELECT count(*) FROM suppressions").await, 100_000);
    stack.cleanup().await;
}
