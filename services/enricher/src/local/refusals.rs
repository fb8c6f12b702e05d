//! Whether a bio refuses business, in whatever words: `no brand deals`, `not accepting collabs rn`, `collabs closed`. The words
//! are data (`refusals.tsv`); its head says how they make a refusal. Phrases that fit no pattern stand in the lexicon.

use std::{collections::HashSet, sync::LazyLock};

use super::{segments::segments, tokens::Tokens};

/// The most words between a negation and what it refuses.
const GAP: usize = 8;

static RULES: LazyLock<Vec<Rules>> = LazyLock::new(|| parse(include_str!("refusals.tsv")));

/// The words that begin a negation or say that something is closed: a bio without any of them refuses nothing, and most bios
/// are such.
static ANCHORS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let entries = RULES.iter().flat_map(|rules| [&rules.no, &rules.not, &rules.closed]).flat_map(|words| &words.0);
    entries.filter_map(|entry| entry.first()).map(|(word, _)| &**word).collect()
});

/// Whether the bio refuses; `words` are those of the whole bio.
pub(super) fn refuses_business(bio: &str, words: &Tokens) -> bool {
    words.iter().any(|word| ANCHORS.contains(word))
        && segments(bio).any(|piece| {
            let words = Tokens::of(piece);
            RULES.iter().any(|rules| rules.refuse(&words))
        })
}

/// The words of one language.
#[derive(Debug, Default)]
struct Rules {
    language: &'static str,
    no: Words,
    not: Words,
    verb: Words,
    filler: Words,
    object: Words,
    closed: Words,
}

impl Rules {
    fn refuse(&self, words: &Tokens) -> bool {
        (0..words.len()).any(|at| {
            let is_no = self.no.has(words, at);
            (is_no && self.reaches(words, at + 1, &self.object, false))
                || (self.not.has(words, at) && self.reaches(words, at + 1, &self.object, true))
                || self.object.ends(words, at).is_some_and(|end| self.reaches(words, end, &self.closed, false))
        })
    }

    /// Whether only fillers and verbs stand between `from` and one of `wanted`.
    fn reaches(&self, words: &Tokens, from: usize, wanted: &Words, needs_verb: bool) -> bool {
        let mut has_verb = false;
        for at in from..words.len().min(from + GAP) {
            if (has_verb || !needs_verb) && wanted.has(words, at) {
                return true;
            }
            let is_verb = self.verb.has(words, at);
            if !is_verb && !self.filler.has(words, at) {
                return false;
            }
            has_verb |= is_verb;
        }
        false
    }
}

/// Words, stems and pairs of words.
#[derive(Debug, Default)]
struct Words(Vec<Vec<(Box<str>, bool)>>);

impl Words {
    fn has(&self, words: &Tokens, at: usize) -> bool {
        self.ends(words, at).is_some()
    }

    /// Where the entry that stands at `at` ends.
    fn ends(&self, words: &Tokens, at: usize) -> Option<usize> {
        let stands = |entry: &&Vec<(Box<str>, bool)>| {
            entry.iter().zip(at..).all(|((text, is_stem), at)| {
                words.get(at).is_some_and(|word| word == &**text || (*is_stem && word.starts_with(&**text)))
            })
        };
        self.0.iter().find(stands).map(|entry| at + entry.len())
    }
}

fn parse(text: &'static str) -> Vec<Rules> {
    let mut all: Vec<Rules> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut columns = line.splitn(3, '\t');
        let (Some(language), Some(role), Some(list)) = (columns.next(), columns.next(), columns.next()) else {
            panic!("three columns: {line}");
        };
        let at = all.iter().position(|rules| rules.language == language).unwrap_or_else(|| {
            all.push(Rules { language, ..Rules::default() });
            all.len() - 1
        });
        let rules = &mut all[at];
        let words = match role {
            "no" => &mut rules.no,
            "not" => &mut rules.not,
            "verb" => &mut rules.verb,
            "filler" => &mut rules.filler,
            "object" => &mut rules.object,
            "closed" => &mut rules.closed,
            other => panic!("no such role: {other}"),
        };
        words.0.extend(list.split(',').map(entry));
    }
    // The signs are the same in every language.
    let signs = all.iter().position(|rules| rules.language == "any").map(|at| all.remove(at));
    for rules in &mut all {
        for (own, shared) in
            [(&mut rules.no, signs.as_ref().map(|s| &s.no)), (&mut rules.closed, signs.as_ref().map(|s| &s.closed))]
        {
            own.0.extend(shared.into_iter().flat_map(|words| words.0.iter().cloned()));
        }
    }
    all
}

fn entry(text: &str) -> Vec<(Box<str>, bool)> {
    text.split_whitespace()
        .map(|word| {
            let tokens = Tokens::of(word.trim_end_matches('*'));
            (tokens.iter().collect::<String>().into_boxed_str(), word.ends_with('*'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_whole_words() {
        let anchors = RULES.iter().flat_map(|rules| [&rules.no, &rules.not, &rules.closed]).flat_map(|words| &words.0);
        assert!(anchors.flatten().all(|(_, is_stem)| !is_stem), "a stem would not be found by a look-up");
    }

    #[test]
    fn refusals_are_read_in_every_language_of_the_lexicon() {
        for bio in [
            "Fitness. No brand deals",
            "Yoga, not accepting collabs rn",
            "Not currently taking on any new brand partnerships",
            "I don't do sponsored posts",
            "no longer doing paid promotions",
            "closed for collabs",
            "Collabs closed",
            "collabs: paused",
            "❌ collabs",
            "collabs ❌",
            "🚫 brand deals 🚫",
            "never doing ads",
            "not interested in your marketing emails",
            "zero sponsors",
            "Derzeit keine bezahlten Kooperationen",
            "Bin nicht offen für Kooperationen",
            "Keine Collabs bitte",
            "Kooperationen geschlossen",
            "pas intéressée par les collabs",
            "Pas ouvert aux partenariats",
            "aucune nouvelle collaboration",
            "sans pub",
            "No acepto colaboraciones ni marcas",
            "no hago ningún canje",
            "por ahora no estoy disponible para colaboraciones",
            "Não estou aceitando... não faço parcerias",
            "nenhuma publi",
            "sem parcerias pagas",
            "Non faccio più collaborazioni",
            "nessuna sponsorizzazione",
            "Al momento non accetto proposte o collaborazioni, basta sponsor",
        ] {
            assert!(refuses_business(bio, &Tokens::of(bio)), "{bio}");
        }
    }

    #[test]
    fn invitations_and_other_negations_are_no_refusals() {
        for bio in [
            "Open for collabs",
            "No gym, no problem: home workouts",
            "No free collabs, paid only",
            "no unpaid collabs",
            "not an ad, just love",
            "Not your average brand strategist",
            "can't wait to collab",
            "don't hesitate to reach out for collabs",
            "No DMs, email for collabs",
            "zero waste brands I love",
            "Ad free living? No: slow living",
            "No-nonsense marketing tips",
            "Keine Anfrage zu klein",
            "Kooperationen gern per Mail",
            "Pas de sucre, collabs par mail",
            "Sin gluten. Colaboraciones por DM",
            "Sem glúten, parcerias por email",
            "Senza glutine. Collaborazioni in DM",
        ] {
            assert!(!refuses_business(bio, &Tokens::of(bio)), "{bio}");
        }
    }
}
