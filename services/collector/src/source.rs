//! Where profiles come from.
//!
//! A source yields pages of raw rows. It knows its format and nothing else: it neither judges what a row says nor
//! stores it. What can't even be read as a row of the format is handed on as a [`RowDefect`] in its place, so that one
//! broken row never stops a file.
//!
//! To add a source, implement [`PageSource`]; everything after it (normalising, validating, storing) stays the same.

pub mod columns;
pub mod delimited;
pub mod encoding;
pub mod file;
pub mod hostile;
pub mod json;
pub mod jsonl;
pub mod scanner;
pub mod simulated;
pub mod words;

use domain::reject::{Defect, RejectReason};
use tokio::sync::mpsc;

/// The most rows of a page; a page becomes one transaction.
pub const PAGE_ROWS: usize = 500;

/// The most bytes of a refused row that are kept to be given back.
pub const KEPT_RAW_BYTES: usize = 8 * 1024;

/// A field of a profile, as columns and keys are mapped to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// The network or list.
    Source,
    /// The user name there.
    Username,
    /// The display name.
    Name,
    /// A published e-mail address.
    Email,
    /// The address of the public page.
    ProfileUrl,
    /// Followers or subscribers.
    FollowerCount,
    /// What they say about themselves.
    Bio,
    /// Whether the network vouches for the identity.
    Verified,
    /// Where they say they are.
    Location,
    /// The country, as a name or a code.
    Country,
    /// Where consent to be written to was given.
    ConsentSource,
    /// The words that were agreed to.
    ConsentWording,
    /// When the consent was given.
    ConsentAt,
    /// From when on the consent does not hold any more.
    ConsentExpiresAt,
    /// The page where the e-mail address is published for business.
    AddressSourceUrl,
    /// When it was seen there.
    AddressSeenAt,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 16] = [
        Self::Source,
        Self::Username,
        Self::Name,
        Self::Email,
        Self::ProfileUrl,
        Self::FollowerCount,
        Self::Bio,
        Self::Verified,
        Self::Location,
        Self::Country,
        Self::ConsentSource,
        Self::ConsentWording,
        Self::ConsentAt,
        Self::ConsentExpiresAt,
        Self::AddressSourceUrl,
        Self::AddressSeenAt,
    ];

    /// What shows that they may be written to.
    pub const EVIDENCE: [Self; 6] = [
        Self::ConsentSource,
        Self::ConsentWording,
        Self::ConsentAt,
        Self::ConsentExpiresAt,
        Self::AddressSourceUrl,
        Self::AddressSeenAt,
    ];

    /// The field's name, as `--map` takes it and rejects give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Username => "username",
            Self::Name => "name",
            Self::Email => "email",
            Self::ProfileUrl => "profile_url",
            Self::FollowerCount => "follower_count",
            Self::Bio => "bio",
            Self::Verified => "verified",
            Self::Location => "location",
            Self::Country => "country",
            Self::ConsentSource => "consent_source",
            Self::ConsentWording => "consent_wording",
            Self::ConsentAt => "consent_at",
            Self::ConsentExpiresAt => "consent_expires_at",
            Self::AddressSourceUrl => "address_source_url",
            Self::AddressSeenAt => "address_seen_at",
        }
    }

    /// The field of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// A row as it was found: nothing normalised, nothing believed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RawProfile {
    /// The physical line where the row starts, from 1; for other sources the item's position, from 1.
    pub line: u64,
    /// The row's bytes, cut to [`KEPT_RAW_BYTES`]; kept with a reject.
    pub raw: Vec<u8>,
    /// The network or list.
    pub source: Option<String>,
    /// The user name there.
    pub username: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// A published e-mail address.
    pub email: Option<String>,
    /// The address of the public page.
    pub profile_url: Option<String>,
    /// Followers or subscribers.
    pub follower_count: Option<String>,
    /// What they say about themselves.
    pub bio: Option<String>,
    /// Whether the network vouches for the identity.
    pub verified: Option<String>,
    /// Where they say they are.
    pub location: Option<String>,
    /// The country, as a name or a code.
    pub country: Option<String>,
    /// Where consent to be written to was given.
    pub consent_source: Option<String>,
    /// The words that were agreed to.
    pub consent_wording: Option<String>,
    /// When the consent was given.
    pub consent_at: Option<String>,
    /// From when on the consent does not hold any more.
    pub consent_expires_at: Option<String>,
    /// The page where the e-mail address is published for business.
    pub address_source_url: Option<String>,
    /// When it was seen there.
    pub address_seen_at: Option<String>,
}

