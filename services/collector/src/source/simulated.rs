//! Made-up creators: as like to real ones as their place in the pipeline needs, and belonging to nobody.
//!
//! Everything follows from a seed and an index, so that two runs agree, and a run can go on anywhere. Addresses are on
//! the domains that RFC 2606 reserves. Without duplicates, no two indexes have the same handle or address.

mod creator;
mod mix;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::mix::{InvalidMix, SimulationMix};

use self::creator::{creator, pick};
use super::{PAGE_ROWS, PageSource, RawProfile, Row, SourceError, hostile};

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
    if profile.email.is_none() {
        profile.forget_evidence();
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
            profile.forget_evidence();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::{
        law::{AddressKind, Consent, Contact, Law, Ruling, evidence::EvidenceKind},
        reject::RejectReason,
    };

    use domain::submission::Submission;
    use time::{OffsetDateTime, macros::datetime};

    use super::*;
    use crate::{source::words::HOMES, validate};

    const NOW: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    fn validate(raw: &RawProfile) -> Result<Submission, Box<validate::Refusal>> {
        validate::validate(raw, None, NOW)
    }

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
            let profile = validate(&raw).unwrap().profile;
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
            .map(|raw| {
                let Submission { profile, evidence, .. } = validate(raw).unwrap();
                let has = |kind| evidence.iter().any(|evidence| evidence.kind() == kind);
                let contact = Contact {
                    consent: if has(EvidenceKind::Consent) { Consent::Given } else { Consent::None },
                    address: if has(EvidenceKind::PublishedAddress) {
                        AddressKind::PublishedForBusiness
                    } else {
                        AddressKind::Unknown
                    },
                    relevant: true,
                };
                Law::current().judge(profile.country, contact).ruling
            })
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
        assert!(all_junk.iter().all(|raw| validate(raw).unwrap_err().defect.reason == RejectReason::Invalid));
        let all_missing = rows(SimulationMix { missing: 1.0, ..SimulationMix::CLEAN }, 300);
        assert!(all_missing.iter().all(|raw| validate(raw).unwrap_err().defect.reason == RejectReason::Missing));
        let all_hostile = rows(SimulationMix { hostile: 1.0, ..SimulationMix::CLEAN }, 300);
        assert!(all_hostile.iter().all(|raw| validate(raw).is_ok()));
        let half = rows(SimulationMix { duplicates: 0.5, ..SimulationMix::CLEAN }, 2_000);
        let handles: HashSet<String> = half
            .iter()
            .map(|raw| validate(raw).unwrap().profile)
            .map(|profile| format!("{}/{}", profile.source, profile.username.canonical()))
            .collect();
        assert!((900..1_100).contains(&handles.len()), "{}", handles.len());
    }
}
