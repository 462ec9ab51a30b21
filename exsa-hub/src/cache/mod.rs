//! The cache in Hugging Face's layout: `models--OWNER--REPO` with `blobs`, `refs` and `snapshots`.

mod lock;
mod remove;

pub(crate) use lock::Lock;
pub(crate) use remove::{Removal, incomplete};

use crate::error::HubError;
use crate::name;
use crate::quant::{self, Group};
use crate::source::{Pick, Repo, Source};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Maximum directory entries that are examined in a repository.
const ENTRIES_MAX: usize = 100_000;
/// Maximum depth of folders in a snapshot.
const DEPTH_MAX: usize = 8;

/// A model in the cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CachedModel {
    /// Its source, with which it can be found again.
    pub source: String,
    /// Quantization, from its name.
    pub quant: Option<String>,
    /// Its files; several for a split model.
    pub files: Vec<PathBuf>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Modification time of the first file.
    pub modified: Option<SystemTime>,
}

/// Deleted files.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Removed {
    /// Paths of the files as they were named.
    pub files: Vec<PathBuf>,
    /// Freed bytes.
    pub bytes: u64,
}

/// A repository's folder in the cache.
#[derive(Clone, Debug)]
pub(crate) struct RepoFolder {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoFolder {
    pub(crate) fn new(cache: &Path, repo: &Repo) -> Self {
        // Names of owners and repositories cannot contain "--".
        let folder = format!("models--{}--{}", repo.owner(), repo.name());
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// Creates the folders.
    ///
    /// # Errors
    ///
    /// They cannot be created.
    pub(crate) fn create(&self) -> Result<(), HubError> {
        for folder in
            [self.root.join("blobs"), self.root.join("refs"), self.root.join("snapshots"), self.locks.clone()]
        {
            fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        }
        Ok(())
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Path of a blob by its id: SHA-256 or Git's, in hexadecimal.
    pub(crate) fn blob(&self, id: &str) -> PathBuf {
        self.root.join("blobs").join(id)
    }

    pub(crate) fn lock_file(&self, id: &str) -> PathBuf {
        self.locks.join(format!("{id}.lock"))
    }

    /// Returns the commit of a branch or tag as of the last download.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if name::is_hex(revision, 40) {
            return Some(revision.to_owned());
        }
        name::check_path(revision).ok()?;
        let mut text = String::new();
        fs::File::open(self.root.join("refs").join(revision))
            .ok()?
            .take(100)
            .read_to_string(&mut text)
            .ok()?;
        Some(text.trim().to_owned()).filter(|commit| name::is_hex(commit, 40))
    }

    /// Records the commit of a branch or tag.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        let new = self.root.join("refs").join(format!(".{commit}.{}.new", unique()));
        fs::write(&new, commit).and_then(|()| fs::rename(&new, &path)).map_err(HubError::io(&path))
    }

    /// Path of a file of a commit, whether or not it exists.
    pub(crate) fn pointer(&self, commit: &str, path: &str) -> PathBuf {
        self.root.join("snapshots").join(commit).join(path)
    }

    /// Path of a file of a commit that exists, is complete, and is inside the folder of the repository.
    pub(crate) fn found(&self, commit: &str, path: &str) -> Option<PathBuf> {
        let pointer = self.pointer(commit, path);
        let (real, root) = (pointer.canonicalize().ok()?, self.root.canonicalize().ok()?);
        (real.starts_with(root) && real.is_file()).then_some(pointer)
    }

    /// Links a blob to its path in a commit.
    pub(crate) fn link(&self, commit: &str, path: &str, id: &str) -> Result<PathBuf, HubError> {
        let pointer = self.pointer(commit, path);
        let folder = pointer.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        // A snapshot folder that is a link could lead out of the cache.
        let (real, root) = (
            folder.canonicalize().map_err(HubError::io(folder))?,
            self.root.canonicalize().map_err(HubError::io(&self.root))?,
        );
        if !real.starts_with(root) {
            let error = std::io::Error::other("the folder leads out of the cache");
            return Err(HubError::io(folder)(error));
        }
        #[cfg(unix)]
        {
            let up = "../".repeat(path.split('/').count() + 1);
            let new = folder.join(format!(".{id}.{}.new", unique()));
            let _ = fs::remove_file(&new);
            std::os::unix::fs::symlink(format!("{up}blobs/{id}"), &new)
                .and_then(|()| fs::rename(&new, &pointer))
                .map_err(HubError::io(&pointer))?;
        }
        // As in huggingface_hub, for systems where links need privileges.
        #[cfg(not(unix))]
        fs::rename(self.blob(id), &pointer).map_err(HubError::io(&pointer))?;
        Ok(pointer)
    }

