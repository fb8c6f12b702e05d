//! A program's own keys: for blind indexes, for links, and for rows that were refused.

use std::fmt;

use domain::{email::EmailAddress, handle::Handle, id::ProgramId};
use zeroize::Zeroizing;

use crate::{
    aead::{self, KEY_BYTES},
    data_key::DataKey,
    index::BlindIndex,
};

/// The random keys of one program. They don't depend on the master key, which only wraps them.
#[derive(Clone)]
pub struct ProgramKeys {
    program: ProgramId,
    index: Zeroizing<[u8; KEY_BYTES]>,
    token: Zeroizing<[u8; KEY_BYTES]>,
    rejects: DataKey,
}

impl ProgramKeys {
    /// Makes new random keys.
    pub fn generate(program: ProgramId) -> Self {
        Self {
            program,
            index: Zeroizing::new(aead::random()),
            token: Zeroizing::new(aead::random()),
            rejects: DataKey::generate(program),
        }
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.index.as_slice(), self.token.as_slice(), self.rejects.bytes().as_slice()].concat())
    }

    pub(crate) fn from_bytes(program: ProgramId, bytes: &[u8]) -> Option<Self> {
        let (index, rest) = bytes.split_first_chunk::<KEY_BYTES>()?;
        let (token, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
        let rejects: [u8; KEY_BYTES] = rest.try_into().ok()?;
        Some(Self {
            program,
            index: Zeroizing::new(*index),
            token: Zeroizing::new(*token),
            rejects: DataKey::from_bytes(program, rejects),
        })
    }

    /// The program they belong to.
    pub const fn program(&self) -> ProgramId {
        self.program
    }

    /// The blind index of a user name.
    pub fn username_index(&self, username: &Handle) -> BlindIndex {
        BlindIndex::make(&self.index, "username", &username.canonical())
    }

    /// The blind index of an address; also what names a recipient in outreach and suppressions.
    pub fn email_index(&self, email: &EmailAddress) -> BlindIndex {
        BlindIndex::make(&self.index, "email", &email.canonical())
    }

    /// The key that refused rows are sealed under.
    pub const fn rejects(&self) -> &DataKey {
        &self.rejects
    }

    pub(crate) fn token_key(&self) -> &[u8; KEY_BYTES] {
        &self.token
    }
}

/// Debug output shows no key.
impl fmt::Debug for ProgramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProgramKeys({})", self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MasterKey, Vault};

    #[test]
    fn keys_survive_wrapping_and_belong_to_one_program() {
        let program = ProgramId::generate();
        let vault = Vault::new(MasterKey::generate(), vec![]);
        let keys = ProgramKeys::generate(program);
        let wrapped = vault.wrap_program_keys(program, &keys);
        let opened = vault.unwrap_program_keys(program, &wrapped).unwrap();
        let email = EmailAddress::parse("ann@example.com").unwrap();
        assert_eq!(opened.email_index(&email), keys.email_index(&email));
        assert!(vault.unwrap_program_keys(ProgramId::generate(), &wrapped).is_err());
    }

    #[test]
    fn spellings_share_an_index_and_programs_do_not() {
        let one = ProgramKeys::generate(ProgramId::generate());
        let two = ProgramKeys::generate(ProgramId::generate());
        let (upper, lower) = (Handle::parse("@Ann").unwrap(), Handle::parse("ann").unwrap());
        assert_eq!(one.username_index(&upper), one.username_index(&lower));
        assert_ne!(one.username_index(&lower), two.username_index(&lower));
        let email = EmailAddress::parse("ann@example.com").unwrap();
        assert_ne!(one.email_index(&email), two.email_index(&email));
    }
}
