//! The whole way, as it runs in production: three services as processes of their own, two replicas of each, a real mail
//! server at the end.

use std::{collections::BTreeSet, env, time::Duration};

use collector::source::{RawProfile, simulated::SimulationMix};
use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    mail::{self, Lawful, SmtpServer},
    process::Process,
    stack::{Stack, free_address},
    truth::{self, Intended},
    wait::{PATIENCE, eventually},
};

/// The leads that go in; `LEADMILL_TEST_LEADS` changes it.
const LEADS: u64 = 5_000;
/// How long they may take, on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_gets_exactly_the_qualified_leads_each_once_from_two_replicas_of_every_service() {
    let stack = Stack::start().await;
    let smtp = SmtpServer::start().await;
    let pages = free_address();
    let settings = smtp.settings();
    let mut settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let public_url = format!("http://{pages}");
    settings.push(("LEADMILL_MAILER_PUBLIC_URL", &public_url));

    let collectors = stack.fleet(&["collector"], 2, &[]).await;
    let enrichers = stack.fleet(&["enricher"], 2, &[]).await;
    let first = stack.service("mailer").envs(&settings).envs(&[("LEADMILL_MAILER_LISTEN", &pages.to_string())]);
    let mailers = [first.spawn(), stack.service("mailer").envs(&settings).spawn()];
    for mailer in &mailers {
        mailer.ready().await;
    }

    let count = env::var("LEADMILL_TEST_LEADS").ok().and_then(|text| text.parse().ok()).unwrap_or(LEADS);
    let rows = creators::with_mix(4, count, SimulationMix::default());
    collect(&stack, &collectors, &rows).await;
    stack.settle(LIMIT).await;

    let sent = truth::mails_in(&stack, &["sent"]).await;
    assert_eq!(truth::mails_in(&stack, &["failed", "uncertain", "deferred", "captured"]).await, []);
    let qualified = "SELECT count(*) FROM enriched_leads WHERE decision = 'planned'";
    let duplicates = "SELECT count(*) FROM outreach WHERE state = 'held' AND reason = 'duplicate_recipient'";
    let qualified = truth::count(&stack, qualified).await - truth::count(&stack, duplicates).await;
    assert_eq!(sent.len() as i64, qualified, "exactly the qualified leads got a mail");
    assert!(sent.len() > LEADS as usize / 20, "only {} mails show little", sent.len());

    let lawful = every_mail_is_lawful_and_expected(&smtp, &sent);
    work_is_shared(&stack, &enrichers, &mailers).await;
    unsubscribing_works(&stack, &lawful).await;
    who_unsubscribed_gets_no_mail_by_another_network(&stack, &collectors[0], &lawful[0]).await;
    assert_eq!(smtp.mails().len(), sent.len());

    audit(&stack, Planted::default()).await;
    for mut process in collectors.into_iter().chain(enrichers).chain(mailers) {
        let (status, _) = process.terminate().await;
        assert!(status.success(), "{status}\n{}", process.log());
    }
    stack.cleanup().await;
}

/// Posts the rows, a page to each replica in turn, and checks that every row has its place in the answer.
async fn collect(stack: &Stack, collectors: &[Process], rows: &[RawProfile]) {
    let key = stack.api_key().await;
    let mut counted = 0;
    for (index, page) in rows.chunks(250).enumerate() {
        let ingest = collectors[index % collectors.len()].address("ingest.address").await;
        for answer in creators::post(ingest, &key, page).await {
            let counts = answer["counts"].as_object().expect("an answer counts");
            counted += counts.values().filter_map(serde_json::Value::as_u64).sum::<u64>();
        }
    }
    assert_eq!(counted, rows.len() as u64, "every row is accepted, refused or a duplicate");
    let runs = truth::count(stack, "SELECT count(DISTINCT run_id) FROM rejected_leads").await;
    assert_eq!(runs, 2, "both collectors refused some of the junk");
}

