//! One complete message (RFC 5322) out of a program, a lead and its enrichment.

use domain::{
    email::EmailAddress,
    id::OutreachId,
    lead::Lead,
    legal::Basis,
    outreach::CampaignStep,
    person_name::PersonName,
    program::Program,
    text::{multi_line, single_line},
};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use minijinja::{Environment, Value, context};
use time::OffsetDateTime;
use url::Url;

use super::{Links, addressee, inert, template};

/// The most characters of the personal message.
const MESSAGE_CHARS: usize = 1_500;
/// Words that begin a message which needs no greeting before it.
const GREETINGS: [&str; 14] = [
    "hi", "hello", "hey", "dear", "hallo", "hola", "bonjour", "salut", "ciao", "olá", "moin", "liebe", "lieber",
    "servus",
];

/// Makes the mails of all programs.
#[derive(Debug)]
pub struct Composer {
    templates: Environment<'static>,
    links: Links,
}

/// What a mail is made of.
#[derive(Debug, Clone, Copy)]
pub struct ComposeInput<'a> {
    /// The program that writes.
    pub program: &'a Program,
    /// Whom it writes to.
    pub lead: &'a Lead,
    /// The personal message of the enrichment; untrusted.
    pub message: &'a str,
    /// Which mail of which campaign.
    pub step: &'a CampaignStep,
    /// The `Message-ID` that was stored when the mail was planned: [`domain::outreach::message_id`].
    pub message_id: &'a str,
    /// The outreach row, for the return path.
    pub outreach: OutreachId,
    /// The opaque token of the recipient's unsubscribe link.
    pub unsubscribe_token: &'a str,
    /// For the `Date` header.
    pub now: OffsetDateTime,
}

/// A complete message.
#[derive(Clone, PartialEq, Eq)]
pub struct ComposedMessage {
    /// The `Message-ID`, with angle brackets.
    pub message_id: String,
    /// The subject, decoded.
    pub subject: String,
    /// The envelope's sender, one per message (VERP).
    pub return_path: String,
    /// The envelope's only recipient.
    pub recipient: EmailAddress,
    /// The message: headers and both parts, CRLF line ends, 7-bit, lines of at most 998 bytes.
    pub bytes: Vec<u8>,
}

