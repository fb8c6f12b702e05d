//! The model's client against a server that misbehaves: each misbehaviour is told apart, tried again where that can help,
//! and never fails a lead.

use std::{
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use domain::{
    clock::{Clock, FixedClock},
    enrichment::{Enrichment, Provider},
    lead::{Lead, Profile},
};
use enricher::{
    RefusalAlarm,
    analyst::{Analysis, Analyst},
    config::{DEFAULTS, EnricherConfig, ModelConfig},
    local::LocalAnalyser,
    model::{Budget, Failure, ModelClient},
};
use serde_json::{Value, json};
use service::{config::Loader, readiness::Readiness};
use test_support::{
    llm::{Behaviour, FakeLlm, HUGE_BODY_BYTES, good_answer},
    profiles::{lead, profile, program},
};
use time::macros::datetime;

fn config(llm: &FakeLlm, settings: &[(&str, &str)]) -> ModelConfig {
    static TLS: Once = Once::new();
    TLS.call_once(service::tls::install_provider);
    let base_url = llm.base_url();
    let variables = [
        ("PROVIDER", "openai"),
        ("MODEL_BASE_URL", base_url.as_str()),
        ("MODEL_NAME", "small-1"),
        ("MODEL_API_KEY", "sk-test"),
        ("MODEL_TIMEOUT", "300ms"),
        ("MODEL_TOTAL_TIME", "10s"),
        ("MODEL_INITIAL_BACKOFF", "1ms"),
        ("MODEL_MAX_BACKOFF", "5ms"),
        ("MODEL_MAX_ATTEMPTS", "3"),
        ("MODEL_BREAKER_WINDOW", "1000"),
    ];
    let variables = variables.iter().chain(settings);
    let variables = variables.map(|(name, value)| (format!("LEADMILL_ENRICHER_{name}"), (*value).to_owned()));
    let document = Loader::new().defaults(&[DEFAULTS]).env(variables).load().unwrap();
    EnricherConfig::read(&document).unwrap().model
}

fn analyst_with(config: ModelConfig, clock: Arc<dyn Clock>, alarm: RefusalAlarm) -> Analyst {
    let budget = Arc::new(Budget::new(config.daily_token_limit));
    let client = ModelClient::new(config, budget, clock, alarm).unwrap();
    Analyst::Model { client: Box::new(client), fallback: LocalAnalyser::new() }
}

fn analyst(llm: &FakeLlm, settings: &[(&str, &str)]) -> Analyst {
    let clock = FixedClock::new(datetime!(2026-11-22 12:00 UTC));
    analyst_with(config(llm, settings), Arc::new(clock), RefusalAlarm::default())
}

fn trainer() -> Lead {
    let bio = "Personal trainer, home workouts for busy people. ann@example.com";
    lead(Profile { bio: Some(bio.to_owned()), ..profile() })
}

async fn analyse(analyst: &Analyst) -> Enrichment {
    analyst.permit().await.analyse(&trainer(), &program(&["fitness"])).await.enrichment
}

/// What comes out when the server behaves as listed, and how many requests it took.
async fn outcome(behaviours: Vec<Behaviour>) -> (Provider, Option<String>, usize) {
    let llm = FakeLlm::scripted(behaviours).await.unwrap();
    let enrichment = analyse(&analyst(&llm, &[])).await;
    assert!(!enrichment.message.is_empty() && enrichment.niche == "fitness");
    (enrichment.provider, enrichment.fallback_reason, llm.requests().len())
}

#[tokio::test]
async fn a_good_answer_is_believed() {
    let llm = FakeLlm::scripted(vec![]).await.unwrap();
    let Analysis { enrichment, tokens } =
        analyst(&llm, &[]).permit().await.analyse(&trainer(), &program(&["fitness"])).await;
    assert_eq!((enrichment.provider, enrichment.score.get(), tokens), (Provider::Model, 88, 500));
    let requests = llm.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].authorization.as_deref(), Some("Bearer sk-test"));
    let body = &requests[0].body;
    assert_eq!((body["model"].as_str(), body["max_tokens"].as_u64()), (Some("small-1"), Some(500)));
    assert_eq!(
        (body["temperature"].as_f64(), body["response_format"]["type"].as_str()),
        (Some(0.3), Some("json_object"))
    );
    let sent = body.to_string();
    assert!(!sent.contains("ann@example.com") && !sent.contains("ann.b") && !sent.contains("Ann Lee"), "{sent}");
}

