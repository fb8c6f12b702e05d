//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with a random 192-bit nonce: `version || nonce || ciphertext || tag`.
//!
//! The nonce is long enough to be random for every message under one key without counting.

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::VaultError;

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// How much longer a sealed text is than the text.
pub const OVERHEAD: usize = 1 + NONCE_BYTES + TAG_BYTES;

/// Fills an array from the operating system's randomness.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// Seals `plaintext` under `key`, bound to `associated`.
pub fn seal(key: &[u8; KEY_BYTES], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    // A nonce needs only never to come twice: a generator that the operating system seeds spares a call for each field.
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let tag = XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&XNonce::from(nonce), associated, (&mut sealed[1 + NONCE_BYTES..]).into())
        .expect("a field is shorter than the cipher's limit of 256 GiB");
    sealed.extend_from_slice(&tag);
    sealed
}

/// Opens what [`seal`] made with the same key and associated data.
pub fn open(
    key: &[u8; KEY_BYTES],
    associated: &[u8],
    sealed: &[u8],
    what: &'static str,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    if sealed.len() < OVERHEAD || sealed[0] != VERSION {
        return Err(VaultError::Format { what });
    }
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&sealed[1..=NONCE_BYTES]);
    let (body, tag) = sealed[1 + NONCE_BYTES..].split_at(sealed.len() - OVERHEAD);
    let tag = Tag::try_from(tag).map_err(|_| VaultError::Format { what })?;
    let mut plaintext = Zeroizing::new(body.to_vec());
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(&XNonce::from(nonce), associated, plaintext.as_mut_slice().into(), &tag)
        .map_err(|_| VaultError::Refused { what })?;
    Ok(plaintext)
}
