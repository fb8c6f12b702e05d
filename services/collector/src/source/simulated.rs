//! Made-up creators: as like to real ones as their place in the pipeline needs, and belonging to nobody.
//!
//! Everything follows from a seed and an index, so that two runs agree, and a run can go on anywhere. Addresses are on
//! the domains that RFC 2606 reserves. Without duplicates, no two indexes have the same handle or address.

use std::str::FromStr;

use fake::{
    Fake,
    faker::name::raw::{FirstName, LastName},
    locales::{DE_DE, EN, FR_FR, IT_IT, NL_NL, PT_BR},
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use unicode_normalization::UnicodeNormalization;

use super::{
    PAGE_ROWS, PageSource, RawProfile, Row, SourceError, hostile,
    words::{DOMAINS, HOMES, Home, INVITATIONS, MAIL_LABELS, NETWORKS, NICHES, Niche, OPENINGS},
};

/// What creators write in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// German.
    German,
    /// French.
    French,
    /// Spanish.
    Spanish,
    /// Portuguese.
    Portuguese,
    /// Italian.
    Italian,
    /// Dutch.
    Dutch,
}

impl Language {
    /// Every language, in the order of the word lists.
    pub const ALL: [Self; 7] =
        [Self::English, Self::German, Self::French, Self::Spanish, Self::Portuguese, Self::Italian, Self::Dutch];
}

/// Which share of the rows is not as it should be; each from 0 to 1, and at most 1 together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulationMix {
    /// Creators who were there before, spelt a little differently.
    pub duplicates: f64,
    /// Rows with an address, count or user name that isn't one.
    pub junk: f64,
    /// Rows without a source, user name or contact.
    pub missing: f64,
    /// Creators with a name or bio that tries to break something; they are accepted.
    pub hostile: f64,
}

impl Default for SimulationMix {
    /// What a purchased list is like.
    fn default() -> Self {
        Self { duplicates: 0.05, junk: 0.02, missing: 0.02, hostile: 0.01 }
    }
}

impl SimulationMix {
    /// Nothing but well-formed creators.
    pub const CLEAN: Self = Self { duplicates: 0.0, junk: 0.0, missing: 0.0, hostile: 0.0 };
}

/// The shares are out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("each share of a mix must be from 0 to 1, and all together at most 1")]
pub struct InvalidMix;

impl SimulationMix {
    /// Checks the ranges.
    pub fn check(self) -> Result<Self, InvalidMix> {
        let shares = [self.duplicates, self.junk, self.missing, self.hostile];
        let valid = shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().sum::<f64>() <= 1.0 + 1e-9;
        if valid { Ok(self) } else { Err(InvalidMix) }
    }
}

/// `duplicates=0.1,junk=0.05`; what isn't named is 0.
impl FromStr for SimulationMix {
    type Err = InvalidMix;

    fn from_str(text: &str) -> Result<Self, InvalidMix> {
        let mut mix = Self::CLEAN;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, share) = part.split_once('=').ok_or(InvalidMix)?;
            let share = share.trim().parse().map_err(|_| InvalidMix)?;
            match name.trim() {
                "duplicates" => mix.duplicates = share,
                "junk" => mix.junk = share,
                "missing" => mix.missing = share,
                "hostile" => mix.hostile = share,
                _ => return Err(InvalidMix),
            }
        }
        mix.check()
    }
}

/// What a row is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Creator,
    Hostile,
    Duplicate,
    Junk,
    Missing,
}

/// A source of made-up creators.
#[derive(Debug, Clone)]
pub struct SimulatedSource {
    seed: u64,
    mix: SimulationMix,
    next: u64,
    end: u64,
}

impl SimulatedSource {
    /// `count` rows from the beginning.
    pub fn new(seed: u64, count: u64, mix: SimulationMix) -> Self {
        Self { seed, mix, next: 0, end: count }
    }

    /// The rows from index `first` up to `end`.
    pub fn range(seed: u64, first: u64, end: u64, mix: SimulationMix) -> Self {
        Self { seed, mix, next: first, end }
    }

    /// The row at an index, from 0.
    pub fn row(&self, index: u64) -> RawProfile {
        let mut rng = self.rng(index);
        let kind = self.kind(&mut rng);
        let mut profile = match kind {
            Kind::Duplicate => match self.original(index, &mut rng) {
                Some(original) => respelt(creator(original, &mut self.creator_rng(original)), &mut rng),
                None => creator(index, &mut self.creator_rng(index)),
            },
            _ => creator(index, &mut self.creator_rng(index)),
        };
        match kind {
            Kind::Creator | Kind::Duplicate => {}
            Kind::Hostile => make_hostile(&mut profile, &mut rng),
            Kind::Junk => spoil(&mut profile, &mut rng),
            Kind::Missing => take_away(&mut profile, &mut rng),
        }
        profile.line = index + 1;
        profile
    }