#[tokio::test]
async fn what_newer_models_refuse_is_left_out_or_renamed() {
    let llm = FakeLlm::scripted(vec![]).await.unwrap();
    let settings = [
        ("MODEL_MAX_TOKENS_PARAMETER", "max_completion_tokens"),
        ("MODEL_SEND_TEMPERATURE", "false"),
        ("MODEL_SEND_RESPONSE_FORMAT", "false"),
        ("MODEL_FIELDS", "bio,name"),
    ];
    analyse(&analyst(&llm, &settings)).await;
    let request = &llm.requests()[0];
    assert_eq!(request.body["max_completion_tokens"], 500);
    for absent in ["max_tokens", "temperature", "response_format"] {
        assert!(request.body.get(absent).is_none(), "{absent}");
    }
    let profile = request.profile();
    assert_eq!(profile["name"], "Ann Lee");
    assert_eq!(profile.as_object().unwrap().len(), 3, "bio, name, and whether there is an address: {profile}");
}

#[tokio::test]
async fn a_refused_answer_is_asked_for_once_more_with_the_reason() {
    for (bad, reason) in [
        (Behaviour::Prose, "not a single JSON object"),
        (Behaviour::HalfJson, "cut off"),
        (Behaviour::Score250, "from 0 to 100"),
        (Behaviour::CompliantMaybe, "true or false"),
        (Behaviour::HtmlPage, "not a single JSON object"),
        (Behaviour::TruncatedBody, "cut off"),
        (Behaviour::CutByLength("{\"niche\"".to_owned()), "cut off"),
    ] {
        let llm = FakeLlm::scripted(vec![bad.clone()]).await.unwrap();
        let enrichment = analyse(&analyst(&llm, &[])).await;
        assert_eq!((enrichment.provider, enrichment.fallback_reason), (Provider::Model, None), "{bad:?}");
        let requests = llm.requests();
        assert_eq!(requests.len(), 2, "{bad:?}");
        assert!(requests[1].is_second_ask() && requests[1].message(2).contains(reason), "{}", requests[1].message(2));
    }
}

#[tokio::test]
async fn a_model_that_insists_on_a_bad_answer_is_replaced_by_the_built_in_analyser() {
    for (bad, code) in [
        (Behaviour::Prose, "not_json"),
        (Behaviour::HalfJson, "truncated"),
        (Behaviour::Score250, "invalid_score"),
        (Behaviour::CompliantMaybe, "invalid_answer:compliant"),
        (Behaviour::HtmlPage, "not_json"),
        (Behaviour::TruncatedBody, "truncated"),
    ] {
        let outcome = outcome(vec![bad.clone(), bad]).await;
        assert_eq!(outcome, (Provider::LocalFallback, Some(code.to_owned()), 2));
    }
}