    /// Returns the commits in the cache: that of the revision first, the others by age.
    pub(crate) fn commits(&self, revision: &str) -> Vec<String> {
        let first = self.commit(revision);
        let mut others: Vec<(SystemTime, String)> = Vec::new();
        for entry in
            fs::read_dir(self.root.join("snapshots")).into_iter().flatten().flatten().take(ENTRIES_MAX)
        {
            let Some(commit) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name::is_hex(&commit, 40) && first.as_ref() != Some(&commit) {
                let modified = entry.metadata().and_then(|data| data.modified());
                others.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), commit));
            }
        }
        others.sort();
        first.into_iter().chain(others.into_iter().rev().map(|(_, commit)| commit)).collect()
    }

    /// Returns the paths of the existing files of a commit.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let root = self.root.join("snapshots").join(commit);
        let (mut open, mut files, mut entries) = (vec![(root, String::new(), 0)], Vec::new(), 0);
        while let Some((folder, prefix, depth)) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                entries += 1;
                let Some(part) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let path = format!("{prefix}{part}");
                if entries > ENTRIES_MAX || name::check_path(&path).is_err() {
                    continue;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => {
                        open.push((entry.path(), format!("{path}/"), depth + 1));
                    }
                    Ok(_) if self.found(commit, &path).is_some() => files.push(path),
                    _ => {}
                }
            }
        }
        files.sort();
        files
    }

    /// Returns the selected model from the newest commit that has it: commit, files, and projector.
    pub(crate) fn find(&self, repo: &Repo, revision: &str, pick: &Pick) -> Result<Found, HubError> {
        let mut first_error = None;
        for commit in self.commits(revision) {
            let files = self.files(&commit);
            let groups = quant::groups(files.iter().map(String::as_str));
            match quant::choose(&repo.to_string(), &groups, pick) {
                Ok(group) => {
                    let projector = quant::projector(files.iter().map(String::as_str)).map(str::to_owned);
                    return Ok(Found { commit, group: group.clone(), projector });
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| HubError::NoModel(repo.to_string())))
    }

    /// Returns all models of the repository.
    pub(crate) fn models(&self, repo: &Repo, revision: &str) -> Vec<CachedModel> {
        let mut found: Vec<(String, Group)> = Vec::new();
        for commit in self.commits(revision) {
            let files = self.files(&commit);
            for group in quant::groups(files.iter().map(String::as_str)) {
                let known = found.iter().any(|(_, known)| known.files[0] == group.files[0]);
                if !known && group.files.len() == group.parts {
                    found.push((commit.clone(), group));
                }
            }
        }
        let source = |group: &Group| {
            let same = |other: &&(String, Group)| other.1.quant == group.quant;
            let pick = match &group.quant {
                Some(quant) if found.iter().filter(same).count() == 1 => Pick::Quant(quant.clone()),
                _ => Pick::File(group.files[0].clone()),
            };
            Source::Hub { repo: repo.clone(), pick }.to_string()
        };
        let model = |(commit, group): &(String, Group)| {
            let files = group.files.iter().map(|path| self.pointer(commit, path)).collect();
            CachedModel::new(source(group), group.quant.clone(), files)
        };
        found.iter().map(model).collect()
    }
}

/// Returns a part of a temporary file name that no other thread or process uses.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A model that was found in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) commit: String,
    pub(crate) group: Group,
    pub(crate) projector: Option<String>,
}

impl CachedModel {
    pub(crate) fn new(source: String, quant: Option<String>, files: Vec<PathBuf>) -> Self {
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
        let bytes = files.iter().map(length).sum();
        let modified = files.first().and_then(|path| fs::metadata(path).ok()?.modified().ok());
        Self { source, quant, files, bytes, modified }
    }
}

/// Returns the models of all repositories of a cache, by name.
pub(crate) fn models(cache: &Path, revision: &str) -> Vec<CachedModel> {
    let mut models: Vec<_> =
        repos(cache).iter().flat_map(|repo| RepoFolder::new(cache, repo).models(repo, revision)).collect();
    models.sort_by(|a, b| a.source.cmp(&b.source));
    models
}

/// Returns the repositories of a cache that have an owner.
pub(crate) fn repos(cache: &Path) -> Vec<Repo> {
    let repo = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let (owner, name) = name.to_str()?.strip_prefix("models--")?.split_once("--")?;
        Repo::new(owner, name).ok()
    };
    fs::read_dir(cache).into_iter().flatten().flatten().take(ENTRIES_MAX).filter_map(repo).collect()
}
