//! Capabilities of a scripted session from its options.

use super::ScriptedModel;
use crate::backend::{Capabilities, SessionOptions};
use crate::error::LoadError;

/// Upper limits of the options for sequences and batch tokens.
const SEQUENCES_MAX: usize = 1 << 16;
const BATCH_TOKENS_MAX: usize = 1 << 20;

/// Capabilities of a session of `model` with `options`.
pub(super) fn plan(model: &ScriptedModel, options: &SessionOptions) -> Result<Capabilities, LoadError> {
    let within = |option: &'static str, value: usize, max: usize| {
        let problem = format!("{value}, but 1 to {max} is allowed");
        if (1..=max).contains(&value) { Ok(value) } else { Err(LoadError::Option { option, problem }) }
    };
    let sequences_max = within("sequences_max", options.sequences_max, SEQUENCES_MAX)?;
    let batch_tokens_max = within("batch_tokens_max", options.batch_tokens_max, BATCH_TOKENS_MAX)?;
    let n_ctx = model.info.n_ctx;
    let context_tokens_max = match options.context_tokens_max {
        Some(tokens) => within("context_tokens_max", tokens, usize::MAX)?.min(n_ctx),
        None => n_ctx,
    };
    let kv_tokens = match options.kv_tokens_max {
        Some(tokens) => within("kv_tokens_max", tokens, usize::MAX)?,
        None => model.kv_tokens_max,
    };
    let needed = (kv_tokens as u64).saturating_mul(model.info.kv_bytes_per_token);
    if options.kv_tokens_max.is_some() && needed > options.kv_bytes_max {
        return Err(LoadError::Memory { what: "the KV cache", needed, available: options.kv_bytes_max });
    }
    let sequences = sequences_max.saturating_add(options.sequences_idle_max).min(SEQUENCES_MAX);
    Ok(Capabilities::new(sequences, context_tokens_max)
        .kv_tokens(kv_tokens.div_ceil(model.block_tokens) * model.block_tokens)
        .block_tokens(model.block_tokens)
        .batch_tokens(batch_tokens_max)
        .fork(model.can_fork)
        .truncate(model.can_truncate)
        .save(model.can_save)
        .embed(options.pooling)
        .adapters(model.adapters_max.0.min(options.span_adapters_max), model.adapters_max.1)
        .batch_invariant(true))
}
