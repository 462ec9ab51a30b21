//! Paths as C strings.

use exsa_core::error::LoadError;
use std::ffi::CString;
use std::path::Path;

/// `path` as llama.cpp takes it: the bytes of the system, or UTF-8 where they are no bytes.
pub(super) fn c_path(path: &Path) -> Result<CString, LoadError> {
    let problem = |problem: &str| LoadError::Io {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, problem),
    };
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let bytes = path.to_str().ok_or_else(|| problem("the path is not Unicode"))?.as_bytes();
    CString::new(bytes).map_err(|_| problem("the path contains a NUL"))
}
