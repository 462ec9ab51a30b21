//! Checks a GGUF header for properties that llama.cpp does not check, or checks with assertions that abort
//! the process.

use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, Metadata, TensorInfo, Value};

/// Families whose models need RoPE.
const ROTATED: [&str; 6] = ["llama", "mistral", "qwen", "gemma", "phi", "deepseek"];

/// Architectures with separate matrices for queries, keys and values and nothing else in them.
const PLAIN_HEADS: [&str; 8] =
    ["llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3"];

/// Maximum number of layers, llama.cpp's `LLAMA_MAX_LAYERS`.
const LAYERS_MAX: u64 = 512;

/// Maximum number of experts, llama.cpp's `LLAMA_MAX_EXPERTS`.
const EXPERTS_MAX: u64 = 1024;

/// Maximum of widths, lengths and counts, so that products of two fit an `i64`.
const SIZE_MAX: u64 = 1 << 30;

/// Checks a header that core has parsed.
///
/// # Errors
///
/// A well-formed GGUF that llama.cpp must not open.
pub(crate) fn check(gguf: &Gguf) -> Result<(), LoadError> {
    let metadata = gguf.metadata();
    let architecture: String = metadata.require("general.architecture")?;
    vocabulary(metadata)?;
    if gguf.tensors().is_empty() {
        return Err(LoadError::NoWeights);
    }
    tensors(gguf)?;
    let keys = Keys { metadata, prefix: &architecture };
    let layers = keys.number("block_count", 1..=LAYERS_MAX)?.unwrap_or(0);
    for key in ["embedding_length", "context_length"] {
        keys.number(key, 1..=SIZE_MAX)?;
    }
    keys.numbers("feed_forward_length", 0..=SIZE_MAX, layers)?;
    let predicted = keys.number("nextn_predict_layers", 0..=layers)?.unwrap_or(0);
    keys.number("leading_dense_block_count", 0..=layers)?;
    keys.number("attention.sliding_window", 0..=SIZE_MAX)?;
    windows(&keys, layers - predicted)?;
    for key in ["layer_norm_rms_epsilon", "layer_norm_epsilon", "group_norm_epsilon"] {
        keys.epsilon(&format!("attention.{key}"))?;
    }
    keys.texts("rope.scaling.type", &["none", "linear", "yarn", "longrope"])?;
    heads(&keys, layers)?;
    head_rows(gguf, &keys, layers)?;
    experts(&keys, layers)?;
    names(metadata, &architecture)
}

/// Checks that lists beside the vocabulary have one entry per token, of the type that llama.cpp reads
/// unchecked.
fn vocabulary(metadata: &Metadata) -> Result<(), LoadError> {
    let Some(tokens) = metadata.get::<&[String]>("tokenizer.ggml.tokens")? else { return Ok(()) };
    let check = |key: &str, len: Option<usize>| match len {
        Some(len) if len != tokens.len() => Err(LoadError::Gguf(metadata.refuse(
            key,
            format!("{len} elements"),
            "as many as there are tokens",
        ))),
        _ => Ok(()),
    };
    check(
        "tokenizer.ggml.scores",
        metadata.get::<Vec<f32>>("tokenizer.ggml.scores")?.map(|list| list.len()),
    )?;
    let types = metadata.get::<Vec<i32>>("tokenizer.ggml.token_type")?;
    check("tokenizer.ggml.token_type", types.map(|list| list.len()))?;
    metadata.get::<&[String]>("tokenizer.ggml.merges")?;
    if let Some(map) = metadata.get_value("tokenizer.ggml.precompiled_charsmap")
        && !matches!(map, Value::Array(_))
    {
        return Err(metadata
            .refuse("tokenizer.ggml.precompiled_charsmap", "no list", "a list of bytes")
            .into());
    }
    if metadata.get::<&str>("tokenizer.ggml.model")? == Some("rwkv") {
        let mut bytes: Vec<u8> = tokens.iter().filter_map(|token| single_byte(token)).collect();
        bytes.sort_unstable();
        bytes.dedup();
        // llama.cpp never ends at a longer token whose first byte is no token.
        if bytes.len() < 256 {
            let found = format!("{} of 256 bytes", bytes.len());
            return Err(metadata.refuse("tokenizer.ggml.tokens", found, "a token for every byte").into());
        }
    }
    Ok(())
}

/// The byte that a token of RWKV is, if it is one.
fn single_byte(token: &str) -> Option<u8> {
    match token.as_bytes() {
        [byte] if *byte != b'\\' => Some(*byte),
        [b'\\', b't'] => Some(b'\t'),
        [b'\\', b'n'] => Some(b'\n'),
        [b'\\', b'r'] => Some(b'\r'),
        [b'\\', byte] if *byte != b'x' => Some(*byte),
        [b'\\', b'x', ..] if token.len() == 4 => u8::from_str_radix(token.get(2..)?, 16).ok(),
        _ => None,
    }
}

