//! Compiled kernels in a folder.

use exsa_core::backend::Fingerprint;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Start of a file, with its version.
const MAGIC: [u8; 8] = *b"EXSAKRN1";

/// Bytes before the code: the magic and a checksum.
const HEADER: usize = 16;

/// Bytes of a file at most.
const BYTES_MAX: u64 = 64 << 20;

const ENDING: &str = "kernels";

/// Compiled kernels in a folder, a file per module. A file that is damaged, cut off or of another version is
/// passed over; the kernels are then compiled anew. A folder that cannot be read or written is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCache {
    folder: Option<PathBuf>,
}

impl Default for KernelCache {
    fn default() -> Self {
        Self::new(default_folder(|name| std::env::var_os(name).map(PathBuf::from)))
    }
}

impl KernelCache {
    /// Files in `folder`, or none.
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{key}.{ENDING}")))
    }

    /// The code kept under `key`.
    pub(crate) fn read(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        match read_file(&path, key) {
            Ok(code) => Some(code),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("compiled kernels {}: {error}; compiling anew", path.display());
                None
            }
        }
    }

    /// The code kept under any key that begins with `prefix`.
    pub(crate) fn read_any(&self, prefix: &str) -> Option<Vec<u8>> {
        let ending = format!(".{ENDING}");
        let files = fs::read_dir(self.folder.as_ref()?).ok()?.flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let mut keys: Vec<String> = names
            .filter(|name| name.starts_with(prefix))
            .filter_map(|name| name.strip_suffix(&ending).map(str::to_owned))
            .collect();
        keys.sort();
        keys.iter().rev().find_map(|key| self.read(key))
    }

    /// Keeps `code` under `key`.
    pub(crate) fn write(&self, key: &str, code: &[u8]) {
        let Some(path) = self.path(key) else { return };
        if let Err(error) = write_file(&path, key, code) {
            log::warn!("compiled kernels are not kept in {}: {error}", path.display());
        }
    }
}

/// Checksum of a file's key and code.
fn checksum(key: &str, code: &[u8]) -> [u8; 8] {
    let mut hash = Fingerprint::default();
    hash.update(key.as_bytes());
    hash.update(code);
    hash.0.to_le_bytes()
}

fn read_file(path: &Path, key: &str) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::Error::other("too large"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.len() <= HEADER || bytes[..8] != MAGIC {
        return Err(io::Error::other("not a file of this version"));
    }
    let code = bytes.split_off(HEADER);
    if bytes[8..] != checksum(key, &code) {
        return Err(io::Error::other("damaged"));
    }
    Ok(code)
}

/// Writes a temporary file and renames it, so that no reader sees a part.
fn write_file(path: &Path, key: &str, code: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(&MAGIC)?;
        file.write_all(&checksum(key, code))?;
        file.write_all(code)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The user's folder for kernels, by the environment.
fn default_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let caches = match cfg!(windows) {
        true => absolute("LOCALAPPDATA"),
        false => absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache"))),
    };
    caches.map(|caches| caches.join("exsa").join("kernels"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_back_and_damaged_ones_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(Some(folder.path().join("new/kernels")));
        assert_eq!(cache.read("a-sm_90-nvrtc12.9"), None);
        cache.write("a-sm_90-nvrtc12.9", b"code of a");
        assert_eq!(cache.read("a-sm_90-nvrtc12.9").as_deref(), Some(&b"code of a"[..]));
        assert_eq!(cache.read_any("a-sm_90-nvrtc").as_deref(), Some(&b"code of a"[..]));
        assert_eq!(cache.read_any("a-sm_80-nvrtc"), None);
        let path = cache.path("a-sm_90-nvrtc12.9").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(cache.read("a-sm_90-nvrtc12.9"), None, "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.read("a-sm_90-nvrtc12.9"), None, "{at} bytes");
        }
        // Another module's file under this name.
        cache.write("b-sm_90-nvrtc12.9", b"code of b");
        fs::rename(cache.path("b-sm_90-nvrtc12.9").unwrap(), &path).unwrap();
        assert_eq!(cache.read("a-sm_90-nvrtc12.9"), None);
        cache.write("a-sm_90-nvrtc12.9", b"again");
        assert_eq!(cache.read("a-sm_90-nvrtc12.9").as_deref(), Some(&b"again"[..]));
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().flatten().map(|f| f.path()).collect();
        assert_eq!(left, [path]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        for cache in [KernelCache::new(Some(file.join("kernels"))), KernelCache::new(None)] {
            cache.write("a", b"code");
            assert_eq!(cache.read("a"), None);
            assert_eq!(cache.read_any("a"), None);
        }
    }

    #[cfg(not(windows))]
    #[test]
    fn the_environment_names_the_folder() {
        let of = |set: &[(&str, &str)]| {
            let set =
                |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value));
            default_folder(set)
        };
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some("/x/exsa/kernels".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]), Some("/h/.cache/exsa/kernels".into()));
        assert_eq!(of(&[]), None);
    }
}
