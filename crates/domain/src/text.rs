//! Free text from strangers, made harmless to store and to show: still only text, bounded and without control characters.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// The NFKC form, for free when the text is ASCII, as most of it is.
pub fn nfkc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { text.nfkc().collect() }
}

/// The characters of a text as words are compared: lower case, without accents and compatibility forms; `ß` is `ss`, and
/// so on for the letters that no accent can be taken from.
pub fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.nfkd().filter(|character| !is_combining_mark(*character)).flat_map(|character| {
        let (letters, other) = match character {
            'ß' | 'ẞ' => ("ss", None),
            'ø' | 'Ø' => ("o", None),
            'æ' | 'Æ' => ("ae", None),
            'œ' | 'Œ' => ("oe", None),
            'ł' | 'Ł' => ("l", None),
            'đ' | 'Đ' => ("d", None),
            'ı' => ("i", None),
            other => ("", Some(other)),
        };
        letters.chars().chain(other.into_iter().flat_map(char::to_lowercase))
    })
}

/// Normalises to NFKC, turns every run of white space and control characters into one space, removes characters that
/// hide or reorder text (zero-width, bidirectional controls), and cuts to `max_chars` characters.
///
/// `None` when nothing readable is left.
pub fn single_line(text: &str, max_chars: usize) -> Option<String> {
    clean(text, max_chars, false)
}

/// As [`single_line`], but keeps line breaks (as `\n`, at most two in a row).
pub fn multi_line(text: &str, max_chars: usize) -> Option<String> {
    clean(text, max_chars, true)
}

fn clean(text: &str, max_chars: usize, keep_lines: bool) -> Option<String> {
    // NFKC expands one character to at most 18; taking four times the limit first bounds the work on huge inputs.
    let end = text.char_indices().nth(max_chars.saturating_mul(4)).map_or(text.len(), |(end, _)| end);
    let normal = nfkc(&text[..end]);
    let mut cleaned = String::with_capacity(normal.len());
    let mut chars = 0;
    let mut space = false;
    let mut breaks = 0_u8;
    for character in normal.chars().filter(|character| !is_invisible(*character)) {
        if keep_lines && character == '\n' {
            breaks = (breaks + 1).min(2);
        } else if character.is_whitespace() || character.is_control() {
            space = true;
        } else {
            if chars > 0 && breaks > 0 {
                for _ in 0..breaks {
                    cleaned.push('\n');
                    chars += 1;
                }
            } else if chars > 0 && space {
                cleaned.push(' ');
                chars += 1;
            }
            space = false;
            breaks = 0;
            if chars >= max_chars {
                break;
            }
            cleaned.push(character);
            chars += 1;
        }
    }
    cleaned.truncate(cleaned.trim_end().len());
    (!cleaned.is_empty()).then_some(cleaned)
}

/// Zero-width and bidirectional control characters, soft hyphens, the byte order mark, and tag characters. The
/// zero-width joiner stays: emoji are made with it.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}' | '\u{200C}' | '\u{200E}' | '\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}'
        | '\u{E0000}'..='\u{E007F}')
        || character == '\0'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_to_plain_letters() {
        assert_eq!(
            folded("Ernährung, STRAẞE, Œuvre, Łódź, ﬁt").collect::<String>(),
            "ernahrung, strasse, oeuvre, lodz, fit"
        );
    }

    #[test]
    fn a_header_injection_becomes_one_line() {
        assert_eq!(single_line("Ann\r\nBcc: all@example.com", 100).unwrap(), "Ann Bcc: all@example.com");
    }

    #[test]
    fn hidden_and_reordering_characters_go() {
        assert_eq!(single_line("a\u{202E}b\u{200B}c\u{0}d\u{FEFF}", 100).unwrap(), "abcd");
    }

    #[test]
    fn text_is_cut_by_characters_and_nothing_is_nothing() {
        assert_eq!(single_line("äöüß", 3).unwrap(), "äöü");
        assert_eq!(single_line(" \t\r\n\u{200B}", 10), None);
    }

    #[test]
    fn lines_are_kept_when_asked_for() {
        assert_eq!(multi_line("one \r\n\r\n\r\n\r\n two\tthree ", 100).unwrap(), "one\n\ntwo three");
    }
}
