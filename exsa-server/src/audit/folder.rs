//! Files of a log: the operations that it needs of a file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The folder of a log.
///
/// # Contract
///
/// After [`File::sync`](LogFile::sync) returned, the file and its name survive a crash. Bytes that were not
/// synced may be lost or kept in part.
pub(super) trait Folder: Send + 'static {
    /// A file that is open for appending.
    type File: LogFile;

    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading from its begin.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read>>;

    /// Makes an empty file, replacing one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for appending.
    fn open(&self, name: &str) -> io::Result<Self::File>;
}

/// A file that is open for appending.
pub(super) trait LogFile: Send + 'static {
    /// Appends bytes. After an error a part of them may be in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all bytes durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Name of the file whose first line has number `seq`. Names sort in the order of the chain.
pub(super) fn file_name(seq: u64) -> String {
    format!("audit-{seq:020}.jsonl")
}

/// Whether a file of this name holds lines of a log.
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
    /// Opens a folder, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made, or another process has it open.
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
        // A file of this name can only hold bytes that were never reported as written.
        let file = private().create(true).append(true).open(self.path.join(name))?;
        file.set_len(0)?;
        // The name of a new file is durable once its folder is.
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

/// Options of files that only their owner may read.
pub(super) fn private() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
