//! Blind indexes: HMAC-SHA-256 (RFC 2104, FIPS 180-4) over the canonical form of a handle or an address, cut to 16
//! bytes. Equal values have equal indexes within one program, and nothing else can be learnt without the key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The version of the key and of the normalisation that an index was made with; stored beside it.
pub const INDEX_VERSION: i16 = 1;

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
