//! Every country × every state of consent × every kind of address × relevance, against a table that is written by hand and knows
//! nothing of the rules' file.

use std::collections::BTreeSet;

use domain::{
    law::{AddressKind, Consent, Contact, Law, Ruling, countries},
    lead::Country,
};

/// All of ISO 3166-1: what is in none of the lists below is refused.
const COUNTRIES: usize = 249;

const OPEN: &str = "BR IN MX NZ PH US";
const BUSINESS_ADDRESS: &str = "AU CA FI FR IE";
const CONSENT_ONLY: &str = "AT BE CH CZ DE DK ES GB GR HU IT JP NL NO PL PT RO ZA";
const CLOSED: &str = "EE SE";

/// Consent, address, relevance; then whether a first mail is lawful in the countries of OPEN, BUSINESS_ADDRESS and CONSENT_ONLY.
#[rustfmt::skip]
const TABLE: [(Consent, AddressKind, bool, [bool; 3]); 12] = {
    use AddressKind::{PublishedForBusiness as Published, Unknown};
    use Consent::{Expired, Given, None};
    [
        (None,    Unknown,   false, [true, false, false]),
        (None,    Unknown,   true,  [true, false, false]),
        (None,    Published, false, [true, false, false]),
        (None,    Published, true,  [true, true,  false]),
        (Expired, Unknown,   false, [true, false, false]),
        (Expired, Unknown,   true,  [true, false, false]),
        (Expired, Published, false, [true, false, false]),
        (Expired, Published, true,  [true, true,  false]),
        (Given,   Unknown,   false, [true, true,  true]),
        (Given,   Unknown,   true,  [true, true,  true]),
        (Given,   Published, false, [true, true,  true]),
        (Given,   Published, true,  [true, true,  true]),
    ]
};

fn lists(list: &str, country: Country) -> bool {
    list.split(' ').any(|code| code == country.as_str())
}

#[test]
fn every_combination_is_decided_as_the_table_says() {
    let (mut seen, mut opened) = (0, BTreeSet::new());
    for country in countries::countries() {
        for (consent, address, relevant, lawful) in TABLE {
            let column = [OPEN, BUSINESS_ADDRESS, CONSENT_ONLY].iter().position(|list| lists(list, country));
            let expected = column.is_some_and(|column| lawful[column]);
            let verdict = Law::current().judge(Some(country), Contact { consent, address, relevant });
            let found = verdict.ruling == Ruling::Allow;
            assert_eq!(found, expected, "{country}, {consent:?}, {address:?}, relevant: {relevant}: {verdict}");
            assert_ne!(verdict.ruling, Ruling::Hold, "{country}: {verdict}");
            seen += 1;
            if found {
                opened.insert(country.as_str().to_owned());
            }
        }
    }
    assert_eq!(seen, COUNTRIES * TABLE.len());
    assert_eq!(opened.len(), 6 + 5 + 18);
    assert!(CLOSED.split(' ').all(|code| !opened.contains(code)));
}

#[test]
fn an_unknown_country_is_held_whatever_else_is_known() {
    for (consent, address, relevant, _) in TABLE {
        let verdict = Law::current().judge(None, Contact { consent, address, relevant });
        assert_eq!(verdict.ruling, Ruling::Hold, "{verdict}");
    }
}

#[test]
fn a_code_that_is_no_country_is_refused_whatever_else_is_known() {
    for code in ["XX", "ZZ", "AA", "EU"] {
        let country = Country::parse(code).unwrap();
        for (consent, address, relevant, _) in TABLE {
            let verdict = Law::current().judge(Some(country), Contact { consent, address, relevant });
            assert_eq!(verdict.ruling, Ruling::Deny, "{verdict}");
        }
    }
}
