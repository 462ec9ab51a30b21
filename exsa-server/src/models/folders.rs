//! The folders from which models may be loaded.
//!
//! A file is checked when it is opened, not when it is configured: its real path, with all symbolic links
//! resolved, must be inside a folder. On Linux the check is repeated on the open descriptor, through which
//! the backend then reads the file, so replacing the file or a link in between has no effect. Elsewhere the
//! backend opens the checked path; there the folders must not be writable by others.

use super::name;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Maximum folder depth for discovering models.
const DEPTH_MAX: usize = 4;
/// Maximum directory entries that are examined.
const ENTRIES_MAX: usize = 10_000;

/// Folders, by their real paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Folders {
    roots: Vec<PathBuf>,
}

/// An open model file inside a folder.
#[derive(Debug)]
pub(super) struct Opened {
    /// Path through which the backend reads the file.
    pub(super) path: PathBuf,
    /// Keeps the descriptor of `path` open; `None` for a folder.
    _file: Option<File>,
}

impl Folders {
    /// # Errors
    ///
    /// The first folder that does not exist or is not a folder.
    pub(super) fn new(folders: &[PathBuf]) -> io::Result<Self> {
        let mut roots = Vec::new();
        for folder in folders {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
            let root = folder.canonicalize().map_err(named)?;
            if !root.is_dir() {
                return Err(named(io::Error::from(io::ErrorKind::NotADirectory)));
            }
            roots.push(root);
        }
        Ok(Self { roots })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Returns the path of an existing file: relative to the first folder that has it, or absolute.
    pub(super) fn locate(&self, path: &Path) -> Option<PathBuf> {
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let mut candidates = self.roots.iter().filter(|_| inside).map(|root| root.join(path));
        candidates.find(|candidate| candidate.is_file())
    }

    /// Opens an adapter inside a folder, given by a relative or absolute path: a GGUF file, or a PEFT folder,
    /// whose files' real paths are checked.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`io::ErrorKind::NotFound`].
    pub(super) fn open_adapter(&self, path: &Path) -> io::Result<Opened> {
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let path = if path.is_absolute() {
            path.to_owned()
        } else {
            let mut candidates = self.roots.iter().filter(|_| inside).map(|root| root.join(path));
            candidates.find(|candidate| candidate.exists()).ok_or(io::ErrorKind::NotFound)?
        };
        let real = path.canonicalize()?;
        if !real.is_dir() {
            return self.open(&real);
        }
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            self.check(&real.join(file).canonicalize()?)?;
        }
        Ok(Opened { path: real, _file: None })
    }

    /// Opens a file whose real path is inside a folder.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::PermissionDenied`] for a file elsewhere, or one that is not a regular file.
    pub(super) fn open(&self, path: &Path) -> io::Result<Opened> {
        let real = path.canonicalize()?;
        self.check(&real)?;
        if !fs::metadata(&real)?.is_file() {
            return Err(refused("not a regular file"));
        }
        let file = File::open(&real)?;
        if !file.metadata()?.is_file() {
            return Err(refused("not a regular file"));
        }
        let path = match descriptor(&file) {
            Some(link) => {
                self.check(&fs::read_link(&link)?)?;
                link
            }
            None => real,
        };
        Ok(Opened { path, _file: Some(file) })
    }

    /// Returns the path of a file relative to its folder, for messages to clients; only the file name if it
    /// is in none.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        let below = self.roots.iter().find_map(|root| path.strip_prefix(root).ok());
        below.or(path.file_name().map(Path::new)).unwrap_or(Path::new("")).to_owned()
    }

    /// Returns model files in the folders with their names: the relative path without `.gguf`. For equal
    /// names the first folder counts. A split model has the name before the numbers of its parts. Files whose
    /// path is not a valid name are left out.
    pub(super) fn discover(&self) -> Vec<(String, PathBuf)> {
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        let mut entries = 0;
        for root in &self.roots {
            let mut open = vec![(root.clone(), 0)];
            while let Some((folder, depth)) = open.pop() {
                for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    entries += 1;
                    if entries > ENTRIES_MAX {
                        tracing::warn!(
                            "more than {ENTRIES_MAX} files in the folders of models; the rest is left out"
                        );
                        return found;
                    }
                    let path = entry.path();
                    // Links to folders are not followed, since they could be circular.
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < DEPTH_MAX {
                        open.push((path, depth + 1));
                    } else if let Some(name) = name_of(&path, root)
                        && self.open(&path).is_ok()
                        && !found.iter().any(|(known, _)| *known == name)
                    {
                        found.push((name, path));
                    }
                }
            }
        }
        found.sort();
        found
    }

    fn check(&self, real: &Path) -> io::Result<()> {
        if self.roots.iter().any(|root| real.starts_with(root)) {
            return Ok(());
        }
        Err(refused("the file lies outside the folders of models"))
    }
}

