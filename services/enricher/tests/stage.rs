//! The whole service on real PostgreSQL and RabbitMQ.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::Duration,
};

use common::Stand;
use domain::{
    email::EmailAddress,
    event::{Envelope, Event},
    id::{CauseId, LeadId, LiftId},
    lead::{Profile, SourceName},
    suppression::{Cause, ContactList, Subject},
};
use store::suppressions::{self, Lift, Lifted, NewCause, SubjectIndex, SuppressionScope};
use test_support::llm::{Behaviour, FakeLlm, RecordedRequest};
use time::macros::datetime;

/// What the model does with a lead, what comes out, and why.
type Case = (fn(usize) -> Behaviour, &'static str, Option<&'static str>);

/// The number counts the requests for the lead, from 0.
const CASES: [Case; 16] = [
    (|_| Behaviour::Good, "model", None),
    (|_| Behaviour::Prose, "local_fallback", Some("not_json")),
    (|_| Behaviour::HalfJson, "local_fallback", Some("truncated")),
    (|_| Behaviour::Score250, "local_fallback", Some("invalid_score")),
    (|_| Behaviour::CompliantMaybe, "local_fallback", Some("invalid_answer:compliant")),
    (|_| Behaviour::ForeignLink, "model", None),
    (|_| Behaviour::RateLimited(Some("0".to_owned())), "local_fallback", Some("rate_limited")),
    (|_| Behaviour::Status(500), "local_fallback", Some("server_error")),
    (|_| Behaviour::Hang, "local_fallback", Some("timeout")),
    (|_| Behaviour::TruncatedBody, "local_fallback", Some("truncated")),
    (|_| Behaviour::HugeBody, "local_fallback", Some("body_too_large")),
    (|_| Behaviour::HtmlPage, "local_fallback", Some("not_json")),
    (|_| Behaviour::Status(401), "local_fallback", Some("refused:key")),
    (|request| if request == 0 { Behaviour::Prose } else { Behaviour::Good }, "model", None),
    (|request| if request == 0 { Behaviour::Status(503) } else { Behaviour::Good }, "model", None),
    (|request| if request == 0 { Behaviour::RateLimited(None) } else { Behaviour::Good }, "model", None),
];
const LEADS: usize = 13 * CASES.len();

