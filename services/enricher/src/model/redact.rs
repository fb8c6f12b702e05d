//! Cuts out of a text what must not leave the house: addresses (also spelt out), links, phone numbers, handles.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

static RULES: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
    let rule = |pattern, with| (Regex::new(pattern).expect("the pattern is valid"), with);
    [
        rule(r"(?i)\S+\s?[@＠]\s?[\p{L}\p{N}-]+(?:\s?\.\s?[\p{L}\p{N}-]+)+", "[address]"),
        rule(
            r"(?ix) [\p{L}\p{N}._%+-]+ \s* [(\[{<]? \s* \b(?:at|arroba|chiocciola|æt)\b \s* [)\]}>]? \s* [\p{L}\p{N}-]+
              (?: \s* [(\[{<]? \s* (?:\.|\b(?:dot|punkt|punto|ponto|point)\b) \s* [)\]}>]? \s* [a-z]{2,} )+",
            "[address]",
        ),
        rule(r"(?i)(?:https?://|www\.)\S+|[\w-]+(?:\.[\w-]+)*\.[a-z]{2,24}(?:/\S*)?", "[link]"),
        rule(r"[@＠][\p{L}\p{N}._]+", "[handle]"),
        rule(r"\+?\(?\d(?:[\s().-]{0,2}\d){6,}", "[phone]"),
    ]
});

/// The text without them.
pub(crate) fn redact(text: &str) -> String {
    let mut redacted = Cow::Borrowed(text);
    for (pattern, with) in &*RULES {
        if let Cow::Owned(changed) = pattern.replace_all(&redacted, *with) {
            redacted = Cow::Owned(changed);
        }
    }
    redacted.replace(['@', '＠'], " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_links_handles_and_phone_numbers_are_cut_out() {
        for (text, expected) in [
            ("Mail: ann.b+x@example.co.uk!", "Mail: [address]!"),
            ("ann @ example . com", "[address]"),
            ("ann (at) example (dot) com", "[address]"),
            ("ann [at] example.com", "[address]"),
            ("ann arroba example punto com", "[address]"),
            ("shop https://x.example/a?b and www.ann.example", "shop [link] and [link]"),
            ("linktr.ee/ann", "[link]"),
            ("with @bob_k", "with [handle]"),
            ("call +44 (0)20 7946 0958", "call [phone]"),
            ("Yoga at home, 12 classes", "Yoga at home, 12 classes"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_address_survives(before in "\\PC{0,20}", local in "[a-z.]{1,10}", domain in "[a-z]{1,8}\\.[a-z]{2,4}", after in "\\PC{0,20}") {
            let address = format!("{local}@{domain}");
            let redacted = redact(&format!("{before} {address} {after}"));
            prop_assert!(!redacted.contains(&address) && !redacted.contains('@'), "{redacted}");
        }
    }
}