    fn kind(&self, rng: &mut ChaCha8Rng) -> Kind {
        let SimulationMix { duplicates, junk, missing, hostile } = self.mix;
        let at: f64 = rng.random();
        if at < duplicates {
            Kind::Duplicate
        } else if at < duplicates + junk {
            Kind::Junk
        } else if at < duplicates + junk + missing {
            Kind::Missing
        } else if at < duplicates + junk + missing + hostile {
            Kind::Hostile
        } else {
            Kind::Creator
        }
    }

    /// An earlier index with a creator of its own.
    fn original(&self, index: u64, rng: &mut ChaCha8Rng) -> Option<u64> {
        (index > 0).then(|| {
            (0..16)
                .map(|_| rng.random_range(0..index))
                .find(|earlier| matches!(self.kind(&mut self.rng(*earlier)), Kind::Creator | Kind::Hostile))
        })?
    }

    /// Decides what a row is; apart from the creator's own, so that a mix doesn't change who the creators are.
    fn rng(&self, index: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index << 1);
        rng
    }

    fn creator_rng(&self, index: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index << 1 | 1);
        rng
    }
}

impl PageSource for SimulatedSource {
    fn next_page(&mut self) -> Result<Option<Vec<Row>>, SourceError> {
        let end = self.end.min(self.next + PAGE_ROWS as u64);
        let page: Vec<Row> = (self.next..end).map(|index| Row::Profile(Box::new(self.row(index)))).collect();
        self.next = end;
        Ok((!page.is_empty()).then_some(page))
    }
}

fn creator(index: u64, rng: &mut ChaCha8Rng) -> RawProfile {
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
    profile
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

const SPANISH_FIRST: [&str; 20] = [
    "Lucía",
    "Sofía",
    "Martina",
    "María",
    "Valeria",
    "Paula",
    "Ximena",
    "Camila",
    "Renata",
    "Elena",
    "Mateo",
    "Hugo",
    "Santiago",
    "Diego",
    "Emiliano",
    "Álvaro",
    "Javier",
    "Andrés",
    "Iker",
    "Sebastián",
];
const SPANISH_LAST: [&str; 20] = [
    "García",
    "Hernández",
    "López",
    "Martínez",
    "González",
    "Pérez",
    "Rodríguez",
    "Sánchez",
    "Ramírez",
    "Flores",
    "Torres",
    "Rivera",
    "Gómez",
    "Díaz",
    "Reyes",
    "Morales",
    "Cruz",
    "Ortiz",
    "Navarro",
    "Ruiz",
];

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

/// The same creator, as another list spells them.
fn respelt(mut profile: RawProfile, rng: &mut ChaCha8Rng) -> RawProfile {
    if let Some(username) = &mut profile.username {
        *username = match rng.random_range(0..3) {
            0 => format!("@{username}"),
            1 => username.to_uppercase(),
            _ => format!(" {username} "),
        };
    }
    if let Some(url) = &mut profile.profile_url {
        *url = url.replace("https://www.", "http://");
    }
    profile
}

fn make_hostile(profile: &mut RawProfile, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..10) {
        0..3 => profile.name = Some((*pick(&hostile::NAMES, rng)).to_owned()),
        3 => profile.bio = Some("A very long story. ".repeat(2_500)),
        _ => {
            // An address that was only in the bio goes with it; the profile's URL stays as the contact.
            profile.bio = Some((*pick(&hostile::BIOS, rng)).to_owned());
        }
    }
}

fn spoil(profile: &mut RawProfile, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..3) {
        0 => profile.email = Some((*pick(&hostile::JUNK_EMAILS, rng)).to_owned()),
        1 => profile.follower_count = Some((*pick(&hostile::JUNK_COUNTS, rng)).to_owned()),
        _ => profile.username = Some((*pick(&hostile::JUNK_USERNAMES, rng)).to_owned()),
    }
}

fn take_away(profile: &mut RawProfile, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..3) {
        0 => {
            profile.source = None;
            profile.profile_url = None;
        }
        1 => {
            profile.username = None;
            profile.profile_url = None;
        }
        _ => {
            profile.email = None;
            profile.profile_url = None;
            profile.bio = None;
        }
    }
}

