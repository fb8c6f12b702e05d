//! The addresses that mails carry: where to object, where bounces go.

use std::net::Ipv4Addr;

use domain::{email::EmailAddress, id::OutreachId};
use url::{Host, Url};

/// The most characters before the `@` (RFC 5321 §4.5.3.1.1).
const LOCAL_CHARS: usize = 64;
/// Ends of names that mean something in one network only (RFC 6761, 6762, 8375; `internal` by ICANN's decision of 2024).
const PRIVATE_NAMES: [&str; 6] = [".localhost", ".local", ".internal", ".home.arpa", ".test", ".invalid"];

/// Makes links and return paths from the configuration.
#[derive(Debug, Clone)]
pub struct Links {
    public_url: String,
    public: bool,
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
    /// `public_url` is where the unsubscribe pages are reached from outside; `mail_domain`, if any, is the domain to which
    /// bounces go.
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
        if url.scheme() != "https" && !is_of_this_machine(&url) {
            return Err(InvalidLinks::NotEncrypted);
        }
        let public = url.scheme() == "https" && is_reached_from_outside(&url);
        let mail_domain = mail_domain
            .map(|domain| EmailAddress::parse(&format!("u@{domain}")).map(|address| address.domain().to_owned()))
            .transpose()
            .map_err(|_| InvalidLinks::MailDomain)?;
        Ok(Self { public_url: url.as_str().trim_end_matches('/').to_owned(), public, mail_domain })
    }

    /// Whether recipients can open the links: https, to a host that isn't of this machine or a private network by its name
    /// or address.
    pub const fn are_public(&self) -> bool {
        self.public
    }

    /// The page where the recipient can object, also the one-click address.
    pub fn unsubscribe(&self, token: &str) -> String {
        format!("{}/u/{token}", self.public_url)
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

fn is_of_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_reached_from_outside(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.contains('.') && !PRIVATE_NAMES.iter().any(|private| name.ends_with(private))
        }
        Some(Host::Ipv4(address)) => is_public(address),
        Some(Host::Ipv6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public(mapped),
            None => {
                !address.is_loopback()
                    && !address.is_unspecified()
                    && !address.is_unique_local()
                    && !address.is_unicast_link_local()
            }
        },
        None => false,
    }
}

/// Whether an address is none of the loopback, of private networks (RFC 1918), of a carrier's own (RFC 6598) or of one link.
const fn is_public(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let shared = first == 100 && second & 0b1100_0000 == 64;
    !shared
        && first != 0
        && !address.is_loopback()
        && !address.is_private()
        && !address.is_link_local()
        && !address.is_broadcast()
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
        assert_eq!(links.return_path(outreach, &sender), "b+00000000000000000000000000000000@in.example.com");
    }

    #[test]
    fn without_a_mail_domain_bounces_go_to_the_senders_mailbox() {
        let links = Links::new("http://localhost:8082", None).unwrap();
        let sender = EmailAddress::parse("ann@brand.example").unwrap();
        let outreach = OutreachId::from_uuid(uuid::Uuid::nil());
        assert_eq!(links.return_path(outreach, &sender), "ann+b-00000000000000000000000000000000@brand.example");
    }

    #[test]
    fn only_links_that_others_can_open_are_public() {
        let public = |url: &str| Links::new(url, None).unwrap().are_public();
        for url in
            ["https://mail.example.com", "https://example.com:8443/x", "https://93.184.215.14", "https://[2606::1]"]
        {
            assert!(public(url), "{url}");
        }
        for url in [
            "http://localhost:8082",
            "https://localhost",
            "https://a.localhost",
            "https://mailer",
            "https://mailer.",
            "https://mail.internal",
            "https://nas.local",
            "https://127.0.0.1",
            "https://10.0.0.1",
            "https://172.16.3.4",
            "https://192.168.1.1",
            "https://100.64.0.1",
            "https://169.254.1.1",
            "https://0.0.0.0",
            "https://[::1]",
            "https://[fd00::1]",
            "https://[fe80::1]",
            "https://[::ffff:192.168.1.1]",
        ] {
            assert!(!public(url), "{url}");
        }
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
