//! One made-up creator: name, handle, bio, audience and place that go together.

use domain::{
    law::{Law, Rule},
    lead::Country,
};
use fake::{
    Fake,
    faker::name::raw::{FirstName, LastName},
    locales::{DE_DE, EN, FR_FR, IT_IT, NL_NL, PT_BR},
};
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use unicode_normalization::UnicodeNormalization;

use crate::source::{
    RawProfile,
    words::{
        DOMAINS, HOMES, Home, INVITATIONS, Language, MAIL_LABELS, NETWORKS, NICHES, Niche, OPENINGS, SPANISH_FIRST,
        SPANISH_LAST,
    },
};

/// When simulated consent was given, and a simulated page seen.
const SIMULATED_AT: &str = "2025-01-15T09:00:00Z";

/// The creator at an index, from what `rng` yields.
pub fn creator(index: u64, rng: &mut ChaCha8Rng) -> RawProfile {
    let home = weighted(&HOMES, |home| home.weight, rng);
    let network = weighted(&NETWORKS, |(_, weight)| *weight, rng).0;
    let niche = pick(&NICHES, rng);
    let (first, last) = person(home.language, rng);
    let handle = handle(first, last, niche, index, rng);
    let address = format!("{}@{}", handle.to_lowercase(), pick(&DOMAINS, rng));
    let mut profile = RawProfile {
        source: Some(network.to_owned()),
        name: Some(if rng.random_bool(0.8) { format!("{first} {last}") } else { first.to_owned() }),
        follower_count: Some(followers(rng)),
        verified: Some(rng.random_bool(0.04).to_string()),
        ..RawProfile::default()
    };
    let mut bio = bio(niche, home, rng);
    // Two in three publish an address; a part of these only in the bio, and some of them hide it from machines.
    match rng.random_range(0..100) {
        0..62 => profile.email = Some(address),
        62..74 => {
            let written = if rng.random_bool(0.4) {
                address.replace('@', " (at) ").replace(".example.", " dot example dot ")
            } else {
                address
            };
            bio = format!("{bio}\n{} {written}", MAIL_LABELS[home.language as usize]);
        }
        _ => {}
    }
    profile.bio = Some(bio);
    let base = match network {
        "tiktok" => "https://www.tiktok.com/@",
        "youtube" => "https://www.youtube.com/@",
        "x" => "https://x.com/",
        "twitch" => "https://www.twitch.tv/",
        "pinterest" => "https://www.pinterest.com/",
        _ => "https://www.instagram.com/",
    };
    profile.profile_url = Some(format!("{base}{handle}/"));
    profile.username = Some(handle);
    match rng.random_range(0..100) {
        0..55 => profile.location = Some((*pick(&home.places, rng)).to_owned()),
        55..90 => {
            profile.location = Some((*pick(&home.places, rng)).to_owned());
            profile.country = Some(home.code.to_owned());
        }
        _ => {}
    }
    add_evidence(&mut profile, home, rng);
    profile
}

/// Where a first mail needs evidence, one in three who publish an address has agreed to be written to; where a published address
/// is enough, it is known of another third where they publish it. Both say that they are simulated.
fn add_evidence(profile: &mut RawProfile, home: &Home, rng: &mut ChaCha8Rng) {
    let rule = Country::parse(home.code).ok().and_then(|country| Law::current().rule(country)).map(|rule| rule.rule);
    let needs_evidence = rule != Some(Rule::OptOut);
    let takes_published = matches!(rule, Some(Rule::BusinessAddress | Rule::OptInOrBusinessAddress));
    let publishes = profile.email.is_some() || profile.bio.as_deref().is_some_and(|bio| bio.contains("example"));
    match rng.random_range(0..3) {
        0 if publishes && needs_evidence => {
            profile.consent_source = Some("simulation: a form that nobody has filled in".to_owned());
            profile.consent_wording = Some("Simulated consent: you may write to me about partnerships.".to_owned());
            profile.consent_at = Some(SIMULATED_AT.to_owned());
        }
        1 if publishes && takes_published => {
            let handle = profile.username.as_deref().unwrap_or_default();
            profile.address_source_url = Some(format!("https://simulated.example.com/contact/{handle}"));
            profile.address_seen_at = Some(SIMULATED_AT.to_owned());
        }
        _ => {}
    }
}

