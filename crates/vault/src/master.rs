//! The master key, which wraps all other keys and stays outside of the database.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::id::{LeadId, OrganisationId, ProgramId};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    VaultError,
    aead::{self, KEY_BYTES},
    data_key::DataKey,
    program::{OrganisationKeys, ProgramKeys},
};

const PREFIX: &str = "lmk1_";
const ID_BYTES: usize = 8;

/// A master key: 256 random bits, written as `lmk1_` and 43 characters of URL-safe base64.
///
/// Its id is a hash of the key, so a key can't be configured under the wrong id.
#[derive(Clone)]
pub struct MasterKey {
    key: Zeroizing<[u8; KEY_BYTES]>,
    id: [u8; ID_BYTES],
}

/// The text is no master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a master key: it must be `lmk1_` and 43 characters, as `leadmill keys generate` prints it")]
pub struct MasterKeyError;

impl MasterKey {
    /// Makes a new random key.
    pub fn generate() -> Self {
        Self::from_bytes(aead::random())
    }

    fn from_bytes(key: [u8; KEY_BYTES]) -> Self {
        let digest = Sha256::new().chain_update(b"leadmill master key id\0").chain_update(key).finalize();
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest[..ID_BYTES]);
        Self { key: Zeroizing::new(key), id }
    }

    /// The text to configure. Keep it safe and apart from the database: without it nothing can be read.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*self.key)))
    }

    /// The id: 16 hexadecimal digits; not secret.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }
}

impl FromStr for MasterKey {
    type Err = MasterKeyError;

    fn from_str(text: &str) -> Result<Self, MasterKeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(MasterKeyError)?;
        let mut bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| MasterKeyError)?;
        let key = bytes.as_slice().try_into().map_err(|_| MasterKeyError);
        bytes.zeroize();
        key.map(Self::from_bytes)
    }
}

/// Debug output shows the id only.
impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

/// The master keys that are configured: the current one wraps, older ones still unwrap.
#[derive(Debug, Clone)]
pub struct Vault {
    current: MasterKey,
    older: Vec<MasterKey>,
}

impl Vault {
    /// A vault that wraps with `current` and also unwraps with `older`.
    pub fn new(current: MasterKey, older: Vec<MasterKey>) -> Self {
        Self { current, older }
    }

    /// The id of the key that wraps.
    pub fn current_id(&self) -> String {
        self.current.id()
    }

    /// Wraps a lead's key, for `lead_keys.wrapped_key`.
    pub fn wrap_lead_key(&self, program: ProgramId, lead: LeadId, key: &DataKey) -> Vec<u8> {
        self.wrap(&associated("lead_keys.wrapped_key", program, lead.as_uuid().as_bytes()), key.bytes())
    }

    /// Unwraps a lead's key.
    pub fn unwrap_lead_key(&self, program: ProgramId, lead: LeadId, wrapped: &[u8]) -> Result<DataKey, VaultError> {
        let what = "lead_keys.wrapped_key";
        let bytes = self.unwrap(&associated(what, program, lead.as_uuid().as_bytes()), wrapped, what)?;
        let key = bytes.as_slice().try_into().map_err(|_| VaultError::Format { what })?;
        Ok(DataKey::from_bytes(program, key))
    }

    /// Wraps a program's keys, for `programs.wrapped_keys`.
    pub fn wrap_program_keys(&self, program: ProgramId, keys: &ProgramKeys) -> Vec<u8> {
        self.wrap(&associated("programs.wrapped_keys", program, &[]), keys.to_bytes().as_slice())
    }

    /// Unwraps a program's keys.
    pub fn unwrap_program_keys(&self, program: ProgramId, wrapped: &[u8]) -> Result<ProgramKeys, VaultError> {
        let what = "programs.wrapped_keys";
        let bytes = self.unwrap(&associated(what, program, &[]), wrapped, what)?;
        ProgramKeys::from_bytes(program, &bytes).ok_or(VaultError::Format { what })
    }

    /// Wraps an organisation's keys, for `organisations.wrapped_keys`: as those of the program with the same id.
    pub fn wrap_organisation_keys(&self, organisation: OrganisationId, keys: &OrganisationKeys) -> Vec<u8> {
        self.wrap_program_keys(ProgramId::from_uuid(organisation.as_uuid()), keys.as_program())
    }

    /// Unwraps an organisation's keys.
    pub fn unwrap_organisation_keys(
        &self,
        organisation: OrganisationId,
        wrapped: &[u8],
    ) -> Result<OrganisationKeys, VaultError> {
        self.unwrap_program_keys(ProgramId::from_uuid(organisation.as_uuid()), wrapped).map(OrganisationKeys::of)
    }

    fn wrap(&self, associated: &[u8], secret: &[u8]) -> Vec<u8> {
        let mut wrapped = self.current.id.to_vec();
        wrapped.extend_from_slice(&aead::seal(&self.current.key, associated, secret));
        wrapped
    }

    fn unwrap(&self, associated: &[u8], wrapped: &[u8], what: &'static str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (id, sealed) = wrapped.split_at_checked(ID_BYTES).ok_or(VaultError::Format { what })?;
        let master = std::iter::once(&self.current)
            .chain(&self.older)
            .find(|master| master.id == id)
            .ok_or_else(|| VaultError::UnknownMasterKey { what, key_id: hex::encode(id) })?;
        aead::open(&master.key, associated, sealed, what)
    }
}

fn associated(what: &str, program: ProgramId, row: &[u8]) -> Vec<u8> {
    [what.as_bytes(), b"\0", program.as_uuid().as_bytes(), row].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    #[test]
    fn a_master_key_survives_text_and_hides_in_debug_output() {
        let key = MasterKey::generate();
        let text = key.to_text();
        assert_eq!(text.parse::<MasterKey>().unwrap().id(), key.id());
        assert!(!format!("{key:?}").contains(&text[5..20]));
        assert_eq!("swordfish".parse::<MasterKey>().unwrap_err(), MasterKeyError);
    }

    #[test]
    fn a_rotated_master_key_still_opens_what_the_old_one_wrapped() {
        let (program, lead) = (ProgramId::generate(), LeadId::generate());
        let (old, new) = (MasterKey::generate(), MasterKey::generate());
        let key = DataKey::generate(program);
        let sealed = key.seal(Column::Bio, lead, b"hi");
        let wrapped = Vault::new(old.clone(), vec![]).wrap_lead_key(program, lead, &key);
        let rotated = Vault::new(new.clone(), vec![old.clone()]);
        let opened = rotated.unwrap_lead_key(program, lead, &wrapped).unwrap();
        assert_eq!(opened.open_text(Column::Bio, lead, &sealed).unwrap(), "hi");
        let without = Vault::new(new, vec![]).unwrap_lead_key(program, lead, &wrapped).unwrap_err();
        assert_eq!(without, VaultError::UnknownMasterKey { what: "lead_keys.wrapped_key", key_id: old.id() });
    }

    #[test]
    fn a_wrapped_key_belongs_to_one_lead() {
        let (program, lead) = (ProgramId::generate(), LeadId::generate());
        let vault = Vault::new(MasterKey::generate(), vec![]);
        let wrapped = vault.wrap_lead_key(program, lead, &DataKey::generate(program));
        assert!(vault.unwrap_lead_key(program, LeadId::generate(), &wrapped).is_err());
        assert!(vault.unwrap_lead_key(ProgramId::generate(), lead, &wrapped).is_err());
    }
}
