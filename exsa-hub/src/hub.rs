//! [`Hub`]: downloads, finds, lists and removes models by their source.

use crate::cache::{self, CachedModel, Lock, Removal, Removed, RepoFolder};
use crate::cancel::Cancel;
use crate::digest;
use crate::download::{Target, download};
use crate::error::HubError;
use crate::listing::{Listed, Listing};
use crate::name;
use crate::options::HubOptions;
use crate::progress::{Phase, Progress};
use crate::quant;
use crate::source::{Pick, Repo, Source};
use crate::space;
use crate::transport::{Part, Transport, shown};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the file with the address of a download.
const ORIGIN: &str = "origin";

/// The files of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// The model; for a split model its first file, with the others beside it.
    pub model: PathBuf,
    /// The projector of a vision model, beside it.
    pub projector: Option<PathBuf>,
    /// All files.
    pub files: Vec<PathBuf>,
}

/// Downloads models and keeps them in a cache. See the crate documentation.
#[derive(Clone, Debug)]
pub struct Hub {
    options: HubOptions,
}

impl Hub {
    /// # Errors
    ///
    /// An option is out of range.
    pub fn new(options: HubOptions) -> Result<Self, HubError> {
        options.validate()?;
        Ok(Self { options })
    }

    /// Returns the folder of the cache.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.options.cache
    }

    /// Downloads the parts of a model that are not in the cache.
    ///
    /// `progress` is called for each received piece, from several threads but never concurrently; the
    /// download waits for it.
    ///
    /// # Errors
    ///
    /// See [`HubError`]. Received bytes are kept, and a later call resumes.
    pub fn pull(
        &self,
        source: &Source,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(&Progress<'_>) + Send),
    ) -> Result<Pulled, HubError> {
        if self.options.offline {
            return self.cached(source);
        }
        match source {
            Source::Path(_) => self.cached(source),
            Source::Hub { repo, pick } => self.pull_repo(repo, pick, cancel, progress),
            Source::Url { url, sha256 } => self.pull_url(url, sha256.as_deref(), cancel, progress),
        }
    }

    /// Returns a model of the cache, or a local file. Does not use the network.
    ///
    /// # Errors
    ///
    /// [`HubError::NotCached`], [`HubError::NoFile`], or [`HubError::Ambiguous`] if several models of the
    /// cache match.
    pub fn cached(&self, source: &Source) -> Result<Pulled, HubError> {
        let absent =
            || HubError::NotCached { source_name: source.to_string(), cache: self.options.cache.clone() };
        match source {
            Source::Path(path) if path.exists() => {
                Ok(Pulled { model: path.clone(), projector: None, files: vec![path.clone()] })
            }
            Source::Path(path) => Err(HubError::NoFile(path.clone())),
            Source::Url { url, .. } => {
                let place = UrlPlace::new(&self.options.downloads, url)?;
                if !place.file.is_file() {
                    return Err(absent());
                }
                Ok(Pulled { model: place.file.clone(), projector: None, files: vec![place.file] })
            }
            Source::Hub { repo, pick } => {
                let folder = RepoFolder::new(&self.options.cache, repo);
                let found = folder.find(repo, &self.options.revision, pick).map_err(|error| match error {
                    // Several matches in the cache are an error of their own; no match is not.
                    HubError::Ambiguous { .. } => error,
                    _ => absent(),
                })?;
                let path = |file: &String| folder.pointer(&found.commit, file);
                let mut files: Vec<PathBuf> = found.group.files.iter().map(path).collect();
                let model = files[0].clone();
                let projector = found.projector.as_ref().map(path);
                files.extend(projector.clone());
                Ok(Pulled { model, projector, files })
            }
        }
    }

    /// Returns the models of the cache and of other downloads, with their sources.
    #[must_use]
    pub fn models(&self) -> Vec<CachedModel> {
        let mut models = cache::models(&self.options.cache, &self.options.revision);
        for entry in fs::read_dir(&self.options.downloads).into_iter().flatten().flatten() {
            let Ok(origin) = fs::read_to_string(entry.path().join(ORIGIN)) else { continue };
            for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let path = file.path();
                let name = file.file_name().to_string_lossy().into_owned();
                let other = name == ORIGIN
                    || [".part", ".lock", ".json", ".new"].iter().any(|end| name.ends_with(end));
                if !other && path.is_file() {
                    models.push(CachedModel::new(
                        name::printable(origin.trim()),
                        quant::quantization(&name),
                        vec![path],
                    ));
                }
            }
        }
        models
    }

    /// Deletes a model of the cache. Other local files are refused.
    ///
    /// # Errors
    ///
    /// No model of the cache matches, several match, or a file cannot be deleted.
    pub fn remove(&self, source: &Source) -> Result<Removed, HubError> {
        match source {
            Source::Path(path) => {
                let problem = "only models of the cache are removed; delete other files yourself".to_owned();
                Err(HubError::Source { text: path.display().to_string(), problem })
            }
            Source::Url { url, .. } => {
                let pulled = self.cached(source)?;
                let place = UrlPlace::new(&self.options.downloads, url)?;
                let bytes = fs::metadata(&pulled.model).map_or(0, |data| data.len());
                fs::remove_dir_all(&place.folder).map_err(HubError::io(&place.folder))?;
                Ok(Removed { files: pulled.files, bytes })
            }
            Source::Hub { repo, pick } => {
                // An unspecified quantization must not delete the default one.
                let folder = RepoFolder::new(&self.options.cache, repo);
                if *pick == Pick::Usual {
                    let choices = choices(&folder, repo, &self.options.revision);
                    if choices.len() > 1 {
                        let problem = "has several models; name one".to_owned();
                        return Err(HubError::Ambiguous { repo: repo.to_string(), problem, choices });
                    }
                }
                self.cached(source)?;
                let found = folder.find(repo, &self.options.revision, pick)?;
                Removal::new(&folder).files(&self.options.revision, &found.group.files)
            }
        }
    }

    /// Deletes incomplete downloads that are not in progress.
    ///
    /// # Errors
    ///
    /// A file cannot be deleted.
    pub fn remove_incomplete(&self) -> Result<Removed, HubError> {
        cache::incomplete(&self.options.cache, &self.options.downloads)
    }

    fn pull_repo(
        &self,
        repo: &Repo,
        pick: &Pick,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(&Progress<'_>) + Send),
    ) -> Result<Pulled, HubError> {
        let transport = Transport::new(&self.options, cancel)?;
        let listing = Listing::fetch(&transport, &self.options, repo)?;
        let names = || listing.files.iter().map(|file| file.path.as_str());
        let groups = quant::groups(names());
        let mut paths = quant::choose(&repo.to_string(), &groups, pick)?.files.clone();
        let projector = quant::projector(names()).filter(|_| self.options.projector).map(str::to_owned);
        let model = paths[0].clone();
        paths.extend(projector.clone());
        let folder = RepoFolder::new(&self.options.cache, repo);
        folder.create()?;
        let mut files = Vec::new();
        for path in &paths {
            let listed = listing.file(path).cloned();
            let listed = listed.ok_or_else(|| HubError::NoModel(repo.to_string()))?;
            files.push(self.identified(&transport, repo, &listing.commit, listed)?);
        }
        self.check_space(&folder, &listing.commit, &files)?;
        for (index, file) in files.iter().enumerate() {
            let mut report = |phase, bytes, total| {
                progress(&Progress {
                    file: &file.path,
                    index,
                    files: files.len(),
                    phase,
                    bytes,
                    total,
                    sha256: file.sha256.as_deref(),
                });
            };
            self.fetch(&transport, &folder, repo, &listing.commit, file, &mut report)?;
        }
        folder.set_commit(&self.options.revision, &listing.commit)?;
        let pointer = |path: &String| folder.pointer(&listing.commit, path);
        Ok(Pulled {
            model: pointer(&model),
            projector: projector.as_ref().map(pointer),
            files: paths.iter().map(pointer).collect(),
        })
    }

    /// Returns the file with an id for its blob; mirrors may list none.
    fn identified(
        &self,
        transport: &Transport,
        repo: &Repo,
        commit: &str,
        mut file: Listed,
    ) -> Result<Listed, HubError> {
        if file.sha256.is_some() || file.blob.is_some() {
            return Ok(file);
        }
        let url = self.file_url(repo, commit, &file.path);
        let mut failures = 0;
        file.sha256 = loop {
            match transport.get(&url, &Part { range: Some((0, 0)), if_range: None }) {
                Ok(reply) => break reply.linked_sha256,
                Err(fault) => {
                    failures += 1;
                    transport.retries.wait(&transport.cancel, fault, failures)?;
                }
            }
        };
        if file.sha256.is_none() {
            let problem =
                "the hub states no SHA-256 of the file, neither in its listing nor by X-Linked-ETag"
                    .to_owned();
            return Err(HubError::Protocol { url: shown(&url), problem });
        }
        Ok(file)
    }

    fn file_url(&self, repo: &Repo, commit: &str, path: &str) -> String {
        format!("{}/{repo}/resolve/{commit}/{}", self.options.endpoint, name::percent_encoded(path))
    }

    /// Checks that all missing files fit on the disk. Each is checked again later, with the bytes of it that
    /// are present.
    fn check_space(&self, folder: &RepoFolder, commit: &str, files: &[Listed]) -> Result<(), HubError> {
        let absent = files.iter().filter(|file| {
            let id = id(file);
            !folder.blob(id).exists()
                && folder.found(commit, &file.path).is_none()
                && !part(&folder.blob(id)).exists()
        });
        let needed = absent.filter_map(|file| file.size).fold(0, u64::saturating_add);
        space::check(&folder.blobs(), needed, self.options.reserve_bytes)
    }

    fn fetch(
        &self,
        transport: &Transport,
        folder: &RepoFolder,
        repo: &Repo,
        commit: &str,
        file: &Listed,
        report: &mut (dyn FnMut(Phase, u64, Option<u64>) + Send),
    ) -> Result<(), HubError> {
        let (id, url) = (id(file), self.file_url(repo, commit, &file.path));
        let blob = folder.blob(id);
        let whole = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|data| data.is_file() && file.size.is_none_or(|size| size == data.len()))
        };
        let _lock =
            Lock::take(&folder.lock_file(id), &transport.cancel, || report(Phase::Waiting, 0, file.size))?;
        let there = folder.found(commit, &file.path).is_some_and(|pointer| whole(&pointer));
        if !there {
            if !whole(&blob) {
                let part = part(&blob);
                let target = Target {
                    name: &file.path,
                    url: &url,
                    size: file.size,
                    sha256: file.sha256.as_deref(),
                    part: &part,
                };
                download(transport, &self.options, &target, report)?;
                fs::rename(&part, &blob).map_err(HubError::io(&blob))?;
            }
            folder.link(commit, &file.path, id)?;
        }
        let length = fs::metadata(folder.pointer(commit, &file.path)).map_or(0, |data| data.len());
        report(Phase::Done, length, Some(length));
        Ok(())
    }

    fn pull_url(
        &self,
        url: &str,
        sha256: Option<&str>,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(&Progress<'_>) + Send),
    ) -> Result<Pulled, HubError> {
        let place = UrlPlace::new(&self.options.downloads, url)?;
        let transport = Transport::new(&self.options, cancel)?;
        let mut report = |phase, bytes, total| {
            progress(&Progress { file: &place.name, index: 0, files: 1, phase, bytes, total, sha256 });
        };
        fs::create_dir_all(&place.folder).map_err(HubError::io(&place.folder))?;
        let lock = place.folder.join(format!("{}.lock", place.name));
        let _lock = Lock::take(&lock, cancel, || report(Phase::Waiting, 0, None))?;
        if !place.file.is_file() {
            let part = part(&place.file);
            let target = Target { name: &place.name, url, size: None, sha256, part: &part };
            download(&transport, &self.options, &target, &mut report)?;
            let origin = place.folder.join(ORIGIN);
            fs::write(&origin, shown(url)).map_err(HubError::io(&origin))?;
            fs::rename(&part, &place.file).map_err(HubError::io(&place.file))?;
        }
        let length = fs::metadata(&place.file).map_or(0, |data| data.len());
        report(Phase::Done, length, Some(length));
        Ok(Pulled { model: place.file.clone(), projector: None, files: vec![place.file] })
    }
}

