//! E-mail addresses: from the column that should hold one, and from a bio, also when they are spelt out to hide from
//! machines (`ann (at) example dot com`).

use std::sync::LazyLock;

use domain::email::EmailAddress;
use regex::Regex;

/// The address in a field that is meant to hold one.
///
/// Takes `Ann <ann@example.com>`, a spelt-out address, and a list of addresses (its first); in a list every part must
/// be an address, so that nothing can be smuggled in behind one. The error is a sentence for a person.
pub fn address(text: &str) -> Result<EmailAddress, &'static str> {
    let text = text.trim();
    let error = match EmailAddress::parse(text) {
        Ok(address) => return Ok(address),
        Err(error) => error.reason,
    };
    if text.len() > 1_000 || text.contains(char::is_control) {
        return Err(error);
    }
    if let Some(inner) = text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')).map(|(_, inner)| inner) {
        return EmailAddress::parse(inner).map_err(|error| error.reason);
    }
    let parts: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || ",;|/".contains(c)).filter(|part| !part.is_empty()).collect();
    if parts.len() > 1 {
        let parsed: Result<Vec<EmailAddress>, _> = parts.iter().map(|part| EmailAddress::parse(part)).collect();
        if let Some(first) = parsed.ok().and_then(|addresses| addresses.into_iter().next()) {
            return Ok(first);
        }
    }
    match SPELT_OUT.captures(text) {
        Some(found) if found.get_match().len() == text.len() => spelt_out(&found).ok_or(error),
        _ => Err(error),
    }
}

/// The first address in a free text.
///
/// Spelt out, an `at` counts only in brackets or together with a spelt-out dot: `find me at example.com` is none.
pub fn find(text: &str) -> Option<EmailAddress> {
    let bytes = text.as_bytes();
    if bytes.contains(&b'@') {
        let plain = PLAIN.find_iter(text).find_map(|found| {
            // A second `@` in front belongs to a handle of the fediverse, such as @ann@example.social.
            let behind_at = found.start() > 0 && bytes[found.start() - 1] == b'@';
            let picture = [".png", ".jpg", ".gif", ".webp"].iter().any(|ending| found.as_str().ends_with(ending));
            if behind_at || picture { None } else { EmailAddress::parse(found.as_str()).ok() }
        });
        if plain.is_some() {
            return plain;
        }
    }
    if !MARKS.is_match(text) {
        return None;
    }
    SPELT_OUT.captures_iter(text).find_map(|found| spelt_out(&found))
}

static PLAIN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*\.[A-Za-z]{2,24}")
        .expect("the pattern is constant")
});

/// What a spelt-out address can't do without; cheap to look for.
static MARKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)[(\[{<]\s*(?:at|ät|arroba|chiocciola|arobase|@)\s*[)\]}>]|\s(?:dot|punkt|punto|point|ponto)\s|@")
        .expect("the pattern is constant")
});

static SPELT_OUT: LazyLock<Regex> = LazyLock::new(|| {
    let at = r"\s*[(\[{<]\s*(?:at|ät|arroba|chiocciola|arobase|@)\s*[)\]}>]\s*";
    let open_at = r"\s+(?:at|arroba|chiocciola|arobase)\s+|\s*@\s*";
    let dot = r"\s*[(\[{<]\s*(?:dot|punkt|punto|point|ponto|\.)\s*[)\]}>]\s*|\s+(?:dot|punkt|punto|point|ponto)\s+";
    let label = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
    let top = r"[a-z]{2,24}";
    let local = r"[a-z0-9][a-z0-9._+-]{0,63}";
    // Either the `at` is in brackets, or every dot of the domain is spelt out.
    Regex::new(&format!(
        r"(?i)\b(?:(?<local>{local})(?:{at})(?<domain>{label}(?:(?:{dot}|\.){label})*(?:{dot}|\.){top})|(?<local2>{local})(?:{open_at})(?<domain2>{label}(?:(?:{dot}){label})*(?:{dot}){top}))\b"
    ))
    .expect("the pattern is constant")
});

static DOT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)\s*[(\[{<]\s*(?:dot|punkt|punto|point|ponto|\.)\s*[)\]}>]\s*|\s+(?:dot|punkt|punto|point|ponto)\s+",
    )
    .expect("the pattern is constant")
});

fn spelt_out(found: &regex::Captures<'_>) -> Option<EmailAddress> {
    let local = found.name("local").or_else(|| found.name("local2"))?.as_str();
    let domain = found.name("domain").or_else(|| found.name("domain2"))?.as_str();
    EmailAddress::parse(&format!("{local}@{}", DOT.replace_all(domain, "."))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_field_may_hold_more_than_a_bare_address() {
        for text in [
            "ann@example.com",
            "Ann Baker <ann@example.com>",
            "ann@example.com, bob@example.com",
            "ann@example.com / bob@example.com",
            "ann (at) example (dot) com",
            "ann[at]example.com",
        ] {
            assert_eq!(address(text).map(|a| a.as_str().to_owned()).as_deref(), Ok("ann@example.com"), "{text}");
        }
    }

    #[test]
    fn nothing_is_smuggled_in_behind_an_address() {
        for text in [
            "ann@example.com\r\nBcc: all@example.com",
            "ann@example.com Bcc: all@example.com",
            "ann@example.com, <script>",
            "write to ann (at) example.com",
            "ask my agent",
        ] {
            assert!(address(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn addresses_in_a_bio_are_found() {
        for text in [
            "Baker 🥐 ann@example.com.",
            "Collabs: ANN (at) example dot com",
            "name→ ann[at]example[dot]com <3",
            "Kontakt: ann AT example DOT com",
            "ann {ät} example punkt com",
            "mail ann @ example dot com",
            "hola ann(arroba)example.com ✨",
        ] {
            let found = find(text).map(|address| address.as_str().to_lowercase());
            assert_eq!(found.as_deref(), Some("ann@example.com"), "{text}");
        }
        assert_eq!(find("x (at) studio.example.co.uk").unwrap().domain(), "studio.example.co.uk");
    }

    #[test]
    fn what_only_looks_alike_is_left_alone() {
        for text in [
            "find me at example.com",
            "Coffee at home. Love it",
            "with @brand and @friend",
            "@ann@example.social",
            "logo@2x.png",
            "meet at noon dot",
            "",
        ] {
            assert!(find(text).is_none(), "{text:?} gave an address");
        }
    }

    proptest! {
        #[test]
        fn no_bio_is_too_strange(text in "\\PC{0,200}") {
            let _ = find(&text);
            let _ = address(&text);
        }

        #[test]
        fn a_hidden_address_is_the_same_address(local in "[a-z][a-z0-9]{1,10}", label in "[a-z][a-z0-9]{1,10}", style in 0_usize..4) {
            let text = match style {
                0 => format!("hi! {local} (at) {label} dot com"),
                1 => format!("hi! {local}[at]{label}[dot]com"),
                2 => format!("hi! {local} AT {label} DOT com"),
                _ => format!("hi! {local}(at){label}.com"),
            };
            let expected = format!("{local}@{label}.com");
            prop_assert_eq!(find(&text).map(|address| address.as_str().to_owned()), Some(expected));
        }
    }
}
