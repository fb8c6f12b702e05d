//! The token in an unsubscribe link: opaque, hard to forge, and valid for as long as the program exists, also after the
//! lead was erased (RFC 8058 §5).
//!
//! `base64url(version || program id || recipient index || MAC)`, the MAC being HMAC-SHA-256 under the program's token
//! key, cut to 13 bytes (104 bits): 62 characters, so that `u+TOKEN` fits into the 64 bytes of a local part (RFC 5321
//! §4.5.3.1.1).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::id::ProgramId;

use crate::{
    index::{BlindIndex, mac, verify},
    program::ProgramKeys,
};

const VERSION: u8 = 1;
const BODY_BYTES: usize = 1 + 16 + 16;
const MAC_BYTES: usize = 13;
const TOKEN_BYTES: usize = BODY_BYTES + MAC_BYTES;

impl ProgramKeys {
    /// Makes the token for a recipient.
    pub fn unsubscribe_token(&self, recipient: BlindIndex) -> String {
        let mut token = Vec::with_capacity(TOKEN_BYTES);
        token.push(VERSION);
        token.extend_from_slice(self.program().as_uuid().as_bytes());
        token.extend_from_slice(recipient.as_bytes());
        let mac = mac(self.token_key(), &[b"unsubscribe\0", &token]);
        token.extend_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The recipient that a token names; `None` if it wasn't made with this program's key.
    pub fn verify_unsubscribe(&self, token: &str) -> Option<BlindIndex> {
        let bytes = decode(token)?;
        let (body, found) = bytes.split_at(BODY_BYTES);
        verify(self.token_key(), &[b"unsubscribe\0", body], found)
            .then(|| BlindIndex::try_from(&body[17..]).ok())
            .flatten()
    }
}

/// The program that a token claims to be of; the claim still has to be verified with that program's key.
pub fn program_of(token: &str) -> Option<ProgramId> {
    let bytes = decode(token)?;
    uuid::Uuid::from_slice(&bytes[1..17]).ok().map(ProgramId::from_uuid)
}

fn decode(token: &str) -> Option<[u8; TOKEN_BYTES]> {
    // Bounded before it is decoded: the token comes from anybody.
    if token.len() > 2 * TOKEN_BYTES {
        return None;
    }
    let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
    (bytes[0] == VERSION).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_recipient_and_no_other_program_takes_it() {
        let keys = ProgramKeys::generate(ProgramId::generate());
        let recipient = BlindIndex::from_bytes([7; 16]);
        let token = keys.unsubscribe_token(recipient);
        assert_eq!(token.len(), 62);
        assert_eq!(program_of(&token), Some(keys.program()));
        assert_eq!(keys.verify_unsubscribe(&token), Some(recipient));
        assert_eq!(ProgramKeys::generate(keys.program()).verify_unsubscribe(&token), None);
    }

    #[test]
    fn a_changed_token_is_refused() {
        let keys = ProgramKeys::generate(ProgramId::generate());
        let token = keys.unsubscribe_token(BlindIndex::from_bytes([7; 16]));
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed == token || keys.verify_unsubscribe(&changed).is_none());
        }
        assert_eq!(keys.verify_unsubscribe(""), None);
        assert_eq!(keys.verify_unsubscribe(&"A".repeat(10_000)), None);
    }
}
