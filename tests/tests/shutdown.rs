//! The first SIGTERM ends a service in an orderly way: nothing is lost, nothing half done, and it is quick.

use std::time::Duration;

use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    mail::SmtpServer,
    stack::Stack,
    truth,
    wait::{PATIENCE, eventually},
};

/// What an orchestrator waits before it kills.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_every_service_with_0_within_10_seconds_and_another_goes_on_from_there() {
    let stack = Stack::start().await;
    let smtp = SmtpServer::start().await;
    let settings = smtp.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let services = ["collector", "enricher", "mailer"];
    let fleet = stack.fleet(&services, 1, &settings).await;
    let (ingest, key) = (fleet[0].address("ingest.address").await, stack.api_key().await);
    creators::post(ingest, &key, &creators::creators(11, 2_000)).await;
    let out = "SELECT count(*) FROM outreach WHERE state = 'sent'";
    eventually("mails go out", PATIENCE, async || {
        let sent = truth::count(&stack, out).await;
        if sent > 20 { Ok(()) } else { Err(format!("{sent} are out")) }
    })
    .await;

    for mut process in fleet {
        let (status, took) = process.terminate().await;
        assert!(status.success(), "{status}\n{}", process.log());
        assert!(took < LIMIT, "it took {took:?}\n{}", process.log());
    }
    let under_way = "SELECT count(*) FROM outreach WHERE state IN ('connecting', 'transmitting', 'uncertain')";
    assert_eq!(truth::count(&stack, under_way).await, 0, "no mail is half sent");
    assert_eq!(truth::count(&stack, "SELECT count(*) FROM collection_runs WHERE finished_at IS NULL").await, 0);

    let fleet = stack.fleet(&services, 1, &settings).await;
    stack.settle(Duration::from_mins(2)).await;
    let sent = truth::mails_in(&stack, &["sent"]).await;
    assert_eq!(smtp.mails().len(), sent.len(), "each mail went out once");
    audit(&stack, Planted::default()).await;
    drop(fleet);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_service_ends_at_once() {
    let stack = Stack::start().await;
    for mut process in stack.fleet(&["collector", "enricher", "mailer"], 1, &[]).await {
        let (status, took) = process.terminate().await;
        assert!(status.success(), "{status}\n{}", process.log());
        assert!(took < LIMIT, "it took {took:?}\n{}", process.log());
    }
    audit(&stack, Planted::default()).await;
    stack.cleanup().await;
}