/// Returns the name of the model in a file, if it is valid.
fn name_of(path: &Path, root: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok()?;
    let mut parts = Vec::new();
    for part in below.components() {
        parts.push(part.as_os_str().to_str()?);
    }
    let name = parts.join("/");
    let name = name.strip_suffix(".gguf")?;
    let name = match split_part(name) {
        None => name,
        // The first part stands for the model.
        Some((model, "00001")) => model,
        Some(_) => return None,
    };
    name::check(name).is_ok().then(|| name.to_owned())
}

/// Name of the model that a file is a part of, and the number of the part: `model-00001-of-00003`.
fn split_part(name: &str) -> Option<(&str, &str)> {
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (head, total) = name.rsplit_once("-of-")?;
    head.rsplit_once('-').filter(|(_, part)| digits(part) && digits(total))
}

/// A path that names an open descriptor.
#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    fs::symlink_metadata(&path).is_ok().then_some(path)
}

#[cfg(not(target_os = "linux"))]
fn descriptor(_: &File) -> Option<PathBuf> {
    None
}

fn refused(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("exsa-folders-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("models/org")).unwrap();
            for file in ["secret.gguf", "models/a.gguf", "models/org/b.gguf", "models/notes.txt"] {
                fs::write(path.join(file), file).unwrap();
            }
            Self(path.canonicalize().unwrap())
        }

        fn folders(&self) -> Folders {
            Folders::new(&[self.0.join("models")]).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_files_in_the_folders_are_opened() {
        let scratch = Scratch::new("open");
        let folders = scratch.folders();
        let opened = folders.open(&scratch.0.join("models/a.gguf")).unwrap();
        assert_eq!(fs::read(&opened.path).unwrap(), b"models/a.gguf");
        for path in ["secret.gguf", "models/../secret.gguf", "models"] {
            let error = folders.open(&scratch.0.join(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{path}");
        }
        assert_eq!(folders.locate(Path::new("org/b.gguf")), Some(scratch.0.join("models/org/b.gguf")));
        for path in ["../secret.gguf", "org/../../secret.gguf", "missing.gguf", "org"] {
            assert_eq!(folders.locate(Path::new(path)), None, "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_count_by_the_file_they_lead_to() {
        use std::os::unix::fs::symlink;
        let scratch = Scratch::new("links");
        let models = scratch.0.join("models");
        symlink(scratch.0.join("secret.gguf"), models.join("out.gguf")).unwrap();
        symlink(models.join("a.gguf"), models.join("in.gguf")).unwrap();
        symlink(&scratch.0, models.join("up")).unwrap();
        let folders = scratch.folders();
        assert!(folders.open(&models.join("in.gguf")).is_ok());
        for path in ["out.gguf", "up/secret.gguf"] {
            assert_eq!(folders.open(&models.join(path)).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        let names: Vec<_> = folders.discover().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "in", "org/b"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_stays_the_one_that_was_checked() {
        let scratch = Scratch::new("replaced");
        let path = scratch.0.join("models/a.gguf");
        let opened = scratch.folders().open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(scratch.0.join("secret.gguf"), &path).unwrap();
        assert_eq!(fs::read(&opened.path).unwrap(), b"models/a.gguf");
    }

    #[test]
    fn parts_of_split_models_are_one_model() {
        assert_eq!(split_part("x/model-00001-of-00003"), Some(("x/model", "00001")));
        for name in ["model-of-00003", "model-1-of-3", "00001-of-00003", "model"] {
            assert_eq!(split_part(name), None, "{name}");
        }
        let scratch = Scratch::new("split");
        for part in 1..=2 {
            fs::write(scratch.0.join(format!("models/org/big-{part:05}-of-00002.gguf")), "").unwrap();
        }
        let found = scratch.folders().discover();
        let big = ("org/big".to_owned(), scratch.0.join("models/org/big-00001-of-00002.gguf"));
        assert!(found.contains(&big), "{found:?}");
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