fn pick<'a, T>(list: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::{
        legal::{Basis, Channel, Ruling, judge},
        reject::RejectReason,
    };

    use super::*;
    use crate::validate::validate;

    fn rows(mix: SimulationMix, count: u64) -> Vec<RawProfile> {
        let source = SimulatedSource::new(7, count, mix);
        (0..count).map(|index| source.row(index)).collect()
    }

    #[test]
    fn a_seed_and_an_index_make_the_same_creator() {
        let (one, two) = (
            SimulatedSource::new(7, 10, SimulationMix::default()),
            SimulatedSource::new(7, 99, SimulationMix::default()),
        );
        assert_eq!(one.row(5), two.row(5));
        assert_ne!(one.row(5), SimulatedSource::new(8, 10, SimulationMix::default()).row(5));
        let mut paged = one.clone();
        let page = paged.next_page().unwrap().unwrap();
        assert_eq!(page.len(), 10);
        assert_eq!(page[5], Row::Profile(Box::new(one.row(5))));
        assert!(paged.next_page().unwrap().is_none());
    }

    #[test]
    fn a_clean_mix_yields_creators_who_all_differ_and_belong_to_nobody() {
        let mut handles = HashSet::new();
        let mut addresses = HashSet::new();
        for raw in rows(SimulationMix::CLEAN, 5_000) {
            let profile = validate(&raw, None).unwrap();
            assert!(handles.insert(profile.username.canonical()));
            if let Some(email) = profile.email {
                let domain = email.domain();
                assert!(
                    ["example.com", "example.net", "example.org"]
                        .iter()
                        .any(|safe| domain.ends_with(&format!(".{safe}"))),
                    "{domain}"
                );
                assert!(addresses.insert(email.canonical()));
            }
        }
        assert!(addresses.len() > 3_200, "{}", addresses.len());
    }

    #[test]
    fn most_live_where_a_first_mail_is_lawful_and_some_where_it_is_not() {
        let rulings: Vec<Ruling> = rows(SimulationMix::CLEAN, 2_000)
            .iter()
            .map(|raw| judge(validate(raw, None).unwrap().country, Basis::LegitimateInterest, Channel::Email).ruling)
            .collect();
        let share = |ruling| rulings.iter().filter(|found| **found == ruling).count() * 100 / rulings.len();
        assert!((50..80).contains(&share(Ruling::Allow)), "{}", share(Ruling::Allow));
        assert!((15..40).contains(&share(Ruling::Deny)), "{}", share(Ruling::Deny));
        assert!((3..20).contains(&share(Ruling::Hold)), "{}", share(Ruling::Hold));
    }

    #[test]
    fn every_place_lies_where_its_list_says() {
        for home in &HOMES {
            for place in home.places {
                let found = crate::normalise::country::in_location(place).map(|country| country.as_str().to_owned());
                assert_eq!(found.as_deref(), Some(home.code), "{place}");
            }
        }
    }

    #[test]
    fn a_mix_yields_what_it_asks_for() {
        let all_junk = rows(SimulationMix { junk: 1.0, ..SimulationMix::CLEAN }, 300);
        assert!(all_junk.iter().all(|raw| validate(raw, None).unwrap_err().defect.reason == RejectReason::Invalid));
        let all_missing = rows(SimulationMix { missing: 1.0, ..SimulationMix::CLEAN }, 300);
        assert!(all_missing.iter().all(|raw| validate(raw, None).unwrap_err().defect.reason == RejectReason::Missing));
        let all_hostile = rows(SimulationMix { hostile: 1.0, ..SimulationMix::CLEAN }, 300);
        assert!(all_hostile.iter().all(|raw| validate(raw, None).is_ok()));
        let half = rows(SimulationMix { duplicates: 0.5, ..SimulationMix::CLEAN }, 2_000);
        let handles: HashSet<String> = half
            .iter()
            .map(|raw| validate(raw, None).unwrap())
            .map(|profile| format!("{}/{}", profile.source, profile.username.canonical()))
            .collect();
        assert!((900..1_100).contains(&handles.len()), "{}", handles.len());
    }

    #[test]
    fn a_mix_is_read_from_text() {
        assert_eq!(
            "junk=0.5, hostile=0.25".parse(),
            Ok(SimulationMix { junk: 0.5, hostile: 0.25, ..SimulationMix::CLEAN })
        );
        for text in ["junk=2", "junk=0.6,missing=0.6", "spam=0.1", "junk"] {
            assert_eq!(text.parse::<SimulationMix>(), Err(InvalidMix), "{text}");
        }
    }
}
