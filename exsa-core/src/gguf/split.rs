//! Models that are split into several files, as llama.cpp's `gguf-split` writes them.

use super::limits::TENSORS_MAX;
use super::{Gguf, GgufError};
use std::path::{Path, PathBuf};

/// Keys of a part: its number, the number of parts, and the number of tensors in all of them.
const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Maximum number of parts: names have five digits.
const PARTS_MAX: u64 = 99_999;

/// Place of a file in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Split {
    /// Number of the part, from 0 on.
    pub index: usize,
    /// Number of parts, 2 or more.
    pub count: usize,
    /// Tensors in all parts, where the file tells.
    pub tensors: Option<u64>,
}

/// Path of part `index`, from 0 on, of the split model that the file at `path` is a part of:
/// `NAME-00001-of-00003.gguf` and so on. `None` if the name of `path` is no such name, or is one for another
/// number of parts.
///
/// ```
/// use exsa_core::gguf::split_path;
/// use std::path::Path;
///
/// let second = Path::new("models/big-00002-of-00003.gguf");
/// assert_eq!(split_path(second, 0, 3).unwrap(), Path::new("models/big-00001-of-00003.gguf"));
/// assert_eq!(split_path(Path::new("models/big.gguf"), 0, 3), None);
/// ```
#[must_use]
pub fn split_path(path: &Path, index: usize, count: usize) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (stem, number) = rest.rsplit_once('-')?;
    let named = number.len() == 5 && number.bytes().all(|digit| digit.is_ascii_digit());
    let named = named && number.parse::<usize>().is_ok_and(|number| (1..=count).contains(&number));
    (named && index < count)
        .then(|| path.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", index + 1)))
}

/// Paths of all parts of the split model that the file at `path` is a part of, by its name alone; `None` if
/// it is no such name. No file is looked at.
///
/// ```
/// use exsa_core::gguf::split_paths;
/// use std::path::Path;
///
/// let paths = split_paths(Path::new("big-00002-of-00002.gguf")).unwrap();
/// assert_eq!(paths[0], Path::new("big-00001-of-00002.gguf"));
/// assert_eq!(split_paths(Path::new("big.gguf")), None);
/// ```
#[must_use]
pub fn split_paths(path: &Path) -> Option<Vec<PathBuf>> {
    let (_, count) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let count: usize = count.parse().ok().filter(|count| (2..=PARTS_MAX).contains(&(*count as u64)))?;
    (0..count).map(|index| split_path(path, index, count)).collect()
}

impl Gguf {
    /// The place of this file in a split model; `None` for a model of one file.
    ///
    /// # Errors
    ///
    /// [`GgufError::Type`] for numbers that no split model has.
    pub fn split(&self) -> Result<Option<Split>, GgufError> {
        let count = self.metadata.get::<u64>(COUNT)?.unwrap_or(1);
        if count <= 1 {
            return Ok(None);
        }
        if count > PARTS_MAX {
            return Err(self.metadata.refuse(COUNT, count.to_string(), "2 to 99999 parts"));
        }
        let index = self.metadata.get::<u64>(NUMBER)?.unwrap_or(0);
        if index >= count {
            return Err(self.metadata.refuse(NUMBER, index.to_string(), "a number below split.count"));
        }
        let tensors = self.metadata.get::<u64>(TENSORS)?;
        Ok(Some(Split { index: index as usize, count: count as usize, tensors }))
    }

    /// Adds the next file of a split model to the header of those before it; `name` and `first` are the names
    /// of this file and of the first, for messages.
    ///
    /// # Errors
    ///
    /// [`GgufError::Split`] if `part` is not the file that follows.
    pub(crate) fn append(&mut self, part: Self, name: &str, first: &str) -> Result<(), GgufError> {
        let refuse = |problem: String| GgufError::Split { file: name.to_owned(), problem };
        let (number, own) = (self.files.len(), self.split()?);
        let Some(own) = own else { return Err(refuse(format!("{first} is not split"))) };
        let split = part.split().map_err(|error| refuse(error.to_string()))?;
        let Some(split) = split else {
            let expected = format!("part {} of {}", number + 1, own.count);
            return Err(refuse(format!("it is a whole model, but {expected} is expected beside {first}")));
        };
        if split.count != own.count {
            return Err(refuse(format!(
                "it says that the model has {} parts, but {first} says {}",
                split.count, own.count
            )));
        }
        if split.index != number {
            return Err(refuse(format!(
                "it is part {} of the model, but part {} is expected",
                split.index + 1,
                number + 1
            )));
        }
        if let (Some(tensors), Some(expected)) = (split.tensors, own.tensors)
            && tensors != expected
        {
            return Err(refuse(format!(
                "it says that the model has {tensors} tensors, but {first} says {expected}: it is of another model"
            )));
        }
        // The first part has the metadata; others repeat some of them at most.
        for (key, value) in part.metadata.iter().filter(|(key, _)| !key.starts_with("split.")) {
            let is = key == "general.architecture" || key == "general.name";
            if is && self.metadata.get_value(key).is_some_and(|expected| expected != value) {
                return Err(refuse(format!(
                    "its {key} differs from that of {first}: it is of another model"
                )));
            }
        }
        if (self.tensors.len() + part.tensors.len()) as u64 > TENSORS_MAX {
            return Err(refuse(format!("the model has more than {TENSORS_MAX} tensors")));
        }
        for mut tensor in part.tensors {
            if let Some(other) = self.by_name.insert(tensor.name.clone(), self.tensors.len()) {
                let other = self.tensors.get(other).map_or(0, |tensor| tensor.file + 1);
                return Err(refuse(format!("tensor '{}' is in part {other} too", tensor.name)));
            }
            tensor.file = number;
            self.tensors.push(tensor);
        }
        self.files.extend(part.files.first());
        Ok(())
    }

    /// Refuses a split model that has not as many tensors as it says; `first` is the name of its first file.
    pub(crate) fn check_joined(&self, first: &str) -> Result<(), GgufError> {
        let expected = self.split()?.and_then(|split| split.tensors);
        match expected.filter(|expected| *expected != self.tensors.len() as u64) {
            Some(expected) => {
                let found = self.tensors.len();
                let problem = format!(
                    "it says that the model has {expected} tensors, but its parts have {found}: a part is of another model"
                );
                Err(GgufError::Split { file: first.to_owned(), problem })
            }
            None => Ok(()),
        }
    }
}
