//! SHA-256 of files.

use crate::cancel::Cancel;
use crate::error::HubError;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Returns the digest of a file in hexadecimal. `progress` is called with the bytes read so far.
///
/// # Errors
///
/// The file cannot be read, or the operation was cancelled.
pub(crate) fn sha256(
    path: &Path,
    cancel: &Cancel,
    mut progress: impl FnMut(u64),
) -> Result<String, HubError> {
    let mut file = File::open(path).map_err(HubError::io(path))?;
    let (mut hasher, mut buffer, mut read) = (Sha256::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        cancel.check()?;
        let n = file.read(&mut buffer).map_err(HubError::io(path))?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
        read += n as u64;
        progress(read);
    }
}

/// Returns the digest of a text in hexadecimal.
pub(crate) fn of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_fips_180() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_text("abc"), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256(&path, &Cancel::new(), |_| {}).unwrap(), expected);
    }
}
