//! Metadata of a model, read from its file header.

use crate::backend::Fingerprint;
use crate::backend::source::ModelSource;
use crate::error::LoadError;
use crate::gguf::{Gguf, GgufError, Metadata, TensorInfo, Value};
use std::collections::BTreeMap;

/// Metadata of a model, available without its weights.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ModelInfo {
    /// `general.name`; empty if the file has none.
    pub name: String,
    /// `general.architecture`: `llama`, `qwen2`.
    pub architecture: String,
    /// Quantization of the weights, as in file names: `Q4_K_M`, `Q8_0`, `F16`.
    pub quantization: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Bytes of KV per token at f16, over all layers.
    pub kv_bytes_per_token: u64,
    /// Context length that the model was trained for, in tokens.
    pub n_ctx: usize,
    /// Vocabulary size in tokens.
    pub n_vocab: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// The default chat template (Jinja); `None` if the file has none.
    pub chat_template: Option<String>,
    /// Further chat templates in the file, by name: `tool_use`, `rag`.
    pub chat_templates: BTreeMap<String, String>,
}

impl ModelInfo {
    /// Metadata with a vocabulary of `n_vocab` tokens and a context length of `n_ctx` tokens; the other
    /// fields are empty or 0.
    #[must_use]
    pub fn new(n_vocab: usize, n_ctx: usize) -> Self {
        Self { n_vocab, n_ctx, ..Self::default() }
    }

    /// Reads the metadata of a GGUF file. For a vocabulary-only file, absent numbers are 0.
    ///
    /// # Errors
    ///
    /// [`GgufError::Type`] if a key has the wrong type.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, GgufError> {
        let metadata = gguf.metadata();
        let architecture = metadata.require::<String>("general.architecture")?;
        let number = |key: &str| -> Result<usize, GgufError> {
            Ok(metadata.get::<usize>(&format!("{architecture}.{key}"))?.unwrap_or(0))
        };
        let n_vocab = match metadata.get::<&[String]>("tokenizer.ggml.tokens")? {
            Some(tokens) => tokens.len(),
            None => number("vocab_size")?,
        };
        // Weights may have more rows than the tokenizer has tokens; logits then have that many columns.
        let rows = gguf.tensor("token_embd.weight").and_then(|tensor| tensor.shape.get(1).copied());
        let n_vocab = rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(n_vocab);
        Ok(Self {
            name: metadata.get_lossy("general.name")?.unwrap_or_default().to_owned(),
            quantization: quantization(gguf)?,
            parameters: gguf.tensors().iter().map(TensorInfo::elements).fold(0, u64::saturating_add),
            weights_bytes: gguf.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add),
            kv_bytes_per_token: kv_bytes_per_token(metadata, &architecture)?,
            n_ctx: number("context_length")?,
            n_vocab,
            n_layer: number("block_count")?,
            n_embd: number("embedding_length")?,
            chat_template: metadata.get_lossy("tokenizer.chat_template")?.map(str::to_owned),
            chat_templates: chat_templates(metadata)?,
            architecture,
        })
    }

    /// Identifies the model by this metadata.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for text in [&self.name, &self.architecture, &self.quantization] {
            fingerprint.update(text.as_bytes());
        }
        let sizes = [self.n_ctx, self.n_vocab, self.n_layer, self.n_embd].map(|size| size as u64);
        for number in [self.parameters, self.weights_bytes, self.kv_bytes_per_token].into_iter().chain(sizes)
        {
            fingerprint.update(&number.to_le_bytes());
        }
        fingerprint
    }

    /// One-line description: `exsa-tiny (llama, 2.9 M parameters, Q8_0, 3.0 MiB, context 512)`. For a
    /// vocabulary-only file: `llama-bpe (llama, no weights, vocabulary of 128256 tokens)`.
    pub fn summary(&self) -> String {
        let Self { architecture, quantization, n_ctx, n_vocab, .. } = self;
        let name = if self.name.is_empty() { "unnamed model" } else { &self.name };
        if self.parameters == 0 {
            return format!("{name} ({architecture}, no weights, vocabulary of {n_vocab} tokens)");
        }
        let parameters = match self.parameters as f64 {
            n if n >= 1e9 => format!("{:.1} B", n / 1e9),
            n if n >= 1e6 => format!("{:.1} M", n / 1e6),
            n if n >= 1e3 => format!("{:.0} K", n / 1e3),
            n => n.to_string(),
        };
        let mebibytes = self.weights_bytes as f64 / (1 << 20) as f64;
        format!(
            "{name} ({architecture}, {parameters} parameters, {quantization}, {mebibytes:.1} MiB, context {n_ctx})"
        )
    }
}

/// The named chat templates: `tokenizer.chat_template.NAME`.
fn chat_templates(metadata: &Metadata) -> Result<BTreeMap<String, String>, GgufError> {
    let keys = metadata.iter().map(|(key, _)| key);
    let named = keys.filter_map(|key| Some((key, key.strip_prefix("tokenizer.chat_template.")?)));
    let mut templates = BTreeMap::new();
    for (key, name) in named.filter(|(_, name)| !name.is_empty()) {
        templates.extend(metadata.get_lossy(key)?.map(|source| (name.to_owned(), source.to_owned())));
    }
    Ok(templates)
}

