//! Log files: the file system operations that a log needs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The folder of a log.
///
/// # Contract
///
/// After [`File::sync`](LogFile::sync) has returned, the file and its name survive a crash. Unsynced bytes
/// may be lost or partially kept.
pub(super) trait Folder: Send + 'static {
    /// A file opened for appending.
    type File: LogFile;

    /// Lists the names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading from its beginning.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read>>;

    /// Creates an empty file, replacing one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for appending.
    fn open(&self, name: &str) -> io::Result<Self::File>;
}

/// A file that is open for appending.
pub(super) trait LogFile: Send + 'static {
    /// Appends bytes. After an error the file may contain a part of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all bytes durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Truncates the file.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Returns the name of the file whose first line has number `seq`. Names sort in the order of the chain.
pub(super) fn file_name(seq: u64) -> String {
    format!("audit-{seq:020}.jsonl")
}

/// Returns whether a file of this name contains log lines.
pub(super) fn is_log_file(name: &str) -> bool {
    let number = name.strip_prefix("audit-").and_then(|name| name.strip_suffix(".jsonl"));
    number.is_some_and(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A folder of the file system, locked against other processes.
#[derive(Debug)]
pub(super) struct DiskFolder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl DiskFolder {
    /// Opens a folder, creating it if missing.
    ///
    /// # Errors
    ///
    /// It cannot be created, or another process has it open.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        let lock = private().create(true).append(true).open(path.join("audit.lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "another process writes this log"))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Folder for DiskFolder {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(&self.path)?.map(name).collect()
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(self.path.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        // An existing file of this name can only contain bytes that were never reported as written.
        let file = private().create(true).append(true).open(self.path.join(name))?;
        file.set_len(0)?;
        // The name of a new file is durable once its folder is synced.
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.path.join(name))
    }
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Options for files that only their owner may read.
pub(super) fn private() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