/// Checks that tensor types are supported. llama.cpp only compares shapes, without trailing 1s; an operation
/// on an unsupported type aborts the process.
fn tensors(gguf: &Gguf) -> Result<(), LoadError> {
    use GgmlType::{F32, F64, I8, I16, I32, I64, Q8_1, Q8K};
    for TensorInfo { name, shape, dtype, .. } in gguf.tensors() {
        let problem = |problem: String| Err(LoadError::Tensor { name: name.clone(), problem });
        let is_norm = name.ends_with("norm.weight");
        if is_norm && shape.len() > 2 && shape.last() == Some(&1) {
            return problem(format!("its shape is {shape:?}, but a norm has one dimension"));
        }
        if (is_norm || name.ends_with(".bias")) && *dtype != F32 {
            return problem(format!("its type is {}, but norms and biases are F32", dtype.name()));
        }
        let parts = ["attn_", "ffn_up", "ffn_down", "ffn_gate.", "token_embd", "output"];
        let is_matrix = name.ends_with(".weight") && parts.iter().any(|part| name.contains(part));
        if matches!(dtype, Q8_1 | Q8K) || (is_matrix && matches!(dtype, F64 | I8 | I16 | I32 | I64)) {
            return problem(format!("its type is {}, which no weights have", dtype.name()));
        }
    }
    Ok(())
}

/// Checks that the sliding-window pattern is a period, or a list of at least `layers` entries. llama.cpp
/// accepts a list of any length.
fn windows(keys: &Keys<'_>, layers: u64) -> Result<(), LoadError> {
    let key = "attention.sliding_window_pattern";
    match keys.metadata.get_value(&keys.name(key)) {
        Some(Value::Array(list)) if (list.len() as u64) < layers => Err(keys.refuse(
            key,
            format!("{} entries", list.len()),
            &format!("{layers} or more, one a layer"),
        )),
        Some(Value::Array(_)) => Ok(()),
        _ => keys.number(key, 2..=SIZE_MAX).map(drop),
    }
}

/// Checks that heads divide the width, and that RoPE rotates pairs within a head.
fn heads(keys: &Keys<'_>, layers: u64) -> Result<(), LoadError> {
    keys.numbers("attention.head_count", 0..=SIZE_MAX, layers)?;
    keys.numbers("attention.head_count_kv", 0..=SIZE_MAX, layers)?;
    let heads = keys.number_of_first("attention.head_count")?.filter(|heads| *heads > 0);
    let width = keys.number("embedding_length", 1..=SIZE_MAX)?;
    let by_width = width.zip(heads).map(|(width, heads)| width / heads);
    for (length, rope) in [
        ("attention.key_length", "rope.dimension_count"),
        ("attention.key_length_swa", "rope.dimension_count_swa"),
    ] {
        let head = keys.number(length, 1..=SIZE_MAX)?.or(by_width).unwrap_or(SIZE_MAX);
        let least = if ROTATED.iter().any(|family| keys.prefix.starts_with(family)) { 2 } else { 0 };
        if let Some(turned) = keys.number(rope, least..=head)?
            && turned % 2 == 1
        {
            return Err(keys.refuse(rope, turned, "even counts"));
        }
    }
    keys.number("attention.value_length", 1..=SIZE_MAX)?;
    Ok(())
}

/// Checks that matrices of queries, keys and values have as many rows as their heads have values. llama.cpp
/// derives some of these shapes from the width and divides them among the heads later.
fn head_rows(gguf: &Gguf, keys: &Keys<'_>, layers: u64) -> Result<(), LoadError> {
    if !PLAIN_HEADS.contains(&keys.prefix) {
        return Ok(());
    }
    let width = keys.number("embedding_length", 1..=SIZE_MAX)?.unwrap_or(0);
    for layer in 0..layers {
        let Some(heads) = keys.of_layer("attention.head_count", layer)?.filter(|heads| *heads > 0) else {
            continue;
        };
        let heads_kv = keys.of_layer("attention.head_count_kv", layer)?.unwrap_or(heads);
        if heads_kv == 0 || heads % heads_kv > 0 {
            return Err(keys.refuse(
                "attention.head_count_kv",
                heads_kv,
                &format!("the divisors of {heads}, the heads"),
            ));
        }
        let key = keys.number("attention.key_length", 1..=SIZE_MAX)?.unwrap_or(width / heads);
        let value = keys.number("attention.value_length", 1..=SIZE_MAX)?.unwrap_or(width / heads);
        for (part, rows) in [("q", heads * key), ("k", heads_kv * key), ("v", heads_kv * value)] {
            let name = format!("blk.{layer}.attn_{part}.weight");
            let found = gguf.tensor(&name).and_then(|tensor| tensor.shape.get(1).copied()).unwrap_or(rows);
            if found != rows {
                return Err(LoadError::Tensor {
                    name,
                    problem: format!("it has {found} rows, but its heads {rows}"),
                });
            }
        }
    }
    Ok(())
}

