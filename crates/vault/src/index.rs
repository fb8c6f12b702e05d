//! Blind indexes: HMAC-SHA-256 (RFC 2104, FIPS 180-4) over the canonical form of a handle or an address, cut to 16
//! bytes. Equal values have equal indexes within one organisation, and nothing else can be learnt without the key.

use std::fmt;

use domain::{
    email::EmailAddress,
    handle::Handle,
    suppression::{DomainPattern, Subject},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::aead::{self, KEY_BYTES};

/// The version of the key and of the normalisation that an index was made with; stored beside it.
pub const INDEX_VERSION: i16 = 1;

/// The key of an organisation's blind indexes. Every program of the organisation has it too, so that an index means the same
/// person in all of them.
#[derive(Clone)]
pub struct IndexKey(Zeroizing<[u8; KEY_BYTES]>);

impl IndexKey {
    pub(crate) fn generate() -> Self {
        Self(Zeroizing::new(aead::random()))
    }

    pub(crate) fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The blind index of a user name, which says nothing of the network.
    pub fn username(&self, username: &Handle) -> BlindIndex {
        BlindIndex::make(&self.0, "username", &username.canonical())
    }

    /// The blind index of an address; also what names a recipient in outreach and suppressions.
    pub fn email(&self, email: &EmailAddress) -> BlindIndex {
        BlindIndex::make(&self.0, "email", &email.canonical())
    }

    /// The blind index of a domain, or of the domains below one.
    pub fn domain(&self, pattern: &DomainPattern) -> BlindIndex {
        BlindIndex::make(&self.0, "domain", &pattern.canonical())
    }

    /// The blind indexes of everything that covers an address: its domain, and the wildcards above it.
    pub fn domains_of(&self, email: &EmailAddress) -> Vec<BlindIndex> {
        DomainPattern::covering(email).iter().map(|pattern| self.domain(pattern)).collect()
    }

    /// The blind index of whom a suppression is about.
    pub fn subject(&self, subject: &Subject) -> BlindIndex {
        match subject {
            Subject::Email(email) => self.email(email),
            Subject::Handle(handle) => self.username(handle),
            Subject::Domain(pattern) => self.domain(pattern),
        }
    }
}

/// Debug output shows no key.
impl fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IndexKey(***)")
    }
}

/// A blind index: 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlindIndex([u8; 16]);

impl BlindIndex {
    /// Wraps an index that was read from the database.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the database.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes, owned, for a query's parameter.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub(crate) fn make(key: &[u8; 32], kind: &str, canonical: &str) -> Self {
        let mut cut = [0; 16];
        cut.copy_from_slice(&mac(key, &[kind.as_bytes(), b"\0", canonical.as_bytes()])[..16]);
        Self(cut)
    }
}

impl TryFrom<&[u8]> for BlindIndex {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

/// An index is no personal data by itself, but it links rows: only its first bytes are shown.
impl fmt::Debug for BlindIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlindIndex({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    keyed(key, parts).finalize().into_bytes().into()
}

/// Whether `tag` is the beginning of the MAC over `parts`; the comparison takes the same time wherever they differ.
pub(crate) fn verify(key: &[u8; 32], parts: &[&[u8]], tag: &[u8]) -> bool {
    keyed(key, parts).verify_truncated_left(tag).is_ok()
}

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}
