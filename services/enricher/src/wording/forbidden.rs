//! Words that no text for a mail may have, whatever supports them: offers, amounts, promises, urgency, credentials, payment,
//! impersonation, contact elsewhere. Data: `forbidden.tsv`.

use std::sync::LazyLock;

static FORBIDDEN: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    include_str!("forbidden.tsv")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(|line| {
            let (category, words) = line.split_once('\t').expect("two columns, as a test checks");
            words.split(',').map(move |words| Entry::parse(category, words))
        })
        .collect()
});

/// What `free` may follow without being an offer: `gluten free`.
const FREE_OF: [&str; 16] = [
    "gluten", "sugar", "dairy", "plastic", "cruelty", "waste", "oil", "nut", "grain", "lactose", "alcohol", "stress",
    "toxin", "meat", "guilt", "additive",
];

#[derive(Debug)]
struct Entry {
    category: &'static str,
    /// Each a word, or a stem.
    words: Vec<(&'static str, bool)>,
}

impl Entry {
    fn parse(category: &'static str, words: &'static str) -> Self {
        let words = words.split_whitespace().map(|word| (word.trim_end_matches('*'), word.ends_with('*'))).collect();
        Self { category, words }
    }

    fn stands_at(&self, words: &[String], at: usize) -> bool {
        let is_same =
            |(word, is_stem): &(&str, bool), found: &String| found == word || (*is_stem && found.starts_with(word));
        words.len() >= at + self.words.len()
            && self.words.iter().zip(&words[at..]).all(|(entry, found)| is_same(entry, found))
    }
}

/// The category of the first forbidden word, if there is one.
pub(super) fn category(words: &[String]) -> Option<&'static str> {
    let excused = |at: usize| words[at] == "free" && at > 0 && FREE_OF.contains(&words[at - 1].as_str());
    (0..words.len())
        .filter(|at| !excused(*at))
        .find_map(|at| FORBIDDEN.iter().find(|entry| entry.stands_at(words, at)).map(|entry| entry.category))
}

#[cfg(test)]
mod tests {
    use super::{super::words::words, *};

    #[test]
    fn forbidden_words_are_found_in_every_form_and_language() {
        for (text, expected) in [
            ("A guaranteed match", Some("guarantee")),
            ("Erhalte gratis Produkte", Some("offer")),
            ("tu contraseña", Some("credentials")),
            ("one thousand dollars", Some("amount")),
            ("URGENT!", Some("urgency")),
            ("the Instagram support team", Some("impersonation")),
            ("call me", Some("contact")),
            ("gluten-free recipes", None),
            ("Call of Duty streams", None),
            ("coding and accountant life", None),
        ] {
            assert_eq!(category(&words(text)), expected, "{text}");
        }
    }

    #[test]
    fn every_entry_is_folded() {
        for line in include_str!("forbidden.tsv").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (_, list) = line.split_once('\t').expect("two columns");
            for word in list.split(',').flat_map(str::split_whitespace) {
                assert_eq!(words(word).concat(), word.trim_end_matches('*'), "{line}");
            }
        }
    }
}
