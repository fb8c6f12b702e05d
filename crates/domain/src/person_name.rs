//! Whether a display name looks like a person's name. A display name is a stranger's free text, and often a slogan, a brand,
//! an offer or an alarm; only what looks like a person's name may stand in a subject, in `To` or in a greeting. In doubt
//! there is no name: `Dear Official` costs more than a mail that addresses by handle.
//!
//! To teach it a word that no person is called, add it to `person_name/not_names.txt`.

use std::{collections::HashSet, sync::LazyLock};

use crate::text::folded;

/// The most characters of a name.
pub const PERSON_NAME_CHARS: usize = 60;
/// The most words of a name, particles not counted.
const WORDS: usize = 3;
/// The most words with particles, as in `Ana de la Cruz`.
const WORDS_AND_PARTICLES: usize = 5;
/// The shortest stem of the list, in bytes.
const STEM_BYTES: usize = 3;

/// Words between the parts of a name; they may begin with a small letter.
const PARTICLES: [&str; 25] = [
    "de", "da", "do", "dos", "das", "del", "della", "di", "du", "van", "von", "der", "den", "ter", "zu", "bin", "ibn",
    "al", "el", "la", "le", "e", "y", "af", "av",
];

static NOT_NAMES: LazyLock<NotNames> = LazyLock::new(|| NotNames::parse(include_str!("person_name/not_names.txt")));

/// A name of one to three words of letters of one script (Latin, Greek or Cyrillic), each with a capital letter first,
/// none of which is known as something else. At most [`PERSON_NAME_CHARS`] characters; no digits, no line breaks.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonName {
    full: String,
    first_bytes: usize,
}

impl PersonName {
    /// Reads a display name. What follows a bar, a comma, a bracket or a dash is left out, as are emoji at both ends:
    /// `Ann Lee ✨ | vegan recipes` is `Ann Lee`.
    pub fn of(display_name: &str) -> Option<Self> {
        let name = display_name.split(['|', ',', '•', '·', '–', '—', '(', '[', '/', '~']).next()?;
        let name = name.split(" - ").next()?;
        let name = name.trim_start_matches(|c: char| !c.is_alphanumeric());
        let name = name.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '.');
        if name.chars().count() > PERSON_NAME_CHARS {
            return None;
        }
        let words: Vec<&str> = name.split(' ').collect();
        if !(1..=WORDS_AND_PARTICLES).contains(&words.len()) || !is_of_one_script(name) {
            return None;
        }
        let last = words.len() - 1;
        let is_particle = |at: usize| at > 0 && at < last && PARTICLES.contains(&words[at].to_lowercase().as_str());
        let parts = (0..words.len()).filter(|at| !is_particle(*at));
        let is_name = parts.clone().count() <= WORDS && parts.clone().all(|at| is_name_word(words[at]));
        if !is_name || words[0].ends_with('.') || words[0].chars().count() < 2 {
            return None;
        }
        let full: Vec<String> = words.iter().map(|word| capitalised(word)).collect();
        Some(Self { first_bytes: full[0].len(), full: full.join(" ") })
    }

    /// The whole name: `Ann Lee`.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// Its first word: `Ann`.
    pub fn first(&self) -> &str {
        &self.full[..self.first_bytes]
    }
}

/// Debug output shows no personal data.
impl std::fmt::Debug for PersonName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonName(***)")
    }
}

/// Letters with `-`, `'` or `’` inside, a capital one first; or an initial such as `K.`.
fn is_name_word(word: &str) -> bool {
    let core = word.strip_suffix('.').filter(|core| core.chars().count() <= 2).unwrap_or(word);
    let letters = |part: &str| !part.is_empty() && part.chars().all(char::is_alphabetic);
    (1..=20).contains(&core.chars().count())
        && core.starts_with(char::is_uppercase)
        && core.split(['-', '\'', '’']).all(letters)
        && !repeats_a_letter(core)
        && !has_inner_capital(core)
        && !NOT_NAMES.has(core)
        && !core.split(['-', '\'', '’']).flat_map(humps).any(|part| NOT_NAMES.has(part))
}

/// `Heyyy`.
fn repeats_a_letter(word: &str) -> bool {
    let letters: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
    letters.windows(3).any(|three| three[0] == three[1] && three[1] == three[2])
}

/// Mixed case inside is a handle or a brand (`FitLife`), except after a hyphen, an apostrophe, or two letters (`McKay`).
fn has_inner_capital(word: &str) -> bool {
    let pairs = word.chars().zip(word.chars().skip(1));
    pairs.skip(2).any(|(left, right)| left.is_lowercase() && right.is_uppercase())
}

/// `MyShop` as `My` and `Shop`.
fn humps(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut before) = (0, None::<char>);
    for (at, character) in word.char_indices() {
        if before.is_some_and(char::is_lowercase) && character.is_uppercase() {
            parts.push(&word[start..at]);
            start = at;
        }
        before = Some(character);
    }
    parts.push(&word[start..]);
    parts
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
}

/// The scripts whose capital letters tell a name from a sentence. Letters that only look like Latin ones are of none.
fn script(letter: char) -> Option<Script> {
    match letter {
        'A'..='Z' | 'a'..='z' | 'À'..='ſ' | 'Ơ' | 'ơ' | 'Ư' | 'ư' | 'Ș'..='ț' | 'Ḁ'..='ỹ' => {
            Some(Script::Latin)
        }
        'Ά'..='ώ' | 'ἀ'..='ῼ' => Some(Script::Greek),
        'Ѐ'..='ӿ' => Some(Script::Cyrillic),
        _ => None,
    }
}

/// `Аnn` with a Cyrillic `А` is written by nobody who is called Ann.
fn is_of_one_script(name: &str) -> bool {
    let mut letters = name.chars().filter(|c| c.is_alphabetic()).map(script);
    let first = letters.next().flatten();
    first.is_some() && letters.all(|script| script == first)
}

/// `ANNE-MARIE` is `Anne-Marie`.
fn capitalised(word: &str) -> String {
    if word.chars().count() <= 2 || word.chars().any(char::is_lowercase) {
        return word.to_owned();
    }
    let mut inside = false;
    let mut result = String::with_capacity(word.len());
    for character in word.chars() {
        if inside {
            result.extend(character.to_lowercase());
        } else {
            result.push(character);
        }
        inside = character.is_alphabetic();
    }
    result
}

/// The words and stems of `not_names.txt`.
struct NotNames {
    words: HashSet<&'static str>,
    stems: HashSet<&'static str>,
}

impl NotNames {
    fn parse(text: &'static str) -> Self {
        let entries = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
        let (stems, words) = entries.partition::<Vec<_>, _>(|entry| entry.ends_with('*'));
        let stems = stems.into_iter().map(|stem| stem.trim_end_matches('*')).collect();
        Self { words: words.into_iter().collect(), stems }
    }

    fn has(&self, word: &str) -> bool {
        let word: String = folded(word).filter(|c| c.is_alphanumeric()).collect();
        self.words.contains(word.as_str())
            || (STEM_BYTES..=word.len()).any(|end| word.get(..end).is_some_and(|stem| self.stems.contains(stem)))
    }
}

#[cfg(test)]
mod tests;
