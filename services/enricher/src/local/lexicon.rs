//! The lexicon: which words tell what. The data is `lexicon.tsv`, embedded and parsed once; its head says how to read it.

use std::{collections::HashMap, sync::LazyLock};

use super::tokens::Tokens;

static EMBEDDED: LazyLock<Lexicon> =
    LazyLock::new(|| Lexicon::parse(include_str!("lexicon.tsv")).expect("the embedded lexicon is checked by a test"));

/// What a profile can show beyond its niche.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Signal {
    /// Publishes regularly, invites followers.
    Active,
    /// Welcomes collaborations.
    OpenToBusiness,
    /// Refuses advertising or business contact.
    RefusesBusiness,
    /// The owner seems to be a minor.
    Minor,
    /// Adult content.
    Adult,
    /// Gambling.
    Gambling,
    /// The account remembers somebody who died.
    Memorial,
    /// The account is in the hands of somebody else.
    Hacked,
}

impl Signal {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "active" => Self::Active,
            "open_to_business" => Self::OpenToBusiness,
            "refuses_business" => Self::RefusesBusiness,
            "minor" => Self::Minor,
            "adult" => Self::Adult,
            "gambling" => Self::Gambling,
            "memorial" => Self::Memorial,
            "hacked" => Self::Hacked,
            _ => return None,
        })
    }
}

/// What one word or phrase tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Points for a niche (its index).
    Niche { niche: usize, weight: u32 },
    /// A signal.
    Signal(Signal),
}

/// A word or phrase of the lexicon.
#[derive(Debug)]
struct Entry {
    /// As the file spells it, where a message may repeat it: English, whole words, telling enough.
    topic: Option<Box<str>>,
    meaning: Meaning,
}

/// A hit: an entry and its number, by which a repetition can be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    /// The entry's number, below [`Lexicon::len`].
    pub entry: usize,
    /// What it tells.
    pub meaning: Meaning,
    /// Its spelling, if a message may repeat it.
    pub topic: Option<&'a str>,
}

#[derive(Debug)]
struct Niche {
    name: Box<str>,
    related: Vec<usize>,
}

/// The parsed lexicon.
#[derive(Debug, Default)]
pub(super) struct Lexicon {
    niches: Vec<Niche>,
    entries: Vec<Entry>,
    words: HashMap<Box<str>, Vec<usize>>,
    stems: HashMap<Box<str>, Vec<usize>>,
    /// Lengths of the shortest and the longest stem, in bytes.
    stem_bytes: (usize, usize),
    /// By first word.
    phrases: HashMap<Box<str>, Vec<Phrase>>,
}

#[derive(Debug)]
struct Phrase {
    /// The words after the first.
    rest: Box<[Box<str>]>,
    entry: usize,
}

/// A line of the lexicon that can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the lexicon: {problem}")]
pub(super) struct InvalidLexicon {
    line: usize,
    problem: &'static str,
}