/// Debug output shows no personal data.
impl std::fmt::Debug for ComposedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComposedMessage")
            .field("message_id", &self.message_id)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// No mail can be made.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The program lacks its sender or its postal address.
    #[error("the program has no sender or no postal address")]
    IncompleteSender,
    /// The lead has no address.
    #[error("the lead has no e-mail address")]
    NoAddress,
    /// An address that our own parser took but the mail library doesn't.
    #[error("the {field} address can't stand in a header")]
    Address {
        /// Which one.
        field: &'static str,
    },
    /// A template uses what isn't there, or is wrong.
    #[error("the template can't be rendered")]
    Template(#[from] minijinja::Error),
    /// The parts don't make a message.
    #[error("the message can't be built")]
    Build(#[from] lettre::error::Error),
}

impl Composer {
    /// A composer with the embedded templates.
    pub fn new(links: Links) -> Self {
        Self { templates: template::environment(), links }
    }

    /// Makes a mail.
    ///
    /// No `Auto-Submitted` (RFC 3834 §5): a person of the program stands behind it and answers are read. `List-Id` keeps
    /// holiday responders quiet all the same.
    pub fn compose(&self, input: &ComposeInput<'_>) -> Result<ComposedMessage, ComposeError> {
        let settings = &input.program.settings;
        let profile = &input.lead.profile;
        let sender = settings.sender_email.as_ref().ok_or(ComposeError::IncompleteSender)?;
        if !settings.can_send() {
            return Err(ComposeError::IncompleteSender);
        }
        let recipient = profile.email.as_ref().ok_or(ComposeError::NoAddress)?;
        let reply_to = settings.reply_to.as_ref().unwrap_or(sender);

        let program_name = line(&settings.name, 100);
        let sender_name = line(&settings.sender_name, 100);
        let name = profile.name.as_deref().and_then(PersonName::of);
        let name = name.as_ref().map(PersonName::full);
        let unsubscribe_url = self.links.unsubscribe(input.unsubscribe_token);
        let privacy_url = settings.privacy_url.as_deref().and_then(|url| Url::parse(url.trim()).ok());
        let privacy_url = privacy_url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let paragraphs = paragraphs(input.message);
        let values = context! {
            addressee => name.map(str::to_owned).or_else(|| addressee::greeting_handle(&profile.username)),
            greeted => is_greeted(&paragraphs), paragraphs,
            program => program_name, sender => &sender_name,
            product => line(&settings.product, 500),
            postal_address => line(settings.postal_address.as_deref().unwrap_or_default(), 300),
            reply_to => reply_to.as_str(),
            source_text => format!(
                "your profile {} on {}",
                addressee::shown_handle(&profile.username),
                profile.source.network().unwrap_or(profile.source.as_str()),
            ),
            basis_text => basis_text(settings.basis),
            privacy_url => privacy_url.as_ref().map(Url::as_str),
            privacy_href => privacy_url.as_ref().map(|url| href(url.as_str())),
            unsubscribe_url => &unsubscribe_url,
            unsubscribe_href => href(&unsubscribe_url),
        };
        let render = |template: &str| self.templates.get_template(template)?.render(&values);
        let subject = line(&render("subject.txt")?, 150);
        let text = render("intro.txt")?;
        let html = render("intro.html")?;

        let return_path = self.links.return_path(input.outreach, sender);
        let envelope = lettre::address::Envelope::new(
            Some(return_path.parse().map_err(|_| ComposeError::Address { field: "return path" })?),
            vec![address(recipient, "recipient's")?],
        )?;
        let slug = input.program.slug.as_str();
        let feedback = format!("{}-{}:{slug}:outreach:leadmill", input.step.campaign, input.step.step);
        let message = Message::builder()
            .date(input.now.into())
            .from(Mailbox::new(Some(sender_name), address(sender, "sender's")?))
            .to(Mailbox::new(name.map(str::to_owned), address(recipient, "recipient's")?))
            .reply_to(Mailbox::new(None, address(reply_to, "reply")?))
            .subject(subject.clone())
            .message_id(Some(input.message_id.to_owned()))
            .raw_header(raw("Feedback-ID", feedback))
            .raw_header(raw("List-Id", format!("<{slug}.{}>", sender.domain())))
            // No `mailto:` beside it: nothing reads such mails.
            .raw_header(raw("List-Unsubscribe", format!("<{unsubscribe_url}>")))
            .raw_header(raw("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()))
            .envelope(envelope)
            .multipart(MultiPart::alternative_plain_html(text, html))?;
        Ok(ComposedMessage {
            message_id: input.message_id.to_owned(),
            subject,
            return_path,
            recipient: recipient.clone(),
            bytes: message.formatted(),
        })
    }
}

/// One line of our own configuration.
fn line(text: &str, max_chars: usize) -> String {
    single_line(text, max_chars).unwrap_or_default()
}

/// A link of our own for an HTML attribute. The templates' own escaping would also take the slashes, which link checkers
/// of mail programs trip over.
fn href(url: &str) -> Value {
    let escaped = url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    Value::from_safe_string(escaped)
}

/// The personal message as paragraphs of lines.
fn paragraphs(message: &str) -> Vec<Vec<String>> {
    let text = multi_line(message, MESSAGE_CHARS).map(|text| inert(&text)).unwrap_or_default();
    text.split("\n\n")
        .map(|paragraph| paragraph.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
        .filter(|paragraph: &Vec<String>| !paragraph.is_empty())
        .collect()
}

fn is_greeted(paragraphs: &[Vec<String>]) -> bool {
    let first = paragraphs.first().and_then(|lines| lines.first()).and_then(|line| line.split_whitespace().next());
    first.is_some_and(|word| {
        let word = word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        GREETINGS.contains(&word.as_str())
    })
}

const fn basis_text(basis: Basis) -> &'static str {
    match basis {
        Basis::LegitimateInterest => {
            "our legitimate interest (Art. 6(1)(f) GDPR) in finding partners among creators who publish a business contact."
        }
        Basis::Consent => "your consent (Art. 6(1)(a) GDPR), which you may withdraw at any time.",
    }
}

fn address(address: &EmailAddress, field: &'static str) -> Result<Address, ComposeError> {
    Address::new(address.local(), address.domain()).map_err(|_| ComposeError::Address { field })
}

/// A header of our own values; anything but printable ASCII would come out encoded, so no value can end its header.
fn raw(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
}

#[cfg(test)]
mod tests;
