//! Who must not be written to, and why: causes, do-not-contact lists, and how a person or a company is named.
//!
//! Causes are separate: each stands until it is lifted, and lifting one leaves the others (see [`Cause::needs_consent`]).

use std::fmt;

use crate::{
    email::{EmailAddress, ascii_domain},
    event::UnknownName,
    handle::Handle,
};

/// Wildcards that may cover one domain, counted from its end: what lies deeper is no registration of anybody's.
const MAX_PARENTS: usize = 8;

/// Why somebody must not be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// They objected (GDPR Art. 21): by the link in a mail, in a reply, by letter.
    Objection,
    /// The address doesn't exist.
    HardBounce,
    /// They reported a mail as spam.
    Complaint,
    /// Somebody of the program did it.
    Manual,
    /// They had their data erased (GDPR Art. 17).
    Erased,
    /// They are on a do-not-contact list.
    DoNotContact(ContactList),
}

/// A do-not-contact list: who these people are to the company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContactList {
    /// Customers.
    Customer,
    /// Partners, such as affiliates that are under contract already.
    Partner,
    /// People of the company itself.
    Colleague,
    /// People of a competitor.
    Competitor,
}

impl ContactList {
    /// Every list.
    pub const ALL: [Self; 4] = [Self::Customer, Self::Partner, Self::Colleague, Self::Competitor];

    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Partner => "partner",
            Self::Colleague => "colleague",
            Self::Competitor => "competitor",
        }
    }

    /// The list of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|list| list.name() == name)
            .ok_or_else(|| UnknownName { what: "do-not-contact list", text: name.to_owned() })
    }
}

impl Cause {
    /// The name, as stored; the list of [`Cause::DoNotContact`] stands beside it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Objection => "objection",
            Self::HardBounce => "hard_bounce",
            Self::Complaint => "complaint",
            Self::Manual => "manual",
            Self::Erased => "erased",
            Self::DoNotContact(_) => "do_not_contact",
        }
    }

    /// The do-not-contact list, if it is one.
    pub const fn list(self) -> Option<ContactList> {
        match self {
            Self::DoNotContact(list) => Some(list),
            _ => None,
        }
    }

    /// The cause of that name, and of that list.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str, list: Option<&str>) -> Result<Self, UnknownName> {
        match (name, list) {
            ("objection", None) => Ok(Self::Objection),
            ("hard_bounce", None) => Ok(Self::HardBounce),
            ("complaint", None) => Ok(Self::Complaint),
            ("manual", None) => Ok(Self::Manual),
            ("erased", None) => Ok(Self::Erased),
            ("do_not_contact", Some(list)) => ContactList::parse(list).map(Self::DoNotContact),
            _ => Err(UnknownName { what: "cause of a suppression", text: name.to_owned() }),
        }
    }

    /// Whether only a new consent of the person ends it, of which there is evidence.
    pub const fn needs_consent(self) -> bool {
        matches!(self, Self::Objection | Self::Erased)
    }
}

/// By what a suppression names those that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectKind {
    /// One address.
    Email,
    /// One user name, on every network.
    Handle,
    /// Every address of a domain, or of the domains below it.
    Domain,
}

impl SubjectKind {
    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Handle => "handle",
            Self::Domain => "domain",
        }
    }
}

/// Whom a suppression is about: an address, a user name, or a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One address.
    Email(EmailAddress),
    /// One user name, on every network.
    Handle(Handle),
    /// Every address of a domain, or of the domains below it.
    Domain(DomainPattern),
}

/// The text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidSubject {
    /// Why, without the text itself (it may be personal).
    pub reason: &'static str,
}

const fn invalid(reason: &'static str) -> InvalidSubject {
    InvalidSubject { reason }
}

impl Subject {
    /// Parses an address, a user name with its `@` in front, a domain, or `*.` and a domain.
    ///
    /// # Errors
    /// When it is none of them, with what is wrong about it.
    pub fn parse(text: &str) -> Result<Self, InvalidSubject> {
        let text = text.trim();
        if text.is_empty() {
            return Err(invalid("empty"));
        }
        if let Some(handle) = text.strip_prefix('@').or_else(|| text.strip_prefix('＠')) {
            return Handle::parse(handle).map(Self::Handle).map_err(|error| InvalidSubject { reason: error.reason });
        }
        if text.contains(['@', '＠']) {
            if text.contains('*') {
                return Err(invalid("a wildcard stands only at the beginning of a domain: write `*.example.com`"));
            }
            return EmailAddress::parse(text).map(Self::Email).map_err(|error| InvalidSubject { reason: error.reason });
        }
        if text.contains(['.', '*', '。', '．']) {
            return DomainPattern::parse(text).map(Self::Domain);
        }
        Err(invalid("neither an address, nor a domain, nor a user name: a user name is written with `@` in front"))
    }

    /// What it is.
    pub const fn kind(&self) -> SubjectKind {
        match self {
            Self::Email(_) => SubjectKind::Email,
            Self::Handle(_) => SubjectKind::Handle,
            Self::Domain(_) => SubjectKind::Domain,
        }
    }

