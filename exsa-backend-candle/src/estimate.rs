//! Memory of a model and a session on the CPU, from the header of the file, by the functions that size the
//! allocations.

use crate::compute;
use crate::encoder::EncoderSession;
use crate::executor::HostExecutor;
use crate::kernels::MatrixShape;
use crate::kernels::float::packed::{FloatSizes, FloatType};
use crate::kernels::quantized::activations::ActivationSizes;
use crate::kernels::quantized::{Isa, PackedType, dequantize, scratch_bytes};
use crate::kv::BlockTables;
use crate::layers::vector::Vector;
use crate::model_files::ModelFiles;
use crate::plan::SessionPlan;
use crate::weights;
use exsa_core::backend::{Capabilities, MemoryEstimate, SessionOptions};
use exsa_core::error::LoadError;
use exsa_core::gguf::{Gguf, TensorInfo};
use exsa_models::{Config, EncoderConfig, tensors};

/// Memory of the model of `files` and of one session by `options`. `packed_mapped` says whether packed
/// matrices are pages of a file.
///
/// A pass counts with one row of logits for each sequence, as an engine asks for them; more rows take more.
pub(crate) fn estimate(
    files: &ModelFiles,
    packed_mapped: bool,
    options: &SessionOptions,
) -> Result<MemoryEstimate, LoadError> {
    let gguf = files.gguf();
    if let Some(config) = EncoderConfig::from_metadata(gguf.metadata())? {
        gguf.tensors().iter().try_for_each(weights::check_type)?;
        let (tokens, threads) = (options.batch_tokens_max, compute::session_threads(options)?);
        let products = products(gguf, (config.n_layer, 1), (tokens, tokens), threads);
        let scratch = EncoderSession::bytes(&config, options)?.saturating_add(products);
        let (weights, shared) = weight_bytes(files, packed_mapped);
        return Ok(MemoryEstimate::new(weights, 0, scratch).shared(shared));
    }
    let config = Config::from_metadata(gguf.metadata())?;
    let plan = SessionPlan::new(&config, options, true)?;
    let threads = compute::session_threads(options)?;
    gguf.tensors().iter().try_for_each(weights::check_type)?;
    let (n_blocks, kv) = (plan.n_blocks, plan.kv_bytes());
    let Capabilities { sequences_max, context_tokens_max, batch_tokens_max, .. } = plan.capabilities;
    let rows = options.sequences_max.min(batch_tokens_max);
    let n_vocab = gguf.tensor("token_embd.weight").and_then(|table| table.shape.last()).copied().unwrap_or(0);
    let experts_used = config.experts.as_ref().map_or(1, |experts| experts.routing.used);
    let scratch = [
        HostExecutor::bytes(&config, &plan, threads),
        products(gguf, (config.n_layer, experts_used), (batch_tokens_max, rows), threads),
        n_vocab.saturating_mul(4 * rows as u64),
        BlockTables::bytes(sequences_max, n_blocks, context_tokens_max),
    ];
    let scratch = scratch.into_iter().fold(0, u64::saturating_add);
    let (weights, shared) = weight_bytes(files, packed_mapped);
    Ok(MemoryEstimate::new(weights, kv, scratch).shared(shared))
}

/// Bytes of the weights: packed, read in place, and dequantized; and those of them in pages of files.
fn weight_bytes(files: &ModelFiles, packed_mapped: bool) -> (u64, u64) {
    let gguf = files.gguf();
    let packed = weights::packed_bytes(gguf) as u64;
    let in_place = |tensor: &TensorInfo| {
        let packed = PackedType::of(tensor.dtype).is_some() || FloatType::of(tensor.dtype).is_some();
        tensors::is_operand(tensor) && (tensor.name == "token_embd.weight" || !packed)
    };
    let sum = |stored: bool| {
        let tensors = gguf.tensors().iter().filter(|tensor| in_place(tensor));
        let tensors = tensors.filter(|tensor| files.is_stored(tensor) == stored);
        tensors.map(|tensor| tensor.bytes).fold(0, u64::saturating_add)
    };
    let (in_place, converted) = match files.copied_bytes() {
        0 => (sum(true), sum(false)),
        copy => (copy, sum(false)),
    };
    let vectors: u64 = gguf.tensors().iter().map(vector_bytes).fold(0, u64::saturating_add);
    let mut shared = if files.stamps().is_some() { in_place } else { 0 };
    if packed_mapped {
        shared = shared.saturating_add(packed);
    }
    let parts = [packed, in_place, converted, vectors];
    (parts.into_iter().fold(0, u64::saturating_add), shared)
}

