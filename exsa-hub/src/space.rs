//! Free disk space.

use crate::error::HubError;
use std::path::Path;

/// Bytes that an unprivileged user may still write in the file system of a folder; `None` if unknown.
fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Checks that `needed` bytes fit, with a reserve.
///
/// # Errors
///
/// [`HubError::Space`].
pub(crate) fn check(folder: &Path, needed: u64, reserve: u64) -> Result<(), HubError> {
    match free(folder).map(|free| free.saturating_sub(reserve)) {
        Some(free) if free < needed => Err(HubError::Space { folder: folder.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn too_much_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), 0, 0).unwrap();
        let error = check(folder.path(), u64::MAX, 0).unwrap_err();
        assert!(matches!(error, HubError::Space { needed: u64::MAX, .. }), "{error}");
        assert!(check(folder.path(), 1, u64::MAX).is_err(), "the reserve stays free");
    }
}