fn person(language: Language, rng: &mut ChaCha8Rng) -> (&'static str, &'static str) {
    match language {
        Language::English => (FirstName(EN).fake_with_rng(rng), LastName(EN).fake_with_rng(rng)),
        Language::German => (FirstName(DE_DE).fake_with_rng(rng), LastName(DE_DE).fake_with_rng(rng)),
        Language::French => (FirstName(FR_FR).fake_with_rng(rng), LastName(FR_FR).fake_with_rng(rng)),
        Language::Portuguese => (FirstName(PT_BR).fake_with_rng(rng), LastName(PT_BR).fake_with_rng(rng)),
        Language::Italian => (FirstName(IT_IT).fake_with_rng(rng), LastName(IT_IT).fake_with_rng(rng)),
        Language::Dutch => (FirstName(NL_NL).fake_with_rng(rng), LastName(NL_NL).fake_with_rng(rng)),
        // The library has no Spanish names.
        Language::Spanish => (*pick(&SPANISH_FIRST, rng), *pick(&SPANISH_LAST, rng)),
    }
}

/// A handle that ends in the index: what stands before it never ends in a digit, so that no two are the same.
fn handle(first: &str, last: &str, niche: &Niche, index: u64, rng: &mut ChaCha8Rng) -> String {
    let (first, last, word) = (ascii(first), ascii(last), pick(&niche.handle_words, rng));
    let stem = match rng.random_range(0..6) {
        0 => format!("{first}.{last}"),
        1 => format!("{first}_{word}"),
        2 => format!("{word}with{first}"),
        3 => format!("{first}{word}"),
        4 => format!("the{word}{last}"),
        _ => format!("{word}.by.{first}"),
    };
    let separator = *pick(&["", "_", "."], rng);
    format!("{stem}{separator}{}", index + 1)
}

fn ascii(name: &str) -> String {
    let plain: String = name.nfkd().filter(char::is_ascii_alphabetic).flat_map(char::to_lowercase).take(14).collect();
    if plain.is_empty() { "creator".to_owned() } else { plain }
}

fn bio(niche: &Niche, home: &Home, rng: &mut ChaCha8Rng) -> String {
    let language = home.language as usize;
    let topic = pick(&niche.topics[language], rng);
    let mut bio = pick(&OPENINGS[language], rng).replace("{t}", topic);
    if rng.random_bool(0.6) {
        bio.push('\n');
        let invitation: &&str = pick(&INVITATIONS[language], rng);
        bio.push_str(invitation);
    }
    if rng.random_bool(0.3) {
        bio.extend([" #", niche.name]);
    }
    bio
}

/// Log-normal with a median of about 18,000, written as exports do.
fn followers(rng: &mut ChaCha8Rng) -> String {
    // Box and Muller's transform of two uniform numbers into a normal one.
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    let count = (9.8 + 1.3 * normal).exp().clamp(120.0, 90_000_000.0);
    match rng.random_range(0..10) {
        0 if count >= 1e6 => format!("{:.1}M", count / 1e6),
        0 if count >= 1e4 => format!("{:.1}K", count / 1e3),
        _ => format!("{count:.0}"),
    }
}

/// One item of a word list.
pub fn pick<'a, T>(list: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    list.choose(rng).expect("the word lists are not empty")
}

fn weighted<'a, T>(list: &'a [T], weight: impl Fn(&T) -> u16, rng: &mut ChaCha8Rng) -> &'a T {
    let total: u32 = list.iter().map(|item| u32::from(weight(item))).sum();
    let mut at = rng.random_range(0..total);
    for item in list {
        match at.checked_sub(u32::from(weight(item))) {
            Some(rest) => at = rest,
            None => return item,
        }
    }
    &list[list.len() - 1]
}
