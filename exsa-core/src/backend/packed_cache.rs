//! Options of the packed cache: weights in a backend's own layout, in a file that later loads map.

use super::Fingerprint;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Ending of packed files.
const ENDING: &str = ".packed";

/// A file that keeps the weights of a model in the layout that a backend computes with, so that later loads
/// map it instead of packing anew, and processes that load the same model share its pages.
///
/// A backend that packs no weights ignores it, and so do models that are no files. A file that cannot be used
/// (another model, another version, damaged) is replaced. A cache that can be neither read nor written is
/// logged; the model then loads as without one.
///
/// The folder must not be writable by others: a packed file is trusted as far as the model's own file is.
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
    /// Folder of the packed files, which is made if it does not exist; `None`, the default, is that of the
    /// model's file.
    pub folder: Option<PathBuf>,
    /// Memory of the weights; [`WeightPages::Shared`] by default.
    pub pages: WeightPages,
    /// When checksums of the packed weights are checked; [`PackedCheck::Header`] by default.
    pub check: PackedCheck,
}

impl PackedCache {
    /// Packed files beside their models.
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

    /// The packed file of the model at `model`: its name with `.packed` behind it, in a folder with a hash of
    /// its path too. Links are followed.
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
    /// Memory of the process on large pages, where the system has them, copied from the file: products are
    /// faster as far as memory decides, and every process has its own copy.
    Huge,
}

/// When checksums of packed weights are checked. Those of the file's header, with the model's identity, and
/// the file's length are checked in any case, before the weights are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PackedCheck {
    /// Not: the header alone.
    #[default]
    Header,
    /// While loading, which reads the whole file. A damaged file is replaced.
    Load,
    /// On a thread beside the model, once it is loaded. After damage is found, the model's passes fail, and
    /// the file is removed, so that the next load packs anew.
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
