//! A model's hyperparameters, read from the metadata and checked once.

use crate::architecture::{
    self, Architecture, EmbeddingScale, LogitScale, LogitSoftcap, NormKind, RopeLayers, Windows,
};
use crate::heads::Heads;
use crate::keys::{CONTEXT, EPSILON, HEAD_DIM, HEADS, Keys, LAYERS, SCALE, WIDTH};
use crate::rope::{LayerRope, RopeConfig};
use exsa_core::backend::Pooling;
use exsa_core::error::LoadError;
use exsa_core::gguf::Metadata;

/// Hyperparameters of a model. Every size is at least 1 and small enough that products of any two fit into
/// `usize`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Architecture of the family of models.
    pub architecture: &'static Architecture,
    /// Layers.
    pub n_layer: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Heads of queries, a multiple of `n_head_kv`.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Values in a head, even.
    pub head_dim: usize,
    /// Width of the MLP.
    pub n_ff: usize,
    /// Tokens of context that the model was trained for.
    pub n_ctx: usize,
    /// Pooling of embeddings that the file names.
    pub pooling: Option<Pooling>,
    /// Epsilon, added to the mean square or the variance in a norm.
    pub norm_epsilon: f32,
    /// Factor on the embeddings.
    pub embedding_scale: f32,
    /// Factor on the attention scores.
    pub query_scale: f32,
    /// Cap of the attention scores.
    pub attention_softcap: Option<f32>,
    /// Cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Factor on the logits.
    pub logit_scale: Option<f32>,
    /// Factor on the outputs of attention and MLP before they are added.
    pub residual_scale: Option<f32>,
    /// RoPE of global layers.
    pub rope: RopeConfig,
    /// RoPE of sliding-window layers.
    pub rope_sliding_window: RopeConfig,
    /// Tokens in the window of the layers that have one, the token itself included.
    window: Option<usize>,
    /// Pattern of [`Windows::LocalGlobal`].
    window_pattern: WindowPattern,
    /// Whether any layer has RoPE.
    has_rope: bool,
}

/// Layers that have a window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WindowPattern {
    /// Of every so many all but the last.
    Period(usize),
    /// Those that are true here, `[n_layer]`.
    Layers(Vec<bool>),
}

