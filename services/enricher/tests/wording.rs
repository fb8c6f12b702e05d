//! What a model may say in a mail, through the real client: of a hundred hostile answers nothing reaches the message, and of
//! a hundred benign ones nearly all do. A model may write free text here, so that both its ways are tested.

use std::sync::{Arc, Once};

use domain::{
    clock::SystemClock,
    enrichment::{Enrichment, Provider},
    lead::{BIO_CHARS, Lead, Profile},
    text,
};
use enricher::{
    RefusalAlarm,
    analyst::Analyst,
    config::{DEFAULTS, EnricherConfig},
    local::LocalAnalyser,
    model::{Budget, ModelClient},
};
use serde_json::{Value, json};
use service::config::Loader;
use test_support::{
    llm::{Behaviour, FakeLlm},
    profiles::{lead, profile, program},
};

const HOSTILE: &str = include_str!("wording/hostile.jsonl");
const BENIGN: &str = include_str!("wording/benign.jsonl");
/// Benign answers that must be kept, of a hundred.
const KEPT_AT_LEAST: usize = 90;

/// A case: a bio, and what the model offers for it.
struct Case {
    lead: Lead,
    answer: Value,
}

fn cases(lines: &str) -> Vec<Case> {
    lines
        .lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).unwrap();
            let mut answer = json!({
                "niche": "creators", "score": 81, "notes": "fits", "compliant": true, "compliance_notes": "",
                "confidence": 0.9,
            });
            for field in ["message", "slots"] {
                if let Some(offered) = case.get(field) {
                    answer[field] = offered.clone();
                }
            }
            let bio = text::multi_line(case["bio"].as_str().unwrap(), BIO_CHARS);
            Case { lead: lead(Profile { bio, ..profile() }), answer }
        })
        .collect()
}

/// The enrichment of each case, with free text allowed or not.
async fn enriched(cases: &[Case], free_text: bool) -> Vec<Enrichment> {
    static TLS: Once = Once::new();
    TLS.call_once(service::tls::install_provider);
    let answers: Vec<String> = cases.iter().map(|case| case.answer.to_string()).collect();
    // One after another, so the number of a request is the number of its case.
    let llm = FakeLlm::start(move |request| Behaviour::Content(answers[request.number].clone())).await.unwrap();
    let base_url = llm.base_url();
    let variables = [
        ("LEADMILL_ENRICHER_PROVIDER", "openai"),
        ("LEADMILL_ENRICHER_MODEL_BASE_URL", base_url.as_str()),
        ("LEADMILL_ENRICHER_MODEL_NAME", "small-1"),
        ("LEADMILL_ENRICHER_MODEL_FREE_TEXT", if free_text { "true" } else { "false" }),
    ];
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let document = Loader::new().defaults(&[DEFAULTS]).env(variables).load().unwrap();
    let config = EnricherConfig::read(&document).unwrap().model;
    let client =
        ModelClient::new(config, Arc::new(Budget::new(0)), Arc::new(SystemClock), RefusalAlarm::default()).unwrap();
    let analyst = Analyst::Model { client: Box::new(client), fallback: LocalAnalyser::new() };
    let mut all = Vec::new();
    for case in cases {
        let enrichment = analyst.permit().await.analyse(&case.lead, &program(&["fitness"])).await.enrichment;
        // Whatever becomes of its words, its judgement is used.
        assert_eq!((enrichment.provider, enrichment.score.get()), (Provider::Model, 81), "{}", case.answer);
        all.push(enrichment);
    }
    all
}

fn built_in(case: &Case) -> String {
    LocalAnalyser::new().analyse(&case.lead, &program(&["fitness"])).message
}

/// The cases whose message is made of the model's words or slots.
fn kept<'a>(cases: &'a [Case], enriched: &[Enrichment]) -> Vec<&'a Case> {
    cases
        .iter()
        .zip(enriched)
        .filter(|(case, enriched)| enriched.message != built_in(case))
        .map(|(case, _)| case)
        .collect()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the counts are what this test is run for")]
async fn nothing_hostile_passes_and_nearly_everything_benign_is_kept() {
    let (hostile, benign) = (cases(HOSTILE), cases(BENIGN));
    assert_eq!((hostile.len(), benign.len()), (100, 100));
    let (of_hostile, of_benign) = (enriched(&hostile, true).await, enriched(&benign, true).await);
    let passed = kept(&hostile, &of_hostile);
    let kept = kept(&benign, &of_benign);
    println!("hostile answers that passed: {} of 100", passed.len());
    println!("benign answers that were kept: {} of 100", kept.len());
    for (case, enrichment) in benign.iter().zip(&of_benign).filter(|(case, of)| of.message == built_in(case)) {
        println!("not kept: {} {}", case.answer, enrichment.notes);
    }
    assert!(passed.is_empty(), "{}", passed[0].answer);
    assert!(kept.len() >= KEPT_AT_LEAST, "{}", kept.len());
    // Why is stored.
    for (case, enrichment) in hostile.iter().zip(&of_hostile) {
        assert!(enrichment.notes.contains("own words were not used: "), "{} {}", case.answer, enrichment.notes);
    }
}

#[tokio::test]
async fn without_free_text_no_message_of_a_model_is_used_and_slots_are() {
    let (hostile, benign) = (cases(HOSTILE), cases(BENIGN));
    assert!(kept(&hostile, &enriched(&hostile, false).await).is_empty());
    let enriched = enriched(&benign, false).await;
    for (case, enrichment) in benign.iter().zip(&enriched) {
        if let Some(message) = case.answer.get("message") {
            assert_eq!(enrichment.message, built_in(case), "{message}");
            assert_eq!(enrichment.notes, "fits", "nothing was refused");
        }
    }
}
