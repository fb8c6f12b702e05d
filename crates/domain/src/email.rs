//! E-mail addresses.

use std::{fmt, str::FromStr};

use crate::text::nfkc;

/// An address that a mail can be sent to: `local@domain`, the dot-atom form of RFC 5322 §3.4.1 within the lengths of
/// RFC 5321 §4.5.3.1, the domain in its ASCII form (IDNA) and lower case.
///
/// Quoted local parts, address literals and non-ASCII local parts (RFC 6531) are refused: no creator publishes one,
/// and each is a known way to smuggle something into a header.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress {
    address: String,
    at: usize,
}

/// The text is no address that a mail can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address: {reason}")]
pub struct InvalidEmail {
    /// Why, without the text itself (it may be personal).
    pub reason: &'static str,
}

const fn invalid(reason: &'static str) -> InvalidEmail {
    InvalidEmail { reason }
}

impl EmailAddress {
    /// Parses an address; surrounding white space, `mailto:` and angle brackets are dropped.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        if text.len() > 1_000 {
            return Err(invalid("longer than 254 characters"));
        }
        let normalised = nfkc(text);
        let mut text = normalised.trim();
        if let Some(rest) = text.get(..7).filter(|head| head.eq_ignore_ascii_case("mailto:")).map(|_| &text[7..]) {
            text = rest;
        }
        if let Some(inner) = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            text = inner;
        }
        let (local, domain) = text.rsplit_once('@').ok_or(invalid("no `@`"))?;
        check_local(local)?;
        let domain = ascii_domain(domain)?;
        let address = format!("{local}@{domain}");
        if address.len() > 254 {
            return Err(invalid("longer than 254 characters"));
        }
        Ok(Self { at: local.len(), address })
    }

    /// The address as it goes into an envelope or a header.
    pub fn as_str(&self) -> &str {
        &self.address
    }

    /// What stands before the `@`.
    pub fn local(&self) -> &str {
        &self.address[..self.at]
    }

    /// The domain: ASCII, lower case.
    pub fn domain(&self) -> &str {
        &self.address[self.at + 1..]
    }

    /// The form in which two spellings of one mailbox are equal (normalisation 1): lower case; for Gmail without dots
    /// and without what follows a `+`, since Gmail delivers all of these to one person.
    pub fn canonical(&self) -> String {
        let local = self.local().to_ascii_lowercase();
        match self.domain() {
            "gmail.com" | "googlemail.com" => {
                let base = local.split('+').next().unwrap_or(&local);
                format!("{}@gmail.com", base.replace('.', ""))
            }
            domain => format!("{local}@{domain}"),
        }
    }
}

fn check_local(local: &str) -> Result<(), InvalidEmail> {
    if local.is_empty() || local.len() > 64 {
        return Err(invalid("the part before `@` must have 1 to 64 characters"));
    }
    let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    if !local.bytes().all(atext) {
        return Err(invalid("the part before `@` has a character that is not allowed"));
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err(invalid("the part before `@` has a misplaced dot"));
    }
    Ok(())
}

pub(crate) fn ascii_domain(domain: &str) -> Result<String, InvalidEmail> {
    // A domain with one of these would be read as something else by the host parser.
    if domain.is_empty() || domain.contains(|c: char| c.is_whitespace() || "/?#:%[]@\\".contains(c)) {
        return Err(invalid("the domain has a character that is not allowed"));
    }
    let url::Host::Domain(ascii) = url::Host::parse(domain).map_err(|_| invalid("the domain is not valid"))? else {
        return Err(invalid("the domain is an IP address"));
    };
    let labels: Vec<&str> = ascii.split('.').collect();
    if labels.len() < 2 {
        return Err(invalid("the domain has no dot"));
    }
    let well_formed = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !labels.iter().all(well_formed) {
        return Err(invalid("the domain is not valid"));
    }
    let top = labels[labels.len() - 1];
    if top.len() < 2 || !(top.bytes().all(|byte| byte.is_ascii_alphabetic()) || top.starts_with("xn--")) {
        return Err(invalid("the domain's ending is not valid"));
    }
    Ok(ascii)
}

impl FromStr for EmailAddress {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        Self::parse(text)
    }
}

/// Debug output shows no personal data.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_addresses_parse() {
        for (text, expected) in [
            ("ann@example.com", "ann@example.com"),
            ("  <Ann.B+promo@Example.COM> ", "Ann.B+promo@example.com"),
            ("mailto:ann@example.co.uk", "ann@example.co.uk"),
            ("ann@münchen.de", "ann@xn--mnchen-3ya.de"),
            ("ann＠example.com", "ann@example.com"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "ann",
            "ann@",
            "@example.com",
            "ann@example",
            "a b@example.com",
            "ann@exa mple.com",
            "ann@[127.0.0.1]",
            "ann@127.0.0.1",
            "\"a b\"@example.com",
            "ann@example.c",
            "ann@-example.com",
            ".ann@example.com",
            "a..n@example.com",
            "ann@example.com\r\nBcc: x@example.com",
            "ann@example.com,bob@example.com",
            "ann@@example.com",
            "änn@example.com",
        ] {
            assert!(EmailAddress::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn one_gmail_mailbox_has_one_canonical_form() {
        let one = EmailAddress::parse("Ann.B+x@googlemail.com").unwrap();
        let two = EmailAddress::parse("annb@gmail.com").unwrap();
        assert_eq!(one.canonical(), two.canonical());
    }

    #[test]
    fn debug_output_hides_the_address() {
        assert!(!format!("{:?}", EmailAddress::parse("ann@example.com").unwrap()).contains("ann"));
    }

    proptest! {
        #[test]
        fn no_parsed_address_can_break_a_header_or_an_envelope(text in "\\PC{0,20}@\\PC{0,20}") {
            if let Ok(address) = EmailAddress::parse(&text) {
                prop_assert!(address.as_str().is_ascii());
                prop_assert!(!address.as_str().contains(|c: char| c.is_whitespace() || c.is_control() || "<>,;:\"".contains(c)));
                prop_assert_eq!(EmailAddress::parse(address.as_str()).unwrap(), address);
            }
        }
    }
}
