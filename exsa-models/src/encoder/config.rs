//! An encoder's hyperparameters, read from the metadata and checked once.

use super::architecture::{EncoderActivation, EncoderArchitecture, Positions, TokenTypes};
use crate::architecture::NormKind;
use crate::config::WindowPattern;
use crate::keys::{CONTEXT, EPSILON, HEAD_DIM, HEADS, Keys, LAYERS, ROPE_BASE, SupportedParts, WIDTH};
use crate::rope::RopeConfig;
use exsa_core::backend::Pooling;
use exsa_core::error::LoadError;
use exsa_core::gguf::Metadata;

/// Number of token types.
const TOKEN_TYPE_COUNT: &str = "tokenizer.ggml.token_type_count";

/// Hyperparameters of an encoder. Every size is at least 1 and small enough that products of any two fit into
/// `usize`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EncoderConfig {
    /// Architecture of the family.
    pub architecture: &'static EncoderArchitecture,
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
    /// Epsilon of the norms.
    pub norm_epsilon: f32,
    /// The MLP's activation.
    pub activation: EncoderActivation,
    /// Token types; 0 where there are none.
    pub token_types: usize,
    /// RoPE of layers without a window, and of those with one, where the model has RoPE.
    pub ropes: Option<(RopeConfig, RopeConfig)>,
    /// Greatest distance of tokens that see each other in a layer with a window.
    window: Option<usize>,
    /// Layers with a window.
    pattern: WindowPattern,
    /// Pooling that the file names.
    pub pooling: Option<Pooling>,
    /// Pooling before the head that ranks.
    pub head_pooling: Pooling,
    /// Scores that the head gives, of which the first ranks.
    pub labels: usize,
    /// Values between the two projections of the pooled vector, where the file has these: those that the
    /// first gives, and those that the second takes.
    pub dense: (usize, usize),
}

impl EncoderConfig {
    /// The hyperparameters, if `general.architecture` names an encoder.
    ///
    /// # Errors
    ///
    /// [`LoadError::Gguf`] where a key is missing or of another type, [`LoadError::Unsupported`] for a
    /// value out of its limits, causal attention among them.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, LoadError> {
        let name: &str = metadata.require("general.architecture")?;
        let Some(architecture) = EncoderArchitecture::find(name) else { return Ok(None) };
        let keys = Keys { metadata, prefix: architecture.name };
        keys.refuse_unsupported(SupportedParts::default())?;
        let causal = keys.get_or("attention.causal", Some(false))?;
        keys.check("attention.causal", causal, !causal, || "false".into())?;
        let n_layer = keys.size("block_count", &LAYERS, None)?;
        let decision = keys.get_or("decision_block_count", Some(0u64))?;
        keys.check("decision_block_count", decision, decision == 0, || "0".into())?;
        let n_embd = keys.size("embedding_length", &WIDTH, None)?;
        let n_head = keys.size("attention.head_count", &HEADS, None)?;
        let n_head_kv = keys.size("attention.head_count_kv", &(1..=n_head), Some(n_head))?;
        keys.check("attention.head_count_kv", n_head_kv, n_head.is_multiple_of(n_head_kv), || {
            format!("the divisors of attention.head_count, which is {n_head}")
        })?;
        let head_dim = keys.size("attention.key_length", &HEAD_DIM, Some(n_embd / n_head))?;
        let value_dim = keys.size("attention.value_length", &HEAD_DIM, Some(head_dim))?;
        keys.check("attention.key_length", head_dim, head_dim.is_multiple_of(2), || "even lengths".into())?;
        keys.check("attention.value_length", value_dim, value_dim == head_dim, || {
            format!("the key_length {head_dim}")
        })?;
        let n_ctx = keys.size("context_length", &CONTEXT, None)?;
        let epsilon = match architecture.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer { .. } => "attention.layer_norm_epsilon",
        };
        let (window, pattern) = keys.encoder_window(architecture, n_layer)?;
        let ropes = if architecture.positions == Positions::Rope {
            Some(keys.encoder_ropes(head_dim, n_ctx)?)
        } else {
            None
        };
        let labels: Option<&[String]> = metadata.get(&format!("{name}.classifier.output_labels"))?;
        let head_pooling = keys.size("classifier.pooling_type", &(0..=3), Some(0))?;
        let default = if architecture.head_of_mean { Pooling::Mean } else { Pooling::First };
        Ok(Some(Self {
            architecture,
            n_layer,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff: keys.size("feed_forward_length", &WIDTH, None)?,
            n_ctx,
            norm_epsilon: keys.float(epsilon, &EPSILON, None)?,
            activation: keys.encoder_activation(architecture)?,
            token_types: token_types(metadata, architecture)?,
            ropes,
            window,
            pattern,
            pooling: keys.encoder_pooling()?,
            head_pooling: if head_pooling == 1 { Pooling::Mean } else { default },
            labels: labels.map_or(1, |labels| labels.len().max(1)),
            dense: (
                keys.size("dense_2_feat_out", &(0..=*WIDTH.end()), Some(0))?,
                keys.size("dense_3_feat_in", &(0..=*WIDTH.end()), Some(0))?,
            ),
        }))
    }

    /// Greatest distance of tokens that see each other in layer `index`; `None` if all do.
    #[must_use]
    pub fn window(&self, index: usize) -> Option<usize> {
        let (_, first_is_global) = self.architecture.windows?;
        self.window.filter(|_| match &self.pattern {
            WindowPattern::Period(0) => true,
            WindowPattern::Period(period) if first_is_global => !index.is_multiple_of(*period),
            WindowPattern::Period(period) => index % period != period - 1,
            WindowPattern::Layers(layers) => layers.get(index) == Some(&true),
        })
    }
}