/// Checks that the numbers of experts are consistent.
fn experts(keys: &Keys<'_>, layers: u64) -> Result<(), LoadError> {
    let experts = keys.number("expert_count", 0..=EXPERTS_MAX)?.unwrap_or(0);
    let least = u64::from(experts > 0);
    let used = keys.numbers("expert_used_count", 0..=experts, layers)?;
    if used.unwrap_or(0) < least {
        return Err(keys.refuse("expert_used_count", used.unwrap_or(0), "1 or more, for there are experts"));
    }
    let groups = keys.number("expert_group_count", 0..=experts.saturating_sub(1))?.unwrap_or(0);
    if groups > 1 {
        if experts % groups > 0 {
            return Err(keys.refuse("expert_group_count", groups, "a divisor of expert_count"));
        }
        if keys.number("expert_group_used_count", 1..=groups - 1)?.is_none() {
            return Err(keys.refuse(
                "expert_group_used_count",
                0,
                "1 or more, for there are groups of experts",
            ));
        }
    }
    Ok(())
}

/// Checks that tokens which llama.cpp looks up by name exist.
fn names(metadata: &Metadata, architecture: &str) -> Result<(), LoadError> {
    if architecture != "phi3" {
        return Ok(());
    }
    let tokens: &[String] = metadata.require("tokenizer.ggml.tokens")?;
    let missing = ["</s>", "<unk>", "<s>", "<|endoftext|>"]
        .into_iter()
        .find(|name| !tokens.iter().any(|token| token == name));
    match missing {
        Some(name) => Err(LoadError::Unsupported {
            what: format!("phi3 with a vocabulary that has no token {name}"),
            supported: "the vocabulary of Phi-3".to_owned(),
        }),
        None => Ok(()),
    }
}

/// The metadata keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn refuse(&self, key: &str, value: impl std::fmt::Display, supported: &str) -> LoadError {
        LoadError::Unsupported {
            what: format!("{} = {value}", self.name(key)),
            supported: supported.to_owned(),
        }
    }

    fn is_list(&self, key: &str) -> bool {
        matches!(self.metadata.get_value(&self.name(key)), Some(Value::Array(_)))
    }

    /// Returns the number of `key`, if present.
    fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, LoadError> {
        let value = self.metadata.get::<u64>(&self.name(key))?;
        match value {
            Some(value) if !range.contains(&value) => {
                Err(self.refuse(key, value, &format!("{} to {}", range.start(), range.end())))
            }
            _ => Ok(value),
        }
    }

    /// Returns the largest of the numbers of `key`: one for all layers, or one per layer.
    fn numbers(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        layers: u64,
    ) -> Result<Option<u64>, LoadError> {
        if !self.is_list(key) {
            return self.number(key, range);
        }
        let name = self.name(key);
        let numbers = self.metadata.require::<Vec<u64>>(&name)?;
        if numbers.len() as u64 != layers {
            return Err(self.refuse(
                key,
                format!("{} numbers", numbers.len()),
                &format!("{layers}, one a layer"),
            ));
        }
        match numbers.iter().find(|number| !range.contains(number)) {
            Some(number) => Err(self.refuse(key, number, &format!("{} to {}", range.start(), range.end()))),
            None => Ok(numbers.into_iter().max()),
        }
    }

    /// The number of `key`, or that of the first layer.
    fn number_of_first(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.of_layer(key, 0)
    }

    /// The number of `key`, or that of `layer` in its list.
    fn of_layer(&self, key: &str, layer: u64) -> Result<Option<u64>, LoadError> {
        let name = self.name(key);
        match self.metadata.get_value(&name) {
            Some(Value::Array(_)) => {
                Ok(self.metadata.require::<Vec<u64>>(&name)?.get(layer as usize).copied())
            }
            _ => Ok(self.metadata.get::<u64>(&name)?),
        }
    }

    /// Refuses values of `key` that are not valid as the epsilon of a norm.
    fn epsilon(&self, key: &str) -> Result<(), LoadError> {
        match self.metadata.get::<f32>(&self.name(key))? {
            Some(value) if !(0.0..=1.0).contains(&value) => Err(self.refuse(key, value, "0 to 1")),
            _ => Ok(()),
        }
    }

    /// Refuses a text of `key` that is not one of `known`.
    fn texts(&self, key: &str, known: &[&str]) -> Result<(), LoadError> {
        match self.metadata.get::<String>(&self.name(key))? {
            Some(text) if !known.contains(&text.as_str()) => Err(self.refuse(key, text, &known.join(", "))),
            _ => Ok(()),
        }
    }
}
