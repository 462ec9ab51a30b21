//! The data folder and its database.
//!
//! The folder holds `exsa.redb` and the control socket. redb locks the file, so only one process at a time
//! can open it.

use super::secret;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, TableDefinition};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the database in the data folder.
const FILE: &str = "exsa.redb";

/// Suffix of a database that is being created.
const NEW: &str = ".new";

/// Bytes of the database's page cache.
const CACHE_BYTES: usize = 8 << 20;

/// Version of the tables. A database of a later version is refused, since its records may have restrictions
/// unknown here.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The data folder or its database is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder or the file cannot be created or opened.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others can read or write the folder.
    #[error("{}: the mode is {mode:o} and lets others in; run: chmod 700 {}", path.display(), path.display())]
    Permissions {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another process has the database open.
    #[error("{}: another process has the database open", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The database was written by a later version of the server.
    #[error("the database has format {found}; this version reads format {FORMAT}")]
    Format {
        /// The format found.
        found: u64,
    },
    /// A record cannot be read.
    #[error("record '{id}' cannot be read: {source}")]
    Record {
        /// The record's id.
        id: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The open database of a data folder, shared by modules that keep tables in it.
#[derive(Debug)]
pub struct Store {
    database: Arc<Database>,
}

impl Store {
    /// Opens the database in `folder`; both are created if missing, with access only for this user.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] while another process has it open, [`StoreError::Permissions`] if others can
    /// access the folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        make_folder(folder).map_err(at(folder))?;
        check_mode(folder)?;
        let path = folder.join(FILE);
        if !path.exists() {
            make(folder, &path)?;
        }
        let store = Self::open_file(&path)?;
        remove_leftovers(folder);
        Ok(store)
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        let file = open_private(path).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        let database = match builder().create_file(file) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(StoreError::InUse { path: path.to_owned() });
            }
            Err(error) => return Err(error.into()),
        };
        Self::new(database)
    }

    /// Opens a database on another kind of storage, for crash tests.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`].
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::new(builder().create_with_backend(backend)?)
    }

    fn new(database: Database) -> Result<Self, StoreError> {
        let found = match database.begin_read()?.open_table(META) {
            Ok(table) => table.get("format")?.map(|format| format.value()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        match found {
            Some(FORMAT) => {}
            Some(found) => return Err(StoreError::Format { found }),
            None => {
                let write = database.begin_write()?;
                write.open_table(META)?.insert("format", FORMAT)?;
                write.commit()?;
            }
        }
        Ok(Self { database: Arc::new(database) })
    }

    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }
}

/// Creates a database under a temporary name first: redb cannot open a file whose first write was
/// interrupted.
fn make(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let id =
        secret::new_id().map_err(|error| StoreError::Io { path: path.to_owned(), source: error.into() })?;
    let new = folder.join(format!("{FILE}.{id}{NEW}"));
    drop(Store::open_file(&new)?);
    // Linking fails if another process was faster, and then that database is used.
    match fs::hard_link(&new, path) {
        Err(error) if !path.exists() => return Err(StoreError::Io { path: path.to_owned(), source: error }),
        _ => {}
    }
    let _ = fs::remove_file(&new);
    // Names in folders are durable only after the folder is synced.
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Removes temporary databases left by a crash.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(FILE) && name.ends_with(NEW) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn check_mode(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt;
    let path = || folder.to_owned();
    let mode = fs::metadata(folder).map_err(|source| StoreError::Io { path: path(), source })?.mode() & 0o777;
    if mode & 0o077 != 0 { Err(StoreError::Permissions { path: path(), mode }) } else { Ok(()) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
