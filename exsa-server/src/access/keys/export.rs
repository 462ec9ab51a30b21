//! Exports keys to a file that other servers watch.

use super::file::{KeyFile, KeyFileError, folder, read_bytes};
use super::{KeyError, Keys};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tracing::{error, info, warn};

/// Interval between attempts to write the file.
const RETRY: Duration = Duration::from_secs(1);

/// The file, and whether it is missing changes.
#[derive(Debug)]
pub(super) struct Export {
    path: PathBuf,
    is_behind: AtomicBool,
}

impl Keys {
    /// Exports the keys to a file, now and on each change, and takes ownership of them: imported keys can be
    /// changed from now on. The sequence number continues from the existing file, so that importing servers
    /// accept the keys of a restored or different database.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or another kind of file is in its place.
    pub fn exporting(mut self, path: &Path) -> Result<Self, KeyFileError> {
        let records = self.records();
        let mut sequence = self.sequence();
        match read_bytes(path).and_then(|bytes| KeyFile::parse(&bytes, path)) {
            Ok(file) if file.sequence >= sequence => {
                let is_same = KeyFile { sequence: file.sequence, records }.text().ok() == file.text().ok();
                sequence = file.sequence.saturating_add(u64::from(!is_same));
            }
            Ok(_) | Err(KeyFileError::Permissions { .. }) => {}
            Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error @ KeyFileError::Damaged { .. }) => warn!(%error, "the exported keys are written anew"),
            Err(error) => return Err(error),
        }
        self.own(sequence)?;
        self.export = Some(Export { path: path.to_owned(), is_behind: AtomicBool::new(false) });
        self.publish()?;
        Ok(self)
    }

    /// Writes the exported file, if there is one. The caller holds `changes`.
    pub(super) fn publish(&self) -> Result<(), KeyFileError> {
        let Some(export) = &self.export else { return Ok(()) };
        let file = KeyFile { sequence: self.sequence(), records: self.records() };
        let written = file.write(&export.path);
        if export.is_behind.swap(written.is_err(), Ordering::AcqRel) && written.is_ok() {
            info!(file = %export.path.display(), "the exported keys are complete again");
        }
        written
    }

    /// Like [`publish`](Self::publish), but a failure only delays the export, which is retried.
    pub(super) fn publish_logged(&self) {
        if let Err(error) = self.publish() {
            error!(%error, "the keys are not exported; other servers do not know the last change yet");
        }
    }

    /// Writes the exported file if it is missing changes. The caller holds `changes`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn publish_rest(&self) -> Result<(), KeyError> {
        match &self.export {
            Some(export) if export.is_behind.load(Ordering::Acquire) => Ok(self.publish()?),
            _ => Ok(()),
        }
    }
}

/// Retries failed exports until the keys are dropped.
pub(super) fn repeat(keys: &Arc<Keys>) -> std::io::Result<()> {
    if keys.export.is_none() {
        return Ok(());
    }
    let weak = Arc::downgrade(keys);
    let run = move || {
        while let Some(keys) = weak.upgrade() {
            let changes = keys.changes.lock().unwrap_or_else(PoisonError::into_inner);
            // The first failure is in the log.
            let _ = keys.publish_rest();
            drop(changes);
            drop(keys);
            std::thread::sleep(RETRY);
        }
    };
    std::thread::Builder::new().name("exsa-key-export".into()).spawn(run).map(drop)
}

/// Returns the problem of an export path, if any.
pub(crate) fn check_path(path: &Path) -> Result<(), String> {
    let folder = folder(path);
    if path.file_name().is_none() || path.is_dir() {
        return Err(format!("{} is not a file", path.display()));
    }
    match folder.is_dir() {
        true => Ok(()),
        false => Err(format!("the folder {} does not exist", folder.display())),
    }
}
