//! Cuts a bio into the pieces that its writer set apart: lines, sentences, what stands between commas, bars and emoji.
//! Words that belong together stand in one piece; a stated age or a refusal never reaches over its end.

/// The pieces of a text, without those that are empty.
pub(super) fn segments(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = end_of_segment(rest);
            let (segment, after) = rest.split_at(end);
            rest = after.strip_prefix(|_: char| true).unwrap_or_default();
            if !segment.trim().is_empty() {
                return Some(segment.trim());
            }
        }
        None
    })
}

/// Where the first piece ends, in bytes.
fn end_of_segment(text: &str) -> usize {
    let mut before = None::<char>;
    for (at, character) in text.char_indices() {
        let after = text[at + character.len_utf8()..].chars().next();
        let is_alone = before.is_none_or(char::is_whitespace) && after.is_none_or(char::is_whitespace);
        let ends = match character {
            '|' | '•' | '·' | '●' | '▪' | ',' | ';' | '\n' | '!' | '?' | '…' | '—' | '–' | '~' | '"' | '“' | '”' => {
                true
            }
            // `y/o` and `co-op` are one word, ` / ` and ` - ` are bars.
            '/' | '-' => is_alone,
            '.' => after.is_none_or(char::is_whitespace),
            // The signs of a refusal belong to what they refuse: `❌ collabs`.
            '❌' | '🚫' | '⛔' | '✖' | '❎' => false,
            other => u32::from(other) >= 0x2190 && !other.is_alphanumeric() && !is_joiner(other),
        };
        if ends {
            return at;
        }
        before = Some(character);
    }
    text.len()
}

/// Variation selectors: part of the sign before them.
fn is_joiner(character: char) -> bool {
    matches!(character, '\u{FE00}'..='\u{FE0F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_sentences_commas_bars_and_emoji_set_apart() {
        let text = "16 | fitness • art, mom's favourite. I'm 15! 17 y/o - he/him 💪 gym\n❌ collabs v2.0";
        let expected =
            ["16", "fitness", "art", "mom's favourite", "I'm 15", "17 y/o", "he/him", "gym", "❌ collabs v2.0"];
        assert_eq!(segments(text).collect::<Vec<_>>(), expected);
        assert_eq!(segments(" ,, ").count(), 0);
    }
}
