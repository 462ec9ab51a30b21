//! Folders of Hugging Face's form: `config.json`, `tokenizer.json`, `generation_config.json`,
//! `tokenizer_config.json`, `chat_template.jinja`, and weights in `*.safetensors` with their index.
//!
//! A folder becomes the header that a GGUF of the same model has: metadata under llama.cpp's keys, tensors
//! under its names, with their places in the shards. What its converter does to weights is a
//! [`Conversion`](super::Conversion). So everything behind the header is the same for both.
//!
//! Supported are the dense families of `config.json`'s `model_type` llama, mistral, qwen2, qwen3, gemma2 and
//! gemma3 (text).

mod config;
mod json;
mod pre_tokenizer;
mod rope;
mod shards;
mod tensors;
mod tokenizer;

use super::ModelFile;
use crate::error::LoadError;
use crate::gguf::{GgmlType, Gguf, GgufFile, Metadata, TensorInfo, Value as GgufValue};
use json::Json;
use std::path::Path;

/// File by which a folder is known to be a model.
const CONFIG: &str = "config.json";

/// Whether the folder at `path` holds a model of this form.
pub(super) fn is_model(path: &Path) -> bool {
    path.is_dir() && path.join(CONFIG).is_file()
}

/// Opens the model in the folder at `path`.
pub(super) fn open(path: &Path) -> Result<ModelFile, LoadError> {
    let refuse = |problem: String| LoadError::ModelFolder { path: path.to_owned(), problem };
    let config = Json::read(path, CONFIG, json::CONFIG_BYTES_MAX)
        .and_then(|json| json.ok_or_else(|| format!("{CONFIG} is missing")))
        .map_err(refuse)?;
    let family = config::family(&config).map_err(refuse)?;
    let mut metadata = Metadata::default();
    let sizes = config::translate(&config, family, &mut metadata).map_err(refuse)?;
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        metadata.set("general.name", GgufValue::Str(name.to_owned()));
    }
    tokenizer::translate(path, &config, &mut metadata).map_err(refuse)?;
    let mut shards = shards::open(path).map_err(refuse)?;
    let (mut tensors, sources) = tensors::translate(&shards, family, &sizes).map_err(refuse)?;
    let memory = rope::factors(&config, &metadata).map_err(refuse)?;
    if let Some(factors) = &memory {
        let (len, file) = (factors.len() as u64, shards.files.len());
        tensors.push(TensorInfo {
            name: rope::FACTORS.to_owned(),
            shape: vec![len / 4],
            dtype: GgmlType::F32,
            offset: 0,
            bytes: len,
            file,
        });
        shards.files.push(GgufFile { data_offset: 0, len });
    }
    let gguf = Gguf::assemble(metadata, tensors, shards.files)?;
    Ok(ModelFile { gguf, paths: shards.paths, memory, sources })
}
