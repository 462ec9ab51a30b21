//! What a model is, read from its header.

use crate::gguf::{Gguf, GgufError, Metadata, TensorInfo, Value};
use std::collections::BTreeMap;

/// Facts about a model, known without its weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// `general.name`, or an empty text.
    pub name: String,
    /// `general.architecture`: `llama`, `qwen2`.
    pub architecture: String,
    /// The weights' type as files are named: `Q4_K_M`, `Q8_0`, `F16`.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Bytes of KV per token at f16, over all layers.
    pub kv_bytes_per_token: u64,
    /// Tokens of context that the model was trained for.
    pub n_ctx: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Layers.
    pub n_layer: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// The chat template (Jinja), where the file has one.
    pub chat_template: Option<String>,
}

impl ModelInfo {
    /// Reads the facts off a GGUF. Vocabulary-only files have zeros where a number is absent.
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
            name: metadata.get::<String>("general.name")?.unwrap_or_default(),
            quantization: quantization(gguf)?,
            parameters: gguf.tensors().iter().map(TensorInfo::elements).fold(0, u64::saturating_add),
            weights_bytes: gguf.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add),
            kv_bytes_per_token: kv_bytes_per_token(metadata, &architecture)?,
            n_ctx: number("context_length")?,
            n_vocab,
            n_layer: number("block_count")?,
            n_embd: number("embedding_length")?,
            chat_template: metadata.get::<String>("tokenizer.chat_template")?,
            architecture,
        })
    }

    /// One line for people: `exsa-tiny (llama, 2.9 M parameters, Q8_0, 3.0 MiB, context 512)`.
    pub fn summary(&self) -> String {
        let name = if self.name.is_empty() { "unnamed model" } else { &self.name };
        let parameters = match self.parameters as f64 {
            n if n >= 1e9 => format!("{:.1} B", n / 1e9),
            n if n >= 1e6 => format!("{:.1} M", n / 1e6),
            n => format!("{:.0} K", n / 1e3),
        };
        let mebibytes = self.weights_bytes as f64 / (1 << 20) as f64;
        format!(
            "{name} ({}, {parameters} parameters, {}, {mebibytes:.1} MiB, context {})",
            self.architecture, self.quantization, self.n_ctx
        )
    }
}

/// Bytes of keys and values of one token at f16. Layers may differ in their number of key-value heads.
fn kv_bytes_per_token(metadata: &Metadata, architecture: &str) -> Result<u64, GgufError> {
    let number = |key: &str| metadata.get::<u64>(&format!("{architecture}.{key}"));
    let layers = number("block_count")?.unwrap_or(0);
    let heads = match metadata.value(&format!("{architecture}.attention.head_count")) {
        // Per layer; the greatest stands for the width of a head.
        Some(Value::Array(_)) => metadata
            .get::<Vec<u64>>(&format!("{architecture}.attention.head_count"))?
            .and_then(|heads| heads.into_iter().max()),
        _ => number("attention.head_count")?,
    };
    let head = number("embedding_length")?.unwrap_or(0) / heads.unwrap_or(1).max(1);
    let key = number("attention.key_length")?.unwrap_or(head);
    let value = number("attention.value_length")?.unwrap_or(head);
    let kv_heads_key = format!("{architecture}.attention.head_count_kv");
    let kv_heads = match metadata.value(&kv_heads_key) {
        Some(Value::Array(_)) => {
            metadata.require::<Vec<u64>>(&kv_heads_key)?.into_iter().fold(0, u64::saturating_add)
        }
        Some(_) => metadata.require::<u64>(&kv_heads_key)?.saturating_mul(layers),
        None => heads.unwrap_or(0).saturating_mul(layers),
    };
    Ok(key.saturating_add(value).saturating_mul(kv_heads).saturating_mul(2))
}

/// `general.file_type` by its usual name; without it, the type that takes most bytes.
fn quantization(gguf: &Gguf) -> Result<String, GgufError> {
    let named = match gguf.metadata().get::<u64>("general.file_type")? {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(32) => "BF16",
        _ => "",
    };
    if !named.is_empty() {
        return Ok(named.to_owned());
    }
    let mut bytes = BTreeMap::<_, u64>::new();
    for tensor in gguf.tensors() {
        let sum = bytes.entry(tensor.dtype).or_default();
        *sum = sum.saturating_add(tensor.bytes);
    }
    let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    Ok(most.map_or(String::new(), |(dtype, _)| dtype.name().to_owned()))
}
