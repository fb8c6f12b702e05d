//! Text from strangers, made unable to become a link, a header or an encoded word.

/// Breaks up everything that a mail program would turn into a link, and nothing else that a person would notice.
///
/// Mail programs look for links in plain text, so escaping isn't enough: `evil.com`, `www.evil.com`, `https:x`,
/// `mailto:a@b`, `a@b.com` in a name would all become clickable. A space after the dot or the colon, and `(at)` for an `@`
/// inside of a word, leave the text readable and break each of them. `=?` is broken up too, so that nothing is read as an
/// encoded word (RFC 2047) in a header. Control characters become spaces; line feeds stay.
pub fn inert(text: &str) -> String {
    let characters: Vec<char> = text.chars().map(plain).collect();
    let mut result = String::with_capacity(text.len() + 16);
    for (at, &character) in characters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| characters[before]);
        let after = characters.get(at + 1).copied();
        match character {
            '.' => {
                result.push('.');
                if before.is_some_and(|c| !c.is_whitespace()) && after.is_some_and(|after| continues(before, after)) {
                    result.push(' ');
                }
            }
            ':' => {
                result.push(':');
                // `12:30` stays; `http:`, `mailto:` and `javascript:` lose what follows.
                let scheme = before.is_some_and(char::is_alphanumeric) && !before.is_some_and(|c| c.is_ascii_digit());
                if scheme && after.is_some_and(|c| !c.is_whitespace()) {
                    result.push(' ');
                }
            }
            '/' if after == Some('/') => {}
            '/' if before == Some('/') => result.push(' '),
            '@' if before.is_some_and(|c| !c.is_whitespace() && c != '(') => result.push_str(" (at) "),
            '=' if after == Some('?') => result.push_str("= "),
            '\n' => result.push('\n'),
            control if control.is_control() => result.push(' '),
            other => result.push(other),
        }
    }
    result
}

/// The characters that name parsers (UTS 46) take for a dot, an `@`, a colon or a slash become these.
fn plain(character: char) -> char {
    match character {
        '\u{3002}' | '\u{FF0E}' | '\u{FF61}' | '\u{2024}' | '\u{FE52}' => '.',
        '\u{FF20}' | '\u{FE6B}' => '@',
        '\u{FF1A}' | '\u{FE55}' => ':',
        '\u{FF0F}' => '/',
        '\u{2028}' | '\u{2029}' | '\u{85}' => ' ',
        other => other,
    }
}

/// Whether what follows a dot could go on with a host name.
fn continues(before: Option<char>, after: char) -> bool {
    let number = before.is_some_and(|c| c.is_ascii_digit()) && after.is_ascii_digit();
    !(number || after.is_whitespace() || after == '.' || "),!?;:'\"]}»”’…".contains(after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_mail_program_would_link_is_broken_up() {
        for (text, expected) in [
            ("evil.com", "evil. com"),
            ("see www.evil.com/x now", "see www. evil. com/x now"),
            ("https://evil.com", "https:  evil. com"),
            ("http://localhost/x", "http:  localhost/x"),
            ("//evil", " evil"),
            ("mailto:a@b.com", "mailto: a (at) b. com"),
            ("javascript:alert(1)", "javascript: alert(1)"),
            ("пример.рф", "пример. рф"),
            ("例え。テスト", "例え. テスト"),
            ("evil．com", "evil. com"),
            ("=?utf-8?q?=0D=0ABcc?=", "= ?utf-8?q?=0D=0ABcc?="),
            ("Ann\r\nBcc: x", "Ann \nBcc: x"),
        ] {
            assert_eq!(inert(text), expected);
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in [
            "Ann, your 12.3K followers love sourdough. So do we!",
            "Thanks @ann_bakes … see you at 12:30 (really).",
            "Dr. Müller-Lüdenscheid, B.",
            "and/or",
            "1.5 stars: great",
            "👩‍🍳 Ann",
        ] {
            assert_eq!(inert(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_keeps_anything_to_click(text in "[a-zA-Z0-9:/@.\u{3002}\u{FF0E}éж \r\n=?-]{0,40}") {
            let text = inert(&text);
            let characters: Vec<char> = text.chars().collect();
            for window in characters.windows(3) {
                let dotted = window[1] == '.' && window[0].is_alphanumeric() && window[2].is_alphabetic();
                let address = window[1] == '@' && !window[0].is_whitespace();
                let scheme = window[1] == ':' && window[0].is_alphabetic() && !window[2].is_whitespace();
                prop_assert!(!dotted && !address && !scheme, "{text:?}");
            }
            prop_assert!(!text.contains("//") && !text.contains("=?"));
            prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
            prop_assert_eq!(inert(&text), text.clone(), "not stable");
        }
    }
}