/// Bytes of a tensor that is a vector, or the weights of a convolution, in f32.
fn vector_bytes(tensor: &TensorInfo) -> u64 {
    match tensor.shape[..] {
        // Frequency factors are no operand of a pass, and are there once.
        [len] if tensor.name.starts_with("rope_") => len.saturating_mul(4),
        [len] => Vector::bytes(len),
        [_, _] if !tensors::is_operand(tensor) => tensor.shape.iter().product::<u64>().saturating_mul(4),
        _ => 0,
    }
}

/// Bytes of the memory of products, in a batch of `tokens` tokens of which `rows` want logits, each with
/// `experts_used` experts in a mixture.
fn products(
    gguf: &Gguf,
    (n_layer, experts_used): (usize, usize),
    (tokens, rows): (usize, usize),
    threads: usize,
) -> u64 {
    let output = if gguf.tensor("output.weight").is_some() { "output.weight" } else { "token_embd.weight" };
    let last_layer = format!("blk.{}.", n_layer - 1);
    let mut activations = None::<ActivationSizes>;
    let (mut floats, isa) = (None::<FloatSizes>, Isa::detect());
    // Scratch memory of the caller's thread and of each of the others.
    let (mut caller, mut other) = (Scratch::default(), Scratch::default());
    for (tensor, MatrixShape { count, rows: n, columns }) in weights::matrices(gguf) {
        // After the keys and values of the last layer a pass goes on with the rows that want logits.
        let part = tensor.name.strip_prefix(&last_layer);
        let wanted_only = part.is_some_and(|part| !part.starts_with("attn_k") && !part.starts_with("attn_v"))
            && part != Some("attn_qkv.weight");
        let m = if tensor.name == output || wanted_only { rows } else { tokens };
        // Rows of all experts are multiplied at once, and there is memory for all tokens in any layer; those
        // of slow types are multiplied one expert after the other.
        let (is_stack, expert_rows) = (tensor.shape.len() == 3, m);
        let stack_rows = tokens.saturating_mul(experts_used);
        let (m, groups) = if is_stack { (stack_rows, count.min(stack_rows)) } else { (m, 1) };
        if let Some(kind) = PackedType::of(tensor.dtype) {
            let sizes = if is_stack {
                ActivationSizes::grouped(m, groups, columns, kind)
            } else {
                ActivationSizes::new(m, columns, kind)
            };
            activations = Some(activations.map_or(sizes, |others| others.max(sizes)));
        } else if let Some(kind) = FloatType::of(tensor.dtype) {
            let sizes = FloatSizes::grouped(m, groups, columns, kind, isa);
            floats = Some(floats.map_or(sizes, |others| others.max(sizes)));
        } else {
            let m = expert_rows;
            let (weights, products) = dequantize::scratch_floats(m, columns, n);
            let needed = Scratch { weights, products };
            caller = caller.max(needed);
            if dequantize::is_shared(m, columns, n) {
                other = other.max(needed);
            }
        }
    }
    let packed = activations.map_or(0, |sizes| sizes.bytes() + (threads * scratch_bytes()) as u64);
    let floats = floats.map_or(0, |sizes| sizes.bytes(threads));
    packed + floats + caller.bytes() + (threads as u64 - 1) * other.bytes()
}

/// Floats that a thread needs for products with dequantized weights.
#[derive(Clone, Copy, Default)]
struct Scratch {
    weights: usize,
    products: usize,
}

impl Scratch {
    fn max(self, other: Self) -> Self {
        Self { weights: self.weights.max(other.weights), products: self.products.max(other.products) }
    }

    fn bytes(self) -> u64 {
        ((self.weights + self.products) * size_of::<f32>()) as u64
    }
}
