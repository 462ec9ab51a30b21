//! Memory of a model and a session, computed before anything is loaded.
//!
//! llama.cpp itself plans it: a dry run reads the header, lays out weights, KV and compute graph as a real
//! one would, and allocates none of them.

use crate::adapter::Lora;
use crate::ffi::Context;
use crate::load;
use crate::options::{ContextOptions, ModelOptions};
use crate::pooling::PoolingFacts;
use crate::session_plan::{ModelKind, SessionPlan};
use crate::source::Checked;
use exsa_core::backend::{LoadOptions, Pooling, SessionOptions};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;

/// Bytes per value of logits, embeddings and hidden states.
const VALUE_BYTES: u64 = 4;

/// Bytes that a model and one session of it take, over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Weights, each counted once. Weights of a mapped file that are rearranged for the processor are counted
    /// as the copies that are used; the pages of the file that they were copied from are a cache of the
    /// system.
    pub weights: u64,
    /// KV cells and recurrent states.
    pub kv: u64,
    /// Buffers of passes, sized for the largest one, and output rows: one per sequence, or in sessions for
    /// embeddings one per token of a batch.
    pub scratch: u64,
}

/// Options of the model and the session to estimate.
pub(crate) struct Wanted<'a> {
    pub model: &'a ModelOptions,
    pub context: &'a ContextOptions,
    pub adapters: &'a [Lora],
    pub load: &'a LoadOptions,
    pub session: &'a SessionOptions,
}

/// Estimates the memory of the model `checked` and of one session.
pub(crate) fn estimate(checked: &Checked<'_>, wanted: &Wanted<'_>) -> Result<MemoryEstimate, LoadError> {
    let pooling = PoolingFacts::of(&checked.gguf)?.choose(wanted.session.pooling)?;
    let model = load::dry_run(checked, wanted.model, wanted.load)?;
    let info = ModelInfo { n_vocab: model.n_vocab(), ..checked.info.clone() };
    let kind = ModelKind::of(&model, pooling);
    let plan = SessionPlan::new(&info, kind, wanted.context, wanted.session)?;
    let used = Context::measure(&model, &plan.context_settings(wanted.context, wanted.session))?;

    let rows = if pooling.is_some() { plan.batch_tokens.max(plan.sequences) } else { plan.sequences };
    let embedding = pooling.map_or(0, |_| model.embedding_width(Pooling::Mean));
    let output = (info.n_vocab as u64 + embedding as u64) * rows as u64 * VALUE_BYTES;
    let mut estimate = MemoryEstimate { weights: used.weights, kv: used.kv, scratch: used.compute + output };
    for adapter in wanted.adapters {
        let size = adapter.size(checked)?;
        let tokens = plan.ubatch_tokens.min(plan.cells) as u64;
        estimate.weights += size.bytes;
        estimate.scratch += size.values_per_token * tokens * VALUE_BYTES;
    }
    Ok(estimate)
}
