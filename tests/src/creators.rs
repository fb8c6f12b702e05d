//! What goes in: made-up creators whose every field is known.

use std::{collections::BTreeSet, net::SocketAddr};

use collector::source::{
    Field, RawProfile,
    simulated::{SimulatedSource, SimulationMix},
};
use serde_json::{Map, Value, json};

/// The most items of one request.
const REQUEST_ITEMS: usize = 1_000;
/// Shorter texts stand in everything; nobody can be known by one.
const TELLING_CHARS: usize = 7;

/// Well-formed creators, all different.
pub fn creators(seed: u64, count: u64) -> Vec<RawProfile> {
    with_mix(seed, count, SimulationMix::CLEAN)
}

/// Creators whose names and bios try to break something; all of them are accepted.
pub fn hostile(seed: u64, count: u64) -> Vec<RawProfile> {
    with_mix(seed, count, SimulationMix { hostile: 1.0, ..SimulationMix::CLEAN })
}

/// Creators whom every program may write to, each at an address of its own: `<label><index>@…`.
pub fn reachable(seed: u64, label: &str, count: u64) -> Vec<RawProfile> {
    let mut profiles = creators(seed, count);
    for (index, profile) in profiles.iter_mut().enumerate() {
        profile.email = Some(format!("{label}{index}@people.example.com"));
        profile.country = Some("US".to_owned());
        profile.location = None;
        // It was about another address, and isn't needed there.
        profile.forget_evidence();
        // An address in the last line of the bio would be another one of the same person.
        profile.bio = profile.bio.take().and_then(|bio| bio.lines().next().map(str::to_owned));
    }
    profiles
}

/// Lets everybody who names an address agree to be written to there.
pub fn agree(profiles: &mut [RawProfile]) {
    for profile in profiles.iter_mut().filter(|profile| profile.email.is_some()) {
        profile.consent_source = Some("simulation: a form that nobody has filled in".to_owned());
        profile.consent_wording = Some("Simulated consent: you may write to me.".to_owned());
        profile.consent_at = Some("2025-01-15T09:00:00Z".to_owned());
    }
}

/// The same creator, who is to be written to at another address from now on.
pub fn moved(profile: &RawProfile, email: &str) -> RawProfile {
    RawProfile { email: Some(email.to_owned()), ..profile.clone() }
}

/// Rows as a purchased list has them: duplicates, junk and gaps among the creators.
pub fn with_mix(seed: u64, count: u64, mix: SimulationMix) -> Vec<RawProfile> {
    let source = SimulatedSource::new(seed, count, mix);
    (0..count).map(|index| source.row(index)).collect()
}

/// A creator as an item of the HTTP ingest.
pub fn item(profile: &RawProfile) -> Value {
    let fields = Field::ALL.into_iter().filter_map(|field| Some((field.name().to_owned(), profile.get(field)?.into())));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Every text by which somebody could be known, in lower case: names, handles, addresses, links, and the longest line of
/// each bio.
pub fn personal(profiles: &[RawProfile]) -> BTreeSet<String> {
    let fields = [Field::Name, Field::Username, Field::Email, Field::ProfileUrl];
    let bios = profiles.iter().filter_map(|profile| profile.bio.as_deref());
    let bios = bios.filter_map(|bio| bio.lines().max_by_key(|line| line.len()));
    profiles
        .iter()
        .flat_map(|profile| fields.iter().filter_map(|field| profile.get(*field)))
        .chain(bios)
        .map(|text| text.trim().to_lowercase())
        .filter(|text| text.chars().count() >= TELLING_CHARS)
        .collect()
}

/// Posts creators to the HTTP ingest, in requests of up to a thousand, and gives the answers.
///
/// # Panics
/// When a request is refused as a whole.
pub async fn post(ingest: SocketAddr, key: &str, profiles: &[RawProfile]) -> Vec<Value> {
    let client = reqwest::Client::new();
    let mut answers = Vec::new();
    for page in profiles.chunks(REQUEST_ITEMS) {
        let items: Vec<Value> = page.iter().map(item).collect();
        let request = client.post(format!("http://{ingest}/v1/leads")).bearer_auth(key);
        let answer = request.json(&json!({ "leads": items })).send().await.expect("the ingest answers");
        let status = answer.status();
        let body = answer.text().await.expect("an answer has a body");
        assert!(status.is_success(), "{status}: {body}");
        answers.push(serde_json::from_str(&body).expect("an answer is JSON"));
    }
    answers
}
