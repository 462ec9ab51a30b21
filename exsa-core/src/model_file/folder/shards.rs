//! Weights of a folder: `model.safetensors`, or the shards of `model.safetensors.index.json`.

use super::json::{CONFIG_BYTES_MAX, Json};
use crate::gguf::{GgufFile, TENSORS_MAX, TensorInfo};
use crate::safetensors::SafetensorsHeader;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Maximum bytes of an index.
const INDEX_BYTES_MAX: u64 = 8 * CONFIG_BYTES_MAX;

/// The files of weights and their tensors, under the names of the folder.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) paths: Vec<PathBuf>,
    pub(super) files: Vec<GgufFile>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Reads the headers of all shards in `folder`.
pub(super) fn open(folder: &Path) -> Result<Shards, String> {
    let index = Json::read(folder, INDEX, INDEX_BYTES_MAX)?;
    let Some(index) = index else {
        let mut shards = Shards { paths: Vec::new(), files: Vec::new(), tensors: Vec::new() };
        shards.add(folder, SINGLE)?.ok_or_else(|| format!("{SINGLE} and {INDEX} are missing"))?;
        return Ok(shards);
    };
    let Some(Value::Object(map)) = index.value("weight_map") else {
        return Err(index.refuse("weight_map", "an object of tensors and their files is needed"));
    };
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().filter(|name| is_plain(name));
        names.insert(name.ok_or_else(|| {
            format!("{INDEX}: the file of '{tensor}' is {file}; the name of a file in the folder is expected")
        })?);
    }
    let mut shards = Shards { paths: Vec::new(), files: Vec::new(), tensors: Vec::new() };
    for name in names {
        shards.add(folder, name)?.ok_or_else(|| format!("{INDEX} names {name}, which is missing"))?;
    }
    for (tensor, file) in map {
        let found = shards.tensors.iter().find(|found| found.name == *tensor);
        let at = found.and_then(|found| shards.paths.get(found.file)?.file_name()?.to_str());
        if at.is_none() || at != file.as_str() {
            let there = at.map_or("it is in none".to_owned(), |at| format!("it is in {at}"));
            return Err(format!("{INDEX}: tensor '{tensor}' is said to be in {file}, but {there}"));
        }
    }
    Ok(shards)
}

/// Whether `name` is that of a safetensors file in the folder itself.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    one && name.ends_with(".safetensors") && !name.contains(['/', '\\'])
}

impl Shards {
    /// Adds the tensors of a file; `None` if it is missing.
    fn add(&mut self, folder: &Path, name: &str) -> Result<Option<()>, String> {
        let path = folder.join(name);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| format!("{name}: {error}"))?,
        };
        let len = file.metadata().map_err(|error| format!("{name}: {error}"))?.len();
        let header = SafetensorsHeader::read(&mut file).map_err(|problem| format!("{name}: {problem}"))?;
        let data_offset = header.tensors.first().map_or(len, |tensor| tensor.offset);
        if (self.tensors.len() + header.tensors.len()) as u64 > TENSORS_MAX {
            return Err(format!("{name}: more than {TENSORS_MAX} tensors"));
        }
        let number = self.paths.len();
        let known: BTreeSet<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        if let Some(twice) = header.tensors.iter().find(|tensor| known.contains(tensor.name.as_str())) {
            return Err(format!("{name}: tensor '{}' is in another file too", twice.name));
        }
        self.tensors.extend(header.tensors.into_iter().map(|tensor| TensorInfo { file: number, ..tensor }));
        self.files.push(GgufFile { data_offset, len });
        self.paths.push(path);
        Ok(Some(()))
    }
}
