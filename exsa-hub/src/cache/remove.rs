//! Removes models and incomplete downloads.

use super::{Lock, Removed, RepoFolder, repos};
use crate::error::HubError;
use crate::quant;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// Removes files of a repository.
pub(crate) struct Removal<'a> {
    folder: &'a RepoFolder,
    removed: Removed,
}

impl<'a> Removal<'a> {
    pub(crate) fn new(folder: &'a RepoFolder) -> Self {
        Self { folder, removed: Removed::default() }
    }

    /// Removes the files from all commits, and their blobs if no other name is left. The projector is removed
    /// with the last model, and the folder of the repository with its last file.
    ///
    /// # Errors
    ///
    /// A file cannot be deleted.
    pub(crate) fn files(mut self, revision: &str, files: &[String]) -> Result<Removed, HubError> {
        let commits = self.folder.commits(revision);
        for commit in &commits {
            for path in files {
                self.unlink(commit, path)?;
            }
        }
        let mut left = Vec::new();
        for commit in &commits {
            left.extend(self.folder.files(commit).into_iter().map(|path| (commit, path)));
        }
        if quant::groups(left.iter().map(|(_, path)| path.as_str())).is_empty() {
            let projectors: Vec<_> = left
                .iter()
                .filter(|(_, path)| quant::projector([path.as_str()]).is_some())
                .cloned()
                .collect();
            for (commit, path) in &projectors {
                self.unlink(commit, path)?;
            }
            left.retain(|entry| !projectors.contains(entry));
        }
        self.blobs(revision)?;
        if left.is_empty() {
            // Folders of other file kinds are gone as well.
            for folder in [&self.folder.root, &self.folder.locks] {
                ignore_missing(fs::remove_dir_all(folder)).map_err(HubError::io(folder))?;
            }
        }
        Ok(self.removed)
    }

    fn unlink(&mut self, commit: &str, path: &str) -> Result<(), HubError> {
        let Some(pointer) = self.folder.found(commit, path) else { return Ok(()) };
        let linked = fs::symlink_metadata(&pointer).is_ok_and(|data| data.file_type().is_symlink());
        if !linked {
            self.removed.bytes += fs::metadata(&pointer).map_or(0, |data| data.len());
        }
        fs::remove_file(&pointer).map_err(HubError::io(&pointer))?;
        self.removed.files.push(pointer);
        Ok(())
    }

    /// Deletes the blobs of the deleted names that have no other name.
    fn blobs(&mut self, revision: &str) -> Result<(), HubError> {
        let mut named = BTreeSet::new();
        for commit in self.folder.commits(revision) {
            let files = self.folder.files(&commit);
            named.extend(
                files.iter().filter_map(|path| self.folder.pointer(&commit, path).canonicalize().ok()),
            );
        }
        let blobs = self.folder.blobs();
        for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(real) = path.canonicalize() else { continue };
            // Downloads in progress have an extension.
            if path.extension().is_none() && !named.contains(&real) {
                self.removed.bytes += entry.metadata().map_or(0, |data| data.len());
                ignore_missing(fs::remove_file(&path)).map_err(HubError::io(&path))?;
            }
        }
        Ok(())
    }
}

/// Removes incomplete downloads that are not in progress, from a cache and from the folder of other
/// downloads.
///
/// # Errors
///
/// A file cannot be deleted.
pub(crate) fn incomplete(cache: &Path, downloads: &Path) -> Result<Removed, HubError> {
    let mut removed = Removed::default();
    let folders = repos(cache).into_iter().map(|repo| {
        let folder = RepoFolder::new(cache, &repo);
        (folder.blobs(), folder.locks)
    });
    let entries = fs::read_dir(downloads).into_iter().flatten().flatten();
    let others = entries.map(|entry| (entry.path(), entry.path()));
    for (folder, locks) in folders.chain(others) {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(stem) = part_of(&path) else { continue };
            let Some(_lock) = Lock::try_take(&locks.join(format!("{stem}.lock")))? else { continue };
            removed.bytes += allocated(&path);
            let mut state = path.clone().into_os_string();
            state.push(".json");
            ignore_missing(fs::remove_file(&state)).map_err(HubError::io(&path))?;
            ignore_missing(fs::remove_file(&path)).map_err(HubError::io(&path))?;
            removed.files.push(path);
        }
    }
    Ok(removed)
}

/// Returns the file name before `.part`.
fn part_of(path: &Path) -> Option<String> {
    path.file_name()?.to_str()?.strip_suffix(".part").map(str::to_owned)
}

/// Bytes on disk: partial files are sparse.
fn allocated(path: &Path) -> u64 {
    let Ok(data) = fs::metadata(path) else { return 0 };
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(&data) * 512;
    #[cfg(not(unix))]
    data.len()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
