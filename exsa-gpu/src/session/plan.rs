//! Plan of a session: sizes of its KV cache and scratch memory, and its capabilities.

use super::scratch::ScratchSizes;
use super::tables::BLOCK_TOKENS;
use crate::device::Limits;
use crate::kernel::KvElement;
use exsa_core::backend::{Capabilities, KvType, Pooling, SessionOptions};
use exsa_core::error::LoadError;
use exsa_models::Config;

/// Maximum sequences of a session.
const SEQUENCES_MAX: usize = 1 << 16;

/// Maximum tokens of a batch: threadgroups of a launch in y.
const BATCH_TOKENS_MAX: usize = 65_535;

/// Plan of a session, made before anything is allocated.
#[derive(Clone, Debug)]
pub(crate) struct SessionPlan {
    /// Element type of keys and values.
    pub element: KvElement,
    /// Bytes of the keys, or of the values, of a block in one layer.
    pub block_bytes: u64,
    /// Blocks of the KV cache.
    pub n_blocks: u32,
    /// Layers.
    pub n_layer: usize,
    /// Memory of passes.
    pub scratch: ScratchSizes,
    /// Capabilities.
    pub capabilities: Capabilities,
}

impl SessionPlan {
    /// The plan of a session by `options` of a model with `config`.
    pub fn new(
        config: &Config,
        n_vocab: usize,
        limits: Limits,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let element = element(options)?;
        let block_bytes = (BLOCK_TOKENS * config.n_head_kv * config.head_dim) as u64 * element.bytes() as u64;
        let all_layers = block_bytes.saturating_mul(2 * config.n_layer as u64);
        let capabilities =
            capabilities(config.n_ctx, all_layers, options)?.embed(Some(pooling(config, options)?));
        let blocks = capabilities.kv_tokens_max / BLOCK_TOKENS;
        let memory = |available| LoadError::Memory {
            what: "the KV cache",
            needed: all_layers.saturating_mul(blocks as u64),
            available,
        };
        let n_blocks = u32::try_from(blocks).map_err(|_| memory(options.kv_bytes_max))?;
        if block_bytes.saturating_mul(blocks as u64) > limits.buffer_max {
            return Err(memory(limits.buffer_max));
        }
        let scratch = ScratchSizes::new(config, n_vocab, limits, &capabilities);
        Ok(Self { element, block_bytes, n_blocks, n_layer: config.n_layer, scratch, capabilities })
    }

    /// Bytes of keys and values of a layer, each.
    pub fn layer_bytes(&self) -> u64 {
        self.block_bytes * u64::from(self.n_blocks)
    }

    /// Bytes of a block in all layers.
    pub fn block_bytes_all(&self) -> u64 {
        2 * self.block_bytes * self.n_layer as u64
    }

    /// Bytes of the KV cache.
    pub fn kv_bytes(&self) -> u64 {
        self.block_bytes_all().saturating_mul(u64::from(self.n_blocks))
    }
}

/// Pooling of embeddings: that of the options, else that of the file, else the mean.
fn pooling(config: &Config, options: &SessionOptions) -> Result<Pooling, LoadError> {
    match options.pooling {
        Some(pooling @ (Pooling::Mean | Pooling::First | Pooling::Last)) => Ok(pooling),
        Some(_) => Err(LoadError::Option {
            option: "pooling",
            problem: "this model has no classification head to rank with; mean, first and last work"
                .to_owned(),
        }),
        None => Ok(config.pooling.unwrap_or(Pooling::Mean)),
    }
}

/// Element type of keys and values.
fn element(options: &SessionOptions) -> Result<KvElement, LoadError> {
    let refused = |problem: String| {
        let problem = format!("{problem}; supported, for keys and values alike: f32, f16");
        Err(LoadError::Option { option: "kv_type", problem })
    };
    let (keys, values) = (options.key_type.unwrap_or_default(), options.value_type.unwrap_or_default());
    if keys != values {
        return refused(format!("keys in {keys} and values in {values}"));
    }
    match keys {
        KvType::F32 => Ok(KvElement::F32),
        KvType::F16 => Ok(KvElement::F16),
        other => refused(other.to_string()),
    }
}

/// Capabilities of a session by `options`, of a model trained for `n_ctx` tokens, within the bytes that its
/// KV may take.
fn capabilities(n_ctx: usize, block_bytes: u64, options: &SessionOptions) -> Result<Capabilities, LoadError> {
    let positive = |option: &'static str, value: usize, max: usize| {
        let problem = format!("{value}, but 1 to {max} is allowed");
        if (1..=max).contains(&value) { Ok(value) } else { Err(LoadError::Option { option, problem }) }
    };
    let sequences_max = positive("sequences_max", options.sequences_max, SEQUENCES_MAX)?;
    let batch_tokens_max = positive("batch_tokens_max", options.batch_tokens_max, BATCH_TOKENS_MAX)?;
    let context = match options.context_tokens_max {
        Some(context) => positive("context_tokens_max", context, usize::MAX)?.min(n_ctx),
        None => n_ctx,
    };
    let blocks_max = usize::try_from(options.kv_bytes_max / block_bytes.max(1)).unwrap_or(usize::MAX);
    let blocks = match options.kv_tokens_max {
        Some(tokens) => positive("kv_tokens_max", tokens, usize::MAX)?.div_ceil(BLOCK_TOKENS),
        None => {
            let one = context.div_ceil(BLOCK_TOKENS);
            let wanted = one.saturating_mul(sequences_max).min(blocks_max);
            // A context that was asked for has to fit; the model's own need not.
            if options.context_tokens_max.is_some() { wanted.max(one) } else { wanted.max(1) }
        }
    };
    if blocks > blocks_max {
        return Err(LoadError::Memory {
            what: "the KV cache",
            needed: block_bytes.saturating_mul(blocks as u64),
            available: options.kv_bytes_max,
        });
    }
    let kv_tokens_max = blocks.saturating_mul(BLOCK_TOKENS);
    let sequences = sequences_max.saturating_add(options.sequences_idle_max).min(SEQUENCES_MAX);
    Ok(Capabilities::new(sequences, context.min(kv_tokens_max))
        .kv_tokens(kv_tokens_max)
        .block_tokens(BLOCK_TOKENS)
        .batch_tokens(batch_tokens_max)
        .fork(true)
        .truncate(true)
        .save(true))
}
