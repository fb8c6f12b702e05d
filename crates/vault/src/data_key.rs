//! A lead's own key, and the columns that are sealed under it.

use std::fmt;

use domain::id::{LeadId, ProgramId};
use zeroize::Zeroizing;

use crate::{
    VaultError,
    aead::{self, KEY_BYTES},
};

/// Bytes of a sealed column.
pub type Sealed = Vec<u8>;

/// A sealed column: part of the associated data, so a ciphertext can't be moved to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// `leads.name`
    Name,
    /// `leads.username`
    Username,
    /// `leads.email`
    Email,
    /// `leads.profile_url`
    ProfileUrl,
    /// `leads.bio`
    Bio,
    /// `leads.location`
    Location,
    /// `enriched_leads.notes`
    Notes,
    /// `enriched_leads.message`
    Message,
    /// `enriched_leads.compliance_notes`
    ComplianceNotes,
    /// `captured_mails.mail`
    CapturedMail,
    /// `outreach.reply`: what the mail server answered, which may name the recipient
    ServerReply,
    /// `rejected_leads.raw`
    RejectedRow,
    /// `contact_evidence.evidence`: what shows that a lead may be written to
    ContactEvidence,
    /// `collection_runs.file_name`
    RunFileName,
    /// `suppression_causes.evidence`: why somebody was suppressed by hand, which may name the person
    SuppressionEvidence,
    /// `suppression_lifts.evidence`: the consent that ended an objection
    LiftEvidence,
}

impl Column {
    /// `table.column`; never changes, since stored ciphertexts are bound to it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "leads.name",
            Self::Username => "leads.username",
            Self::Email => "leads.email",
            Self::ProfileUrl => "leads.profile_url",
            Self::Bio => "leads.bio",
            Self::Location => "leads.location",
            Self::Notes => "enriched_leads.notes",
            Self::Message => "enriched_leads.message",
            Self::ComplianceNotes => "enriched_leads.compliance_notes",
            Self::CapturedMail => "captured_mails.mail",
            Self::ServerReply => "outreach.reply",
            Self::RejectedRow => "rejected_leads.raw",
            Self::ContactEvidence => "contact_evidence.evidence",
            Self::RunFileName => "collection_runs.file_name",
            Self::SuppressionEvidence => "suppression_causes.evidence",
            Self::LiftEvidence => "suppression_lifts.evidence",
        }
    }

    fn associated(self, program: ProgramId, row: uuid::Bytes) -> Vec<u8> {
        let mut associated = Vec::with_capacity(64);
        associated.extend_from_slice(self.name().as_bytes());
        associated.push(0);
        associated.extend_from_slice(program.as_uuid().as_bytes());
        associated.extend_from_slice(&row);
        associated
    }
}

/// A 256-bit key for the fields of one lead (or the refused rows of one program).
///
/// Knows whose it is, so that a caller can't bind a ciphertext to the wrong row.
#[derive(Clone)]
pub struct DataKey {
    key: Zeroizing<[u8; KEY_BYTES]>,
    program: ProgramId,
}

impl DataKey {
    /// Makes a new random key for a row of `program`.
    pub fn generate(program: ProgramId) -> Self {
        Self { key: Zeroizing::new(aead::random()), program }
    }

    pub(crate) fn from_bytes(program: ProgramId, key: [u8; KEY_BYTES]) -> Self {
        Self { key: Zeroizing::new(key), program }
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// Seals a column of the lead's row.
    pub fn seal(&self, column: Column, lead: LeadId, plaintext: &[u8]) -> Sealed {
        self.seal_row(column, lead.as_uuid(), plaintext)
    }

    /// Opens a column of the lead's row.
    pub fn open(&self, column: Column, lead: LeadId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open_row(column, lead.as_uuid(), sealed)
    }

    /// Opens a column that holds text.
    pub fn open_text(&self, column: Column, lead: LeadId, sealed: &[u8]) -> Result<String, VaultError> {
        let bytes = self.open(column, lead, sealed)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| VaultError::NotText { what: column.name() })
    }

    /// Seals a column that holds bulky text: compressed (zstd, level 1) first.
    pub fn seal_compressed(&self, column: Column, row: uuid::Uuid, plaintext: &[u8]) -> Sealed {
        let packed = zstd::bulk::compress(plaintext, 1).expect("compressing into memory cannot fail");
        self.seal_row(column, row, &packed)
    }

    /// Opens what [`Self::seal_compressed`] made; more than `max_bytes` of text is refused.
    pub fn open_compressed(
        &self,
        column: Column,
        row: uuid::Uuid,
        sealed: &[u8],
        max_bytes: usize,
    ) -> Result<Vec<u8>, VaultError> {
        let packed = self.open_row(column, row, sealed)?;
        zstd::bulk::decompress(&packed, max_bytes).map_err(|_| VaultError::Format { what: column.name() })
    }

    /// Seals a column of a row that isn't the lead's own, such as a refused row.
    pub fn seal_row(&self, column: Column, row: uuid::Uuid, plaintext: &[u8]) -> Sealed {
        aead::seal(&self.key, &column.associated(self.program, *row.as_bytes()), plaintext)
    }

    /// Opens what [`Self::seal_row`] made.
    pub fn open_row(&self, column: Column, row: uuid::Uuid, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        aead::open(&self.key, &column.associated(self.program, *row.as_bytes()), sealed, column.name())
    }
}

/// Debug output shows no key.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ciphertext_opens_only_in_its_own_column_and_row() {
        let (program, lead) = (ProgramId::generate(), LeadId::generate());
        let key = DataKey::generate(program);
        let sealed = key.seal(Column::Email, lead, b"ann@example.com");
        assert_eq!(key.open_text(Column::Email, lead, &sealed).unwrap(), "ann@example.com");
        let refused = VaultError::Refused { what: "leads.bio" };
        assert_eq!(key.open_text(Column::Bio, lead, &sealed), Err(refused));
        assert!(key.open(Column::Email, LeadId::generate(), &sealed).is_err());
        let elsewhere = DataKey::from_bytes(ProgramId::generate(), *key.bytes());
        assert!(elsewhere.open(Column::Email, lead, &sealed).is_err());
        assert!(DataKey::generate(program).open(Column::Email, lead, &sealed).is_err());
    }

    #[test]
    fn the_same_text_never_looks_the_same() {
        let (program, lead) = (ProgramId::generate(), LeadId::generate());
        let key = DataKey::generate(program);
        assert_ne!(key.seal(Column::Bio, lead, b"hello"), key.seal(Column::Bio, lead, b"hello"));
    }

    #[test]
    fn bulky_text_is_compressed_and_bounded() {
        let key = DataKey::generate(ProgramId::generate());
        let row = uuid::Uuid::now_v7();
        let text = vec![b'x'; 100_000];
        let sealed = key.seal_compressed(Column::CapturedMail, row, &text);
        assert!(sealed.len() < 1_000);
        assert_eq!(key.open_compressed(Column::CapturedMail, row, &sealed, 200_000).unwrap(), text);
        assert!(key.open_compressed(Column::CapturedMail, row, &sealed, 50_000).is_err());
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_refused(text in proptest::collection::vec(any::<u8>(), 0..64), at in any::<proptest::sample::Index>(), bit in 0..8) {
            let (program, lead) = (ProgramId::generate(), LeadId::generate());
            let key = DataKey::generate(program);
            let mut sealed = key.seal(Column::Name, lead, &text);
            let index = at.index(sealed.len());
            sealed[index] ^= 1_u8 << bit;
            prop_assert!(key.open(Column::Name, lead, &sealed).is_err());
        }
    }
}