    /// Whether it is the domains below one.
    pub const fn is_wildcard(&self) -> bool {
        matches!(self, Self::Domain(DomainPattern { subdomains: true, .. }))
    }
}

/// A domain, or all domains below one (`*.example.com`, which leaves `example.com` itself out): ASCII, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DomainPattern {
    domain: String,
    subdomains: bool,
}

impl DomainPattern {
    /// Parses a domain, in the form in which [`EmailAddress`] has it, or `*.` and a domain.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidSubject> {
        let folded = crate::text::nfkc(text.trim());
        let (domain, subdomains) = match folded.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (folded.as_ref(), false),
        };
        if domain.contains('*') {
            return Err(invalid("a wildcard stands only at the beginning of a domain: write `*.example.com`"));
        }
        if domain.len() > 253 {
            return Err(invalid("the domain is longer than 253 characters"));
        }
        let domain = ascii_domain(domain).map_err(|error| InvalidSubject { reason: error.reason })?;
        if subdomains && domain.split('.').count() > MAX_PARENTS + 1 {
            return Err(invalid("a wildcard's domain has at most 9 parts"));
        }
        Ok(Self { domain, subdomains })
    }

    /// The form that is hashed: `example.com`, or `*.example.com`.
    pub fn canonical(&self) -> String {
        if self.subdomains { format!("*.{}", self.domain) } else { self.domain.clone() }
    }

    /// Everything that covers an address: its domain first, then the wildcards above it, of which there are at most eight.
    pub fn covering(address: &EmailAddress) -> Vec<Self> {
        let domain = address.domain();
        let mut parents: Vec<Self> = domain
            .match_indices('.')
            .map(|(dot, _)| &domain[dot + 1..])
            .filter(|parent| parent.contains('.'))
            .map(|parent| Self { domain: parent.to_owned(), subdomains: true })
            .collect();
        let deeper = parents.len().saturating_sub(MAX_PARENTS);
        parents.drain(..deeper);
        parents.insert(0, Self { domain: domain.to_owned(), subdomains: false });
        parents
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covering(address: &str) -> Vec<String> {
        DomainPattern::covering(&EmailAddress::parse(address).unwrap()).iter().map(DomainPattern::canonical).collect()
    }

    #[test]
    fn an_address_a_user_name_and_a_domain_are_told_apart() {
        for (text, expected) in [
            ("Ann@Example.com", SubjectKind::Email),
            ("@ann.bakes", SubjectKind::Handle),
            ("Example.COM", SubjectKind::Domain),
            ("münchen.de", SubjectKind::Domain),
            ("*.example.com", SubjectKind::Domain),
        ] {
            assert_eq!(Subject::parse(text).unwrap().kind(), expected, "{text}");
        }
        assert!(Subject::parse("*.example.com").unwrap().is_wildcard());
        assert!(!Subject::parse("example.com").unwrap().is_wildcard());
    }

    #[test]
    fn other_wildcards_and_what_names_nobody_are_errors() {
        for text in [
            "",
            "ann",
            "*",
            "*.",
            "*.com",
            "com",
            "*example.com",
            "example.*",
            "a.*.example.com",
            "*.*.example.com",
            "*@example.com",
            "ann@*.example.com",
            "@*",
            "@",
            "example.com.",
            "exa mple.com",
            "127.0.0.1",
            "a.b.c.d.e.f.g.h.i.example.com".replace("a.b", "*.b").as_str(),
        ] {
            assert!(Subject::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn an_address_is_covered_by_its_domain_and_the_wildcards_above_it() {
        assert_eq!(covering("ann@example.com"), ["example.com"]);
        assert_eq!(covering("ann@a.b.example.com"), ["a.b.example.com", "*.b.example.com", "*.example.com"]);
        let deep = covering("ann@a.b.c.d.e.f.g.h.i.j.k.example.com");
        assert_eq!(deep.len(), 9);
        assert_eq!(deep.last().map(String::as_str), Some("*.example.com"));
    }

    #[test]
    fn every_cause_is_found_by_its_name() {
        let plain = [Cause::Objection, Cause::HardBounce, Cause::Complaint, Cause::Manual, Cause::Erased];
        for cause in plain.into_iter().chain(ContactList::ALL.map(Cause::DoNotContact)) {
            assert_eq!(Cause::parse(cause.name(), cause.list().map(ContactList::name)), Ok(cause));
        }
        assert!(Cause::parse("do_not_contact", None).is_err());
    }

    proptest! {
        #[test]
        fn a_wildcard_covers_every_domain_below_it_and_not_itself(below in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}") {
            let wildcard = DomainPattern::parse("*.example.com").unwrap();
            let address = EmailAddress::parse(&format!("ann@{below}.example.com")).unwrap();
            prop_assert!(DomainPattern::covering(&address).contains(&wildcard));
            prop_assert!(!DomainPattern::covering(&EmailAddress::parse("ann@example.com").unwrap()).contains(&wildcard));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,40}") {
            let _ = Subject::parse(&text);
        }
    }
}
