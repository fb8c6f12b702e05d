//! A model that misbehaves in every way never costs a lead: it is asked again, then the built-in analyser steps in, and
//! the lead says so.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use collector::source::RawProfile;
use leadmill_tests::{
    audit::{Planted, audit},
    creators,
    stack::Stack,
};
use sqlx::Row as _;
use test_support::llm::{Behaviour, FakeLlm, RecordedRequest};

/// Leads of each kind.
const EACH: u64 = 12;
/// How long all of them may take.
const LIMIT: Duration = Duration::from_mins(2);
/// The kind of a lead stands in its follower count, which is part of what a model is told.
const FOLLOWERS: u64 = 100_000;

/// Who analysed a lead, and why it was not the model.
type Outcome = (&'static str, Option<&'static str>);

/// What the API does to the leads of one kind.
struct Kind {
    name: &'static str,
    /// The answer to everything, or only to the first request.
    behaviour: Behaviour,
    only_at_first: bool,
    outcome: Outcome,
}

fn kinds() -> Vec<Kind> {
    let always = |name, behaviour, reason| Kind {
        name,
        behaviour,
        only_at_first: false,
        outcome: ("local_fallback", Some(reason)),
    };
    let once = |name, behaviour| Kind { name, behaviour, only_at_first: true, outcome: ("model", None) };
    vec![
        Kind { name: "good", behaviour: Behaviour::Good, only_at_first: false, outcome: ("model", None) },
        always("prose", Behaviour::Prose, "not_json"),
        always("half a JSON", Behaviour::HalfJson, "truncated"),
        always("score 250", Behaviour::Score250, "invalid_score"),
        always("compliant: maybe", Behaviour::CompliantMaybe, "invalid_answer:compliant"),
        // Its judgement is used, its words are not.
        Kind {
            name: "a link to somewhere else",
            behaviour: Behaviour::ForeignLink,
            only_at_first: false,
            outcome: ("model", None),
        },
        always("429", Behaviour::RateLimited(None), "rate_limited"),
        always("500", Behaviour::Status(500), "server_error"),
        always("never", Behaviour::Hang, "timeout"),
        once("prose at first", Behaviour::Prose),
        once("429 at first", Behaviour::RateLimited(Some("0".to_owned()))),
        once("500 at first", Behaviour::Status(500)),
    ]
}

fn followers(request: &RecordedRequest) -> u64 {
    request.profile()["follower_count"].as_u64().expect("a model is told the follower count")
}

/// Settings that make the tries quick.
fn settings(base_url: &str) -> Vec<(&str, &str)> {
    vec![
        ("LEADMILL_ENRICHER_PROVIDER", "openai"),
        ("LEADMILL_ENRICHER_MODEL_NAME", "stand-in"),
        ("LEADMILL_ENRICHER_MODEL_BASE_URL", base_url),
        ("LEADMILL_ENRICHER_MODEL_API_KEY", "sk-test"),
        ("LEADMILL_ENRICHER_MODEL_TIMEOUT", "2s"),
        ("LEADMILL_ENRICHER_MODEL_CONCURRENCY", "32"),
        ("LEADMILL_ENRICHER_MODEL_MAX_ATTEMPTS", "2"),
        ("LEADMILL_ENRICHER_MODEL_INITIAL_BACKOFF", "20ms"),
        ("LEADMILL_ENRICHER_MODEL_MAX_BACKOFF", "50ms"),
    ]
}

/// Leads whose kind can be told from their follower count.
fn people(kinds: usize) -> Vec<RawProfile> {
    let mut people = creators::creators(21, EACH * kinds as u64);
    for (index, person) in (0..).zip(&mut people) {
        person.follower_count = Some((FOLLOWERS + index).to_string());
        // Who can't be reached is refused before a model is asked.
        person.email = Some(format!("person{index}@example.org"));
    }
    people
}

