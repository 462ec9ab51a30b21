//! Writes a packed file.

use super::check::{checksum, checksums};
use super::layout::{PackedEntry, PackedLayout};
use crate::kernels::memory::pages::Arena;
use crate::kernels::memory::team::Team;
use crate::load_steps::LoadSteps;
use crate::model_files::ModelFiles;
use crate::packed_tensor::PackedTensor;
use exsa_core::error::LoadError;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two looks at the lock of another process.
const LOOK: Duration = Duration::from_millis(20);

/// Ending of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// The reason why no packed file was written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The model cannot be loaded either, or the load was cancelled.
    Load(LoadError),
    /// The folder or the disk.
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<LoadError> for WriteError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

/// Writes the packed file of the model of `files` to `path`. Waits while another process does, and ends if
/// `is_there` then.
pub(super) fn write(
    path: &Path,
    layout: &PackedLayout,
    files: &ModelFiles,
    team: &mut Team,
    steps: &mut LoadSteps<'_, '_>,
    is_there: impl Fn() -> bool,
) -> Result<(), WriteError> {
    let gguf = files.gguf();
    let read = |name: &String| gguf.tensor(name).map_or(0, |tensor| tensor.bytes);
    steps.begin_phase(layout.order.iter().map(read).sum());
    let mut file = Temporary::lock(path, steps)?;
    if is_there() {
        return Ok(());
    }
    let mut sums = Vec::with_capacity(layout.blocks);
    for name in &layout.order {
        let (Some(tensor), Some(entry)) = (gguf.tensor(name), layout.entries.get(name)) else { continue };
        let (mapping, place) = files.tensor(tensor, team)?;
        let place = (&*mapping, place);
        // Memory of this matrix alone, until it is written.
        let memory = &mut Arena::new(entry.bytes.len());
        let packed = PackedTensor::pack(tensor, entry.shape, place, team, memory, |bytes| steps.add(bytes))?;
        sums.extend(checksums(packed.bytes(), team));
        file.put(entry, packed.bytes())?;
    }
    let mut header = layout.header.clone();
    sums.iter().for_each(|sum| header.extend_from_slice(&sum.to_le_bytes()));
    let own = checksum(&header);
    header.extend_from_slice(&own.to_le_bytes());
    file.finish(&header, layout.file_bytes as u64, path)?;
    Ok(())
}

/// A file under a temporary name, which this process alone writes; removed unless it gets its name.
struct Temporary {
    path: PathBuf,
    file: File,
    is_renamed: bool,
}

impl Temporary {
    /// The temporary file of `path`, once no other process writes it.
    fn lock(path: &Path, steps: &mut LoadSteps<'_, '_>) -> Result<Self, WriteError> {
        if let Some(folder) = path.parent() {
            let builder = &mut fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
            builder.create(folder)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(TEMPORARY);
        let path = PathBuf::from(name);
        loop {
            let options = &mut OpenOptions::new();
            options.write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
            let file = options.open(&path)?;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) => {
                        steps.report()?;
                        std::thread::sleep(LOOK);
                    }
                    Err(TryLockError::Error(error)) => return Err(error.into()),
                }
            }
            // The process that had it may have given it its name, or removed it.
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => {
                    let problem = format!("{} is a link", path.display());
                    return Err(io::Error::other(problem).into());
                }
                Ok(found) if is_same(&found, &file.metadata()?) => {
                    // Of a process that ended while it wrote.
                    file.set_len(0)?;
                    return Ok(Self { path, file, is_renamed: false });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes a matrix to its place.
    fn put(&mut self, entry: &PackedEntry, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(entry.bytes.start as u64))?;
        self.file.write_all(bytes)
    }

    /// Writes the header, and gives the whole file of `len` bytes the name `path`.
    fn finish(mut self, header: &[u8], len: u64, path: &Path) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(header)?;
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.is_renamed = true;
        // Folders cannot be opened as files everywhere.
        #[cfg(unix)]
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // The next process to write it overwrites it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether both are of one file.
fn is_same(first: &Metadata, second: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (first.dev(), first.ino()) == (second.dev(), second.ino())
    }
    #[cfg(not(unix))]
    {
        let times = first.created().ok() == second.created().ok();
        times && first.len() == second.len()
    }
}
