//! A model's hyperparameters, read from the metadata and checked once.

use crate::architecture::{
    self, Architecture, EmbeddingScale, LogitScale, LogitSoftcap, Mixers, NormKind, RopeLayers, Windows,
};
use crate::experts::ExpertConfig;
use crate::heads::Heads;
use crate::keys::{
    CONTEXT, CONV_TOKENS, EPSILON, HEAD_DIM, HEADS, Keys, LAYERS, SCALE, SupportedParts, WIDTH,
};
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
    /// Layers of the file behind these, which predict more tokens and are left out.
    pub n_nextn: usize,
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
    /// Mixtures of experts in place of MLPs.
    pub experts: Option<ExpertConfig>,
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
    /// Layers with attention, `[n_layer]`; `None` if all have it.
    attention_layers: Option<Vec<bool>>,
    /// Tokens that a short convolution sees, the token itself included; 0 where no layer has one.
    pub conv_tokens: usize,
    /// Heads of the gated delta nets.
    pub delta_net: Option<DeltaNetConfig>,
}

/// Layers that have a window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WindowPattern {
    /// Of every so many all but the last.
    Period(usize),
    /// Those that are true here, `[n_layer]`.
    Layers(Vec<bool>),
}

/// Heads of gated delta nets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNetConfig {
    /// Heads of queries and keys.
    pub n_key: usize,
    /// Heads of values, a multiple of `n_key`: head `h` belongs to key head `h % n_key`.
    pub n_value: usize,
    /// Values in a head, of keys and values alike.
    pub head_dim: usize,
}

impl DeltaNetConfig {
    /// Values of queries, keys and values of a token, in this order.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (2 * self.n_key + self.n_value) * self.head_dim
    }

    /// Values of all heads of values.
    #[must_use]
    pub fn value_width(&self) -> usize {
        self.n_value * self.head_dim
    }
}

