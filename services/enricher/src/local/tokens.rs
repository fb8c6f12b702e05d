//! Cuts text into words for the lexicon: lower case, without accents, each emoji a word of its own.

use domain::text::folded;

/// The words of a text. One buffer holds them all.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    folded: String,
    ends: Vec<u32>,
}

impl Tokens {
    /// Cuts `text` into words. Letters and digits make words, and a `+` after a digit (`18+`); everything else separates.
    pub fn of(text: &str) -> Self {
        let mut tokens = Self { folded: String::with_capacity(text.len()), ends: Vec::with_capacity(text.len() / 5) };
        if text.is_ascii() {
            for byte in text.bytes() {
                tokens.push(char::from(byte.to_ascii_lowercase()));
            }
        } else {
            folded(text).for_each(|character| tokens.push(character));
        }
        tokens.end_word();
        tokens
    }

    fn push(&mut self, character: char) {
        if character.is_alphanumeric() {
            self.folded.push(character);
        } else if character == '+' && self.current().ends_with(|last: char| last.is_ascii_digit()) {
            self.folded.push('+');
        } else if is_pictograph(character) {
            self.end_word();
            self.folded.push(character);
            self.end_word();
        } else if !is_modifier(character) {
            self.end_word();
        }
    }

    fn current(&self) -> &str {
        &self.folded[self.ends.last().map_or(0, |end| *end as usize)..]
    }

    fn end_word(&mut self) {
        if !self.current().is_empty() {
            self.ends.push(self.folded.len() as u32);
        }
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The word at `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(&self.folded[start..end])
    }

    /// All words in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Whether the words from `index` on are `words`.
    pub fn matches_at(&self, index: usize, words: &[Box<str>]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.get(index + offset) == Some(&**word))
    }
}

fn is_pictograph(character: char) -> bool {
    u32::from(character) >= 0x2190 && !character.is_whitespace() && !is_modifier(character)
}

/// Variation selectors and skin tones: they change how an emoji looks, not what it says.
fn is_modifier(character: char) -> bool {
    matches!(character, '\u{FE00}'..='\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        Tokens::of(text).iter().map(str::to_owned).collect()
    }

    #[test]
    fn case_accents_and_skin_tones_do_not_matter() {
        assert_eq!(words("Ernährung, Café & STRAẞE!"), ["ernahrung", "cafe", "strasse"]);
        assert_eq!(words("💪🏽gym🏋️‍♀️"), ["💪", "gym", "🏋", "♀"]);
        assert_eq!(words("#FitMom_of-2 | 18+ only, don't"), ["fitmom", "of", "2", "18+", "only", "don", "t"]);
    }

    proptest! {
        #[test]
        fn words_are_never_empty_and_never_white_space(text in "\\PC{0,200}") {
            let tokens = Tokens::of(&text);
            prop_assert_eq!(tokens.iter().count(), tokens.len());
            prop_assert!(tokens.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)));
        }
    }
}
