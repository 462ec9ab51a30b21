//! The files of a GGUF, one or several.

use super::{ModelFile, name_of};
use crate::error::LoadError;
use crate::gguf::{Gguf, GgufError, Split, split_path};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Opens the file at `path`, and the others of a split model that it is a part of.
pub(super) fn open(path: &Path) -> Result<ModelFile, LoadError> {
    let named = read(path)?;
    let Some(split) = named.split()? else { return Ok(ModelFile::new(named, vec![path.to_owned()])) };
    let part = |index| {
        split_path(path, index, split.count).ok_or_else(|| {
            let expected =
                format!("NAME-{:05}-of-{:05}.gguf beside the other parts", split.index + 1, split.count);
            let problem = format!(
                "it is part {} of {} of a model, but its name does not say so: {expected} is expected",
                split.index + 1,
                split.count
            );
            GgufError::Split { file: name_of(path), problem }
        })
    };
    let expected = part(split.index)?;
    if expected.file_name() != path.file_name() {
        let problem = format!("it is part {} of the model, not the one of its name", split.index + 1);
        return Err(GgufError::Split { file: name_of(path), problem }.into());
    }
    let first = part(0)?;
    let gguf = if split.index == 0 { named } else { read_part(&first, 0, &split)? };
    let rest = (1..split.count).map(|index| part(index).map_err(LoadError::from));
    join((first, gguf), split, rest)
}

/// Opens files that are all parts of a model, in order.
pub(super) fn open_all(paths: &[PathBuf]) -> Result<ModelFile, LoadError> {
    let Some((path, rest)) = paths.split_first() else {
        return Err(LoadError::Unsupported {
            what: "a model of no files".to_owned(),
            supported: "one file, or all parts of a split model in order".to_owned(),
        });
    };
    let first = read(path)?;
    let split = first.split()?;
    let count = split.map_or(1, |split| split.count);
    if count != paths.len() {
        let problem =
            format!("it says that the model has {count} parts, but {} files are given", paths.len());
        return Err(GgufError::Split { file: name_of(path), problem }.into());
    }
    match split {
        Some(split) => join((path.clone(), first), split, rest.iter().cloned().map(Ok)),
        None => Ok(ModelFile::new(first, vec![path.clone()])),
    }
}

/// Joins the first part with the others.
fn join(
    (first, mut gguf): (PathBuf, Gguf),
    split: Split,
    rest: impl Iterator<Item = Result<PathBuf, LoadError>>,
) -> Result<ModelFile, LoadError> {
    let first_name = name_of(&first);
    let own = gguf.split()?;
    if own.is_none_or(|own| own.index != 0 || own.count != split.count) {
        let problem = match own {
            Some(own) => format!("it is part {} of {} of a model", own.index + 1, own.count),
            None => "it is a whole model".to_owned(),
        };
        let problem = format!("{problem}, but part 1 of {} is expected", split.count);
        return Err(GgufError::Split { file: first_name, problem }.into());
    }
    let mut paths = vec![first];
    for path in rest {
        let path = path?;
        let part = read_part(&path, paths.len(), &split)?;
        gguf.append(part, &name_of(&path), &first_name)?;
        paths.push(path);
    }
    gguf.check_joined(&first_name)?;
    Ok(ModelFile::new(gguf, paths))
}

/// The header of part `index`, which must be there.
fn read_part(path: &Path, index: usize, split: &Split) -> Result<Gguf, LoadError> {
    read(path).map_err(|error| match error {
        LoadError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            let problem = format!("part {} of {} of the model is missing", index + 1, split.count);
            GgufError::Split { file: path.display().to_string(), problem }.into()
        }
        LoadError::Gguf(error @ GgufError::Split { .. }) => error.into(),
        LoadError::Gguf(error) => GgufError::Split { file: name_of(path), problem: error.to_string() }.into(),
        error => error,
    })
}

/// The header of a file.
fn read(path: &Path) -> Result<Gguf, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    Gguf::read(&mut file).map_err(|error| match error {
        GgufError::Io(source) => io(source),
        other => other.into(),
    })
}
