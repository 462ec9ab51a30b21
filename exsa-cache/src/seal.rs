//! Tags of blocks: checksums, or encryption with authentication.

use crate::{CacheError, CacheKey};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use std::fmt;
use std::io;

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 16;

/// Seals and opens the blocks of files.
///
/// The tag of a block covers the file's header, the number of the block and its data. Without a key, it is a
/// truncated BLAKE3 hash; with a key, it is the tag of XChaCha20-Poly1305, whose nonce consists of the file's
/// random nonce and the number of the block.
pub(crate) struct Sealer {
    cipher: Option<XChaCha20Poly1305>,
    key_id: [u8; 8],
}

impl Sealer {
    pub(crate) fn new(key: Option<&CacheKey>) -> Self {
        let derive = |context| key.map(|key| blake3::derive_key(context, key.bytes()));
        let mut key_id = [0; 8];
        if let Some(id) = derive("Exsa prompt cache 1: id of the key") {
            key_id.copy_from_slice(&id[..8]);
        }
        let cipher = derive("Exsa prompt cache 1: blocks").map(|key| XChaCha20Poly1305::new((&key).into()));
        Self { cipher, key_id }
    }

    pub(crate) fn encrypts(&self) -> bool {
        self.cipher.is_some()
    }

    /// Identifies the key; zero without a key.
    pub(crate) fn key_id(&self) -> [u8; 8] {
        self.key_id
    }

    /// Encrypts `data` in place if there is a key, and returns its tag.
    pub(crate) fn seal(
        &self,
        header: &[u8],
        nonce: &[u8; NONCE_BYTES],
        number: u64,
        data: &mut [u8],
    ) -> io::Result<[u8; TAG_BYTES]> {
        match &self.cipher {
            None => Ok(checksum(header, number, data)),
            Some(cipher) => {
                let tag = cipher
                    .encrypt_in_place_detached(&nonce_of(nonce, number), &bound(header, number), data)
                    .map_err(|_| io::Error::other("a block is too large to be encrypted"))?;
                Ok(tag.into())
            }
        }
    }

    /// Decrypts `data` in place if there is a key. Returns `false` if it does not match `tag`.
    pub(crate) fn open(
        &self,
        header: &[u8],
        nonce: &[u8; NONCE_BYTES],
        number: u64,
        data: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        match &self.cipher {
            None => checksum(header, number, data) == *tag,
            Some(cipher) => cipher
                .decrypt_in_place_detached(
                    &nonce_of(nonce, number),
                    &bound(header, number),
                    data,
                    &Tag::from(*tag),
                )
                .is_ok(),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("encrypts", &self.encrypts()).finish_non_exhaustive()
    }
}

/// Fills `bytes` from the system's source of randomness.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), CacheError> {
    getrandom::fill(bytes).map_err(|error| CacheError::Io(io::Error::other(error.to_string())))
}

fn nonce_of(nonce: &[u8; NONCE_BYTES], number: u64) -> XNonce {
    let mut whole = [0; 24];
    whole[..NONCE_BYTES].copy_from_slice(nonce);
    whole[NONCE_BYTES..].copy_from_slice(&number.to_le_bytes());
    whole.into()
}

fn bound(header: &[u8], number: u64) -> Vec<u8> {
    [header, &number.to_le_bytes()].concat()
}

fn checksum(header: &[u8], number: u64, data: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(&number.to_le_bytes()).update(data);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}