impl Lexicon {
    /// The lexicon of this program.
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }

    fn parse(text: &str) -> Result<Self, InvalidLexicon> {
        let mut lexicon = Self { stem_bytes: (usize::MAX, 0), ..Self::default() };
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            lexicon.add_line(line).map_err(|problem| InvalidLexicon { line: index + 1, problem })?;
        }
        Ok(lexicon)
    }

    fn add_line(&mut self, line: &str) -> Result<(), &'static str> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [kind, name, weight, language, words] = columns[..] else { return Err("there must be five columns") };
        let weight: u32 = weight.parse().map_err(|_| "the weight must be a whole number")?;
        let words = words.split(',').map(str::trim);
        let meaning = match kind {
            "niche" => Meaning::Niche { niche: self.niche_index_or_add(name), weight },
            "signal" => Meaning::Signal(Signal::parse(name).ok_or("no such signal")?),
            "related" => {
                let niche = self.niche_index(name).ok_or("no such niche")?;
                let related: Option<Vec<usize>> = words.map(|word| self.niche_index(word)).collect();
                self.niches[niche].related = related.ok_or("a related niche doesn't exist")?;
                return Ok(());
            }
            _ => return Err("the kind must be `niche`, `related` or `signal`"),
        };
        words.into_iter().try_for_each(|word| self.add_word(word, meaning, language == "en"))
    }

    fn add_word(&mut self, word: &str, meaning: Meaning, english: bool) -> Result<(), &'static str> {
        let (text, is_stem) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
        let tokens = Tokens::of(text);
        let mut parts: Vec<Box<str>> = tokens.iter().map(Box::from).collect();
        if is_stem && parts.len() > 1 {
            return self.add_word(text, meaning, english);
        }
        let telling = matches!(meaning, Meaning::Niche { weight: 3.., .. }) && text.len() >= 5 && text.is_ascii();
        let topic = (english && !is_stem && telling).then(|| text.into());
        let entry = self.entries.len();
        self.entries.push(Entry { topic, meaning });
        match parts.len() {
            0 => return Err("a word has neither letters nor digits"),
            1 if is_stem => {
                let stem = parts.remove(0);
                if stem.len() < 4 {
                    return Err("a stem must have at least four letters");
                }
                self.stem_bytes = (self.stem_bytes.0.min(stem.len()), self.stem_bytes.1.max(stem.len()));
                self.stems.entry(stem).or_default().push(entry);
            }
            1 => self.words.entry(parts.remove(0)).or_default().push(entry),
            2..=5 => {
                let first = parts.remove(0);
                self.phrases.entry(first).or_default().push(Phrase { rest: parts.into_boxed_slice(), entry });
            }
            _ => return Err("a phrase must have at most five words"),
        }
        Ok(())
    }

    fn niche_index_or_add(&mut self, name: &str) -> usize {
        self.niche_index(name).unwrap_or_else(|| {
            self.niches.push(Niche { name: name.into(), related: Vec::new() });
            self.niches.len() - 1
        })
    }

    /// The niche of this name.
    pub fn niche_index(&self, name: &str) -> Option<usize> {
        self.niches.iter().position(|niche| &*niche.name == name)
    }

    /// The niches' names.
    pub fn niches(&self) -> impl Iterator<Item = &str> {
        self.niches.iter().map(|niche| &*niche.name)
    }

    /// A niche's name.
    pub fn niche_name(&self, niche: usize) -> &str {
        &self.niches[niche].name
    }

    /// Whether the audiences of two niches overlap.
    pub fn are_related(&self, one: usize, other: usize) -> bool {
        self.niches[one].related.contains(&other) || self.niches[other].related.contains(&one)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Calls `found` for every entry that stands in `tokens`; for a repeated one every time.
    pub fn scan<'a>(&'a self, tokens: &Tokens, mut found: impl FnMut(Hit<'a>)) {
        let mut hit = |entry: usize| {
            let Entry { topic, meaning } = &self.entries[entry];
            found(Hit { entry, meaning: *meaning, topic: topic.as_deref() });
        };
        for (index, token) in tokens.iter().enumerate() {
            if let Some(entries) = self.words.get(token) {
                entries.iter().copied().for_each(&mut hit);
            }
            let (shortest, longest) = self.stem_bytes;
            for length in shortest..=longest.min(token.len()) {
                if let Some(entries) = token.get(..length).and_then(|stem| self.stems.get(stem)) {
                    entries.iter().copied().for_each(&mut hit);
                }
            }
            for Phrase { rest, entry } in self.phrases.get(token).into_iter().flatten() {
                if tokens.matches_at(index + 1, rest) {
                    hit(*entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_lexicon_parses_and_knows_at_least_twenty_niches() {
        let lexicon = Lexicon::parse(include_str!("lexicon.tsv")).unwrap();
        assert!(lexicon.niches().count() >= 20);
        assert!(lexicon.len() > 2_000);
    }

    /// A display name such as `Vegan Recipes` tells what an account is about; the words of both lists must not part ways.
    #[test]
    fn no_word_for_a_niche_passes_for_a_persons_name() {
        for line in include_str!("lexicon.tsv").lines().filter(|line| line.starts_with("niche")) {
            for word in line.rsplit('\t').next().unwrap().split(',').map(|word| word.trim().trim_end_matches('*')) {
                let capital: String =
                    word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
                let is_word = word.chars().count() > 1 && word.chars().all(|c| c.is_ascii_alphabetic());
                // These are common names, too.
                if is_word && !["art", "baker", "koch"].contains(&word) {
                    assert_eq!(domain::person_name::PersonName::of(&capital), None, "{word}");
                }
            }
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let wrong = |line: &str| Lexicon::parse(&format!("# head\n{line}")).unwrap_err();
        assert_eq!(wrong("niche\tx"), InvalidLexicon { line: 2, problem: "there must be five columns" });
        assert_eq!(wrong("signal\tx\t0\ten\tword").problem, "no such signal");
        assert_eq!(wrong("niche\tx\t1\ten\tabc*").problem, "a stem must have at least four letters");
        assert_eq!(wrong("niche\tx\t1\ten\t, a").problem, "a word has neither letters nor digits");
        assert_eq!(wrong("related\tx\t1\ten\ty").problem, "no such niche");
    }

    #[test]
    fn words_stems_and_phrases_are_found() {
        let lexicon =
            Lexicon::parse("niche\tpets\t3\ten\tdog mom, puppy*, cats\nsignal\tadult\t0\ten\t18+ only").unwrap();
        let mut found = 0;
        lexicon.scan(&Tokens::of("Dog-Mom, puppylove & CATS (18+ only) but no dog nor mom"), |_| found += 1);
        assert_eq!(found, 4);
    }
}
