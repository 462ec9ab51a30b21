//! Plan of a session: shape and size of its KV cache, and its capabilities.

use crate::kernels::float::kv_layout::Format;
use crate::kv::KvShape;
use crate::shape::BLOCK_TOKENS;
use exsa_core::adapter::RANK_MAX;
use exsa_core::backend::{Capabilities, KvType, Pooling, SessionOptions};
use exsa_core::error::LoadError;
use exsa_models::Config;

/// Maximum sequences of a session.
const SEQUENCES_MAX: usize = 1 << 16;

/// Maximum tokens of a batch.
const BATCH_TOKENS_MAX: usize = 1 << 20;

/// Maximum adapters of a span.
const SPAN_ADAPTERS_MAX: usize = 64;

/// Plan of a session, made before anything is allocated.
#[derive(Clone, Debug)]
pub(crate) struct SessionPlan {
    /// Shape and type of the KV cache.
    pub kv_shape: KvShape,
    /// Blocks of the KV cache.
    pub n_blocks: u32,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// Maximum rank of an adapter.
    pub adapter_rank_max: usize,
    /// Values of the state of a sequence, in each layer that keeps one in place of keys and values.
    pub state_lens: Vec<usize>,
}

impl SessionPlan {
    /// The plan of a session by `options` of a model with `config`: on the host's kernels if `host`, else
    /// over tensors.
    pub fn new(config: &Config, options: &SessionOptions, host: bool) -> Result<Self, LoadError> {
        let kv_shape = KvShape {
            n_layer: config.n_layer_kv(),
            n_head_kv: config.n_head_kv,
            head_dim: config.head_dim,
            format: format(options, host)?,
        };
        if config.is_recurrent() && !host {
            return Err(LoadError::Unsupported {
                what: format!("architecture {} on a device other than the CPU", config.architecture.name),
                supported: "the CPU".to_owned(),
            });
        }
        let state_lens =
            (0..config.n_layer).map(|index| config.state_len(index)).filter(|len| *len > 0).collect();
        // Tensor libraries choose their kernels by the shape of the batch.
        let capabilities = capabilities(config.n_ctx, &kv_shape, options)?
            .batch_invariant(host)
            .embed(Some(pooling(config, options)?))
            // A state is that of all tokens.
            .fork(!config.is_recurrent())
            .truncate(!config.is_recurrent());
        let (span_adapters_max, adapter_rank_max) = adapters(options, host)?;
        let sets = if span_adapters_max == 0 { 1 } else { capabilities.sequences_max };
        let capabilities = capabilities.adapters(span_adapters_max, sets);
        let blocks = capabilities.kv_tokens_max / BLOCK_TOKENS;
        let n_blocks = u32::try_from(blocks).map_err(|_| LoadError::Option {
            option: "kv_tokens_max",
            problem: format!("{blocks} blocks, but at most {} are allowed", u32::MAX),
        })?;
        Ok(Self { kv_shape, n_blocks, capabilities, adapter_rank_max, state_lens })
    }

    /// Bytes of the states of one sequence.
    pub fn state_bytes(&self) -> u64 {
        self.state_lens.iter().fold(0, |sum: u64, len| sum.saturating_add(4 * *len as u64))
    }

    /// Bytes of the KV cache on the host.
    pub fn kv_bytes(&self) -> u64 {
        self.kv_shape.block_bytes().unwrap_or(u64::MAX).saturating_mul(u64::from(self.n_blocks))
    }
}

/// Maximum adapters of a span, and their maximum rank. Tensors take none.
fn adapters(options: &SessionOptions, host: bool) -> Result<(usize, usize), LoadError> {
    let within = |option: &'static str, value: usize, max: usize| {
        let problem = format!("{value}, but 0 to {max} is allowed");
        if value <= max { Ok(value) } else { Err(LoadError::Option { option, problem }) }
    };
    let span = within("span_adapters_max", options.span_adapters_max, SPAN_ADAPTERS_MAX)?;
    let rank = within("adapter_rank_max", options.adapter_rank_max, RANK_MAX)?;
    Ok(if host && rank > 0 { (span, rank) } else { (0, 0) })
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
fn format(options: &SessionOptions, host: bool) -> Result<Format, LoadError> {
    let supported = if host { "f32, f16, q8_0" } else { "f32, f16 (q8_0 on the CPU only)" };
    let refused = |problem: String| {
        let problem = format!("{problem}; supported, for keys and values alike: {supported}");
        Err(LoadError::Option { option: "kv_type", problem })
    };
    let (keys, values) = (options.key_type.unwrap_or_default(), options.value_type.unwrap_or_default());
    if keys != values {
        return refused(format!("keys in {keys} and values in {values}"));
    }
    match keys {
        KvType::F32 => Ok(Format::F32),
        KvType::F16 => Ok(Format::F16),
        KvType::Q8_0 if host => Ok(Format::Q8),
        other => refused(other.to_string()),
    }
}

/// Limits of a session that options set.
pub(crate) struct Limits {
    /// Sequences.
    pub sequences_max: usize,
    /// Tokens of a batch.
    pub batch_tokens_max: usize,
    /// Tokens of a sequence.
    pub context: usize,
}

/// The limits of a session by `options`, of a model trained for `n_ctx` tokens.
pub(crate) fn limits(n_ctx: usize, options: &SessionOptions) -> Result<Limits, LoadError> {
    Ok(Limits {
        sequences_max: positive("sequences_max", options.sequences_max, SEQUENCES_MAX)?,
        batch_tokens_max: positive("batch_tokens_max", options.batch_tokens_max, BATCH_TOKENS_MAX)?,
        context: match options.context_tokens_max {
            Some(context) => positive("context_tokens_max", context, usize::MAX)?.min(n_ctx),
            None => n_ctx,
        },
    })
}

fn positive(option: &'static str, value: usize, max: usize) -> Result<usize, LoadError> {
    let problem = format!("{value}, but 1 to {max} is allowed");
    if (1..=max).contains(&value) { Ok(value) } else { Err(LoadError::Option { option, problem }) }
}

/// Capabilities of a session by `options`, of a model trained for `n_ctx` tokens, within the bytes that its
/// KV may take.
fn capabilities(n_ctx: usize, kv: &KvShape, options: &SessionOptions) -> Result<Capabilities, LoadError> {
    let Limits { sequences_max, batch_tokens_max, context } = limits(n_ctx, options)?;
    let memory =
        |needed: u64| LoadError::Memory { what: "the KV cache", needed, available: options.kv_bytes_max };
    let block_bytes = kv.block_bytes().ok_or_else(|| memory(u64::MAX))?;
    let blocks_max = usize::try_from(options.kv_bytes_max / block_bytes).unwrap_or(usize::MAX);
    let bytes = |blocks: usize| block_bytes.saturating_mul(blocks as u64);
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
        return Err(memory(bytes(blocks)));
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
