//! The keys of programs and organisations: for blind indexes, for links, and for what is sealed without a lead.

use std::fmt;

use domain::{
    email::EmailAddress,
    handle::Handle,
    id::{OrganisationId, ProgramId},
};
use zeroize::Zeroizing;

use crate::{
    aead::{self, KEY_BYTES},
    data_key::DataKey,
    index::{BlindIndex, IndexKey},
};

/// The random keys of one program. They don't depend on the master key, which only wraps them.
#[derive(Clone)]
pub struct ProgramKeys {
    program: ProgramId,
    index: IndexKey,
    token: Zeroizing<[u8; KEY_BYTES]>,
    rejects: DataKey,
}

impl ProgramKeys {
    /// Makes new random keys.
    pub fn generate(program: ProgramId) -> Self {
        Self::generate_with(program, IndexKey::generate())
    }

    /// Makes new random keys for a program of an organisation, whose blind indexes it shares.
    pub fn generate_in(program: ProgramId, organisation: &OrganisationKeys) -> Self {
        Self::generate_with(program, organisation.index().clone())
    }

    fn generate_with(program: ProgramId, index: IndexKey) -> Self {
        Self { program, index, token: Zeroizing::new(aead::random()), rejects: DataKey::generate(program) }
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.index.bytes().as_slice(), self.token.as_slice(), self.rejects.bytes().as_slice()].concat())
    }

    pub(crate) fn from_bytes(program: ProgramId, bytes: &[u8]) -> Option<Self> {
        let (index, rest) = bytes.split_first_chunk::<KEY_BYTES>()?;
        let (token, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
        let rejects: [u8; KEY_BYTES] = rest.try_into().ok()?;
        Some(Self {
            program,
            index: IndexKey::from_bytes(*index),
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
        self.index.username(username)
    }

    /// The blind index of an address; also what names a recipient in outreach and suppressions.
    pub fn email_index(&self, email: &EmailAddress) -> BlindIndex {
        self.index.email(email)
    }

    /// The key of its blind indexes, which is its organisation's.
    pub const fn index(&self) -> &IndexKey {
        &self.index
    }

    /// The key that refused rows are sealed under.
    pub const fn rejects(&self) -> &DataKey {
        &self.rejects
    }

    pub(crate) fn token_key(&self) -> &[u8; KEY_BYTES] {
        &self.token
    }
}

/// The random keys of an organisation: of its blind indexes, and for what is sealed under it.
///
/// They are wrapped just as those of the program with the same id would be: an organisation that was made for one program has
/// that program's keys, byte for byte.
#[derive(Debug, Clone)]
pub struct OrganisationKeys(ProgramKeys);

impl OrganisationKeys {
    /// Makes new random keys.
    pub fn generate(organisation: OrganisationId) -> Self {
        Self(ProgramKeys::generate(ProgramId::from_uuid(organisation.as_uuid())))
    }

    pub(crate) const fn of(keys: ProgramKeys) -> Self {
        Self(keys)
    }

    pub(crate) const fn as_program(&self) -> &ProgramKeys {
        &self.0
    }

    /// The key of its blind indexes.
    pub const fn index(&self) -> &IndexKey {
        self.0.index()
    }

    /// The key that seals what belongs to no program and no lead.
    pub const fn sealing(&self) -> &DataKey {
        self.0.rejects()
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
    use domain::suppression::DomainPattern;

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
    fn an_organisation_that_was_made_for_a_program_opens_that_programs_keys() {
        let program = ProgramId::generate();
        let vault = Vault::new(MasterKey::generate(), vec![]);
        let keys = ProgramKeys::generate(program);
        let wrapped = vault.wrap_program_keys(program, &keys);
        let organisation = OrganisationId::from_uuid(program.as_uuid());
        let opened = vault.unwrap_organisation_keys(organisation, &wrapped).unwrap();
        let email = EmailAddress::parse("ann@example.com").unwrap();
        assert_eq!(opened.index().email(&email), keys.email_index(&email));
        assert!(vault.unwrap_organisation_keys(OrganisationId::generate(), &wrapped).is_err());
    }

    #[test]
    fn programs_of_an_organisation_share_its_indexes_and_nothing_else() {
        let organisation = OrganisationId::generate();
        let vault = Vault::new(MasterKey::generate(), vec![]);
        let keys = OrganisationKeys::generate(organisation);
        let wrapped = vault.wrap_organisation_keys(organisation, &keys);
        let keys = vault.unwrap_organisation_keys(organisation, &wrapped).unwrap();
        let (one, two) = (
            ProgramKeys::generate_in(ProgramId::generate(), &keys),
            ProgramKeys::generate_in(ProgramId::generate(), &keys),
        );
        let email = EmailAddress::parse("ann@example.com").unwrap();
        assert_eq!(one.email_index(&email), two.email_index(&email));
        assert_eq!(one.email_index(&email), keys.index().email(&email));
        assert_ne!(one.token_key(), two.token_key());
        assert_ne!(one.rejects().bytes(), two.rejects().bytes());
    }

    #[test]
    fn an_address_a_user_name_and_a_domain_of_one_spelling_have_different_indexes() {
        let keys = ProgramKeys::generate(ProgramId::generate());
        let domain = DomainPattern::parse("ann.example").unwrap();
        let handle = Handle::parse("ann.example").unwrap();
        assert_ne!(keys.index().domain(&domain), keys.index().username(&handle));
        let email = EmailAddress::parse("ann@a.ann.example").unwrap();
        let wildcard = DomainPattern::parse("*.ann.example").unwrap();
        assert!(keys.index().domains_of(&email).contains(&keys.index().domain(&wildcard)));
        assert!(!keys.index().domains_of(&email).contains(&keys.index().domain(&domain)));
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
