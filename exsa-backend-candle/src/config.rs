//! A model's hyperparameters, read from the metadata and checked once.

use crate::models::{
    self, Architecture, EmbeddingScale, LogitScale, LogitSoftcap, NormKind, RopeLayers, SlidingWindowRope,
    Windows,
};
use crate::shape::Heads;
use exsa_core::backend::Pooling;
use exsa_core::error::LoadError;
use exsa_core::gguf::{FromValue, Metadata, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

const LAYERS: RangeInclusive<usize> = 1..=1024;
const WIDTH: RangeInclusive<usize> = 1..=1 << 20;
const HEADS: RangeInclusive<usize> = 1..=1 << 12;
const HEAD_DIM: RangeInclusive<usize> = 2..=1 << 12;
const CONTEXT: RangeInclusive<usize> = 1..=1 << 28;
const ROPE_BASE: RangeInclusive<f32> = 1.0..=1e12;
const SCALE: RangeInclusive<f32> = 1e-6..=1e6;
const EPSILON: RangeInclusive<f32> = 0.0..=1.0;

/// Hyperparameters of a model. Every size is at least 1 and small enough that products of any two fit into
/// `usize`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
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
enum WindowPattern {
    /// Of every so many all but the last.
    Period(usize),
    /// Those that are true here, `[n_layer]`.
    Layers(Vec<bool>),
}

/// RoPE of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerRope {
    /// [`Config::rope`].
    Global,
    /// [`Config::rope_sliding_window`].
    SlidingWindow,
    /// None.
    Absent,
}

/// Parameters of rotary position embedding (Su et al., arXiv:2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeConfig {
    /// Rotary dimensions of a head, even; the others pass.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies are scaled to a longer context.
    pub scaling: RopeScaling,
    /// Factor on cosine and sine.
    pub magnitude: f32,
    /// Tokens of context before scaling.
    pub original_context: usize,
    /// Whether the frequency factors of the file apply.
    pub freq_factors: FreqFactors,
}

/// How RoPE is scaled to a context longer than that of the training, besides [`FreqFactors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RopeScaling {
    /// Not.
    None,
    /// Positions are divided by `factor` (Chen et al., arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// YaRN (Peng et al., arXiv:2309.00071).
    Yarn {
        /// How many times longer the context is.
        factor: f32,
    },
}

/// Frequency factors, divisors of single frequencies: `rope_freqs.weight` as in Llama 3, or
/// `rope_factors_short.weight` and `rope_factors_long.weight` as in LongRoPE (Ding et al., arXiv:2402.13753).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreqFactors {
    /// They do not apply.
    Never,
    /// They apply if the file has them.
    IfPresent,
    /// The file must have those of LongRoPE.
    Required,
}

impl Config {
    /// Reads and checks the hyperparameters.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let name: String = metadata.require("general.architecture")?;
        let architecture = models::find(&name)?;
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
    pub fn is_long(&self, context: usize) -> bool {
        context > self.rope.original_context
    }