fn every_mail_is_lawful_and_expected(smtp: &SmtpServer, sent: &[Intended]) -> Vec<Lawful> {
    let mails = smtp.mails();
    assert_eq!(mails.len(), sent.len(), "the server got each mail once");
    let lawful: Vec<Lawful> = mails.iter().map(|mail| mail::lawful(&mail.data)).collect();
    let mut got: Vec<(&str, &str)> =
        lawful.iter().map(|mail| (mail.recipient.as_str(), mail.message_id.as_str())).collect();
    got.sort_unstable();
    let expected: Vec<(&str, &str)> =
        sent.iter().map(|mail| (mail.recipient.as_str(), mail.message_id.as_str())).collect();
    assert_eq!(got, expected);
    for (mail, lawful) in mails.iter().zip(&lawful) {
        assert_eq!(mail.rcpt_to, [lawful.recipient.as_str()], "one recipient a transaction");
    }
    let unique = |texts: Vec<&str>| texts.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(unique(mails.iter().map(|mail| mail.mail_from.as_str()).collect()), mails.len(), "VERP");
    assert_eq!(unique(lawful.iter().map(|mail| mail.unsubscribe.as_str()).collect()), mails.len());
    lawful
}

/// Both replicas of the stages did a part, and together they did each lead once.
async fn work_is_shared(stack: &Stack, enrichers: &[Process], mailers: &[Process]) {
    for (replicas, query) in [
        (enrichers, "SELECT count(*) FROM leads"),
        (mailers, "SELECT count(*) FROM enriched_leads WHERE decision IS NOT NULL"),
    ] {
        let expected = truth::count(stack, query).await as u64;
        let mut sum = 0;
        for replica in replicas {
            let own = replica.counted("leadmill_stage_handled_total", &[]).await;
            assert!(own > expected / 20, "one replica did {own} of {expected}");
            sum += own;
        }
        assert!(sum >= expected, "{sum} of {expected} were handled");
    }
}

/// A look at the page changes nothing; one click, in both encodings that RFC 8058 allows, suppresses at once.
async fn unsubscribing_works(stack: &Stack, mails: &[Lawful]) {
    let suppressed = "SELECT count(*) FROM suppressions";
    let client = reqwest::Client::new();
    for link in mails.iter().take(5).map(|mail| &mail.unsubscribe) {
        let page = client.get(link).send().await.expect("the link works");
        assert_eq!(page.status(), 200);
        assert!(page.text().await.expect("a page").contains("<form method=\"post\">"));
    }
    assert_eq!(truth::count(stack, suppressed).await, 0, "link scanners follow links");

    let boundary = "----one-click";
    let multipart = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--{boundary}--\r\n"
    );
    let bodies = [
        ("application/x-www-form-urlencoded".to_owned(), "List-Unsubscribe=One-Click".to_owned()),
        (format!("multipart/form-data; boundary={boundary}"), multipart),
    ];
    for (done, ((kind, body), mail)) in bodies.into_iter().zip(mails).enumerate() {
        // Twice: whoever clicks again is not told of an error.
        for _ in 0..2 {
            let request = client.post(&mail.unsubscribe).header("content-type", &kind).body(body.clone());
            let answer = request.send().await.expect("the link works");
            assert_eq!(answer.status(), 200, "no redirect, no login");
            assert_eq!(truth::count(stack, suppressed).await, done as i64 + 1, "at once");
        }
    }
}

/// The same address turns up on another network: who objected is not even analysed.
async fn who_unsubscribed_gets_no_mail_by_another_network(stack: &Stack, collector: &Process, mail: &Lawful) {
    let again = RawProfile {
        source: Some("elsewhere".to_owned()),
        username: Some("somebody.else.entirely".to_owned()),
        email: Some(mail.recipient.clone()),
        ..creators::creators(99, 1).remove(0)
    };
    let ingest = collector.address("ingest.address").await;
    creators::post(ingest, &stack.api_key().await, &[again]).await;
    let skipped = "SELECT count(*) FROM leads l JOIN lead_keys k ON k.program_id = l.program_id AND k.lead_id = l.id
                   WHERE l.source = 'elsewhere' AND k.awaited_revision IS NULL";
    eventually("the lead is skipped", PATIENCE, async || {
        if truth::count(stack, skipped).await == 1 { Ok(()) } else { Err("it waits for an analysis") }
    })
    .await;
    let analysed =
        "SELECT count(*) FROM enriched_leads e JOIN leads l ON l.program_id = e.program_id AND l.id = e.lead_id
                    WHERE l.source = 'elsewhere'";
    assert_eq!(truth::count(stack, analysed).await, 0, "an objection ends scoring too");
    stack.settle(PATIENCE).await;
}
