//! Access tokens of the hub.

use crate::error::HubError;
use std::fmt;
use std::path::Path;

/// Maximum bytes read of a token file.
const FILE_BYTES_MAX: u64 = 4096;

/// An access token. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Creates a token from a text, without surrounding blanks.
    ///
    /// # Errors
    ///
    /// It is empty, or has characters that headers do not allow.
    pub fn new(text: &str) -> Result<Self, HubError> {
        let text = text.trim();
        if text.is_empty()
            || text.len() > FILE_BYTES_MAX as usize
            || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let problem = "a token has 1 to 4096 visible ASCII characters".to_owned();
            return Err(HubError::Option { option: "token", problem });
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a token from a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is readable by others, or contains no token.
    pub fn read(path: &Path) -> Result<Self, HubError> {
        use std::io::Read;
        let file = std::fs::File::open(path).map_err(HubError::io(path))?;
        #[cfg(unix)]
        {
            let mode = file.metadata().map_err(HubError::io(path))?;
            let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777;
            if mode & 0o077 != 0 {
                let path = path.display();
                let problem =
                    format!("{path} has mode {mode:03o} and is open to others; run: chmod 600 {path}");
                return Err(HubError::Option { option: "token", problem });
            }
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(HubError::io(path))?;
        Self::new(&text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_legal_headers_and_stay_hidden() {
        let token = Token::new(" hf_abc\n").unwrap();
        assert_eq!(token.reveal(), "hf_abc");
        assert!(!format!("{token:?}").contains("abc"));
        for text in ["", "  ", "a b", "a\r\nb", "ä"] {
            assert!(Token::new(text).is_err(), "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_that_others_can_read_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hf_abc\n").unwrap();
        for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)]
        {
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
            let read = Token::read(file.path());
            assert_eq!(read.is_ok(), accepted, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
    }
}