#[tokio::test]
async fn a_failing_server_is_asked_again_and_then_replaced() {
    for (failing, code) in [
        (Behaviour::Status(500), "server_error"),
        (Behaviour::Status(503), "server_error"),
        (Behaviour::RateLimited(None), "rate_limited"),
        (Behaviour::Hang, "timeout"),
    ] {
        let recovered = outcome(vec![failing.clone(), failing.clone()]).await;
        assert_eq!(recovered, (Provider::Model, None, 3), "{failing:?}");
        let lost = outcome(vec![failing.clone(), failing.clone(), failing.clone()]).await;
        assert_eq!(lost, (Provider::LocalFallback, Some(code.to_owned()), 3));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failed_connection() {
    let llm = FakeLlm::scripted(vec![]).await.unwrap();
    let mut config = config(&llm, &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.base_url = format!("http://{free}/v1");
    let analyst = analyst_with(config, Arc::new(domain::clock::SystemClock), RefusalAlarm::default());
    let enrichment = analyse(&analyst).await;
    assert_eq!(enrichment.fallback_reason.as_deref(), Some("connection"));
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_makes_the_process_unready() {
    for refusal in
        [Behaviour::Status(401), Behaviour::Status(404), Behaviour::Status(302), Behaviour::InsufficientQuota]
    {
        let llm = FakeLlm::scripted(vec![refusal]).await.unwrap();
        let readiness = Readiness::new();
        let alarm = RefusalAlarm::new(readiness.register("model"));
        let analyst = analyst_with(config(&llm, &[]), Arc::new(domain::clock::SystemClock), alarm);
        let enrichment = analyse(&analyst).await;
        let reason = enrichment.fallback_reason.unwrap();
        assert!(reason.starts_with("refused:"), "{reason}");
        assert_eq!(llm.requests().len(), 1);
        assert!(!readiness.report().ready);
        assert_eq!(analyse(&analyst).await.provider, Provider::Model);
        assert!(readiness.report().ready, "the next answer clears the alarm");
    }
}

/// A completion with the content of a good answer in this form.
fn completion(content: &str) -> Value {
    json!({
        "choices": [{ "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 300, "completion_tokens": 90, "total_tokens": 390 },
    })
}

/// An answer in the form of before there were slots.
fn earlier_answer() -> Value {
    let mut answer = good_answer();
    answer["score"] = json!(91);
    answer.as_object_mut().unwrap().remove("slots");
    answer["message"] = json!("MODELTEXT Your training posts are calm and clear. I think the program fits them.");
    answer
}

#[tokio::test]
async fn whatever_stands_around_the_answer_its_judgement_is_used_and_a_free_message_is_not() {
    let good = earlier_answer().to_string();
    for content in [
        good.clone(),
        format!("<think>\nThe creator likes {{sport}}. Fine.\n</think>\n\n{good}"),
        format!("<think>ok</think>\n```json\n{good}\n```"),
        format!("```json\n{good}\n```\nLet me know if you need anything else!"),
        format!("Here is the assessment:\n\n```json\n{good}\n```"),
        format!("```JSON\n{good}\n```"),
        format!("{},}}", &good[..good.len() - 1]),
        format!("\u{feff}{good}"),
        good.replace("\"score\":91", "\"score\":91.0"),
        good.replace("\"score\":91", "\"score\":\"91\""),
    ] {
        let llm = FakeLlm::scripted(vec![Behaviour::Body(200, completion(&content))]).await.unwrap();
        let enrichment = analyse(&analyst(&llm, &[])).await;
        assert_eq!((enrichment.provider, enrichment.score.get()), (Provider::Model, 91), "{content}");
        let local = LocalAnalyser::new().analyse(&trainer(), &program(&["fitness"]));
        assert_eq!(enrichment.message, local.message, "{content}");
        assert_eq!(llm.requests().len(), 1, "{content}");
    }
}

#[tokio::test]
async fn usage_in_any_form_is_counted_once_also_of_an_answer_that_is_discarded() {
    for (usage, least, most) in [
        (json!({ "prompt_tokens": 300, "completion_tokens": 90, "total_tokens": 390 }), 390, 390),
        (json!({ "prompt_tokens": 300, "completion_tokens": 90 }), 390, 390),
        (json!({ "prompt_tokens": 300, "completion_tokens": 90, "total_tokens": null }), 390, 390),
        (json!({ "prompt_tokens": 300, "completion_tokens": 37.25, "total_tokens": 337.25 }), 338, 338),
        (json!({}), 300, 2_000),
        (json!(null), 300, 2_000),
    ] {
        let mut body = completion(&earlier_answer().to_string());
        body["usage"] = usage.clone();
        let llm = FakeLlm::scripted(vec![Behaviour::Body(200, body)]).await.unwrap();
        let Analysis { enrichment, tokens } =
            analyst(&llm, &[]).permit().await.analyse(&trainer(), &program(&[])).await;
        assert_eq!((enrichment.provider, enrichment.score.get()), (Provider::Model, 91), "{usage}");
        assert!((least..=most).contains(&tokens), "{tokens} for {usage}");
        // The same, of two answers that are prose.
        let mut prose = completion("Sure!");
        prose["usage"] = usage.clone();
        let llm = FakeLlm::scripted(vec![Behaviour::Body(200, prose); 2]).await.unwrap();
        let Analysis { enrichment, tokens } =
            analyst(&llm, &[]).permit().await.analyse(&trainer(), &program(&[])).await;
        assert_eq!(enrichment.fallback_reason.as_deref(), Some("not_json"), "{usage}");
        assert!((2 * least..=2 * most).contains(&tokens), "{tokens} for {usage}");
    }
}

#[tokio::test]
async fn an_error_inside_of_a_success_is_that_error_and_no_choices_are_no_answer() {
    let limited =
        json!({ "error": { "message": "Rate limit exceeded: free-models-per-min", "code": 429 }, "user_id": "u" });
    let limited = Behaviour::Body(200, limited);
    assert_eq!(outcome(vec![limited.clone()]).await, (Provider::Model, None, 2), "once more, as for a status 429");
    let (provider, reason, requests) = outcome(vec![limited; 3]).await;
    assert_eq!((provider, reason.as_deref(), requests), (Provider::LocalFallback, Some("rate_limited"), 3));
    let none = Behaviour::Body(200, json!({ "id": null, "choices": null, "usage": null }));
    let (provider, reason, requests) = outcome(vec![none.clone(), none]).await;
    assert_eq!((provider, reason.as_deref(), requests), (Provider::LocalFallback, Some("no_answer"), 2));
}

#[tokio::test]
async fn a_content_filter_of_one_request_falls_back_for_that_lead_and_the_process_stays_ready() {
    let filtered = json!({ "error": {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": null, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": { "code": "ResponsibleAIPolicyViolation" },
    } });
    let llm = FakeLlm::scripted(vec![Behaviour::Body(400, filtered)]).await.unwrap();
    let readiness = Readiness::new();
    let alarm = RefusalAlarm::new(readiness.register("model"));
    // Even a breaker that opens at the first failure stays closed.
    let settings = [("MODEL_BREAKER_WINDOW", "1"), ("MODEL_BREAKER_FAILURE_RATE", "0.1")];
    let analyst = analyst_with(config(&llm, &settings), Arc::new(domain::clock::SystemClock), alarm);
    assert_eq!(analyse(&analyst).await.fallback_reason.as_deref(), Some("content_filter"));
    assert!(readiness.report().ready);
    assert_eq!(llm.requests().len(), 1, "it would be filtered again");
    assert_eq!(analyse(&analyst).await.provider, Provider::Model);
}

#[tokio::test]
async fn a_refused_parameter_is_named_with_the_setting_that_cures_it() {
    let llm = FakeLlm::start(|request| {
        let refused = |message: &str, param: &str| {
            Behaviour::Body(
                400,
                json!({ "error": { "message": message, "type": "invalid_request_error", "param": param } }),
            )
        };
        if request.body.get("max_tokens").is_some() {
            refused("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens")
        } else if request.body.get("temperature").is_some() {
            refused("Unsupported value: 'temperature' does not support 0.3 with this model.", "temperature")
        } else {
            Behaviour::Good
        }
    })
    .await
    .unwrap();
    let mut settings = Vec::new();
    for (parameter, cure, setting) in [
        (
            "max_tokens",
            "max_tokens_parameter = \"max_completion_tokens\"",
            ("MODEL_MAX_TOKENS_PARAMETER", "max_completion_tokens"),
        ),
        ("temperature", "send_temperature = false", ("MODEL_SEND_TEMPERATURE", "false")),
    ] {
        let readiness = Readiness::new();
        let alarm = RefusalAlarm::new(readiness.register("model"));
        let analyst = analyst_with(config(&llm, &settings), Arc::new(domain::clock::SystemClock), alarm);
        let reason = analyse(&analyst).await.fallback_reason.unwrap();
        assert_eq!(reason, format!("refused:{parameter}"));
        let missing = readiness.report().checks[0].missing.clone().unwrap();
        assert!(missing.contains(&format!("parameter {parameter} ")) && missing.contains(cure), "{missing}");
        let probed = enricher::model::probe(&config(&llm, &settings), Duration::from_secs(5)).await;
        assert!(matches!(probed, Err(Failure::Refused { refusal, .. }) if refusal.parameter() == Some(parameter)));
        settings.push(setting);
    }
    assert_eq!(analyse(&analyst(&llm, &settings)).await.provider, Provider::Model);
    enricher::model::probe(&config(&llm, &settings), Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_huge_body_is_neither_read_nor_kept() {
    let llm = FakeLlm::scripted(vec![Behaviour::HugeBody]).await.unwrap();
    let enrichment = analyse(&analyst(&llm, &[])).await;
    assert_eq!(enrichment.fallback_reason.as_deref(), Some("body_too_large"));
    assert!(llm.huge_bytes_sent() < HUGE_BODY_BYTES / 4, "{} bytes were taken", llm.huge_bytes_sent());
}

#[tokio::test]
async fn retry_after_is_waited_for_as_seconds_and_as_a_date() {
    for asked in ["1", "Sun, 22 Nov 2026 12:00:01 GMT"] {
        let llm = FakeLlm::scripted(vec![Behaviour::RateLimited(Some(asked.to_owned()))]).await.unwrap();
        let started = Instant::now();
        assert_eq!(analyse(&analyst(&llm, &[])).await.provider, Provider::Model);
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?} for {asked}", started.elapsed());
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_total_time_is_not_waited_for() {
    let llm = FakeLlm::scripted(vec![Behaviour::RateLimited(Some("3600".to_owned()))]).await.unwrap();
    let started = Instant::now();
    let enrichment = analyse(&analyst(&llm, &[])).await;
    assert_eq!(enrichment.fallback_reason.as_deref(), Some("rate_limited"));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(llm.requests().len(), 1);
}

#[tokio::test]
async fn everything_for_one_lead_ends_within_the_total_time() {
    let llm = FakeLlm::start(|_| Behaviour::Hang).await.unwrap();
    let settings = [("MODEL_TIMEOUT", "30s"), ("MODEL_TOTAL_TIME", "400ms")];
    let started = Instant::now();
    let enrichment = analyse(&analyst(&llm, &settings)).await;
    assert_eq!(enrichment.fallback_reason.as_deref(), Some("timeout"));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_breaker_stops_asking_and_starts_again_after_its_pause() {
    let failing = vec![Behaviour::Status(500); 5];
    let llm = FakeLlm::scripted(failing).await.unwrap();
    let settings = [("MODEL_BREAKER_WINDOW", "4"), ("MODEL_MAX_ATTEMPTS", "1"), ("MODEL_BREAKER_PAUSE", "200ms")];
    let analyst = analyst(&llm, &settings);
    for _ in 0..5 {
        assert_eq!(analyse(&analyst).await.fallback_reason.as_deref(), Some("server_error"));
    }
    assert_eq!(analyse(&analyst).await.fallback_reason.as_deref(), Some("breaker_open"));
    assert_eq!(llm.requests().len(), 5, "an open breaker makes no request");
    let deadline = Instant::now() + Duration::from_secs(5);
    while analyse(&analyst).await.provider != Provider::Model {
        assert!(Instant::now() < deadline, "the breaker never closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_days_tokens_are_not_exceeded() {
    let llm = FakeLlm::scripted(vec![]).await.unwrap();
    let clock = Arc::new(FixedClock::new(datetime!(2026-11-22 23:59 UTC)));
    let config = config(&llm, &[("MODEL_DAILY_TOKEN_LIMIT", "1000")]);
    let analyst = analyst_with(config, Arc::<FixedClock>::clone(&clock), RefusalAlarm::default());
    for expected in [None, None, Some("spending_limit")] {
        assert_eq!(analyse(&analyst).await.fallback_reason.as_deref(), expected);
    }
    clock.advance(time::Duration::MINUTE);
    assert_eq!(analyse(&analyst).await.provider, Provider::Model, "a new day");
}

#[tokio::test]
async fn no_more_requests_run_at_once_than_allowed() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let llm = FakeLlm::start(|_| Behaviour::After(Duration::from_millis(20), Box::new(Behaviour::Good))).await.unwrap();
    let analyst = Arc::new(analyst(&llm, &[("MODEL_CONCURRENCY", "2")]));
    let done = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (analyst, done) = (Arc::clone(&analyst), Arc::clone(&done));
            tokio::spawn(async move {
                analyse(&analyst).await;
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 8);
    assert!(
        started.elapsed() >= Duration::from_millis(80),
        "8 requests of 20 ms, two at a time: {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_model_may_veto_but_never_approve() {
    let llm = FakeLlm::scripted(vec![]).await.unwrap();
    let refusing = lead(Profile { bio: Some("Fitness. No ads, no collabs!".to_owned()), ..profile() });
    let enrichment = analyst(&llm, &[]).permit().await.analyse(&refusing, &program(&[])).await.enrichment;
    assert_eq!(enrichment.provider, Provider::Model);
    assert!(!enrichment.compliant);
    assert!(enrichment.compliance_notes.starts_with("The bio refuses advertising"), "{}", enrichment.compliance_notes);

    let mut veto = test_support::llm::good_answer();
    veto["compliant"] = false.into();
    let llm = FakeLlm::scripted(vec![Behaviour::Content(veto.to_string())]).await.unwrap();
    assert!(!analyse(&analyst(&llm, &[])).await.compliant);
}
