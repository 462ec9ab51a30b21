//! Random adapters for the micro models, as GGUF, as PEFT folders, and merged into the weights.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use exsa_conformance::edit::{Edit, Tensor};
use exsa_core::backend::ModelSource;
use exsa_core::gguf::{GgmlType, GgufWriter, Value};
use std::path::Path;

/// A matrix of a model and the low-rank product that is added to it.
#[derive(Clone)]
pub struct Pair {
    pub weight: String,
    pub columns: usize,
    pub rows: usize,
    pub rank: usize,
    /// `[rank, columns]`.
    pub a: Vec<f32>,
    /// `[rows, rank]`.
    pub b: Vec<f32>,
}

impl Pair {
    /// Makes it one for a matrix of half as many rows.
    pub fn halve(&mut self) {
        self.rows /= 2;
        self.b.truncate(self.rows * self.rank);
    }
}

/// `n` values around 0 that depend on `seed`.
pub fn values(n: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| i.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 8 & 0xffff;
    (0..n as u32).map(|i| (value(i) as f32 / 65_536.0 - 0.5) * 0.4).collect()
}

/// A pair of rank `rank` for every matrix of the layers of `base` that takes one and whose name `wanted`
/// accepts.
pub fn pairs(base: &Edit, rank: usize, seed: u32, wanted: impl Fn(&str) -> bool) -> Vec<Pair> {
    // Mixtures of experts and convolutions take none.
    let takes = |name: &str| {
        name.starts_with("blk.")
            && !["_gate_inp.", "_exps.", "_shexp.", "shortconv.conv.", "ssm_conv1d."]
                .iter()
                .any(|part| name.contains(part))
            && wanted(name)
    };
    let matrices = base.tensors.iter().filter(|tensor| tensor.shape.len() == 2 && takes(&tensor.name));
    let pair = |(i, tensor): (usize, &Tensor)| {
        let (columns, rows) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
        let seed = seed * 1000 + 2 * i as u32;
        let (a, b) = (values(rank * columns, seed), values(rows * rank, seed + 1));
        Pair { weight: tensor.name.clone(), columns, rows, rank, a, b }
    };
    matrices.enumerate().map(pair).collect()
}

/// The GGUF of an adapter.
pub fn gguf(architecture: &str, alpha: f32, pairs: &[Pair]) -> GgufWriter {
    let header = GgufWriter::new()
        .key("general.type", Value::Str("adapter".into()))
        .key("general.architecture", Value::Str(architecture.into()))
        .key("adapter.type", Value::Str("lora".into()))
        .key("adapter.lora.alpha", Value::F32(alpha));
    pairs.iter().fold(header, |writer, pair| {
        let (columns, rows, rank) = (pair.columns as u64, pair.rows as u64, pair.rank as u64);
        writer.tensor_f32(&format!("{}.lora_a", pair.weight), &[columns, rank], &pair.a).tensor_f32(
            &format!("{}.lora_b", pair.weight),
            &[rank, rows],
            &pair.b,
        )
    })
}

/// A source of bytes.
pub fn source(writer: &GgufWriter) -> ModelSource {
    ModelSource::Memory(writer.to_bytes().into())
}

/// The f32 model `base` with `scale · B A` added to its weights.
pub fn merged(base: &Edit, scale: f32, pairs: &[Pair]) -> Edit {
    let mut merged = base.clone();
    for Pair { weight, columns, rows, rank, a, b } in pairs {
        let tensor = merged.tensor(weight).unwrap();
        assert_eq!(tensor.dtype, GgmlType::F32);
        let (values, _) = tensor.data.as_chunks_mut::<4>();
        for row in 0..*rows {
            for column in 0..*columns {
                let product: f64 = (0..*rank)
                    .map(|r| f64::from(b[row * rank + r]) * f64::from(a[r * columns + column]))
                    .sum();
                let value = &mut values[row * columns + column];
                *value = (f32::from_le_bytes(*value) + (product * f64::from(scale)) as f32).to_le_bytes();
            }
        }
    }
    merged
}

/// The name that PEFT has for a weight of a GGUF.
fn peft_name(weight: &str) -> String {
    let (layer, part) = weight.strip_prefix("blk.").unwrap().split_once('.').unwrap();
    let part = match part.strip_suffix(".weight").unwrap() {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => panic!("{other}"),
    };
    format!("base_model.model.model.layers.{layer}.{part}")
}

/// Writes the folder that PEFT would save. `heads` gives the heads of the matrices whose rows the conversion
/// to GGUF interleaves.
pub fn write_peft(folder: &Path, config: &str, pairs: &[Pair], heads: impl Fn(&str) -> Option<usize>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: String, shape: [usize; 2], values: &[f32]| {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    };
    for pair in pairs {
        let name = peft_name(&pair.weight);
        add(format!("{name}.lora_A.weight"), [pair.rank, pair.columns], &pair.a);
        let mut b = pair.b.clone();
        if let Some(heads) = heads(&pair.weight) {
            let size = pair.rows / heads;
            for row in 0..pair.rows {
                let (head, i) = (row / size, row % size);
                // Row `2 j + h` of a head in the GGUF is row `j` of half `h`.
                let from = head * size + (i % (size / 2)) * 2 + i / (size / 2);
                b[row * pair.rank..][..pair.rank].copy_from_slice(&pair.b[from * pair.rank..][..pair.rank]);
            }
        }
        add(format!("{name}.lora_B.weight"), [pair.rows, pair.rank], &b);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), file).unwrap();
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
}