/// The lead's number, which stands in its bio.
fn number(request: &RecordedRequest) -> usize {
    let profile = request.profile();
    let bio = profile["bio"].as_str().unwrap_or_default();
    bio.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("the bio ends in a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lead_is_enriched_however_the_model_misbehaves() {
    let seen: Mutex<HashMap<usize, usize>> = Mutex::default();
    let llm = FakeLlm::start(move |request| {
        let lead = number(request);
        let mut seen = seen.lock().unwrap();
        let requests = seen.entry(lead).or_default();
        *requests += 1;
        CASES[lead % CASES.len()].0(*requests - 1)
    })
    .await
    .unwrap();
    let stand = Stand::new(&[
        ("LEADMILL_ENRICHER_PROVIDER", "openai"),
        ("LEADMILL_ENRICHER_MODEL_NAME", "small-1"),
        ("LEADMILL_ENRICHER_MODEL_BASE_URL", &llm.base_url()),
        ("LEADMILL_ENRICHER_MODEL_API_KEY", "sk-test"),
        ("LEADMILL_ENRICHER_MODEL_CONCURRENCY", "32"),
        ("LEADMILL_ENRICHER_MODEL_MAX_ATTEMPTS", "2"),
        ("LEADMILL_ENRICHER_MODEL_INITIAL_BACKOFF", "1ms"),
        ("LEADMILL_ENRICHER_MODEL_TIMEOUT", "2s"),
        // So that the misbehaviour of one lead says nothing about another.
        ("LEADMILL_ENRICHER_MODEL_BREAKER_WINDOW", "100000"),
    ])
    .await;
    stand
        .take_in((0..LEADS).map(|lead| common::profile(lead, &format!("Personal trainer, home workouts, {lead}"))))
        .await;
    stand.start();
    stand.amqp.wait_for_depth("lead.enriched", LEADS as u32).await;

    let enriched = stand.status().await.enriched;
    let mut providers: BTreeMap<String, i64> = BTreeMap::new();
    let mut fallbacks: BTreeMap<String, i64> = BTreeMap::new();
    for lead in 0..LEADS {
        let (_, provider, reason) = CASES[lead % CASES.len()];
        *providers.entry(provider.to_owned()).or_default() += 1;
        if let Some(reason) = reason {
            *fallbacks.entry(reason.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(enriched.total, LEADS as i64);
    assert_eq!(enriched.by_provider, providers);
    assert_eq!(enriched.fallbacks, fallbacks);

    let requests = llm.requests();
    assert!(
        requests.iter().all(|request| !request.body.to_string().contains("@example.com")),
        "an address left the house"
    );
    // Completions cost 500 tokens each. Of a body that breaks off only an estimate is known, and of others nothing.
    let completions = [1, 2, 2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1];
    let each = (LEADS / CASES.len()) as u64;
    let expected = completions.iter().sum::<u64>() * 500 * each;
    let estimated = stand.tokens_today().await - expected;
    let broken_off = 2 * each;
    assert!((300 * broken_off..1_000 * broken_off).contains(&estimated), "{estimated} for {broken_off} that broke off");
    assert_eq!(stand.amqp.depth("lead.created.dead").await, Some(0));
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_event_changes_nothing_and_one_for_an_unknown_lead_is_buried() {
    let stand = Stand::new(&[]).await;
    let leads = stand.take_in((0..3).map(|lead| common::profile(lead, "Yoga teacher"))).await;
    stand.start();
    stand.amqp.wait_for_depth("lead.enriched", 3).await;

    let program = stand.program.program.id;
    let event = |lead| Envelope::new(program, lead, 1, datetime!(2026-11-22 12:00 UTC), Event::LeadCreated {});
    for lead in [leads[0], leads[0], LeadId::generate(), leads[1]] {
        stand.publish(event(lead)).await;
    }
    stand.amqp.wait_for_depth("lead.created.dead", 1).await;
    stand.amqp.wait_for_depth("lead.created", 0).await;
    let enriched = stand.status().await.enriched;
    assert_eq!((enriched.total, enriched.by_provider.get("local")), (3, Some(&3)));
    assert_eq!(stand.amqp.depth("lead.enriched").await, Some(3), "nobody was told again");

    // Another lead behind them shows that all were handled.
    stand.take_in([common::profile(9, "Sourdough baker")].into_iter()).await;
    stand.amqp.wait_for_depth("lead.enriched", 4).await;
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_lead_is_enriched_again_with_a_higher_version() {
    let stand = Stand::new(&[]).await;
    stand.take_in([common::profile(1, "Yoga teacher")].into_iter()).await;
    stand.start();
    stand.amqp.wait_for_depth("lead.enriched", 1).await;
    stand.take_in([common::profile(1, "Yoga teacher, meditation and pilates, new videos weekly")].into_iter()).await;
    stand.amqp.wait_for_depth("lead.enriched", 2).await;

    let versions: Vec<i32> = [stand.next_enriched().await, stand.next_enriched().await].to_vec();
    assert_eq!(versions, [1, 2]);
    assert_eq!(stand.status().await.enriched.total, 1);
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_says_what_is_missing_and_ends_when_it_is_asked_to() {
    let stand = Stand::new(&[]).await;
    stand.start();
    stand.take_in([common::profile(1, "Yoga teacher")].into_iter()).await;
    stand.amqp.wait_for_depth("lead.enriched", 1).await;
    // The consumer's state is looked at twice a second.
    let ready = async {
        while !stand.readiness.report().ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), ready).await;
    assert!(waited.is_ok(), "{:?}", stand.readiness.report());
    let stopped = tokio::time::timeout(Duration::from_secs(15), stand.stop()).await;
    assert!(stopped.is_ok(), "it did not end");
}

/// Settings with which the model at `base_url` is asked, for at most `total_time`.
fn asking<'a>(base_url: &'a str, total_time: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("LEADMILL_ENRICHER_PROVIDER", "openai"),
        ("LEADMILL_ENRICHER_MODEL_NAME", "small-1"),
        ("LEADMILL_ENRICHER_MODEL_BASE_URL", base_url),
        ("LEADMILL_ENRICHER_MODEL_TOTAL_TIME", total_time),
        ("LEADMILL_ENRICHER_MODEL_CLAIM_SLACK", "1s"),
    ]
}

async fn wait_for_requests(llm: &FakeLlm, wanted: usize) {
    let asked = async {
        while llm.requests().len() < wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("the model is asked");
}

/// The event comes again, three times, while the model thinks about its lead.
async fn a_slow_answer_is_paid_once_by(replicas: usize) {
    let llm = FakeLlm::start(|_| Behaviour::After(Duration::from_secs(3), Box::new(Behaviour::Good))).await.unwrap();
    let stand = Stand::new(&asking(&llm.base_url(), "5s")).await;
    for _ in 0..replicas {
        stand.start();
    }
    let leads = stand.take_in([common::profile(1, "Yoga teacher")].into_iter()).await;
    wait_for_requests(&llm, 1).await;
    let program = stand.program.program.id;
    for _ in 0..3 {
        stand
            .publish(Envelope::new(program, leads[0], 1, datetime!(2026-11-22 12:00 UTC), Event::LeadCreated {}))
            .await;
    }
    // They wait for the claim's end, which is behind the answer.
    let waiting = "SELECT count(*) FROM outbox WHERE available_at > now()";
    stand.wait_for_number(waiting, 3).await;
    stand.amqp.wait_for_depth("lead.enriched", 1).await;
    stand.wait_for_number("SELECT count(*) FROM analysis_claims", 0).await;
    stand.wait_for_number("SELECT count(*) FROM outbox", 0).await;
    stand.amqp.wait_for_depth("lead.created", 0).await;
    // Another lead behind them shows that all were handled.
    stand.take_in([common::profile(2, "Sourdough baker")].into_iter()).await;
    stand.amqp.wait_for_depth("lead.enriched", 2).await;
    assert_eq!(llm.requests().len(), 2, "one for each lead");
    assert_eq!(stand.tokens_today().await, 2 * 500);
    assert_eq!(stand.amqp.depth("lead.created.dead").await, Some(0));
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_paid_once_when_its_event_comes_again_to_the_same_replica() {
    a_slow_answer_is_paid_once_by(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_paid_once_when_its_event_comes_again_to_another_replica() {
    a_slow_answer_is_paid_once_by(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_asked_again_after_a_crash_when_the_claim_has_ended_and_not_before() {
    let llm = FakeLlm::scripted(vec![Behaviour::Hang]).await.unwrap();
    let stand = Stand::new(&asking(&llm.base_url(), "3s")).await;
    let first = stand.start_mortal();
    stand.take_in([common::profile(1, "Yoga teacher")].into_iter()).await;
    wait_for_requests(&llm, 1).await;
    let asked = std::time::Instant::now();
    first.kill().await;
    stand.start();
    stand.amqp.wait_for_depth("lead.enriched", 1).await;
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_secs(3), "asked again after {waited:?}");
    assert_eq!(llm.requests().len(), 2);
    assert_eq!(stand.status().await.enriched.by_provider.get("model"), Some(&1));
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_must_not_be_written_to_is_shown_to_a_model_until_the_suppression_is_lifted() {
    let llm = FakeLlm::start(|_| Behaviour::Good).await.unwrap();
    let stand = Stand::new(&[
        ("LEADMILL_ENRICHER_PROVIDER", "openai"),
        ("LEADMILL_ENRICHER_MODEL_NAME", "small-1"),
        ("LEADMILL_ENRICHER_MODEL_BASE_URL", &llm.base_url()),
        ("LEADMILL_ENRICHER_MODEL_API_KEY", "sk-test"),
    ])
    .await;
    let program = stand.program.program.id;
    let scope = SuppressionScope { organisation: program.as_uuid().into(), program: Some(program) };
    let about = |text: &str| SubjectIndex::of(&Subject::parse(text).unwrap(), stand.program.keys.index());
    // By address, by user name on whichever network, by the domain, and by the domains above it.
    for (text, cause) in [
        ("creator.0@example.com", Cause::Objection),
        ("@creator.1", Cause::Manual),
        ("rivals.example.org", Cause::DoNotContact(ContactList::Competitor)),
        ("*.partners.example.org", Cause::DoNotContact(ContactList::Partner)),
    ] {
        let causes = [NewCause { id: CauseId::generate(), subject: about(text), cause, evidence: None }];
        let causes = causes.as_slice();
        stand
            .db
            .transact("test.record", |tx, _| Box::pin(suppressions::record(tx, scope, causes, "person:test")))
            .await
            .unwrap();
    }
    let at = |number: usize, email: Option<&str>| Profile {
        source: SourceName::parse("tiktok").unwrap(),
        email: email.and_then(|email| EmailAddress::parse(email).ok()),
        ..common::profile(number, &format!("Personal trainer, home workouts, {number}"))
    };
    let leads = [
        at(0, Some("creator.0@example.com")),
        at(1, None),
        at(2, Some("ann@rivals.example.org")),
        at(3, Some("bob@shop.partners.example.org")),
        at(4, Some("carl@partners.example.org")),
    ];
    stand.take_in(leads.into_iter()).await;
    stand.start();
    let waiting = "SELECT count(*) FROM lead_keys WHERE awaited_revision IS NOT NULL";
    stand.wait_for_number(waiting, 0).await;
    assert_eq!(llm.requests().iter().map(number).collect::<Vec<_>>(), [4]);
    assert_eq!(stand.status().await.enriched.total, 1);

    let lift = Lift {
        id: LiftId::generate(),
        scope,
        subject: about("@creator.1"),
        cause: Cause::Manual,
        evidence: None,
        by: "person:test".to_owned(),
    };
    let lift = &lift;
    let lifted = stand.db.transact("test.lift", |tx, _| Box::pin(suppressions::lift(tx, lift))).await.unwrap();
    let Lifted::Done { subject, .. } = lifted else { panic!("it stood") };
    suppressions::decide_again(&stand.db, scope.organisation, lift.id, &subject).await.unwrap();
    stand.wait_for_number("SELECT count(*) FROM enriched_leads", 2).await;
    let mut shown: Vec<_> = llm.requests().iter().map(number).collect();
    shown.sort_unstable();
    assert_eq!(shown, [1, 4]);
    stand.stop().await;
}
