//! The exported key file.
//!
//! It has a line with version and sequence number, a line per record, and a line with the SHA-256 hash of the
//! others. The hash detects damage, not forgery: a writer of the file can add keys.

use super::super::record::KeyRecord;
use super::super::secret::is_id;
use super::KEYS_MAX;
use crate::access::StoreError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Version of the file. A later one is refused, since its records may have restrictions unknown here.
const VERSION: u32 = 1;

/// Maximum bytes of a file.
const BYTES_MAX: u64 = 256 << 20;

/// First part of the last line.
const CHECKSUM: &str = "sha256:";

/// Suffix of a file that is being written.
const NEW: &str = ".new";

/// Error of a key file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Every user can write the file.
    #[error("{}: the mode is {mode:o}: every user can write keys; run chmod o-w", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not a key file.
    #[error("{}: not a file of keys that a server has exported", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version of the server.
    #[error("{}: the file has version {found}; this server reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The file is truncated or altered.
    #[error("{}: the file is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        problem: String,
    },
    /// The file is older than the keys in use.
    #[error("the file has sequence number {found}, the keys in use have {current}: an older file is refused")]
    Older {
        /// The sequence number of the file.
        found: u64,
        /// The sequence number of the keys in use.
        current: u64,
    },
    /// Two files have the same sequence number.
    #[error("the file has other keys than those in use under the same sequence number, {sequence}")]
    Conflict {
        /// The sequence number.
        sequence: u64,
    },
    /// The data folder has keys of its own.
    #[error("the data folder has keys of its own, which an import would remove: use an empty folder")]
    OwnKeys,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    exsa_keys: u32,
    sequence: u64,
    keys: usize,
}

/// All keys of a server at one time.
#[derive(Debug)]
pub(crate) struct KeyFile {
    pub(super) sequence: u64,
    pub(super) records: Vec<KeyRecord>,
}

impl KeyFile {
    /// Reads a file; symbolic links are followed.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is damaged, or has an invalid record.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        Self::parse(&read_bytes(path)?, path)
    }

    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self, KeyFileError> {
        let damaged = |problem: String| KeyFileError::Damaged { path: path.to_owned(), problem };
        let foreign = || KeyFileError::Foreign { path: path.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| foreign())?;
        let first = text.lines().next().unwrap_or_default();
        #[derive(Deserialize)]
        struct Version {
            exsa_keys: u32,
        }
        let Version { exsa_keys: found } = serde_json::from_str(first).map_err(|_| foreign())?;
        if found != VERSION {
            return Err(KeyFileError::Version { path: path.to_owned(), found });
        }
        let head: Head = serde_json::from_str(first).map_err(|error| damaged(format!("line 1: {error}")))?;
        let end = text.strip_suffix('\n').and_then(|text| text.rfind('\n')).map_or(0, |newline| newline + 1);
        let (body, last) = text.split_at_checked(end).unwrap_or_default();
        let stated = last.trim_end_matches('\n').strip_prefix(CHECKSUM);
        let stated = stated.ok_or_else(|| damaged("the checksum is missing at the end".into()))?;
        if stated != digest(body.as_bytes()) {
            return Err(damaged("the checksum is wrong".into()));
        }
        if head.keys > KEYS_MAX {
            return Err(damaged(format!("{} keys; allowed are {KEYS_MAX}", head.keys)));
        }
        let mut records: Vec<KeyRecord> = Vec::new();
        for (i, line) in body.lines().enumerate().skip(1) {
            let at = |problem: String| damaged(format!("line {}: {problem}", i + 1));
            let record: KeyRecord = serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
            if !is_id(&record.id) {
                return Err(at("the id is not 16 hexadecimal digits".into()));
            }
            record.check().map_err(|error| at(error.to_string()))?;
            // Records are ordered by id, so there are no duplicates.
            if records.last().is_some_and(|last| last.id >= record.id) || records.len() >= head.keys {
                return Err(at("the record is out of order".into()));
            }
            records.push(record);
        }
        if records.len() != head.keys {
            return Err(damaged(format!("{} of {} keys are there", records.len(), head.keys)));
        }
        Ok(Self { sequence: head.sequence, records })
    }

    /// Formats the file. Records must be ordered by id.
    pub(super) fn text(&self) -> serde_json::Result<String> {
        let head = Head { exsa_keys: VERSION, sequence: self.sequence, keys: self.records.len() };
        let mut text = serde_json::to_string(&head)? + "\n";
        for record in &self.records {
            text += &serde_json::to_string(record)?;
            text.push('\n');
        }
        let digest = digest(text.as_bytes());
        Ok(text + CHECKSUM + &digest + "\n")
    }

    /// Writes the file with access only for this user. Readers see either the previous file or this one, also
    /// after a crash.
    pub(super) fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        let at = |source| KeyFileError::Io { path: path.to_owned(), source };
        let text = self.text().map_err(|error| at(error.into()))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(NEW);
        let new = path.with_file_name(name);
        // A file left by a crash may have another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
        let written = private(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&new);
            return Err(at(error));
        }
        // The new name is durable only after a sync of the folder.
        #[cfg(unix)]
        File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(at)?;
        Ok(())
    }
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads the bytes of a file that is not world-writable.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    let at = |source| KeyFileError::Io { path: path.to_owned(), source };
    // Pipes and devices would block or never end.
    if !fs::metadata(path).map_err(at)?.is_file() {
        return Err(KeyFileError::Foreign { path: path.to_owned() });
    }
    let file = File::open(path).map_err(at)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = file.metadata().map_err(at)?.mode() & 0o777;
        if mode & 0o002 != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() as u64 > BYTES_MAX {
        let problem = format!("it is larger than {BYTES_MAX} bytes");
        return Err(KeyFileError::Damaged { path: path.to_owned(), problem });
    }
    Ok(bytes)
}

/// Creates a file with access only for this user.
fn private(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn digest(bytes: &[u8]) -> String {
    crate::access::secret::hex(&Sha256::digest(bytes))
}