impl Config {
    /// Reads and checks the hyperparameters.
    ///
    /// # Errors
    ///
    /// [`LoadError::Gguf`] where a key is missing or of another type, [`LoadError::Unsupported`] for an
    /// architecture or a value that is not supported, with what is.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let name: String = metadata.require("general.architecture")?;
        let architecture = architecture::find(&name)?;
        let keys = Keys { metadata, prefix: architecture.name };
        keys.refuse_unsupported(SupportedParts::of(architecture))?;
        let blocks = keys.size("block_count", &LAYERS, None)?;
        let n_nextn = if architecture.leaves_out_nextn {
            keys.size("nextn_predict_layers", &(0..=blocks - 1), Some(0))?
        } else {
            0
        };
        let n_layer = blocks - n_nextn;
        let layers_max = architecture.layers_unsupported.map_or(n_layer, |layers| layers - 1);
        keys.check("block_count", n_layer, n_layer <= layers_max, || format!("1 to {layers_max}"))?;
        let n_embd = keys.size("embedding_length", &WIDTH, None)?;
        let n_head = keys.size("attention.head_count", &HEADS, None)?;
        let (n_head_kv, attention_layers) = match architecture.mixers {
            Mixers::Attention => (keys.size("attention.head_count_kv", &(1..=n_head), Some(n_head))?, None),
            Mixers::ShortConvOrAttention => keys.attention_layers(n_layer, n_head)?,
            Mixers::DeltaNetOrAttention => (
                keys.size("attention.head_count_kv", &(1..=n_head), Some(n_head))?,
                Some(keys.layers_between_delta_nets(n_layer)?),
            ),
        };
        let conv_tokens = match architecture.mixers {
            Mixers::Attention => 0,
            Mixers::ShortConvOrAttention => keys.size("shortconv.l_cache", &CONV_TOKENS, None)?,
            Mixers::DeltaNetOrAttention => keys.size("ssm.conv_kernel", &CONV_TOKENS, None)?,
        };
        let delta_net = match architecture.mixers {
            Mixers::DeltaNetOrAttention => Some(keys.delta_net()?),
            _ => None,
        };
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
        let (mut window, window_pattern) = keys.window(architecture.windows, n_layer)?;
        // Files from before the key was known.
        let default = architecture.windows_by_size.iter().find(|size| size[..2] == [n_layer, n_ctx]);
        let key = format!("{}.attention.sliding_window", architecture.name);
        if let Some(size) = default.filter(|_| metadata.get_value(&key).is_none()) {
            window = Some(size[2]);
        }
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
        let experts = if architecture.mixture.is_some() { keys.expert_count()? } else { 0 };
        // A model whose layers all have experts may give no other width.
        let expert_width = if experts > 0 { keys.get("expert_feed_forward_length")? } else { None };
        let expert_width = expert_width.and_then(|width: u64| usize::try_from(width).ok());
        let n_ff = keys.size("feed_forward_length", &WIDTH, expert_width)?;
        let experts = match architecture.mixture {
            Some(mixture) if experts > 0 => Some(keys.experts(mixture, experts, (n_layer, n_ff))?),
            Some(mixture) => {
                keys.check("expert_count", 0, !mixture.required, || "2 or more".into())?;
                None
            }
            None => None,
        };
        Ok(Self {
            architecture,
            n_layer,
            n_nextn,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff,
            experts,
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
            attention_layers,
            conv_tokens,
            delta_net,
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

    /// Whether layer `index` has attention, and so keys and values.
    #[must_use]
    pub fn has_attention(&self, index: usize) -> bool {
        self.attention_layers.as_ref().is_none_or(|layers| layers.get(index) == Some(&true))
    }

    /// Layers with keys and values.
    #[must_use]
    pub fn n_layer_kv(&self) -> usize {
        (0..self.n_layer).filter(|&index| self.has_attention(index)).count()
    }

    /// Whether some layers keep a state of fixed size instead of keys and values, which cannot be truncated.
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        self.n_layer_kv() < self.n_layer
    }

    /// Values of the state that layer `index` keeps of a sequence; 0 if it keeps keys and values.
    #[must_use]
    pub fn state_len(&self, index: usize) -> usize {
        match self.delta_net {
            _ if self.has_attention(index) => 0,
            Some(net) => {
                let matrices = net.n_value * net.head_dim * net.head_dim;
                (self.conv_tokens - 1) * net.qkv_width() + matrices
            }
            None => (self.conv_tokens - 1) * self.n_embd,
        }
    }

    /// The mixture of experts of layer `index`.
    #[must_use]
    pub fn layer_experts(&self, index: usize) -> Option<&ExpertConfig> {
        self.experts.as_ref().filter(|experts| index >= experts.dense_layers)
    }

    /// Width of the widest MLP of all tokens: of layers without experts, and of experts that all tokens
    /// share.
    #[must_use]
    pub fn mlp_width(&self) -> usize {
        match &self.experts {
            Some(experts) => {
                let dense = if experts.dense_layers > 0 { self.n_ff } else { 0 };
                dense.max(experts.n_ff_shared.unwrap_or(0))
            }
            None => self.n_ff,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::gguf::{Array, Gguf, GgufWriter, Value};
    use std::io::Cursor;

    fn config(
        architecture: &str,
        n_layer: u32,
        n_ctx: u32,
        more: &[(&str, Value)],
    ) -> Result<Config, LoadError> {
        let numbers = [
            ("embedding_length", 64),
            ("context_length", n_ctx),
            ("block_count", n_layer),
            ("feed_forward_length", 32),
        ];
        let mut writer = GgufWriter::new()
            .key("general.architecture", Value::Str(architecture.into()))
            .key(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
            .key(&format!("{architecture}.attention.head_count"), Value::U32(8));
        for (key, number) in numbers {
            writer = writer.key(&format!("{architecture}.{key}"), Value::U32(number));
        }
        for (key, value) in more {
            writer = writer.key(&format!("{architecture}.{key}"), value.clone());
        }
        let gguf = Gguf::read(&mut Cursor::new(writer.to_bytes())).unwrap();
        Config::from_metadata(gguf.metadata())
    }

    #[test]
    fn lists_of_equal_numbers_are_one_number() {
        let heads = |list: Vec<u32>| {
            config("llama", 5, 64, &[("attention.head_count_kv", Value::Array(Array::U32(list)))])
        };
        assert_eq!(heads(vec![4; 5]).unwrap().n_head_kv, 4);
        let text = heads(vec![4, 4, 4, 2, 4]).unwrap_err().to_string();
        assert!(text.contains("4 and 2") && text.contains("llama.cpp"), "{text}");
        let text = heads(vec![4; 4]).unwrap_err().to_string();
        assert!(text.contains("4 numbers") && text.contains("5, one for each layer"), "{text}");
        let text = heads(Vec::new()).unwrap_err().to_string();
        assert!(text.contains("0 numbers"), "{text}");
    }

    #[test]
    fn early_files_of_phi3_have_a_window() {
        let window =
            |n_layer, n_ctx, more: &[(&str, Value)]| config("phi3", n_layer, n_ctx, more).unwrap().window(0);
        assert_eq!(window(32, 4096, &[]), Some(2047));
        assert_eq!(window(40, 4096, &[]), Some(2047));
        assert_eq!(window(32, 131_072, &[]), None);
        assert_eq!(window(32, 4096, &[("attention.sliding_window", Value::U32(0))]), None);
        assert_eq!(window(32, 4096, &[("attention.sliding_window", Value::U32(100))]), Some(100));
        assert_eq!(config("llama", 32, 4096, &[]).unwrap().window(0), None);
    }
}
