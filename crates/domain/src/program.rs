//! Programs: the tenants, each an affiliate program with a sender of its own.

use std::{fmt, str::FromStr};

use crate::{email::EmailAddress, id::ProgramId, legal::Basis};

/// The short name of a program or an organisation, for commands and addresses: 1 to 40 lower-case letters, digits or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(String);

/// The text is no short name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a short name: it must have 1 to 40 lower-case letters, digits or `-`")]
pub struct InvalidSlug;

impl Slug {
    /// The short name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = InvalidSlug;

    fn from_str(text: &str) -> Result<Self, InvalidSlug> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=40).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSlug)
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a program's owner sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSettings {
    /// The program's name, as recipients read it.
    pub name: String,
    /// The name in `From`.
    pub sender_name: String,
    /// The address in `From`.
    pub sender_email: Option<EmailAddress>,
    /// The address that answers go to; `From` when absent.
    pub reply_to: Option<EmailAddress>,
    /// The sender's valid postal address (CAN-SPAM); without one nothing is sent.
    pub postal_address: Option<String>,
    /// Who the controller is and where the privacy notice stands (GDPR Art. 14).
    pub privacy_url: Option<String>,
    /// The least score that qualifies, 0 to 100.
    pub threshold: i16,
    /// What the program is looking for; empty means everything.
    pub niches: Vec<String>,
    /// What the product is, for the prompt and the mail.
    pub product: String,
    /// The lawful basis that the program relies on.
    pub basis: Basis,
    /// At most this many mails a day; `None` means no limit.
    pub daily_cap: Option<i32>,
    /// Whether sending is paused.
    pub paused: bool,
}

impl ProgramSettings {
    /// Whether a lawful mail can be made: a sender and a postal address are there.
    pub fn can_send(&self) -> bool {
        self.sender_email.is_some() && self.postal_address.as_deref().is_some_and(|address| !address.trim().is_empty())
    }
}

impl Program {
    /// The domain of this program's `Message-ID`s. A program without a sender has one as well, so that its mails can be
    /// planned; they can't be sent before there is a sender.
    pub fn message_id_domain(&self) -> String {
        let sender = self.settings.sender_email.as_ref();
        sender.map_or_else(|| format!("{}.invalid", self.slug), |sender| sender.domain().to_owned())
    }
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub id: ProgramId,
    /// Its short name, unique.
    pub slug: Slug,
    /// What its owner set.
    pub settings: ProgramSettings,
}
