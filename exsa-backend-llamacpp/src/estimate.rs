//! Memory of a model and a session, estimated before anything is loaded.
//!
//! llama.cpp itself plans it. A dry run reads the header and lays out weights, KV and compute graph as for a
//! real session, but allocates only the output rows and recurrent states, which it frees again.

use crate::adapter::{Lora, Matrices};
use crate::ffi::{Context, ContextSettings};
use crate::load;
use crate::options::{ContextOptions, ModelOptions};
use crate::pooling::PoolingFacts;
use crate::session_plan::{ModelKind, SessionPlan};
use crate::source::Checked;
use exsa_core::backend::{LoadOptions, MemoryEstimate, Pooling, SessionOptions};
use exsa_core::error::LoadError;

/// Bytes per value of logits, embeddings and hidden states.
const VALUE_BYTES: u64 = 4;

/// Options of the model and the session to estimate.
pub(crate) struct Wanted<'a> {
    pub model: &'a ModelOptions,
    pub context: &'a ContextOptions,
    pub adapters: &'a [Lora],
    pub load: &'a LoadOptions,
    pub session: &'a SessionOptions,
}

/// Estimates the memory of the model `checked` and of one session.
///
/// For weights of a mapped file that are repacked, only the copies count, since the pages of the file are a
/// cache of the system. There is one output row per sequence, or in embedding sessions one per token of a
/// batch.
pub(crate) fn estimate(checked: &Checked<'_>, wanted: &Wanted<'_>) -> Result<MemoryEstimate, LoadError> {
    let pooling = PoolingFacts::of(&checked.gguf)?.choose(wanted.session.pooling)?;
    let model = load::dry_run(checked, wanted.model, wanted.load)?;
    let mut info = checked.info.clone();
    info.n_vocab = model.n_vocab();
    let kind = ModelKind::of(&model, pooling);
    let plan = SessionPlan::new(&info, kind, wanted.context, wanted.session)?;
    let settings = plan.context_settings(wanted.context, wanted.session);
    let used = Context::measure(&model, &settings)?;

    let rows = if pooling.is_some() { plan.batch_tokens.max(plan.sequences) } else { plan.sequences };
    let embedding = pooling.map_or(0, |_| model.embedding_width(Pooling::Mean));
    let output = (info.n_vocab as u64 + embedding as u64) * rows as u64 * VALUE_BYTES;
    let mut estimate = MemoryEstimate::new(used.weights, used.kv, used.compute + output);
    let session = wanted.session;
    if !wanted.adapters.is_empty() || session.span_adapters_max > 0 {
        // llama.cpp sizes the compute buffers with adapters only in the first pass. Their products add to the
        // peak of the layers, which is measured with a context that has minimal output rows.
        let layers =
            Context::measure(&model, &ContextSettings { outputs: plan.sequences, ..settings })?.compute;
        let tokens = plan.ubatch_tokens.min(plan.cells) as u64;
        let products = |per_token: u64| per_token.saturating_mul(tokens).saturating_mul(VALUE_BYTES);
        let matrices = Matrices::of(checked);
        let mut peak = used.compute;
        if session.span_adapters_max > 0 {
            // Adapters of requests only count in the layers; output rows are few.
            let values = (session.adapter_rank_max as u64).saturating_add(matrices.layer_rows_max() as u64);
            peak = peak.max(layers.saturating_add(products(values)));
        }
        for adapter in wanted.adapters {
            let size = adapter.size(&matrices)?;
            estimate.weights += size.bytes;
            peak = peak.max(layers + products(size.layer_values));
            peak = peak.max(used.compute + products(size.output_values));
        }
        estimate.scratch += peak - used.compute;
    }
    Ok(estimate)
}
