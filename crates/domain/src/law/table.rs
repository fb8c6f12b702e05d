//! The rules as a table: `rules.tsv`, embedded and parsed once. Its head says how to read it.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::LazyLock};

use serde::Serialize;
use time::{Date, macros::format_description};

use super::countries::is_assigned;
use crate::lead::Country;

static EMBEDDED: LazyLock<Law> =
    LazyLock::new(|| Law::parse(include_str!("rules.tsv")).expect("the embedded rules are checked by a test"));

/// What a first mail to a country needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Nothing but what every mail has: who writes, from where, and a way out.
    OptOut,
    /// An address that is published for business, and relevance; or consent.
    BusinessAddress,
    /// Consent.
    OptIn,
    /// Consent, which an address that is published for business implies, with relevance and without a refusal.
    OptInOrBusinessAddress,
    /// There is no first mail, not even with consent.
    Denied,
}

impl Rule {
    const ALL: [Self; 5] =
        [Self::OptOut, Self::BusinessAddress, Self::OptIn, Self::OptInOrBusinessAddress, Self::Denied];

    /// The name, as it stands in the table and in the rules' ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OptOut => "opt_out",
            Self::BusinessAddress => "business_address",
            Self::OptIn => "opt_in",
            Self::OptInOrBusinessAddress => "opt_in_or_business_address",
            Self::Denied => "denied",
        }
    }

    /// What a first mail needs, as a phrase for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::OptOut => "a way out in every mail",
            Self::BusinessAddress => "an address published for business and relevance, or consent",
            Self::OptIn => "consent",
            Self::OptInOrBusinessAddress => "consent, or an address published for business and relevance",
            Self::Denied => "no first mail at all",
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|rule| rule.name() == text)
            .ok_or_else(|| format!("`{text}` is no rule; the rules are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountryRule {
    /// The country.
    pub country: Country,
    /// What a first mail needs there.
    pub rule: Rule,
    /// The day on which the row was written down, from what is generally known of the law.
    pub as_of: Date,
    /// The law.
    pub source: String,
    /// What else there is to know; may be empty.
    pub note: String,
}

/// The rules of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Law {
    version: u16,
    rules: BTreeMap<Country, CountryRule>,
}

/// Text that is no table of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLaw {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for InvalidLaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the law's rules: {}", self.line, self.problem)
    }
}

impl std::error::Error for InvalidLaw {}

const HEAD: [&str; 5] = ["country", "rule", "as_of", "source", "note"];

impl Law {
    /// The rules of this release.
    pub fn current() -> &'static Self {
        &EMBEDDED
    }

    /// The version; part of every rule's id.
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// The row of a country, if it has one.
    pub fn rule(&self, country: Country) -> Option<&CountryRule> {
        self.rules.get(&country)
    }

    /// All rows, in the order of their countries.
    pub fn rules(&self) -> impl Iterator<Item = &CountryRule> {
        self.rules.values()
    }

    /// Parses a table.
    ///
    /// # Errors
    /// When a line can't be read, names a country that ISO 3166-1 doesn't have or that has a row already, or gives no source.
    pub fn parse(text: &str) -> Result<Self, InvalidLaw> {
        let (mut version, mut has_head, mut rules) = (None, false, BTreeMap::new());
        let mut last = 1;
        for (number, line) in (1..).zip(text.lines()) {
            last = number;
            let wrong = |problem: String| InvalidLaw { line: number, problem };
            let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
            match (&cells[..], version, has_head) {
                _ if line.starts_with('#') || line.trim().is_empty() => {}
                (["version", text], None, _) => {
                    let parsed = text.parse().ok().filter(|number: &u16| (1..=i16::MAX as u16).contains(number));
                    version = Some(parsed.ok_or_else(|| wrong(format!("`{text}` is no version from 1 to 32767")))?);
                }
                (head, Some(_), false) if *head == HEAD => has_head = true,
                (_, Some(_), true) => {
                    let rule = row(&cells).map_err(wrong)?;
                    let country = rule.country;
                    if rules.insert(country, rule).is_some() {
                        return Err(wrong(format!("{country} has a row already")));
                    }
                }
                (_, None, _) => return Err(wrong("expected `version`, a tab and a number".to_owned())),
                (_, Some(_), false) => return Err(wrong(format!("expected the head: {}", HEAD.join(", ")))),
            }
        }
        match version {
            Some(version) if !rules.is_empty() => Ok(Self { version, rules }),
            _ => Err(InvalidLaw { line: last, problem: "there are no rules".to_owned() }),
        }
    }
}

fn row(cells: &[&str]) -> Result<CountryRule, String> {
    let (country, rule, as_of, source, note) = match cells[..] {
        [country, rule, as_of, source] => (country, rule, as_of, source, ""),
        [country, rule, as_of, source, note] => (country, rule, as_of, source, note),
        _ => return Err(format!("there are {} columns, and not {} ({})", cells.len(), HEAD.len(), HEAD.join(", "))),
    };
    // In the table's own spelling: `uk` or `UK` would be a second name of a country.
    let known = Country::parse(country).ok().filter(|known| known.as_str() == country && is_assigned(*known));
    Ok(CountryRule {
        country: known.ok_or_else(|| format!("`{country}` is no country of ISO 3166-1"))?,
        rule: rule.parse()?,
        as_of: Date::parse(as_of, format_description!("[year]-[month]-[day]"))
            .map_err(|_| format!("`{as_of}` is no date such as 2026-11-29"))?,
        source: Some(source).filter(|source| !source.is_empty()).ok_or("the source is missing")?.to_owned(),
        note: note.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version\t7\ncountry\trule\tas_of\tsource\tnote\nUS\topt_out\t2026-11-29\tCAN-SPAM\t\n";

    fn problem(text: &str) -> String {
        Law::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_table_can_be_read() {
        assert_eq!(Law::current().version(), 2);
        assert_eq!(Law::current().rules().count(), 31);
    }

    #[test]
    fn a_row_for_a_country_that_does_not_exist_names_its_line() {
        for code in ["XX", "UK", "us", "USA", ""] {
            let text = format!("{GOOD}{code}\topt_in\t2026-11-29\tsome law\t\n");
            assert_eq!(problem(&text), format!("line 4 of the law's rules: `{code}` is no country of ISO 3166-1"));
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_line_and_what_is_wrong() {
        for (more, part) in [
            ("US\topt_in\t2026-11-29\tsome law\t", "US has a row already"),
            ("DE\topt-in\t2026-11-29\tsome law\t", "the rules are opt_out,"),
            ("DE\topt_in\t29.11.2026\tsome law\t", "no date"),
            ("DE\topt_in\t2026-11-29\t ", "the source is missing"),
            ("DE\topt_in\t2026-11-29", "there are 3 columns, and not 5"),
        ] {
            let told = problem(&format!("# head\n{GOOD}{more}\n"));
            assert!(told.starts_with("line 5 ") && told.contains(part), "{told}");
        }
        assert!(problem("country\trule").contains("`version`"));
        assert!(problem("version\t0").contains("no version"));
        assert!(problem("version\t1\nUS\topt_out\t2026-11-29\ta\t").contains("expected the head"));
        assert!(problem("version\t1\n").contains("no rules"));
        assert!(problem("").contains("no rules"));
    }
}
