//! The law of first contact: may a lead be written to by e-mail, by the law of their country?
//!
//! That is another question than whether their data may be held ([`crate::legal::Basis`], GDPR Art. 6): this one is answered by
//! the ePrivacy law of the recipient's country, from what is known about this lead's [`Contact`]. The rules are data, with a
//! source and a date each (`law/rules.tsv`); each answer names the rule that gave it, and what of the evidence decided, so that it
//! can be explained years later.
//!
//! Deny by default: a country without a rule is refused. A country that isn't known holds the lead until somebody finds it out.
//!
//! To change a rule, change its row and raise the table's version: leads that were decided about are decided again.

pub mod countries;
pub mod evidence;
mod table;

use std::fmt;

pub use self::table::{CountryRule, InvalidLaw, Law, Rule};
use crate::lead::Country;

/// Whether the lead has agreed to be written to at this address, with evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consent {
    /// There is no evidence of it.
    None,
    /// It was given for a time that is over.
    Expired,
    /// It was given, and holds.
    Given,
}

/// What kind of address a mail would go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// Nobody has said where it comes from.
    Unknown,
    /// It is published for business, with evidence of where.
    PublishedForBusiness,
}

/// What decides about a first mail to somebody, beside their country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Contact {
    /// Whether they agreed.
    pub consent: Consent,
    /// What is known of the address.
    pub address: AddressKind,
    /// Whether the mail concerns what they do.
    pub relevant: bool,
}

impl Contact {
    /// Somebody of whom nothing is known.
    pub const UNKNOWN: Self = Self { consent: Consent::None, address: AddressKind::Unknown, relevant: false };
}

/// What the law says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It lets the mail through.
    Allow,
    /// It doesn't.
    Deny,
    /// Not enough is known; a person has to look.
    Hold,
}

/// What the law says, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub ruling: Ruling,
    /// The rule's id with what decided, such as `v2/email/fr/business_address/not_published`.
    pub rule: String,
    /// Whether nothing but consent allows it: the answer is another one when the consent expires.
    pub rests_on_consent: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

/// Whether a mail of a program that looks for `niches` concerns what a lead of this niche does. A program that names no niche has
/// shown relevance to nobody.
pub fn is_relevant(niche: &str, niches: &[String]) -> bool {
    niches.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(niche.trim()))
}

impl Law {
    /// Asks whether somebody may be written to for the first time.
    ///
    /// ```
    /// use domain::{law::{Consent, Contact, Law, Ruling}, lead::Country};
    /// let judge = |code, contact| Law::current().judge(Country::parse(code).ok(), contact);
    /// assert_eq!(judge("US", Contact::UNKNOWN).ruling, Ruling::Allow);
    /// assert_eq!(judge("DE", Contact::UNKNOWN).rule, "v2/email/de/opt_in/no_consent");
    /// assert_eq!(judge("DE", Contact { consent: Consent::Given, ..Contact::UNKNOWN }).ruling, Ruling::Allow);
    /// ```
    pub fn judge(&self, country: Option<Country>, contact: Contact) -> Verdict {
        let version = self.version();
        let Some(country) = country else {
            let rule = format!("v{version}/email/unknown-country");
            return Verdict { ruling: Ruling::Hold, rule, rests_on_consent: false };
        };
        let Some(CountryRule { rule, .. }) = self.rule(country) else {
            let rule = format!("v{version}/email/default");
            return Verdict { ruling: Ruling::Deny, rule, rests_on_consent: false };
        };
        let (ruling, because) = apply(*rule, contact);
        let because = because.map(|because| format!("/{because}")).unwrap_or_default();
        let place = country.as_str().to_ascii_lowercase();
        Verdict {
            ruling,
            rule: format!("v{version}/email/{place}/{}{because}", rule.name()),
            rests_on_consent: ruling == Ruling::Allow && because == "/consent",
        }
    }
}

/// What a rule says about a contact, and what of it decides.
const fn apply(rule: Rule, contact: Contact) -> (Ruling, Option<&'static str>) {
    use AddressKind::PublishedForBusiness as Published;
    use Ruling::{Allow, Deny};
    let takes_business_address = matches!(rule, Rule::BusinessAddress | Rule::OptInOrBusinessAddress);
    match (rule, contact) {
        (Rule::OptOut, _) => (Allow, None),
        (Rule::Denied, _) => (Deny, None),
        // Before consent, which may expire.
        (_, Contact { address: Published, relevant: true, .. }) if takes_business_address => (Allow, Some("published")),
        (_, Contact { consent: Consent::Given, .. }) => (Allow, Some("consent")),
        (_, Contact { consent: Consent::Expired, .. }) => (Deny, Some("consent_expired")),
        (_, Contact { address: Published, .. }) if takes_business_address => (Deny, Some("not_relevant")),
        (Rule::BusinessAddress, _) => (Deny, Some("not_published")),
        (Rule::OptIn | Rule::OptInOrBusinessAddress, _) => (Deny, Some("no_consent")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decided_stands_in_the_rules_id() {
        let judge = |code: &str, contact| Law::current().judge(Country::parse(code).ok(), contact).rule;
        let expired = Contact { consent: Consent::Expired, ..Contact::UNKNOWN };
        let published = Contact { address: AddressKind::PublishedForBusiness, ..Contact::UNKNOWN };
        assert_eq!(judge("FR", Contact::UNKNOWN), "v2/email/fr/business_address/not_published");
        assert_eq!(judge("FR", published), "v2/email/fr/business_address/not_relevant");
        assert_eq!(judge("FR", Contact { relevant: true, ..published }), "v2/email/fr/business_address/published");
        assert_eq!(judge("GB", expired), "v2/email/gb/opt_in/consent_expired");
        assert_eq!(judge("CA", Contact::UNKNOWN), "v2/email/ca/opt_in_or_business_address/no_consent");
        assert_eq!(judge("US", Contact::UNKNOWN), "v2/email/us/opt_out");
        assert_eq!(judge("KE", Contact::UNKNOWN), "v2/email/default");
    }

    #[test]
    fn an_answer_expires_only_when_nothing_but_consent_allows_it() {
        let rests = |code: &str, contact| Law::current().judge(Country::parse(code).ok(), contact).rests_on_consent;
        let given = Contact { consent: Consent::Given, ..Contact::UNKNOWN };
        let both = Contact { address: AddressKind::PublishedForBusiness, relevant: true, ..given };
        assert!(rests("DE", both) && rests("FR", given));
        assert!(!rests("FR", both) && !rests("US", given) && !rests("SE", given));
    }

    #[test]
    fn relevance_is_a_niche_that_the_program_names() {
        let niches = ["Food ".to_owned(), "fitness".to_owned()];
        assert!(is_relevant("food", &niches) && is_relevant("fitness", &niches));
        assert!(!is_relevant("foo", &niches) && !is_relevant("food", &[]) && !is_relevant("", &niches));
    }
}
