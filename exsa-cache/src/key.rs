//! The host's key.

use crate::CacheError;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zeroize::Zeroize;

const KEY_BYTES: usize = 32;

/// A 256-bit key for the encryption and the names of entries. Its memory is zeroed on drop.
pub struct CacheKey([u8; KEY_BYTES]);

impl CacheKey {
    /// A key of 32 random bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A key from the system's source of randomness.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`] if the system's source of randomness fails.
    pub fn random() -> Result<Self, CacheError> {
        let mut bytes = [0; KEY_BYTES];
        crate::seal::random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads a key from a file: 32 bytes, or 64 hexadecimal digits with optional surrounding white space.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`] if the file cannot be read, [`CacheError::Key`] for other contents.
    pub fn from_file(path: &Path) -> Result<Self, CacheError> {
        let mut bytes = Vec::new();
        File::open(path)?.take(1024).read_to_end(&mut bytes)?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        key
    }

    /// A key from 32 bytes, or from 64 hexadecimal digits with optional surrounding white space.
    ///
    /// # Errors
    ///
    /// [`CacheError::Key`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CacheError> {
        if let Ok(key) = bytes.try_into() {
            return Ok(Self(key));
        }
        let text = bytes.trim_ascii();
        let mut key = [0; KEY_BYTES];
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if text.len() != 2 * KEY_BYTES || !text.iter().all(u8::is_ascii_hexdigit) {
            return Err(CacheError::Key(format!("it has {} bytes", bytes.len())));
        }
        for (to, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            let value = digit(pair[0]).unwrap_or_default() << 4 | digit(pair[1]).unwrap_or_default();
            *to = value as u8;
        }
        Ok(Self(key))
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl Clone for CacheKey {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl Drop for CacheKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_digits_are_keys() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 9) as u8);
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(CacheKey::from_bytes(&bytes).unwrap().0, bytes);
        assert_eq!(CacheKey::from_bytes(format!(" {digits}\n").as_bytes()).unwrap().0, bytes);
        for wrong in [&bytes[..31], &digits.as_bytes()[1..], "x".repeat(64).as_bytes(), b""] {
            let error = CacheKey::from_bytes(wrong).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
        assert!(!format!("{:?}", CacheKey::new(bytes)).contains('9'));
    }
}
