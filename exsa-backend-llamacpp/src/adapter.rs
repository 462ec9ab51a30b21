//! LoRA adapters: checks before llama.cpp opens them, and sizes.

use crate::source::{self, Checked};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Gguf, Metadata, TensorInfo, Value};
use std::path::PathBuf;

/// Allowed types of an adapter's matrices.
const TYPES: [GgmlType; 4] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0];

/// The token embedding. If the output shares its weights, llama.cpp would multiply by an adapter's lookup
/// matrices and end the process.
const EMBEDDING: &str = "token_embd.weight";

/// The matrix of the output, if it is not that of the token embedding.
const OUTPUT: &str = "output.weight";

/// An adapter and its scale.
#[derive(Clone, Debug)]
pub(crate) struct Lora {
    pub path: PathBuf,
    pub scale: f32,
}

/// Memory that an adapter adds to a model and its passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdapterSize {
    /// Bytes of its matrices.
    pub bytes: u64,
    /// Values per token of its largest pair of products in the layers.
    pub layer_values: u64,
    /// Values per token of its pair of products at the output.
    pub output_values: u64,
}

impl Lora {
    /// Checks that this can be an adapter of `model`.
    pub fn check(&self, model: &Checked<'_>) -> Result<(), LoadError> {
        self.open(model).map(drop)
    }

    /// The size of this adapter, if it can be one of `model`.
    pub fn size(&self, model: &Checked<'_>) -> Result<AdapterSize, LoadError> {
        let gguf = self.open(model)?;
        let bytes = gguf.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
        let mut size = AdapterSize { bytes, ..AdapterSize::default() };
        if self.scale == 0.0 {
            // llama.cpp loads the adapter, but does not apply it.
            return Ok(size);
        }
        let rows = |tensor: &TensorInfo| tensor.shape.get(1).copied().unwrap_or(1);
        for a in gguf.tensors() {
            let Some(weight) = a.name.strip_suffix(".lora_a") else { continue };
            let Some(b) = gguf.tensor(&format!("{weight}.lora_b")) else { continue };
            let values = rows(a).saturating_add(rows(b));
            let most = if weight == OUTPUT { &mut size.output_values } else { &mut size.layer_values };
            *most = values.max(*most);
        }
        Ok(size)
    }

    /// The header of this adapter, checked against `model`.
    fn open(&self, model: &Checked<'_>) -> Result<Gguf, LoadError> {
        if !self.scale.is_finite() {
            return Err(self.refuse(format!("its scale is {}, but finite ones are allowed", self.scale)));
        }
        let gguf = source::read(&self.path).map_err(|error| match error {
            LoadError::Gguf(problem) => self.refuse(problem.to_string()),
            other => other,
        })?;
        metadata(gguf.metadata(), &model.info.architecture)
            .and_then(|()| tensors(&gguf, model))
            .map_err(|problem| self.refuse(problem))?;
        Ok(gguf)
    }

    /// The error that this adapter cannot be used.
    pub fn refuse(&self, problem: String) -> LoadError {
        LoadError::Option { option: "lora", problem: format!("{}: {problem}", self.path.display()) }
    }
}

/// Checks the metadata: llama.cpp ends the process over values of another type.
fn metadata(metadata: &Metadata, architecture: &str) -> Result<(), String> {
    for (key, expected) in
        [("general.type", "adapter"), ("general.architecture", architecture), ("adapter.type", "lora")]
    {
        match metadata.get_value(key) {
            Some(Value::Str(found)) if found == expected => {}
            Some(Value::Str(found)) => return Err(format!("{key} is '{found}', but has to be '{expected}'")),
            Some(_) => return Err(format!("{key} is no text, but has to be '{expected}'")),
            None => return Err(format!("{key} is missing, but has to be '{expected}'")),
        }
    }
    match metadata.get_value("adapter.lora.alpha") {
        Some(Value::F32(alpha)) if alpha.is_finite() => {}
        Some(other) => return Err(format!("adapter.lora.alpha is {other:?}, but has to be a finite F32")),
        None => {}
    }
    if metadata.get_value("adapter.alora.invocation_tokens").is_some() {
        return Err("it is to be used after certain tokens only (aLoRA), which is not supported".to_owned());
    }
    Ok(())
}

/// Checks that the tensors are pairs `X.lora_a` and `X.lora_b` whose product has the shape of the model's
/// matrix `X`.
fn tensors(gguf: &Gguf, model: &Checked<'_>) -> Result<(), String> {
    if gguf.tensors().is_empty() {
        return Err("it holds no tensor".to_owned());
    }
    for tensor in gguf.tensors() {
        let name = &tensor.name;
        let problem = |problem: String| Err(format!("tensor '{name}': {problem}"));
        if !TYPES.contains(&tensor.dtype) {
            let known = TYPES.map(GgmlType::name).join(", ");
            return problem(format!("its type is {}, but {known} are allowed", tensor.dtype.name()));
        }
        let (weight, other) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
            (Some(weight), _) => (weight, "lora_b"),
            (_, Some(weight)) => (weight, "lora_a"),
            _ => {
                return problem(
                    "it is no matrix of an adapter, which are called …lora_a and …lora_b".to_owned(),
                );
            }
        };
        let Some(other) = gguf.tensor(&format!("{weight}.{other}")) else {
            return problem(format!("there is no {weight}.{other}"));
        };
        let Some(base) = model.tensor(weight) else {
            return problem(format!("the model has no tensor {weight}"));
        };
        if weight == EMBEDDING && model.tensor(OUTPUT).is_none() {
            return problem(
                "the model's output has the same weights, for which llama.cpp has no adapters".to_owned(),
            );
        }
        if name.ends_with(".lora_a") {
            shapes(weight, tensor, other, base).or_else(problem)?;
        }
    }
    Ok(())
}

/// Checks the shapes of a pair: `[n_in, rank]` and `[rank, n_out]` for a matrix `[n_in, n_out]`. For the
/// token embedding, whose rows are looked up instead of multiplied, `[rank, n_vocab]` and `[rank, n_embd]`.
/// Experts are a third dimension of all.
fn shapes(weight: &str, a: &TensorInfo, b: &TensorInfo, base: &TensorInfo) -> Result<(), String> {
    let four = |tensor: &TensorInfo| -> [u64; 4] {
        std::array::from_fn(|i| tensor.shape.get(i).copied().unwrap_or(1))
    };
    let ([n_in, n_out, experts, more], a, b) = (four(base), four(a), four(b));
    if base.shape.len() < 2 {
        return Err("the model's tensor is no matrix".to_owned());
    }
    let rank = b[0];
    let expected = if weight.ends_with(EMBEDDING) {
        ([rank, n_out, 1, 1], [rank, n_in, 1, 1])
    } else {
        ([n_in, rank, experts, more], [rank, n_out, experts, more])
    };
    if (a, b) == expected {
        return Ok(());
    }
    Err(format!(
        "the pair has the shapes {a:?} and {b:?}, but for this model {:?} and {:?}",
        expected.0, expected.1
    ))
}
