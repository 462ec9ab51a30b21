//! Models of random weights in known shapes.

use crate::random::Random;
use exsa_core::gguf::{Array, GgmlType, Gguf, GgufWriter, Value};
use exsa_quant::{Mixture, QuantizeOptions, can_quantize, planned_types, quantize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, BufWriter, Cursor};
use std::path::Path;

/// The built-in model, for its vocabulary.
const BUILT_IN: &[u8] = exsa_tiny::GGUF;

/// Rows of random weights of each type and width, which matrices are made of.
const ROWS: usize = 61;

/// Hyperparameters of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Name on the command line.
    pub name: &'static str,
    architecture: &'static str,
    width: u64,
    layers: u32,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    ffn: u64,
    experts: Option<Experts>,
    vocabulary: u64,
    rope_base: f32,
    /// Whether the embeddings are the output projection too.
    tied: bool,
}

/// Mixtures of experts of a model.
#[derive(Clone, Copy, Debug)]
struct Experts {
    /// Experts of a layer.
    count: u64,
    /// Experts of a token.
    used: u32,
    /// Width of an expert.
    ffn: u64,
}

/// SmolLM2-135M, Qwen2.5-0.5B, Llama-3.2-1B, Llama-3.1-8B, and Qwen3-30B-A3B with 8 of its 48 layers.
pub const SHAPES: [Shape; 5] = [
    Shape {
        name: "135m",
        architecture: "llama",
        width: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ffn: 1536,
        experts: None,
        vocabulary: 49_152,
        rope_base: 1e5,
        tied: true,
    },
    Shape {
        name: "0.5b",
        architecture: "qwen2",
        width: 896,
        layers: 24,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        ffn: 4864,
        experts: None,
        vocabulary: 151_936,
        rope_base: 1e6,
        tied: true,
    },
    Shape {
        name: "1b",
        architecture: "llama",
        width: 2048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        ffn: 8192,
        experts: None,
        vocabulary: 128_256,
        rope_base: 5e5,
        tied: true,
    },
    Shape {
        name: "8b",
        architecture: "llama",
        width: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ffn: 14_336,
        experts: None,
        vocabulary: 128_256,
        rope_base: 5e5,
        tied: false,
    },
    Shape {
        name: "30b-a3b-8",
        architecture: "qwen3moe",
        width: 2048,
        layers: 8,
        heads: 32,
        kv_heads: 4,
        head_dim: 128,
        ffn: 6144,
        experts: Some(Experts { count: 128, used: 8, ffn: 768 }),
        vocabulary: 151_936,
        rope_base: 1e6,
        tied: false,
    },
];

/// Types of the matrices of a model.
#[derive(Clone, Copy, Debug)]
pub enum Types {
    /// By the rules of a mixture.
    Mixture(Mixture),
    /// One type, where the width of a matrix allows it.
    All(GgmlType),
}

