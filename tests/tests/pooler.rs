//! Between the services and PostgreSQL stands a pooler in transaction mode: each transaction gets whichever server
//! connection is free, so nothing may be left on one.

use std::time::Duration;

use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    pooler::{Pooler, Shared, Statements},
    stack::Stack,
    truth,
    wait::{PATIENCE, eventually},
};

const LEADS: u64 = 1_500;
const LIMIT: Duration = Duration::from_mins(3);
/// Server connections: fewer than the processes, each of which has several of its own.
const POOL: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_come_through_a_pooler_that_knows_no_prepared_statements() {
    through_a_pooler(Statements::Ignored, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_come_through_a_pooler_that_tracks_the_prepared_statements_which_are_kept() {
    through_a_pooler(Statements::Tracked, &[("LEADMILL_DATABASE_STATEMENT_CACHE", "on")]).await;
}

async fn through_a_pooler(statements: Statements, env: &[(&str, &str)]) {
    let stack = Stack::start_empty().await;
    let Some(pooler) = Pooler::start(stack.database(), POOL, statements).await else {
        return stack.cleanup().await;
    };
    let (url, direct) = (pooler.url(), stack.database().url().to_owned());
    let mut env = env.to_vec();
    env.extend([("DATABASE_URL", url.as_str()), ("DATABASE_DIRECT_URL", direct.as_str())]);

    // The operator goes through the pooler too; only the migrations go around it.
    let leadmill = async |args: &[&str]| stack.leadmill_with(args, &env).await;
    leadmill(&["migrate"]).await.ok();
    leadmill(PROGRAM).await.ok();
    let key = leadmill(&["program", "key", "create", "acme", "--json"]).await.json();
    let key = key["key"].as_str().expect("a key").to_owned();

    let services = stack.fleet(&["collector", "enricher", "mailer"], 2, &env).await;
    let profiles = creators::creators(7, LEADS);
    let pages: Vec<_> = profiles.chunks(100).collect();
    for (index, page) in pages.iter().enumerate() {
        creators::post(services[index % 2].address("ingest.address").await, &key, page).await;
    }
    let shared = pooler.shared().await;
    assert!(shared.servers <= POOL as usize && shared.clients > 2 * shared.servers, "{shared:?}");
    stack.settle(LIMIT).await;

    assert_eq!(truth::count(&stack, "SELECT count(*) FROM leads").await, LEADS as i64);
    let captured = truth::count(&stack, "SELECT count(*) FROM outreach WHERE state = 'captured'").await;
    assert!(captured > LEADS as i64 / 20, "only {captured} mails show little");
    audit(&stack, Planted::default()).await;
    let status = leadmill(&["status", "--program", "acme", "--json"]).await.json();
    assert!(status.is_object());

    for mut service in services {
        for line in service.log_lines() {
            assert_ne!(line["level"], "ERROR", "{line}");
        }
        let (status, _) = service.terminate().await;
        assert!(status.success(), "{status}\n{}", service.log());
    }
    eventually("nobody holds a connection", PATIENCE, async || match pooler.shared().await {
        Shared { clients: 0, .. } => Ok(()),
        shared => Err(format!("{shared:?}")),
    })
    .await;
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_keeps_statements_which_the_pooler_loses_does_not_start_and_says_what_to_set() {
    let stack = Stack::start().await;
    // One server connection for all, so that there is no way around it.
    let Some(pooler) = Pooler::start(stack.database(), 1, Statements::Ignored).await else {
        return stack.cleanup().await;
    };
    for binary in ["collector", "enricher", "mailer"] {
        let mut service = stack.service(binary).envs(&[("DATABASE_URL", &pooler.url())]).spawn();
        let status = service.ended(PATIENCE).await;
        assert_eq!(status.code(), Some(1), "{binary}\n{}", service.log());
        assert!(service.log().contains("database.statement_cache"), "{}", service.log());
    }
    let service = stack.service("enricher").envs(&[("DATABASE_URL", &pooler.url())]);
    let mut service = service.envs(&[("LEADMILL_DATABASE_STATEMENT_CACHE", "off")]).start().await;
    service.terminate().await;
    stack.cleanup().await;
}

/// A program that may send.
const PROGRAM: &[&str] = &[
    "program",
    "create",
    "acme",
    "--name",
    "Acme",
    "--sender-name",
    "Kim of Acme",
    "--sender-email",
    "kim@acme.example",
    "--postal-address",
    "12 Harbour Street, Cork, Ireland",
    "--threshold",
    "40",
];