impl Config {
    /// Reads and checks the hyperparameters.
    ///
    /// # Errors
    ///
    /// [`LoadError::Metadata`] where a key is missing or of another type, [`LoadError::Unsupported`] for an
    /// architecture or a value that is not supported, with what is.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let name: String = metadata.require("general.architecture")?;
        let architecture = architecture::find(&name)?;
        let keys = Keys { metadata, prefix: architecture.name };
        keys.refuse_unsupported()?;
        let n_layer = keys.size("block_count", &LAYERS, None)?;
        let layers_max = architecture.layers_unsupported.map_or(n_layer, |layers| layers - 1);
        keys.check("block_count", n_layer, n_layer <= layers_max, || format!("1 to {layers_max}"))?;
        let n_embd = keys.size("embedding_length", &WIDTH, None)?;
        let n_head = keys.size("attention.head_count", &HEADS, None)?;
        let n_head_kv = keys.size("attention.head_count_kv", &(1..=n_head), Some(n_head))?;
        let head_dim = keys.size("attention.key_length", &HEAD_DIM, Some(n_embd / n_head))?;
        let value_dim = keys.size("attention.value_length", &HEAD_DIM, Some(head_dim))?;
        let n_ctx = keys.size("context_length", &CONTEXT, None)?;
        keys.check("attention.head_count_kv", n_head_kv, n_head.is_multiple_of(n_head_kv), || {
            format!("the divisors of attention.head_count, which is {n_head}")
        })?;
        keys.check("attention.key_length", head_dim, head_dim.is_multiple_of(2), || "even lengths".into())?;
        keys.check("attention.value_length", value_dim, value_dim == head_dim, || {
            format!("the key_length {head_dim}")
        })?;
        let rope = keys.rope(head_dim, n_ctx)?;
        let (window, window_pattern) = keys.window(architecture.windows, n_layer)?;
        if architecture.rope_layers == RopeLayers::SlidingWindow {
            keys.check("attention.sliding_window", 0, window.is_some(), || "1 or more".into())?;
        }
        let wide = architecture.layers_with_wide_queries == Some(n_layer);
        let query_dim = if wide { n_embd / n_head } else { head_dim };
        let query_scale = if architecture.layer_scales { keys.scale("attention.scale")? } else { None };
        let norm_epsilon = match architecture.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer { .. } => "attention.layer_norm_epsilon",
        };
        Ok(Self {
            architecture,
            n_layer,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff: keys.size("feed_forward_length", &WIDTH, None)?,
            n_ctx,
            pooling: keys.pooling()?,
            norm_epsilon: keys.float(norm_epsilon, &EPSILON, None)?,
            embedding_scale: match architecture.embedding_scale {
                EmbeddingScale::One => 1.0,
                EmbeddingScale::RootOfWidth => (n_embd as f32).sqrt(),
                EmbeddingScale::Metadata => keys.scale("embedding_scale")?.unwrap_or(1.0),
            },
            query_scale: query_scale.unwrap_or(1.0 / (query_dim.max(1) as f32).sqrt()),
            attention_softcap: match architecture.attention_softcap {
                Some(cap) => keys.softcap("attn_logit_softcapping", Some(cap))?,
                None => None,
            },
            logit_softcap: match architecture.logit_softcap {
                LogitSoftcap::Metadata(default) => keys.softcap("final_logit_softcapping", default)?,
                LogitSoftcap::Never => None,
            },
            logit_scale: match architecture.logit_scale {
                LogitScale::Never => None,
                LogitScale::Multiply => keys.scale("logit_scale")?,
                LogitScale::Divide => Some(1.0 / keys.float("logit_scale", &SCALE, None)?),
            },
            residual_scale: if architecture.layer_scales { keys.scale("residual_scale")? } else { None },
            rope_sliding_window: keys.rope_sliding_window(&rope, architecture.rope_sliding_window, n_ctx)?,
            rope,
            window,
            window_pattern,
            has_rope: match architecture.rope_layers {
                RopeLayers::Finetuned => keys.get_or("rope.scaling.finetuned", Some(true))?,
                _ => true,
            },
        })
    }

    /// Whether sequences of `context` tokens are longer than those that the model was trained on at first.
    #[must_use]
    pub fn is_long(&self, context: usize) -> bool {
        context > self.rope.original_context
    }

    /// Heads of layer `index`.
    #[must_use]
    pub fn heads(&self, index: usize) -> Heads {
        Heads {
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            head_dim: self.head_dim,
            scale: self.query_scale,
            softcap: self.attention_softcap,
            window: self.window(index),
        }
    }

    /// Tokens that layer `index` sees, the token itself included; `None` if it sees everything.
    #[must_use]
    pub fn window(&self, index: usize) -> Option<usize> {
        match self.architecture.windows {
            Windows::Never => None,
            Windows::All => self.window,
            Windows::LocalGlobal { .. } => self.window.filter(|_| match &self.window_pattern {
                WindowPattern::Period(period) => index % period != period - 1,
                WindowPattern::Layers(layers) => layers.get(index) == Some(&true),
            }),
        }
    }

    /// RoPE of layer `index`.
    #[must_use]
    pub fn layer_rope(&self, index: usize) -> LayerRope {
        let sliding_window = self.window(index).is_some();
        let rotated = match self.architecture.rope_layers {
            RopeLayers::All => true,
            RopeLayers::Finetuned => self.has_rope,
            RopeLayers::AllButEvery(period) => index % period != period - 1,
            RopeLayers::SlidingWindow => sliding_window,
            RopeLayers::SlidingWindowOrAll => sliding_window || self.window.is_none(),
        };
        match (rotated, sliding_window) {
            (false, _) => LayerRope::Absent,
            (true, true) => LayerRope::SlidingWindow,
            (true, false) => LayerRope::Global,
        }
    }
}
