//! The folder of the cache, as a list of named files.

use crate::CacheError;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// File name extension of files that are being written.
pub(crate) const TEMPORARY: &str = ".tmp";
/// Age at which a temporary file is considered abandoned, on systems without file locks.
const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 3600);

/// A file of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

/// A folder of files that appear atomically.
pub(crate) trait Disk: Send + Sync + fmt::Debug {
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// Opens a file; returns it with its length.
    fn open(&self, name: &str) -> io::Result<(Box<dyn Read>, u64)>;

    /// Creates a file under a temporary name. Other processes do not consider it abandoned while it is open.
    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>>;

    /// Renames a synced file, replacing an existing one, so that the change survives a loss of power.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    /// Records the time of a use.
    fn touch(&self, name: &str, now: SystemTime) -> io::Result<()>;

    /// Whether the process that wrote a temporary file has ended.
    fn is_abandoned(&self, file: &Listed) -> bool;
}

/// A file that is being written.
pub(crate) trait NewFile: Write {
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates the folder if it does not exist, and checks that it is usable and not accessible to other
    /// users.
    pub(crate) fn open(path: &Path) -> Result<Self, CacheError> {
        let problem = |problem: String| CacheError::Folder { folder: path.to_owned(), problem };
        let builder = &mut fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
        builder.create(path).map_err(|error| problem(format!("cannot be created: {error}")))?;
        let found = fs::metadata(path).map_err(|error| problem(error.to_string()))?;
        if !found.is_dir() {
            return Err(problem("is not a folder".to_owned()));
        }
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
            if mode & 0o077 != 0 {
                return Err(problem(format!(
                    "is accessible to other users: its mode is {mode:04o}, but must be 0700"
                )));
            }
        }
        let folder = Self(path.to_owned());
        folder.list().map_err(|error| problem(format!("cannot be read: {error}")))?;
        let name = format!("{}{TEMPORARY}", unique()?);
        let tried = folder.create(&name).map(drop).and_then(|()| folder.remove(&name));
        // A disk that is full now may have space later.
        match tried {
            Err(error) if !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Err(problem(format!("cannot be written: {error}")))
            }
            _ => Ok(folder),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for found in fs::read_dir(&self.0)? {
            let found = found?;
            let Ok(name) = found.file_name().into_string() else { continue };
            // Other processes can remove files at any time.
            let Ok(metadata) = found.metadata() else { continue };
            if metadata.is_file() {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push(Listed { name, bytes: metadata.len(), modified });
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> io::Result<(Box<dyn Read>, u64)> {
        let file = File::open(self.path(name))?;
        let bytes = file.metadata()?.len();
        Ok((Box::new(file), bytes))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let options = &mut OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
        let file = options.open(self.path(name))?;
        // On systems without file locks, the age of the file decides.
        let _ = file.try_lock();
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        // Some systems cannot open folders as files.
        #[cfg(unix)]
        File::open(&self.0)?.sync_all()?;
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn touch(&self, name: &str, now: SystemTime) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(name))?.set_modified(now)
    }

    fn is_abandoned(&self, file: &Listed) -> bool {
        let Ok(opened) = File::open(self.path(&file.name)) else { return false };
        match opened.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(_)) => file.modified.elapsed().is_ok_and(|age| age > TEMPORARY_AGE),
        }
    }
}

impl NewFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A unique file name.
pub(crate) fn unique() -> Result<String, CacheError> {
    let mut bytes = [0; 16];
    crate::seal::random(&mut bytes)?;
    Ok(exsa_core::prompt_cache::EntryId(bytes).to_string())
}
