//! Watches an exported file.

use super::Keys;
use super::file::{KeyFile, KeyFileError, read_bytes};
use super::import::Imported;
use sha2::{Digest, Sha256};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// Poll interval of the file.
const INTERVAL: Duration = Duration::from_millis(200);

/// Time after a change during which the content is read at each poll: file times are coarse, so a second
/// change may not alter them.
const FRESH: Duration = Duration::from_secs(2);

/// A watched file.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    /// State of the file when it was last read, and the hash of its content.
    seen: Option<(State, [u8; 32])>,
    /// The last refusal, which is logged once.
    refusal: Option<String>,
}

/// File metadata that changes with the content. A symbolic link is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    bytes: u64,
    modified: Option<SystemTime>,
    identity: (u64, u64),
}

impl State {
    fn of(about: &Metadata) -> Self {
        #[cfg(unix)]
        let identity = std::os::unix::fs::MetadataExt::dev(about);
        #[cfg(unix)]
        let identity = (identity, std::os::unix::fs::MetadataExt::ino(about));
        #[cfg(not(unix))]
        let identity = (0, 0);
        Self { bytes: about.len(), modified: about.modified().ok(), identity }
    }

    fn is_fresh(&self) -> bool {
        let age = self.modified.and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_none_or(|age| age < FRESH)
    }
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, refusal: None }
    }

    /// Imports the file if it has changed.
    ///
    /// # Errors
    ///
    /// The file is refused, or was refused earlier and has not changed since; the keys stay.
    pub(super) fn look(&mut self, keys: &Keys) -> Result<Option<Imported>, String> {
        match self.read(keys) {
            Ok(imported) => {
                self.refusal = None;
                Ok(imported)
            }
            Err(Some(error)) => {
                let error = error.to_string();
                self.refusal = Some(error.clone());
                Err(error)
            }
            Err(None) => self.refusal.clone().map_or(Ok(None), Err),
        }
    }

    /// `Err(None)` for an unchanged file.
    fn read(&mut self, keys: &Keys) -> Result<Option<Imported>, Option<KeyFileError>> {
        let io = |source| KeyFileError::Io { path: self.path.clone(), source };
        let state = State::of(&fs::metadata(&self.path).map_err(io).map_err(Some).inspect_err(|_| {
            self.seen = None;
        })?);
        let seen = self.seen.as_ref();
        if seen.is_some_and(|(seen, _)| *seen == state) && !state.is_fresh() {
            return Err(None);
        }
        let bytes = read_bytes(&self.path)?;
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let is_same = seen.is_some_and(|(_, seen)| *seen == hash);
        self.seen = Some((state, hash));
        if is_same {
            return Err(None);
        }
        let file = KeyFile::parse(&bytes, &self.path)?;
        keys.import(file)
            .inspect_err(|error| {
                // The database may accept the keys at the next poll.
                if matches!(error, KeyFileError::Store(_)) {
                    self.seen = None;
                }
            })
            .map_err(Some)
    }

    /// Like [`look`](Self::look), and logs the outcome; a refusal is logged once.
    fn look_logged(&mut self, keys: &Keys) {
        let before = self.refusal.clone();
        match self.look(keys) {
            Ok(Some(Imported { sequence, added, changed, removed })) => {
                info!(sequence, added, changed, removed, "keys imported");
            }
            Ok(None) => {}
            Err(refusal) if before.as_ref() != Some(&refusal) => {
                warn!(refusal, "the imported keys stay as they are");
            }
            Err(_) => {}
        }
    }
}

impl Keys {
    /// Imports the keys of a file. A refused file is an error only if nothing was imported before.
    ///
    /// # Errors
    ///
    /// The file is refused, or the data folder has its own keys.
    pub fn importing(mut self, path: &Path) -> Result<Self, KeyFileError> {
        let first = KeyFile::read(path).and_then(|file| self.import(file));
        match first {
            Err(error) if !self.is_imported() => return Err(error),
            _ => {}
        }
        self.import = Some(path.to_owned());
        Ok(self)
    }
}

/// Watches the imported file until the keys are dropped.
pub(super) fn follow(keys: &Arc<Keys>) -> std::io::Result<()> {
    let Some(path) = &keys.import else { return Ok(()) };
    let (weak, mut watch) = (Arc::downgrade(keys), Watch::new(path));
    let run = move || {
        while let Some(keys) = weak.upgrade() {
            watch.look_logged(&keys);
            drop(keys);
            std::thread::sleep(INTERVAL);
        }
    };
    std::thread::Builder::new().name("exsa-key-import".into()).spawn(run).map(drop)
}
