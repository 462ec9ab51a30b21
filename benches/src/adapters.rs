//! Adapters of random weights for the matrices of a model's layers.

use crate::error::BenchError;
use crate::random::Random;
use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, GgufWriter, Value};
use std::fs::File;
use std::path::Path;

/// A LoRA of rank `rank` in F16 for all matrices of the layers of `model`, different for each `seed`.
pub fn random(model: &Path, rank: usize, seed: u64) -> Result<ModelSource, BenchError> {
    let failed = |source| BenchError::Load { what: model.display().to_string(), source };
    let io = |source| failed(LoadError::Io { path: model.to_owned(), source });
    let gguf = Gguf::read(&mut File::open(model).map_err(io)?).map_err(|error| failed(error.into()))?;
    let architecture: String =
        gguf.metadata().require("general.architecture").map_err(|error| failed(error.into()))?;
    let mut random = Random::nth(seed, rank as u64);
    let mut values = |n: u64| -> Vec<u8> {
        // Small f16 values: a random sign and mantissa, below 1/64.
        (0..n).flat_map(|_| (random.next() as u16 & 0x83ff | 0x2000).to_le_bytes()).collect()
    };
    let text = |text: &str| Value::Str(text.to_owned());
    let mut writer = GgufWriter::new()
        .key("general.type", text("adapter"))
        .key("general.architecture", text(&architecture))
        .key("adapter.type", text("lora"))
        .key("adapter.lora.alpha", Value::F32(rank as f32));
    for tensor in gguf.tensors() {
        let [columns, rows] = tensor.shape[..] else { continue };
        if tensor.name.starts_with("blk.") {
            let (name, rank) = (&tensor.name, rank as u64);
            let (a, b) = (values(columns * rank), values(rows * rank));
            writer = writer.tensor(&format!("{name}.lora_a"), &[columns, rank], GgmlType::F16, a).tensor(
                &format!("{name}.lora_b"),
                &[rank, rows],
                GgmlType::F16,
                b,
            );
        }
    }
    Ok(ModelSource::Memory(writer.to_bytes().into()))
}