impl RawProfile {
    /// The place of a field's value.
    pub const fn slot(&mut self, field: Field) -> &mut Option<String> {
        match field {
            Field::Source => &mut self.source,
            Field::Username => &mut self.username,
            Field::Name => &mut self.name,
            Field::Email => &mut self.email,
            Field::ProfileUrl => &mut self.profile_url,
            Field::FollowerCount => &mut self.follower_count,
            Field::Bio => &mut self.bio,
            Field::Verified => &mut self.verified,
            Field::Location => &mut self.location,
            Field::Country => &mut self.country,
            Field::ConsentSource => &mut self.consent_source,
            Field::ConsentWording => &mut self.consent_wording,
            Field::ConsentAt => &mut self.consent_at,
            Field::ConsentExpiresAt => &mut self.consent_expires_at,
            Field::AddressSourceUrl => &mut self.address_source_url,
            Field::AddressSeenAt => &mut self.address_seen_at,
        }
    }

    /// A field's value.
    pub fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::Source => &self.source,
            Field::Username => &self.username,
            Field::Name => &self.name,
            Field::Email => &self.email,
            Field::ProfileUrl => &self.profile_url,
            Field::FollowerCount => &self.follower_count,
            Field::Bio => &self.bio,
            Field::Verified => &self.verified,
            Field::Location => &self.location,
            Field::Country => &self.country,
            Field::ConsentSource => &self.consent_source,
            Field::ConsentWording => &self.consent_wording,
            Field::ConsentAt => &self.consent_at,
            Field::ConsentExpiresAt => &self.consent_expires_at,
            Field::AddressSourceUrl => &self.address_source_url,
            Field::AddressSeenAt => &self.address_seen_at,
        }
        .as_deref()
    }

    /// Leaves out what shows that they may be written to, which is about one address.
    pub fn forget_evidence(&mut self) {
        for field in Field::EVIDENCE {
            *self.slot(field) = None;
        }
    }
}

/// Debug output shows no personal data.
impl std::fmt::Debug for RawProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawProfile").field("line", &self.line).finish_non_exhaustive()
    }
}

/// A row that can't be read as a row of its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDefect {
    /// The physical line where the row starts, from 1.
    pub line: u64,
    /// What is wrong.
    pub defect: Defect,
    /// The row's bytes, cut to [`KEPT_RAW_BYTES`].
    pub raw: Vec<u8>,
}

impl RowDefect {
    /// A defect of the row as a whole.
    pub fn of_row(line: u64, reason: RejectReason, detail: impl Into<String>, raw: &[u8]) -> Self {
        Self::of_field(line, reason, "row", detail, raw)
    }

    /// A defect of one field.
    pub fn of_field(line: u64, reason: RejectReason, field: &str, detail: impl Into<String>, raw: &[u8]) -> Self {
        let defect = Defect { reason, field: field.to_owned(), detail: detail.into() };
        Self { line, defect, raw: kept(raw) }
    }
}

/// The part of a row's bytes that is kept.
pub fn kept(raw: &[u8]) -> Vec<u8> {
    raw[..raw.len().min(KEPT_RAW_BYTES)].to_vec()
}

/// One row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A row to normalise and validate.
    Profile(Box<RawProfile>),
    /// A row that can't be read.
    Defect(Box<RowDefect>),
}

/// Yields raw rows, page by page; blocking, so that a parser can be a plain loop.
pub trait PageSource: Send + 'static {
    /// The next page, of at most [`PAGE_ROWS`] rows; `None` at the end.
    fn next_page(&mut self) -> Result<Option<Vec<Row>>, SourceError>;
}

/// Why a source can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file can't be opened or read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("`{path}` is empty")]
    Empty {
        /// The file.
        path: String,
    },
    /// It is no text in one of the formats.
    #[error("`{path}` is neither CSV nor JSON Lines: {found}")]
    NotTabular {
        /// The file.
        path: String,
        /// What it looks like, and what can be done.
        found: String,
    },
    /// Not enough of its columns are known.
    #[error(
        "`{path}`: {problem}; it has the columns {found}. Name them with --map COLUMN=FIELD, where FIELD is one of {fields}"
    )]
    Columns {
        /// The file.
        path: String,
        /// What is missing.
        problem: String,
        /// The columns that were found.
        found: String,
        /// The fields there are.
        fields: String,
    },
    /// A mapping that can't be applied.
    #[error("--map {mapping}: {problem}")]
    Mapping {
        /// The mapping, as given.
        mapping: String,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// An encoding that nobody knows.
    #[error("`{label}` is no known encoding; try utf-8, utf-16le, utf-16be or windows-1252")]
    Encoding {
        /// The label, as given.
        label: String,
    },
}

/// Reads a source on a thread of its own and hands its pages over; at most `in_flight` pages wait, so that memory
/// stays bounded while parsing and storing overlap.
pub fn feed(mut source: impl PageSource, in_flight: usize) -> mpsc::Receiver<Result<Vec<Row>, SourceError>> {
    let (sender, receiver) = mpsc::channel(in_flight.max(1));
    tokio::task::spawn_blocking(move || {
        loop {
            let page = match source.next_page() {
                Ok(Some(page)) => Ok(page),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let failed = page.is_err();
            // A receiver that is gone means that the import was given up.
            if sender.blocking_send(page).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
