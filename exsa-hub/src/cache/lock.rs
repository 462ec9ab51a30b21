//! Lock files, by which processes that fetch the same file wait for each other.

use crate::cancel::Cancel;
use crate::error::HubError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

/// Time between two attempts.
const WAIT: Duration = Duration::from_millis(100);

/// A lock, which ends with this value or with the process.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "it is held, not read")] File);

impl Lock {
    /// Takes the lock, or `None` if another process has it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, HubError> {
        // As huggingface_hub locks: an advisory lock on a file that stays.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(HubError::io(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Without locks in the file system two processes may fetch a file twice; each renames a whole
            // one.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                Ok(Some(Self(file)))
            }
            Err(TryLockError::Error(error)) => Err(HubError::io(path)(error)),
        }
    }

    /// Takes the lock. Calls `waiting` each time that another process has it.
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
