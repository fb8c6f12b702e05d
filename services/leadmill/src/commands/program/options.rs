//! What can be set of a program.

use anyhow::Context;
use domain::email::EmailAddress;
use domain::legal::Basis;
use domain::program::{ProgramSettings, Slug};
use store::programs::Change;

use crate::settings::WrongUsage;

/// The least score that qualifies, unless set.
const DEFAULT_THRESHOLD: i16 = 70;

/// What can be set of a program. `None` leaves it as it is, an empty text removes it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The program's name, as recipients read it [default: the short name]
    #[arg(long)]
    name: Option<String>,
    /// The name in `From` [default: the program's name]
    #[arg(long)]
    sender_name: Option<String>,
    /// The address in `From`; nothing is sent without one
    #[arg(long, value_name = "ADDRESS")]
    sender_email: Option<String>,
    /// The address that answers go to, when it isn't the sender's
    #[arg(long, value_name = "ADDRESS")]
    reply_to: Option<String>,
    /// The sender's valid postal address (CAN-SPAM asks for it); nothing is sent without one
    #[arg(long, value_name = "TEXT")]
    postal_address: Option<String>,
    /// Where the privacy notice stands (GDPR Art. 14)
    #[arg(long, value_name = "URL")]
    privacy_url: Option<String>,
    /// The least score that qualifies, 0 to 100 [default: 70]
    #[arg(long, value_parser = clap::value_parser!(i16).range(0..=100))]
    threshold: Option<i16>,
    /// What the program looks for, separated by commas; all niches when empty
    #[arg(long, value_name = "NICHE,…")]
    niches: Option<String>,
    /// What the product is: for the prompt, and for the mail
    #[arg(long, value_name = "TEXT")]
    product: Option<String>,
    /// Why data about creators is held (GDPR Art. 6); opens no country, see `leadmill law show --help` [default: legitimate_interest]
    #[arg(long, value_parser = ["legitimate_interest", "consent"])]
    basis: Option<String>,
    /// At most this many mails a day; 0 for no limit
    #[arg(long, value_name = "MAILS", value_parser = clap::value_parser!(i32).range(0..))]
    daily_cap: Option<i32>,
}

/// A new program that nothing was said about yet.
pub fn empty(slug: &Slug) -> ProgramSettings {
    ProgramSettings {
        name: slug.to_string(),
        sender_name: slug.to_string(),
        sender_email: None,
        reply_to: None,
        postal_address: None,
        privacy_url: None,
        threshold: DEFAULT_THRESHOLD,
        niches: Vec::new(),
        product: String::new(),
        basis: Basis::LegitimateInterest,
        daily_cap: None,
        paused: false,
    }
}

impl Options {
    /// What is named, as a change of `settings`.
    ///
    /// # Errors
    /// [`WrongUsage`] for a value that isn't allowed.
    pub fn change_of(self, settings: &ProgramSettings) -> anyhow::Result<Change> {
        let mut change = Change::default();
        if let Some(name) = self.name {
            if name.trim().is_empty() {
                return Err(WrongUsage("--name: a program has to have a name".to_owned()).into());
            }
            if settings.sender_name == settings.name {
                change.sender_name = Some(name.clone());
            }
            change.name = Some(name);
        }
        change.sender_name = self.sender_name.or(change.sender_name);
        change.sender_email = self.sender_email.map(|text| address("--sender-email", &text)).transpose()?;
        change.reply_to = self.reply_to.map(|text| address("--reply-to", &text)).transpose()?;
        change.postal_address = self.postal_address.map(some);
        change.privacy_url = self.privacy_url.map(web_address).transpose()?;
        change.threshold = self.threshold;
        change.niches = self.niches.map(|niches| {
            niches.split(',').map(|niche| niche.trim().to_owned()).filter(|niche| !niche.is_empty()).collect()
        });
        change.product = self.product;
        change.basis = self.basis.map(|basis| basis.parse().context("reading --basis")).transpose()?;
        change.daily_cap = self.daily_cap.map(|cap| (cap > 0).then_some(cap));
        Ok(change)
    }
}

fn some(text: String) -> Option<String> {
    (!text.trim().is_empty()).then_some(text)
}

fn address(option: &str, text: &str) -> Result<Option<EmailAddress>, WrongUsage> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    EmailAddress::parse(text).map(Some).map_err(|error| WrongUsage(format!("{option}: {error}")))
}

fn web_address(text: String) -> Result<Option<String>, WrongUsage> {
    let Some(text) = some(text) else { return Ok(None) };
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => Ok(Some(url.into())),
        _ => Err(WrongUsage("--privacy-url: expected an address such as https://example.com/privacy".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Options = Options {
        name: None,
        sender_name: None,
        sender_email: None,
        reply_to: None,
        postal_address: None,
        privacy_url: None,
        threshold: None,
        niches: None,
        product: None,
        basis: None,
        daily_cap: None,
    };

    #[test]
    fn what_is_not_named_stays_and_an_empty_text_removes() {
        let settings = empty(&"coffee".parse().unwrap());
        let set = |text: &str| Some(text.to_owned());
        let change = Options { name: set("Coffee"), reply_to: set("ann@example.com"), niches: set("a, b,"), ..NOTHING }
            .change_of(&settings)
            .unwrap();
        let settings = change.applied_to(&settings);
        assert_eq!((settings.name.as_str(), settings.sender_name.as_str()), ("Coffee", "Coffee"));
        assert_eq!(settings.niches, ["a", "b"]);
        assert!(NOTHING.change_of(&settings).unwrap().is_empty());
        let change = Options { reply_to: set(""), daily_cap: Some(0), ..NOTHING }.change_of(&settings).unwrap();
        let settings = change.applied_to(&settings);
        assert_eq!((settings.reply_to, settings.daily_cap), (None, None));
    }

    #[test]
    fn a_value_that_is_not_allowed_is_rejected_with_its_option() {
        let settings = empty(&"coffee".parse().unwrap());
        let rejected = |options: Options| options.change_of(&settings).unwrap_err().to_string();
        let address = Options { sender_email: Some("ann".to_owned()), ..NOTHING };
        assert!(rejected(address).starts_with("--sender-email: "));
        let page = Options { privacy_url: Some("javascript:alert(1)".to_owned()), ..NOTHING };
        assert!(rejected(page).starts_with("--privacy-url: "));
    }
}
