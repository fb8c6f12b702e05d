//! `leadmill law`: whom the law lets a program write to, country by country.

use clap::Subcommand;
use domain::law::{CountryRule, Law, Rule, countries};
use domain::lead::Country;
use serde_json::{Value, json};

use crate::output::{self, Table};
use crate::settings::WrongUsage;

/// `leadmill law …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a first mail to a country needs, by which law, and as of which day
    #[command(after_help = "\
The rules are engineering's reading of published law, not legal advice: let a lawyer look at those that you rely on. A country
that isn't listed is refused; a lead whose country nobody knows is held. Every mail also needs a sender, a postal address and a
way out, and nobody who objected is written to, whatever the rule.

  opt_out                     nothing more
  business_address            an address published for business (address_source_url) whose owner's niche is one of the program's;
                              or consent
  opt_in                      consent (consent_source, consent_wording, consent_at)
  opt_in_or_business_address  either of both
  denied                      there is no first mail, not even with consent

What a program names as its lawful basis (--basis) opens no country: it says why data may be held. `leadmill import --help` says
how consent and published addresses come in.

Examples:
  leadmill law show
  leadmill law show DE
  leadmill law show --json")]
    Show {
        /// Only this country: its code in ISO 3166-1, such as DE
        #[arg(value_name = "COUNTRY", value_parser = country)]
        country: Option<Country>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Prints the rules.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Show { country, json } = *command;
    let law = Law::current();
    let rows: Vec<Row<'_>> = match country {
        Some(country) => vec![Row { country, rule: law.rule(country) }],
        None => law.rules().map(|rule| Row { country: rule.country, rule: Some(rule) }).collect(),
    };
    if json {
        let rules: Vec<Value> = rows.iter().map(Row::to_json).collect();
        return output::json(&json!({ "version": law.version(), "default": Rule::Denied.name(), "rules": rules }));
    }
    output::line(format_args!("version {}; a country that isn't listed is refused", law.version()))?;
    let mut table = Table::new(["country", "rule", "a first mail needs", "as_of", "law", "note"]);
    for row in &rows {
        let text = |of: fn(&CountryRule) -> String| row.rule.map_or_else(String::new, of);
        table.row([
            row.country.to_string(),
            row.rule.map_or("denied (not listed)", |rule| rule.rule.name()).to_owned(),
            row.rule.map_or(Rule::Denied, |rule| rule.rule).describe().to_owned(),
            text(|rule| rule.as_of.to_string()),
            text(|rule| rule.source.clone()),
            text(|rule| rule.note.clone()),
        ]);
    }
    table.print()
}

/// A country with its rule, if it has one.
struct Row<'a> {
    country: Country,
    rule: Option<&'a CountryRule>,
}

impl Row<'_> {
    fn to_json(&self) -> Value {
        let Self { country, rule } = self;
        json!({
            "country": country.as_str(),
            "rule": rule.map_or(Rule::Denied, |rule| rule.rule).name(),
            "listed": rule.is_some(),
            "as_of": rule.map(|rule| rule.as_of.to_string()),
            "source": rule.map(|rule| &rule.source),
            "note": rule.map(|rule| &rule.note).filter(|note| !note.is_empty()),
        })
    }
}

fn country(text: &str) -> Result<Country, WrongUsage> {
    Country::parse(text)
        .ok()
        .filter(|country| countries::is_assigned(*country))
        .ok_or_else(|| WrongUsage("it is no country of ISO 3166-1; give a code such as DE".to_owned()))
}
