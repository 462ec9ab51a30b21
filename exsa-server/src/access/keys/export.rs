//! The export of keys to a file that other servers watch.

use super::file::{KeyFile, KeyFileError, folder, read_bytes};
use super::{KeyError, Keys};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tracing::{error, info, warn};

/// Time between attempts to write a file that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// The file, and whether it lacks changes.
#[derive(Debug)]
pub(super) struct Export {
    path: PathBuf,
    is_behind: AtomicBool,
}

impl Keys {
    /// Exports the keys to a file, now and on each change, and owns them: keys that were imported before can
    /// be changed from now on. The sequence number goes on from the file that is there, so that importing
    /// servers accept the keys of a database that was restored or is another one.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or another one is there.
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

    /// Like [`publish`](Self::publish), where a failure is not one of the change: it is repeated.
    pub(super) fn publish_logged(&self) {
        if let Err(error) = self.publish() {
            error!(%error, "the keys are not exported; other servers do not know the last change yet");
        }
    }

    /// Writes the exported file if it lacks changes. The caller holds `changes`.
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

/// Repeats failed exports until the keys are dropped.
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

/// The problem of a path to export to, if there is one.
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