/// Returns the id of a file's blob, which [`Hub::identified`] has ensured.
fn id(file: &Listed) -> &str {
    file.sha256.as_deref().or(file.blob.as_deref()).unwrap_or_default()
}

fn part(path: &Path) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(".part");
    path.into()
}

/// Returns the sources of the models of a repository in the cache.
fn choices(folder: &RepoFolder, repo: &Repo, revision: &str) -> Vec<String> {
    folder.models(repo, revision).into_iter().map(|model| model.source).collect()
}

/// Location of a file from an address: its own folder.
struct UrlPlace {
    folder: PathBuf,
    file: PathBuf,
    name: String,
}

impl UrlPlace {
    fn new(downloads: &Path, url: &str) -> Result<Self, HubError> {
        let refused = |problem: String| HubError::Source { text: shown(url), problem };
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let encoded = path.rsplit('/').next().unwrap_or_default();
        let name = name::percent_decoded(encoded).unwrap_or_default();
        if name.contains('/') || name.ends_with(".part") || name.ends_with(".lock") || name == ORIGIN {
            return Err(refused("its last part is no name of a file".to_owned()));
        }
        name::check_path(&name).map_err(refused)?;
        let folder = downloads.join(&digest::of_text(url)[..24]);
        Ok(Self { file: folder.join(&name), folder, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_folder_each_and_stay_in_it() {
        let place = |url| UrlPlace::new(Path::new("d"), url);
        let (a, b) = (place("https://h/x/m%20a.gguf?t=1").unwrap(), place("https://h/y/m%20a.gguf").unwrap());
        assert_eq!(a.name, "m a.gguf");
        assert_ne!(a.folder, b.folder);
        assert_eq!(a.file.parent(), Some(a.folder.as_path()));
        for url in [
            "https://h/",
            "https://h/..",
            "https://h/%2e%2e",
            "https://h/a%2f..%2fb",
            "https://h/%00",
            "https://h/x.part",
        ] {
            assert!(place(url).is_err(), "{url}");
        }
    }
}