impl Keys<'_> {
    fn encoder_window(
        &self,
        architecture: &EncoderArchitecture,
        n_layer: usize,
    ) -> Result<(Option<usize>, WindowPattern), LoadError> {
        let Some((period, _)) = architecture.windows else { return Ok((None, WindowPattern::Period(1))) };
        let default = if architecture.window_required { None } else { Some(0) };
        let window = self.size("attention.sliding_window", &(0..=1 << 31), default)?;
        let pattern = self.window_pattern(period, n_layer)?;
        Ok((Some(window / 2).filter(|_| window > 0), pattern))
    }

    /// RoPE of layers without a window, and of those with one.
    fn encoder_ropes(&self, head_dim: usize, n_ctx: usize) -> Result<(RopeConfig, RopeConfig), LoadError> {
        let global = self.rope(head_dim, n_ctx)?;
        let base = self.float("rope.freq_base_swa", &ROPE_BASE, Some(10_000.0))?;
        let local = RopeConfig { base, ..global.clone() };
        Ok((global, local))
    }

    fn encoder_activation(&self, architecture: &EncoderArchitecture) -> Result<EncoderActivation, LoadError> {
        let name: Option<String> =
            if architecture.activation_key { self.get("hidden_activation")? } else { None };
        Ok(match name.as_deref() {
            None => architecture.activation,
            Some("gelu" | "geglu") => EncoderActivation::Gelu,
            Some("silu" | "swish" | "swiglu") => EncoderActivation::Silu,
            Some(other) => {
                return Err(LoadError::Unsupported {
                    what: format!("{}.hidden_activation = {other}", self.prefix),
                    supported: "gelu, geglu, silu, swish, swiglu".to_owned(),
                });
            }
        })
    }

    /// The pooling that the file names, by llama.cpp's numbers.
    fn encoder_pooling(&self) -> Result<Option<Pooling>, LoadError> {
        Ok(match self.size("pooling_type", &(0..=4), Some(0))? {
            1 => Some(Pooling::Mean),
            2 => Some(Pooling::First),
            3 => Some(Pooling::Last),
            4 => Some(Pooling::Rank),
            _ => None,
        })
    }
}

fn token_types(metadata: &Metadata, architecture: &EncoderArchitecture) -> Result<usize, LoadError> {
    if architecture.token_types == TokenTypes::Absent {
        return Ok(0);
    }
    let count: usize = metadata.require(TOKEN_TYPE_COUNT)?;
    if (1..=1 << 16).contains(&count) {
        return Ok(count);
    }
    Err(LoadError::Unsupported {
        what: format!("{TOKEN_TYPE_COUNT} = {count}"),
        supported: "1 to 65536".to_owned(),
    })
}