impl Shape {
    /// Writes a model of this shape to `path`.
    ///
    /// # Errors
    ///
    /// Those of writing, and `InvalidInput` for types that floats cannot be turned into.
    pub fn write(&self, types: &Types, path: &Path) -> io::Result<()> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let tensors = self.tensors();
        let header = |dtypes: Option<&[GgmlType]>| {
            let writer = self.metadata()?;
            Ok::<_, io::Error>(tensors.iter().enumerate().fold(writer, |writer, (i, (name, shape))| {
                let dtype = dtypes.map_or(GgmlType::F32, |dtypes| dtypes[i]);
                writer.declare(name, shape, dtype, bytes_of(dtype, shape))
            }))
        };
        let dtypes = match types {
            Types::Mixture(mixture) => {
                // The plan reads no weights: zeros that no disk stores are enough.
                let mut file = File::create(path)?;
                let stream = header(None)?.start(&mut file)?;
                drop(stream);
                let bytes: u64 = tensors
                    .iter()
                    .map(|(_, shape)| bytes_of(GgmlType::F32, shape).next_multiple_of(32))
                    .sum();
                file.set_len(file.metadata()?.len().next_multiple_of(32) + bytes)?;
                let gguf = Gguf::read(&mut File::open(path)?).map_err(|error| invalid(error.to_string()))?;
                planned_types(&gguf, &QuantizeOptions::new(*mixture))
                    .map_err(|error| invalid(error.to_string()))?
            }
            Types::All(dtype) => tensors.iter().map(|(name, shape)| one_type(*dtype, name, shape)).collect(),
        };
        let mut file = header(Some(&dtypes))?.start(BufWriter::new(File::create(path)?))?;
        let (mut pools, mut random) = (HashMap::new(), Random::new(1));
        for ((_, shape), dtype) in tensors.iter().zip(dtypes) {
            let width = shape[0] as usize;
            if shape.len() == 1 {
                file.write(&1f32.to_le_bytes().repeat(width))?;
                continue;
            }
            let pool: &Vec<u8> = match pools.entry((dtype, width)) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(pool(dtype, width, &mut random).map_err(&invalid)?),
            };
            let row = pool.len() / ROWS;
            for _ in 0..shape[1..].iter().product() {
                file.write(&pool[random.below(ROWS) * row..][..row])?;
            }
        }
        file.finish().map(|_| ())
    }

    fn metadata(&self) -> io::Result<GgufWriter> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let built_in = Gguf::read(&mut Cursor::new(BUILT_IN)).map_err(|error| invalid(error.to_string()))?;
        let mut writer = GgufWriter::new();
        for (key, value) in built_in.metadata().iter() {
            if key.starts_with("tokenizer.") {
                writer = writer.key(key, filled_up(key, value, self.vocabulary as usize));
            }
        }
        let head = self.head_dim as u32;
        let key = |name: &str| format!("{}.{name}", self.architecture);
        if let Some(Experts { count, used, ffn }) = self.experts {
            writer = writer
                .key(&key("expert_count"), Value::U32(count as u32))
                .key(&key("expert_used_count"), Value::U32(used))
                .key(&key("expert_feed_forward_length"), Value::U32(ffn as u32));
        }
        Ok(writer
            .key("general.architecture", Value::Str(self.architecture.to_owned()))
            .key("general.name", Value::Str(format!("random-{}", self.name)))
            .key(&key("context_length"), Value::U32(32_768))
            .key(&key("embedding_length"), Value::U32(self.width as u32))
            .key(&key("block_count"), Value::U32(self.layers))
            .key(&key("feed_forward_length"), Value::U32(self.ffn as u32))
            .key(&key("attention.head_count"), Value::U32(self.heads as u32))
            .key(&key("attention.head_count_kv"), Value::U32(self.kv_heads as u32))
            .key(&key("attention.key_length"), Value::U32(head))
            .key(&key("attention.value_length"), Value::U32(head))
            .key(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
            .key(&key("rope.dimension_count"), Value::U32(head))
            .key(&key("rope.freq_base"), Value::F32(self.rope_base))
            .key(&key("vocab_size"), Value::U32(self.vocabulary as u32)))
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (q, kv) = (self.head_dim * self.heads, self.head_dim * self.kv_heads);
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), vec![self.width, self.vocabulary]),
            ("output_norm.weight".to_owned(), vec![self.width]),
        ];
        if !self.tied {
            tensors.push(("output.weight".to_owned(), vec![self.width, self.vocabulary]));
        }
        for layer in 0..self.layers {
            let mut add = |part: &str, shape: &[u64]| {
                tensors.push((format!("blk.{layer}.{part}"), shape.to_vec()));
            };
            add("attn_norm.weight", &[self.width]);
            add("ffn_norm.weight", &[self.width]);
            add("attn_q.weight", &[self.width, q]);
            add("attn_k.weight", &[self.width, kv]);
            add("attn_v.weight", &[self.width, kv]);
            add("attn_output.weight", &[q, self.width]);
            match self.experts {
                Some(Experts { count, ffn, .. }) => {
                    add("ffn_gate_inp.weight", &[self.width, count]);
                    add("ffn_gate_exps.weight", &[self.width, ffn, count]);
                    add("ffn_up_exps.weight", &[self.width, ffn, count]);
                    add("ffn_down_exps.weight", &[ffn, self.width, count]);
                }
                None => {
                    add("ffn_gate.weight", &[self.width, self.ffn]);
                    add("ffn_up.weight", &[self.width, self.ffn]);
                    add("ffn_down.weight", &[self.ffn, self.width]);
                }
            }
            if self.architecture == "qwen3moe" {
                add("attn_q_norm.weight", &[self.head_dim]);
                add("attn_k_norm.weight", &[self.head_dim]);
            }
            if self.architecture == "qwen2" {
                add("attn_q.bias", &[self.width]);
                add("attn_k.bias", &[kv]);
                add("attn_v.bias", &[kv]);
            }
        }
        tensors
    }
}

fn bytes_of(dtype: GgmlType, shape: &[u64]) -> u64 {
    shape.iter().product::<u64>() / dtype.block_len() * dtype.block_bytes()
}

/// `dtype` for matrices whose rows are whole blocks of it, else a type near it; vectors and routers are f32.
fn one_type(dtype: GgmlType, name: &str, shape: &[u64]) -> GgmlType {
    match shape {
        _ if name.contains("ffn_gate_inp") => GgmlType::F32,
        [_] => GgmlType::F32,
        [width, ..] if !width.is_multiple_of(dtype.block_len()) => GgmlType::Q4_0,
        _ => dtype,
    }
}

/// [`ROWS`] rows of random weights.
fn pool(dtype: GgmlType, width: usize, random: &mut Random) -> Result<Vec<u8>, String> {
    let scale = 1.0 / (width as f32).sqrt();
    let values: Vec<f32> = (0..ROWS * width).map(|_| random.bell() * scale).collect();
    let mut bytes = Vec::new();
    if can_quantize(dtype) {
        quantize(dtype, &values, width, None, &mut bytes).map_err(|error| error.to_string())?;
        return Ok(bytes);
    }
    // No quantizer: blocks of random bits, with small scales.
    let blocks = ROWS * width / dtype.block_len() as usize;
    bytes.extend((0..blocks * dtype.block_bytes() as usize).map(|_| random.next() as u8 & 0x27));
    Ok(bytes)
}

/// An array of the vocabulary with as many elements as the shape has tokens.
fn filled_up(key: &str, value: &Value, tokens: usize) -> Value {
    match (key, value) {
        ("tokenizer.ggml.tokens", Value::Array(Array::Str(words))) => {
            let mut words = words.clone();
            words.extend((words.len()..tokens).map(|i| format!("<unused {i}>")));
            Value::Array(Array::Str(words))
        }
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))) => {
            let mut types = types.clone();
            // ggml's number of unused tokens.
            types.resize(tokens, 5);
            Value::Array(Array::I32(types))
        }
        ("tokenizer.ggml.scores", Value::Array(Array::F32(scores))) => {
            let mut scores = scores.clone();
            scores.resize(tokens, 0.0);
            Value::Array(Array::F32(scores))
        }
        _ => value.clone(),
    }
}
