//! The built-in analyser: no key, no network, no randomness. The same lead and program always give the same answer.
//!
//! It reads words (see `lexicon.tsv`), never meaning. So it says what it saw: every point of a score stands in the notes
//! with its reason, and the confidence tells how much there was to see.
//!
//! To teach it a niche, add lines to `lexicon.tsv`; to weigh a feature differently, change its module.

mod compliance;
mod confidence;
mod evidence;
mod features;
mod lexicon;
mod message;
mod refusals;
mod segments;
mod stated_age;
mod tokens;

use domain::{
    enrichment::{Enrichment, NOTES_CHARS, Provider, Score},
    lead::Lead,
    program::Program,
    text,
};

pub use self::compliance::Objection;
use self::{
    compliance::objections,
    evidence::Evidence,
    lexicon::{Lexicon, Meaning, Signal},
    tokens::Tokens,
};
use crate::wording::Slots;

/// The niche of a creator whose profile doesn't tell one.
pub const UNKNOWN_NICHE: &str = "general";

/// What a bio shows that a mail may repeat.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The niche and telling words, as the lexicon spells them.
    pub topics: Vec<&'static str>,
    /// They publish regularly.
    pub active: bool,
    /// They welcome collaborations.
    pub open: bool,
}

/// The analyser. Cheap to copy: the lexicon is parsed once per process.
#[derive(Debug, Clone, Copy)]
pub struct LocalAnalyser {
    lexicon: &'static Lexicon,
}

impl Default for LocalAnalyser {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalAnalyser {
    /// Makes the analyser.
    pub fn new() -> Self {
        Self { lexicon: Lexicon::embedded() }
    }

    /// Every niche that it knows, in the order of the lexicon.
    pub fn niches(&self) -> impl Iterator<Item = &'static str> {
        self.lexicon.niches()
    }

    /// Analyses a lead. Never fails: with nothing to go by it says so, with a low score and confidence.
    pub fn analyse(&self, lead: &Lead, program: &Program) -> Enrichment {
        let profile = &lead.profile;
        let evidence = Evidence::gather(self.lexicon, profile);
        let features = features::rate(self.lexicon, profile, &program.settings.niches, &evidence);
        let objections = objections(profile, &evidence);
        let score = features.iter().map(|feature| feature.points).sum::<i64>().clamp(0, 100);
        Enrichment {
            niche: evidence.niche_name(self.lexicon).to_owned(),
            score: Score::new(score).expect("the sum was clamped to 0 to 100"),
            notes: text::multi_line(&features::notes(score, &features), NOTES_CHARS).unwrap_or_default(),
            message: message::compose(self.lexicon, lead, program, &evidence),
            compliant: objections.is_empty(),
            compliance_notes: compliance::notes(&objections),
            confidence: confidence::estimate(profile, &evidence),
            provider: Provider::Local,
            fallback_reason: None,
        }
    }

    /// The personal part of a first mail.
    pub(crate) fn message(self, lead: &Lead, program: &Program) -> String {
        message::compose(self.lexicon, lead, program, &Evidence::gather(self.lexicon, &lead.profile))
    }

    /// The same around slots that were checked.
    pub(crate) fn message_with(lead: &Lead, program: &Program, slots: &Slots) -> String {
        message::compose_with(lead, program, slots)
    }

    /// Whether a text has a word that tells a niche.
    pub(crate) fn names_a_niche(self, text: &str) -> bool {
        let mut found = false;
        self.lexicon.scan(&Tokens::of(text), |hit| found |= matches!(hit.meaning, Meaning::Niche { .. }));
        found
    }

    /// What the bio shows.
    pub(crate) fn shown(self, lead: &Lead) -> Shown {
        let evidence = Evidence::gather(self.lexicon, &lead.profile);
        let niche = evidence.niche.map(|niche| self.lexicon.niche_name(niche));
        Shown {
            topics: niche.into_iter().chain(evidence.topics.iter().copied()).collect(),
            active: evidence.shows(Signal::Active),
            open: evidence.shows(Signal::OpenToBusiness),
        }
    }

    /// What a profile itself says against writing to its owner; empty when nothing does.
    pub fn objections(&self, lead: &Lead) -> Vec<Objection> {
        objections(&lead.profile, &Evidence::gather(self.lexicon, &lead.profile))
    }
}

#[cfg(test)]
mod tests;
