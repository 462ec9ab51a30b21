//! LoRA adapters as GGUF, in llama.cpp's format.

use super::{AdapterPair, AdapterTensor, BaseModel};
use crate::gguf::{Gguf, Metadata, TensorInfo, Value};
use std::io::{Read, Seek};

/// Reads the header of `reader` and checks it: all tensors are pairs `X.lora_a` and `X.lora_b`.
pub(super) fn pairs(
    reader: &mut (impl Read + Seek),
    base: &BaseModel<'_>,
) -> Result<Vec<AdapterPair>, String> {
    let gguf = Gguf::read(reader).map_err(|error| error.to_string())?;
    let alpha = alpha(gguf.metadata(), base.architecture)?;
    if gguf.tensors().is_empty() {
        return Err("it holds no tensors".to_owned());
    }
    let mut pairs = Vec::new();
    for tensor in gguf.tensors() {
        let name = &tensor.name;
        let problem = |problem: String| format!("tensor '{name}': {problem}");
        let (weight, other) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
            (Some(weight), _) => (weight, "lora_b"),
            (_, Some(weight)) => (weight, "lora_a"),
            _ => {
                let expected = "the tensors of an adapter are named X.lora_a and X.lora_b";
                return Err(problem(expected.to_owned()));
            }
        };
        let Some(other) = gguf.tensor(&format!("{weight}.{other}")) else {
            return Err(problem(format!("there is no {weight}.{other}")));
        };
        if name.ends_with(".lora_b") {
            continue;
        }
        let pair = AdapterPair::new(weight, base, part(tensor), part(other)).map_err(problem)?;
        // Without alpha, the product is not scaled.
        let scale = if alpha == 0.0 { 1.0 } else { alpha / pair.rank as f32 };
        pairs.push(pair.scaled(scale).map_err(problem)?);
    }
    Ok(pairs)
}

fn part(tensor: &TensorInfo) -> (AdapterTensor, &[u64]) {
    (AdapterTensor::new(tensor.dtype, tensor.offset, tensor.bytes), &tensor.shape)
}

/// Checks the metadata; returns alpha, 0 if there is none.
fn alpha(metadata: &Metadata, architecture: &str) -> Result<f32, String> {
    for (key, expected) in
        [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", architecture)]
    {
        match metadata.get_value(key) {
            Some(Value::Str(found)) if found == expected => {}
            Some(Value::Str(found)) => return Err(format!("{key} is '{found}', but must be '{expected}'")),
            Some(_) => return Err(format!("{key} is not a string, but must be '{expected}'")),
            None => return Err(format!("{key} is missing, but must be '{expected}'")),
        }
    }
    if metadata.get_value("adapter.alora.invocation_tokens").is_some() {
        return Err("it only applies after certain tokens (aLoRA), which is not supported".to_owned());
    }
    match metadata.get_value("adapter.lora.alpha") {
        Some(Value::F32(alpha)) if alpha.is_finite() => Ok(*alpha),
        Some(other) => Err(format!("adapter.lora.alpha is {other:?}, but must be a finite F32")),
        None => Ok(0.0),
    }
}
