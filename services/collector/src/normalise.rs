//! From what a row says to what it means. Every function here is pure; none of them guesses: what isn't clear stays
//! unknown, and what isn't what it claims to be is an error with a reason.

pub mod contact;
pub mod count;
pub mod country;
pub mod instant;
pub mod network;

/// A value, unless it is one of the words with which exports say that there is none.
pub fn present(text: &str) -> Option<&str> {
    let text = text.trim();
    let nothing = ["", "-", "--", "—", "n/a", "#n/a", "null", "none", "nil", "nan", "undefined", "(null)"];
    (!nothing.iter().any(|word| text.eq_ignore_ascii_case(word))).then_some(text)
}

/// Whether a text is a clear yes; everything else is no, since a badge that can't be read vouches for nobody.
pub fn is_yes(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    [
        "true", "t", "1", "1.0", "yes", "y", "verified", "✓", "✔", "✔️", "☑", "✅", "ja", "wahr", "oui", "vrai", "sí",
        "si", "sì", "sim", "vero",
    ]
    .contains(&text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_nothing_are_nothing() {
        for text in ["", "  ", "NULL", "n/a", "-", "NaN"] {
            assert_eq!(present(text), None, "{text:?}");
        }
        assert_eq!(present(" na "), Some("na"), "Namibia's code is no word for nothing");
    }

    #[test]
    fn only_a_clear_yes_is_yes() {
        assert!(["TRUE", "1", "Yes", "ja", "✓"].iter().all(|text| is_yes(text)));
        assert!(!["", "false", "0", "maybe", "business"].iter().any(|text| is_yes(text)));
    }
}
