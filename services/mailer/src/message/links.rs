//! The addresses that mails carry: where to object, where bounces go.

use domain::{email::EmailAddress, id::OutreachId};
use url::Url;

/// The most characters before the `@` (RFC 5321 §4.5.3.1.1).
const LOCAL_CHARS: usize = 64;

/// Makes links and return paths from the configuration.
#[derive(Debug, Clone)]
pub struct Links {
    public_url: String,
    mail_domain: Option<String>,
}

/// A setting that no link can be made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLinks {
    /// Not a web address.
    #[error("must be an address such as https://mail.example.com, without query, fragment and credentials")]
    PublicUrl,
    /// Not encrypted, and not only for this machine.
    #[error("must be https: mailbox providers ignore other one-click addresses (only localhost may be http)")]
    NotEncrypted,
    /// Not a domain.
    #[error("must be a domain such as mail.example.com")]
    MailDomain,
}

impl Links {
    /// `public_url` is where the unsubscribe pages are reached from outside; `mail_domain`, if any, is a domain whose mail
    /// this installation reads.
    pub fn new(public_url: &str, mail_domain: Option<&str>) -> Result<Self, InvalidLinks> {
        let url = Url::parse(public_url.trim()).map_err(|_| InvalidLinks::PublicUrl)?;
        let bare = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.host().is_some();
        if !bare || !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidLinks::PublicUrl);
        }
        let local = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() != "https" && !local {
            return Err(InvalidLinks::NotEncrypted);
        }
        let mail_domain = mail_domain
            .map(|domain| EmailAddress::parse(&format!("u@{domain}")).map(|address| address.domain().to_owned()))
            .transpose()
            .map_err(|_| InvalidLinks::MailDomain)?;
        Ok(Self { public_url: url.as_str().trim_end_matches('/').to_owned(), mail_domain })
    }

    /// The page where the recipient can object, also the one-click address.
    pub fn unsubscribe(&self, token: &str) -> String {
        format!("{}/u/{token}", self.public_url)
    }

    /// The same by mail: to `u+TOKEN` at the mail domain, or, without one (or with a token that doesn't fit), to the
    /// mailbox that is read with the token as the subject.
    pub fn unsubscribe_mail(&self, token: &str, reply_to: &EmailAddress) -> String {
        match &self.mail_domain {
            Some(domain) if token.len() + 2 <= LOCAL_CHARS => format!("mailto:u+{token}@{domain}"),
            Some(domain) => format!("mailto:u@{domain}?subject={token}"),
            None => {
                // `%` and `&` are allowed before the `@` of an address but mean something in a URL.
                let local: String = url::form_urlencoded::byte_serialize(reply_to.local().as_bytes()).collect();
                format!("mailto:{local}@{}?subject=unsubscribe%20{token}", reply_to.domain())
            }
        }
    }

    /// The return path of one message, so that a bounce tells by its recipient which message it is about (VERP):
    /// `b+ID` at the mail domain, or plus-addressed at the sender's own mailbox.
    pub fn return_path(&self, outreach: OutreachId, sender: &EmailAddress) -> String {
        let id = outreach.as_uuid().simple();
        match &self.mail_domain {
            Some(domain) => format!("b+{id}@{domain}"),
            None if sender.local().len() + 3 + 32 <= LOCAL_CHARS && !sender.local().contains('+') => {
                format!("{}+b-{id}@{}", sender.local(), sender.domain())
            }
            None => format!("b+{id}@{}", sender.domain()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_from_the_configuration() {
        let links = Links::new("https://mail.example.com/leads/", Some("In.Example.com")).unwrap();
        let sender = EmailAddress::parse("ann@brand.example").unwrap();
        let outreach = OutreachId::from_uuid(uuid::Uuid::nil());
        assert_eq!(links.unsubscribe("TOK"), "https://mail.example.com/leads/u/TOK");
        assert_eq!(links.unsubscribe_mail("TOK", &sender), "mailto:u+TOK@in.example.com");
        assert_eq!(
            links.unsubscribe_mail(&"T".repeat(63), &sender).len(),
            "mailto:u@in.example.com?subject=".len() + 63
        );
        assert_eq!(links.return_path(outreach, &sender), "b+00000000000000000000000000000000@in.example.com");
    }

    #[test]
    fn without_a_mail_domain_everything_goes_to_the_senders_mailbox() {
        let links = Links::new("http://localhost:8082", None).unwrap();
        let sender = EmailAddress::parse("ann@brand.example").unwrap();
        let outreach = OutreachId::from_uuid(uuid::Uuid::nil());
        assert_eq!(links.unsubscribe_mail("TOK", &sender), "mailto:ann@brand.example?subject=unsubscribe%20TOK");
        assert_eq!(links.return_path(outreach, &sender), "ann+b-00000000000000000000000000000000@brand.example");
    }

    #[test]
    fn wrong_settings_are_refused() {
        for (url, domain, expected) in [
            ("mail.example.com", None, InvalidLinks::PublicUrl),
            ("ftp://mail.example.com", None, InvalidLinks::PublicUrl),
            ("https://mail.example.com/?x=1", None, InvalidLinks::PublicUrl),
            ("https://u:p@mail.example.com/", None, InvalidLinks::PublicUrl),
            ("http://mail.example.com", None, InvalidLinks::NotEncrypted),
            ("https://mail.example.com", Some("nodot"), InvalidLinks::MailDomain),
        ] {
            assert_eq!(Links::new(url, domain).unwrap_err(), expected);
        }
    }
}
