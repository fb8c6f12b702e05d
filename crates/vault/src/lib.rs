//! Sealing of personal fields.
//!
//! Every lead has a data key of its own; the data key is stored wrapped by the master key. Deleting the wrapped key
//! makes everything sealed under it unreadable: that is what erasure does. Beside the sealed columns stand blind
//! indexes, keyed hashes by which a handle or an address can be found again without being readable.
//!
//! **Architecture invariant:** this crate does no I/O. It never sees a database, and what it returns is bytes for one
//! column of one row: the associated data binds every ciphertext to its table, column and row, so that a byte that was
//! changed or moved is refused.
//!
//! To seal another column, add a variant to [`Column`]. To seal something of a program instead of a lead, seal it under
//! [`ProgramKeys::rejects`].

mod aead;
mod data_key;
mod index;
mod master;
mod program;
pub mod token;

pub use data_key::{Column, DataKey, Sealed};
pub use index::{BlindIndex, INDEX_VERSION, IndexKey};
pub use master::{MasterKey, MasterKeyError, Vault};
pub use program::{OrganisationKeys, ProgramKeys};

/// What can go wrong when something sealed is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The bytes were changed, belong to another row or column, or were sealed under another key.
    #[error("{what} cannot be opened: it was changed, moved, or sealed under another key")]
    Refused {
        /// What was to be opened, such as `leads.email`.
        what: &'static str,
    },
    /// The bytes are too short or of an unknown format version.
    #[error("{what} is not in a known sealed format")]
    Format {
        /// What was to be opened.
        what: &'static str,
    },
    /// The key was wrapped by a master key that isn't configured.
    #[error("{what} was wrapped by master key {key_id}, which is not configured; add it to `vault.old_master_keys`")]
    UnknownMasterKey {
        /// What was to be unwrapped.
        what: &'static str,
        /// The master key's id: 16 hexadecimal digits.
        key_id: String,
    },
    /// The plaintext isn't what the column holds.
    #[error("{what} does not hold UTF-8 text")]
    NotText {
        /// What was opened.
        what: &'static str,
    },
}