/// Leads by who analysed them and why.
async fn outcomes(stack: &Stack) -> BTreeMap<(String, Option<String>), i64> {
    let rows = sqlx::query("SELECT provider, fallback_reason, count(*) FROM enriched_leads GROUP BY 1, 2")
        .fetch_all(&mut stack.connect().await)
        .await
        .expect("the enrichments can be counted");
    rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lead_is_enriched_whatever_the_model_does_and_counted_by_provider_and_reason() {
    let stack = Stack::start().await;
    let asked = Mutex::new(HashSet::new());
    let api = FakeLlm::start(move |request| {
        let followers = followers(request);
        let kind = &kinds()[((followers - FOLLOWERS) / EACH) as usize];
        let is_first = asked.lock().expect("nobody panics with it").insert(followers);
        if kind.only_at_first && !is_first { Behaviour::Good } else { kind.behaviour.clone() }
    })
    .await
    .expect("the stand-in starts");
    let base_url = api.base_url();
    let mut settings = settings(&base_url);
    // What is tested here is each lead's own fate, not what the breaker does to all.
    settings.extend([
        ("LEADMILL_ENRICHER_MODEL_BREAKER_FAILURE_RATE", "1.0"),
        ("LEADMILL_ENRICHER_MODEL_BREAKER_WINDOW", "500"),
    ]);
    let fleet = stack.fleet(&["collector", "enricher", "mailer"], 1, &settings).await;
    let ingest = fleet[0].address("ingest.address").await;
    let kinds = kinds();
    creators::post(ingest, &stack.api_key().await, &people(kinds.len())).await;
    stack.settle(LIMIT).await;

    let mut expected: BTreeMap<(String, Option<String>), i64> = BTreeMap::new();
    for kind in &kinds {
        let (provider, reason) = kind.outcome;
        *expected.entry((provider.to_owned(), reason.map(str::to_owned))).or_default() += EACH as i64;
    }
    let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    assert_eq!(outcomes(&stack).await, expected, "kinds: {names:?}");

    // What was refused was asked for once more, and nothing but the profile was told.
    let requests = api.requests();
    let second_asks = requests.iter().filter(|request| request.is_second_ask()).count() as u64;
    assert_eq!(second_asks, EACH * 5, "four bad answers and the one that was bad at first");
    for request in &requests {
        let body = request.body.to_string();
        assert!(!body.contains("@example"), "an address left the house: {body}");
        assert_eq!(request.authorization.as_deref(), Some("Bearer sk-test"));
    }

    let enricher = &fleet[1];
    let fallbacks = enricher.counted("enricher_analysed_total", &["provider=\"local_fallback\""]).await;
    assert_eq!(fallbacks, EACH * 7, "the metric counts them too");
    audit(&stack, Planted::default()).await;
    drop(fleet);
    stack.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_only_fails_is_left_alone_for_a_while_and_the_leads_go_on() {
    let stack = Stack::start().await;
    let api = FakeLlm::start(|_| Behaviour::Status(503)).await.expect("the stand-in starts");
    let base_url = api.base_url();
    let fleet = stack.fleet(&["collector", "enricher", "mailer"], 1, &settings(&base_url)).await;
    let ingest = fleet[0].address("ingest.address").await;
    let people = people(20);
    creators::post(ingest, &stack.api_key().await, &people).await;
    stack.settle(LIMIT).await;

    let outcomes = outcomes(&stack).await;
    let of = |reason: &str| {
        outcomes.get(&("local_fallback".to_owned(), Some(reason.to_owned()))).copied().unwrap_or_default()
    };
    assert_eq!(of("server_error") + of("breaker_open"), people.len() as i64, "{outcomes:?}");
    assert!(of("breaker_open") > of("server_error"), "the breaker never opened: {outcomes:?}");
    assert!(api.requests().len() < people.len(), "{} requests", api.requests().len());
    audit(&stack, Planted::default()).await;
    drop(fleet);
    stack.cleanup().await;
}
