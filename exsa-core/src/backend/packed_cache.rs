//! Options of the packed cache: weights in a backend's own layout, in a file that later loads map.

use super::Fingerprint;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// File name extension of packed files.
const ENDING: &str = ".packed";

/// A file that holds the weights of a model in the layout that a backend computes with. Later loads map it
/// instead of packing the weights again, and processes that load the same model share its pages.
///
/// The option is ignored by backends that do not pack weights, and for models that are not files. A file that
/// cannot be used (another model, another version, damaged) is replaced. If the cache can be neither read nor
/// written, the failure is logged and the model loads without it.
///
/// The folder must not be writable by untrusted users: a packed file is trusted as much as the model file.
///
/// ```
/// use exsa_core::backend::{LoadOptions, PackedCache, WeightPages};
///
/// let cache = PackedCache::in_folder("/var/cache/exsa").pages(WeightPages::Huge);
/// let options = LoadOptions::new().packed_cache(cache);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct PackedCache {
    /// Folder of the packed files, created if it does not exist; `None`, the default, is the folder of the
    /// model file.
    pub folder: Option<PathBuf>,
    /// Memory of the weights; [`WeightPages::Shared`] by default.
    pub pages: WeightPages,
    /// When checksums of the packed weights are checked; [`PackedCheck::Header`] by default.
    pub check: PackedCheck,
}

impl PackedCache {
    /// Packed files in the folders of their models.
    #[must_use]
    pub fn beside_model() -> Self {
        Self::default()
    }

    /// Packed files in `folder`.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// Sets the memory of the weights.
    #[must_use]
    pub fn pages(mut self, pages: WeightPages) -> Self {
        self.pages = pages;
        self
    }

    /// Sets when checksums of the packed weights are checked.
    #[must_use]
    pub fn check(mut self, check: PackedCheck) -> Self {
        self.check = check;
        self
    }

    /// Path of the packed file for the model at `model`: the model's file name followed by `.packed`; in a
    /// configured [`folder`](Self::folder), with a hash of the model's path in the name. Symbolic links are
    /// followed.
    #[must_use]
    pub fn file(&self, model: &Path) -> PathBuf {
        let model = model.canonicalize().unwrap_or_else(|_| model.to_owned());
        let mut name = model.file_name().map_or_else(OsString::new, OsString::from);
        let Some(folder) = &self.folder else {
            name.push(ENDING);
            return model.with_file_name(name);
        };
        let mut hash = Fingerprint::default();
        hash.update(model.as_os_str().as_encoded_bytes());
        name.push(format!("-{:016x}{ENDING}", hash.0));
        folder.join(name)
    }
}

/// Memory of the weights that a packed file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum WeightPages {
    /// The mapped file: loading copies nothing, and all processes that map it share its pages. The system may
    /// drop them when memory is short, and reads them again.
    #[default]
    Shared,
    /// A copy in the memory of the process, on huge pages if the system supports them: matrix products are
    /// faster as far as memory access limits them, but every process has its own copy.
    Huge,
}

/// When the checksums of packed weights are verified. The checksum of the header, the model's identity in it
/// and the file's length are always verified before the weights are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PackedCheck {
    /// Never: only the header is verified.
    #[default]
    Header,
    /// While loading, which reads the whole file. A damaged file is replaced.
    Load,
    /// In a background thread, after the model is loaded. If damage is found, the model's forward passes fail
    /// and the file is removed, so that the next load packs the weights again.
    Background,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let (first, second) = (Path::new("/nowhere/a/model.gguf"), Path::new("/nowhere/b/model.gguf"));
        assert_eq!(PackedCache::beside_model().file(first), Path::new("/nowhere/a/model.gguf.packed"));
        let cache = PackedCache::in_folder("/cache");
        assert_ne!(cache.file(first), cache.file(second));
        assert_eq!(cache.file(first), cache.file(first));
        let name = cache.file(first);
        let name = name.strip_prefix("/cache").unwrap().to_str().unwrap();
        assert!(name.starts_with("model.gguf-") && name.ends_with(".packed"), "{name}");
    }
}
