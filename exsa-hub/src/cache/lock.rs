//! Lock files, with which processes that download the same file wait for each other.

use crate::cancel::Cancel;
use crate::error::HubError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

/// Interval between two attempts.
const WAIT: Duration = Duration::from_millis(100);

/// A lock, released when this value is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "it is held, not read")] File);

impl Lock {
    /// Takes the lock; returns `None` if another process holds it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, HubError> {
        // As in huggingface_hub: an advisory lock on a file that is kept.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(HubError::io(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            // If the file system has no locks, two processes may download a file twice; each renames a
            // complete file.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                Ok(Some(Self(file)))
            }
            Err(TryLockError::Error(error)) => Err(HubError::io(path)(error)),
        }
    }

    /// Takes the lock. Calls `waiting` on each attempt while another process holds it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the wait was cancelled.
    pub(crate) fn take(path: &Path, cancel: &Cancel, mut waiting: impl FnMut()) -> Result<Self, HubError> {
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            waiting();
            cancel.sleep(WAIT)?;
        }
    }
}