/// Refuses a source that is a folder, before it is opened. Backends call it in `inspect` and `load`.
///
/// # Errors
///
/// [`LoadError::Folder`], with the names of GGUF files in it.
pub fn check_source(source: &ModelSource) -> Result<(), LoadError> {
    /// Entries to look at, and file names to list.
    const ENTRIES_MAX: usize = 1000;
    const FILES_MAX: usize = 3;
    let ModelSource::File(path) = source else { return Ok(()) };
    if !path.is_dir() {
        return Ok(());
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().take(ENTRIES_MAX).flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut files: Vec<String> = names.filter(|name| name.ends_with(".gguf")).collect();
    files.sort();
    files.truncate(FILES_MAX);
    Err(LoadError::Folder { path: path.clone(), files })
}

/// Refuses a GGUF file whose metadata declare something other than a model: an adapter, a projector, an
/// importance matrix or a control vector. Backends call it in `inspect` and `load`, before they read any key
/// that only models have.
///
/// # Errors
///
/// [`LoadError::NotAModel`], which says how such a file is used.
pub fn check_type(gguf: &Gguf) -> Result<(), LoadError> {
    let text = |key| gguf.metadata().get_lossy(key).ok().flatten();
    // Files older than `general.type` declare their type by other keys.
    let stated = text("general.type").or_else(|| text("adapter.type").map(|_| "adapter"));
    let (what, advice) = match (stated, text("general.architecture")) {
        (Some("adapter"), _) => {
            ("an adapter", "load the model that it was trained for, and the adapter beside it")
        }
        (Some("mmproj"), _) | (None, Some("clip")) => {
            ("a multimodal projector", "load the language model that it belongs to")
        }
        (Some("imatrix"), _) => ("an importance matrix", "it is used to quantize models"),
        (None, Some("controlvector")) => ("a control vector", "load the model that it was made for"),
        _ => return Ok(()),
    };
    Err(LoadError::NotAModel { what, advice })
}

/// Bytes of KV per token at f16: `2 * (key length + value length) * KV heads`, summed over all layers. Layers
/// may differ in their number of heads.
fn kv_bytes_per_token(metadata: &Metadata, architecture: &str) -> Result<u64, GgufError> {
    let number = |key: &str| metadata.get::<u64>(&format!("{architecture}.{key}"));
    let heads = Heads::read(metadata, architecture, "attention.head_count")?;
    let kv_heads = Heads::read(metadata, architecture, "attention.head_count_kv")?;
    let width = number("embedding_length")?.unwrap_or(0) / heads.as_ref().map_or(1, |heads| heads.max.max(1));
    let key = number("attention.key_length")?.unwrap_or(width);
    let value = number("attention.value_length")?.unwrap_or(width);
    let sum = kv_heads.or(heads).map_or(0, |heads| heads.sum);
    Ok(key.saturating_add(value).saturating_mul(sum).saturating_mul(2))
}

/// Number of attention heads, given once for all layers or per layer.
struct Heads {
    /// Sum over all layers.
    sum: u64,
    /// Maximum over the layers. Layers with fewer heads leave part of the width unused.
    max: u64,
}

impl Heads {
    fn read(metadata: &Metadata, architecture: &str, key: &str) -> Result<Option<Self>, GgufError> {
        let (key, blocks) = (&format!("{architecture}.{key}"), &format!("{architecture}.block_count"));
        let layers = metadata.get::<u64>(blocks)?;
        if !matches!(metadata.get_value(key), Some(Value::Array(_))) {
            let heads = metadata.get::<u64>(key)?;
            return Ok(heads.map(|max| Self { sum: max.saturating_mul(layers.unwrap_or(0)), max }));
        }
        let heads = metadata.require::<Vec<u64>>(key)?;
        let layers = layers.map_or_else(|| metadata.require::<u64>(blocks), Ok)?;
        if heads.len() as u64 != layers {
            return Err(metadata.refuse(
                key,
                format!("{} elements", heads.len()),
                "as many as there are layers (block_count)",
            ));
        }
        let sum = heads.iter().copied().fold(0, u64::saturating_add);
        Ok(Some(Self { sum, max: heads.into_iter().max().unwrap_or(0) }))
    }
}

/// Usual name of `general.file_type`; if it is absent, the tensor type with the most bytes. Empty without
/// weights.
fn quantization(gguf: &Gguf) -> Result<String, GgufError> {
    if gguf.tensors().is_empty() {
        return Ok(String::new());
    }
    let file_type = gguf.metadata().get::<u64>("general.file_type")?;
    if let Some(name) = file_type.and_then(file_type_name) {
        return Ok(name.to_owned());
    }
    let mut bytes = BTreeMap::<_, u64>::new();
    for tensor in gguf.tensors() {
        let sum = bytes.entry(tensor.dtype).or_default();
        *sum = sum.saturating_add(tensor.bytes);
    }
    let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    Ok(most.map_or(String::new(), |(dtype, _)| dtype.name().to_owned()))
}

/// Usual name of a `general.file_type`, in llama.cpp's numbering.
fn file_type_name(file_type: u64) -> Option<&'static str> {
    /// Set by writers that guessed the type from the tensors.
    const GUESSED: u64 = 1024;
    Some(match file_type & !GUESSED {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}
