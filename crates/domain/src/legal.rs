//! The legal gate: may a lead be written to, by country, lawful basis and channel?
//!
//! Deny by default. A country that isn't known holds the lead until a person finds it out; a country without a rule is
//! refused. Each answer names the rule that gave it, so that a decision can be explained years later. The rules are
//! engineering's reading of published law, not legal advice; their set is versioned.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{event::UnknownName, lead::Country};

/// The version of the rules below; part of every rule's id.
pub const RULES_VERSION: u16 = 1;

/// The lawful basis that a program relies on (GDPR Art. 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The program's interest outweighs the creator's (Art. 6(1)(f)); a published business contact.
    LegitimateInterest,
    /// The creator agreed, with evidence. A public address in a bio is not consent.
    Consent,
}

impl Basis {
    /// The name, as stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LegitimateInterest => "legitimate_interest",
            Self::Consent => "consent",
        }
    }
}

impl FromStr for Basis {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::LegitimateInterest, Self::Consent]
            .into_iter()
            .find(|basis| basis.name() == text)
            .ok_or_else(|| UnknownName { what: "lawful basis", text: text.to_owned() })
    }
}

/// How a lead is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// By e-mail.
    Email,
}

/// What the gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// The law lets the mail through.
    Allow,
    /// It doesn't.
    Deny,
    /// Not enough is known; a person has to look.
    Hold,
}

/// What the gate says, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub ruling: Ruling,
    /// The rule's id, such as `v1/email/us/legitimate_interest`.
    pub rule: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

/// Countries whose law lets a sender write first to a published business contact, as long as every mail offers a way
/// out: CAN-SPAM (US), Spam Act 2003 schedule 2 §4 (AU), UEM Act 2007 (NZ), no opt-in rule for e-mail (IN, PH, MX, ZA's
/// first-contact rule is stricter and therefore absent), LGPD Art. 7 IX (BR), CNIL's rule for professional contacts (FR),
/// PECR/ePrivacy rules for professional contacts (IE, SE, FI, PT, EE).
const OPT_OUT: [&str; 12] = ["US", "AU", "NZ", "IN", "PH", "MX", "BR", "FR", "IE", "SE", "FI", "EE"];

/// Countries that want consent before the first mail, to one-person businesses too: § 7 UWG (DE), § 174 TKG (AT), Codice
/// privacy Art. 130 (IT), LSSI Art. 21 (ES), UŚUDE Art. 10 (PL), CASL (CA), PECR reg. 22 for sole traders (GB), and
/// others alike.
const OPT_IN: [&str; 19] =
    ["DE", "AT", "IT", "ES", "PL", "CA", "GB", "NL", "BE", "DK", "CH", "CZ", "GR", "HU", "NO", "PT", "RO", "ZA", "JP"];

/// Asks the gate.
///
/// ```
/// use domain::{legal::{judge, Basis, Channel, Ruling}, lead::Country};
/// let us = Country::parse("US").ok();
/// assert_eq!(judge(us, Basis::LegitimateInterest, Channel::Email).ruling, Ruling::Allow);
/// assert_eq!(judge(None, Basis::LegitimateInterest, Channel::Email).ruling, Ruling::Hold);
/// ```
pub fn judge(country: Option<Country>, basis: Basis, channel: Channel) -> Verdict {
    let Channel::Email = channel;
    let Some(country) = country else {
        return Verdict { ruling: Ruling::Hold, rule: format!("v{RULES_VERSION}/email/unknown-country") };
    };
    let code = country.as_str();
    let listed = OPT_OUT.contains(&code) || OPT_IN.contains(&code);
    let ruling = match basis {
        Basis::LegitimateInterest if OPT_OUT.contains(&code) => Ruling::Allow,
        Basis::Consent if listed => Ruling::Allow,
        _ => Ruling::Deny,
    };
    let place = if listed { code.to_ascii_lowercase() } else { "default".to_owned() };
    Verdict { ruling, rule: format!("v{RULES_VERSION}/email/{place}/{}", basis.name()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruling(country: &str, basis: Basis) -> Ruling {
        judge(Country::parse(country).ok(), basis, Channel::Email).ruling
    }

    #[test]
    fn an_opt_in_country_wants_consent() {
        assert_eq!(ruling("DE", Basis::LegitimateInterest), Ruling::Deny);
        assert_eq!(ruling("DE", Basis::Consent), Ruling::Allow);
    }

    #[test]
    fn a_country_without_a_rule_is_refused_even_with_consent() {
        let verdict = judge(Country::parse("AQ").ok(), Basis::Consent, Channel::Email);
        assert_eq!(verdict.ruling, Ruling::Deny);
        assert_eq!(verdict.rule, "v1/email/default/consent");
    }

    #[test]
    fn no_country_stands_in_both_lists() {
        assert!(OPT_OUT.iter().all(|code| !OPT_IN.contains(code)));
    }
}
