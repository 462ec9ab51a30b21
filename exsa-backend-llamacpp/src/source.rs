//! Model sources. Core parses and checks all headers before llama.cpp opens anything.

use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use exsa_core::gguf::{Gguf, GgufError, TensorInfo};
use exsa_core::model_info::{self, ModelInfo};
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Maximum number of parts of a split model: their names have five digits.
const PARTS_MAX: usize = 99_999;

/// A model whose headers core has checked.
pub(crate) struct Checked<'a> {
    /// Location of the weights.
    pub bytes: Bytes<'a>,
    /// The header; of a split model, that of the first part.
    pub gguf: Gguf,
    /// The headers of the other parts.
    rest: Vec<Gguf>,
    /// Description of the model, over all parts.
    pub info: ModelInfo,
}

impl Checked<'_> {
    /// The tensors of all parts.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        std::iter::once(&self.gguf).chain(&self.rest).flat_map(Gguf::tensors)
    }

    /// The tensor of this name, from any part.
    #[cfg(test)]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        std::iter::once(&self.gguf).chain(&self.rest).find_map(|part| part.tensor(name))
    }
}

/// Location of weights.
pub(crate) enum Bytes<'a> {
    /// Files in order; a single one unless the model is split.
    Files(Vec<PathBuf>),
    /// In memory.
    Memory(&'a [u8]),
}

/// Reads the headers of `source`.
pub(crate) fn open(source: &ModelSource) -> Result<Checked<'_>, LoadError> {
    model_info::check_source(source)?;
    match source {
        ModelSource::File(path) => open_files(path),
        ModelSource::Embedded(bytes) => open_memory(bytes),
        ModelSource::Memory(bytes) => open_memory(bytes),
        _ => Err(LoadError::Unsupported {
            what: "this source of a model".to_owned(),
            supported: "a file, embedded bytes, bytes in memory".to_owned(),
        }),
    }
}

fn open_memory(bytes: &[u8]) -> Result<Checked<'_>, LoadError> {
    let gguf = Gguf::read(&mut Cursor::new(bytes))?;
    model_info::check_type(&gguf)?;
    if parts(&gguf)? > 1 {
        return Err(LoadError::Unsupported {
            what: "a part of a split model in memory".to_owned(),
            supported: "split models in files".to_owned(),
        });
    }
    let info = ModelInfo::from_gguf(&gguf)?;
    Ok(Checked { bytes: Bytes::Memory(bytes), gguf, rest: Vec::new(), info })
}

fn open_files(path: &Path) -> Result<Checked<'static>, LoadError> {
    let gguf = read(path)?;
    model_info::check_type(&gguf)?;
    let mut info = ModelInfo::from_gguf(&gguf)?;
    let paths = part_paths(path, &gguf)?;
    let rest = paths.iter().skip(1).map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    for part in &rest {
        let sum = |of: fn(&TensorInfo) -> u64| part.tensors().iter().map(of).fold(0, u64::saturating_add);
        info.parameters = info.parameters.saturating_add(sum(TensorInfo::elements));
        info.weights_bytes = info.weights_bytes.saturating_add(sum(|tensor| tensor.bytes));
    }
    Ok(Checked { bytes: Bytes::Files(paths), gguf, rest, info })
}

/// The header of a file.
fn read(path: &Path) -> Result<Gguf, LoadError> {
    let mut file = File::open(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    Gguf::read(&mut file).map_err(|error| match error {
        GgufError::Io(source) => LoadError::Io { path: path.to_owned(), source },
        other => other.into(),
    })
}

/// Number of parts of the model; 1 if it is not split.
fn parts(gguf: &Gguf) -> Result<usize, LoadError> {
    Ok(gguf.metadata().get::<usize>("split.count")?.unwrap_or(1).max(1))
}

/// Files of all parts, named as llama.cpp's splitter does: `NAME-00001-of-00003.gguf`.
fn part_paths(first: &Path, gguf: &Gguf) -> Result<Vec<PathBuf>, LoadError> {
    let parts = parts(gguf)?;
    if parts == 1 {
        return Ok(vec![first.to_owned()]);
    }
    let refuse = |problem: String| LoadError::Unsupported {
        what: format!("{}, one of {parts} parts of a model: {problem}", first.display()),
        supported: "the first part, called NAME-00001-of-COUNT.gguf, beside the others".to_owned(),
    };
    if parts > PARTS_MAX {
        return Err(refuse("too many".to_owned()));
    }
    let number = gguf.metadata().get::<usize>("split.no")?.unwrap_or(0);
    if number != 0 {
        return Err(refuse(format!("it is number {}", number + 1)));
    }
    let name = first.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = |part: usize| format!("-{part:05}-of-{parts:05}.gguf");
    let Some(stem) = name.strip_suffix(&ending(1)) else {
        return Err(refuse("its name does not say so".to_owned()));
    };
    Ok((1..=parts).map(|part| first.with_file_name(format!("{stem}{}", ending(part)))).collect())
}