    /// Heads of layer `index`.
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

/// The metadata keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn get<T: for<'a> FromValue<'a>>(&self, key: &str) -> Result<Option<T>, LoadError> {
        Ok(self.metadata.get(&self.name(key))?)
    }

    /// The value of `key`, else `default`; an error if there is none.
    fn get_or<T: for<'a> FromValue<'a>>(&self, key: &str, default: Option<T>) -> Result<T, LoadError> {
        match (self.get(key)?, default) {
            (Some(value), _) | (None, Some(value)) => Ok(value),
            (None, None) => Ok(self.metadata.require(&self.name(key))?),
        }
    }

    /// A [`LoadError::Unsupported`] about `key` unless `holds`.
    fn check(
        &self,
        key: &str,
        value: impl Display,
        holds: bool,
        supported: impl FnOnce() -> String,
    ) -> Result<(), LoadError> {
        if holds {
            return Ok(());
        }
        Err(LoadError::Unsupported { what: format!("{} = {value}", self.name(key)), supported: supported() })
    }

    fn size(
        &self,
        key: &str,
        range: &RangeInclusive<usize>,
        default: Option<usize>,
    ) -> Result<usize, LoadError> {
        let value: u64 = self.get_or(key, default.map(|value| value as u64))?;
        let size = usize::try_from(value).ok().filter(|size| range.contains(size));
        self.check(key, value, size.is_some(), || format!("{} to {}", range.start(), range.end()))?;
        Ok(size.unwrap_or_default())
    }

    fn float(&self, key: &str, range: &RangeInclusive<f32>, default: Option<f32>) -> Result<f32, LoadError> {
        let value: f32 = self.get_or(key, default)?;
        self.check(key, value, range.contains(&value), || format!("{} to {}", range.start(), range.end()))?;
        Ok(value)
    }

    /// Refuses parts of models that no architecture has here.
    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        for (key, what) in [
            ("expert_count", "a mixture of experts"),
            ("nextn_predict_layers", "layers that predict more tokens"),
        ] {
            if self.get::<u64>(key)?.is_some_and(|n| n > 0) {
                return Err(LoadError::Unsupported {
                    what: format!("{} with {what}", self.prefix),
                    supported: format!("{} 0", self.name(key)),
                });
            }
        }
        let sections = self.get::<Vec<i64>>("rope.dimension_sections")?.unwrap_or_default();
        if sections.iter().filter(|&&section| section > 0).count() > 1 {
            return Err(LoadError::Unsupported {
                what: format!("{} with RoPE by sections of positions", self.prefix),
                supported: format!("{} absent", self.name("rope.dimension_sections")),
            });
        }
        Ok(())
    }

    /// A factor, where 0 stands for none.
    fn scale(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.get_or(key, Some(0.0f32))? {
            0.0 => Ok(None),
            _ => self.float(key, &SCALE, None).map(Some),
        }
    }

    /// A cap, where 0 stands for none.
    fn softcap(&self, key: &str, default: Option<f32>) -> Result<Option<f32>, LoadError> {
        let cap = self.float(key, &(0.0..=1e6), Some(default.unwrap_or(0.0)))?;
        Ok(Some(cap).filter(|&cap| cap > 0.0))
    }

    /// The pooling that the file names, by llama.cpp's numbers; none where it names a head that ranks, which
    /// these models have not.
    fn pooling(&self) -> Result<Option<Pooling>, LoadError> {
        let causal: bool = self.get_or("attention.causal", Some(true))?;
        self.check("attention.causal", causal, causal, || "true".into())?;
        Ok(match self.size("pooling_type", &(0..=4), Some(0))? {
            1 => Some(Pooling::Mean),
            2 => Some(Pooling::First),
            3 => Some(Pooling::Last),
            _ => None,
        })
    }

    /// The window of the layers that have one, and which have.
    fn window(&self, windows: Windows, n_layer: usize) -> Result<(Option<usize>, WindowPattern), LoadError> {
        let (default, pattern) = match windows {
            Windows::Never => return Ok((None, WindowPattern::Period(1))),
            Windows::All => (None, WindowPattern::Period(1)),
            Windows::LocalGlobal { period, default } => (default, self.window_pattern(period, n_layer)?),
        };
        // 0 stands for none.
        let window = self.size("attention.sliding_window", &(0..=1 << 31), Some(default.unwrap_or(0)))?;
        Ok((Some(window).filter(|&window| window > 0), pattern))
    }

    /// The layers that have a window: `period`, or another, or a list of them.
    fn window_pattern(&self, period: usize, n_layer: usize) -> Result<WindowPattern, LoadError> {
        let key = "attention.sliding_window_pattern";
        let Some(Value::Array(_)) = self.metadata.get_value(&self.name(key)) else {
            return self.size(key, &LAYERS, Some(period)).map(WindowPattern::Period);
        };
        let layers: &[bool] = self.metadata.require(&self.name(key))?;
        let values = || format!("{n_layer} values, one for each layer");
        self.check(
            key,
            format_args!("an array of {} values", layers.len()),
            layers.len() == n_layer,
            values,
        )?;
        Ok(WindowPattern::Layers(layers.to_vec()))
    }

    fn rope_sliding_window(
        &self,
        global: &RopeConfig,
        kind: SlidingWindowRope,
        n_ctx: usize,
    ) -> Result<RopeConfig, LoadError> {
        let base = match kind {
            SlidingWindowRope::Same => return Ok(global.clone()),
            SlidingWindowRope::Unscaled => global.base,
            SlidingWindowRope::Base(base) => self.float("rope.freq_base_swa", &ROPE_BASE, Some(base))?,
        };
        Ok(RopeConfig {
            dims: global.dims,
            base,
            scaling: RopeScaling::None,
            magnitude: 1.0,
            original_context: n_ctx,
            freq_factors: FreqFactors::Never,
        })
    }

    fn rope(&self, head_dim: usize, n_ctx: usize) -> Result<RopeConfig, LoadError> {
        let dims = self.size("rope.dimension_count", &(2..=head_dim), Some(head_dim))?;
        self.check("rope.dimension_count", dims, dims.is_multiple_of(2), || "even counts".into())?;
        let base = self.float("rope.freq_base", &ROPE_BASE, Some(10_000.0))?;
        let (scaling, freq_factors) = self.rope_scaling()?;
        Ok(RopeConfig {
            dims,
            base,
            scaling,
            magnitude: self.float("rope.scaling.attn_factor", &SCALE, Some(1.0))?,
            original_context: self.size("rope.scaling.original_context_length", &CONTEXT, Some(n_ctx))?,
            freq_factors,
        })
    }

    fn rope_scaling(&self) -> Result<(RopeScaling, FreqFactors), LoadError> {
        // Files from before `rope.scaling.type` have `rope.scale_linear` alone.
        let old = self.get::<f32>("rope.scale_linear")?;
        let kind = self.get::<String>("rope.scaling.type")?;
        let factor = self.get::<f32>("rope.scaling.factor")?.or(old).filter(|&factor| factor != 0.0);
        let factor = factor.unwrap_or(1.0);
        self.check("rope.scaling.factor", factor, SCALE.contains(&factor), || {
            format!("{} to {}", SCALE.start(), SCALE.end())
        })?;
        let scaling = match kind.as_deref() {
            Some("none" | "longrope") => RopeScaling::None,
            None | Some("linear") if factor == 1.0 => RopeScaling::None,
            None | Some("linear") => RopeScaling::Linear { factor },
            Some("yarn") => {
                let multiplier = self.get_or("rope.scaling.yarn_log_multiplier", Some(0.0f32))?;
                self.check("rope.scaling.yarn_log_multiplier", multiplier, multiplier == 0.0, || "0".into())?;
                RopeScaling::Yarn { factor }
            }
            Some(other) => {
                return Err(LoadError::Unsupported {
                    what: format!("{} = {other}", self.name("rope.scaling.type")),
                    supported: "none, linear, yarn, longrope".to_owned(),
                });
            }
        };
        let long = kind.as_deref() == Some("longrope");
        Ok((scaling, if long { FreqFactors::Required } else { FreqFactors::IfPresent }))
    }
}
