//! Tensors of an encoder by their place in the network.

use super::architecture::{Order, Positions, TokenTypes};
use super::config::EncoderConfig;
use crate::architecture::{MlpKind, NormKind};
use crate::tensors::finder::Finder;
use crate::tensors::{GateUpTensors, Matrix, Norm, Projection, QkvTensors, Vector};
use exsa_core::backend::Pooling;
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;

/// An encoder: its hyperparameters, and its tensors with their shapes checked. No weight has been read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EncoderDescription<'g> {
    /// Hyperparameters.
    pub config: EncoderConfig,
    /// Rows of the token embeddings.
    pub n_vocab: usize,
    /// Token embeddings, `[n_vocab, n_embd]`.
    pub embedding: Matrix<'g>,
    /// Embeddings of token types, of which the first is added to every token.
    pub token_types: Option<Matrix<'g>>,
    /// Embeddings of positions, `[n_ctx, n_embd]`.
    pub positions: Option<Matrix<'g>>,
    /// Norm of the sum of embeddings.
    pub embedding_norm: Option<Norm<'g>>,
    /// Layers, first to last.
    pub layers: Vec<EncoderLayerTensors<'g>>,
    /// Norm of the last hidden state.
    pub output_norm: Option<Norm<'g>>,
    /// Projections of the pooled vector, in this order.
    pub dense: Vec<Projection<'g>>,
    /// Head that ranks.
    pub head: HeadTensors<'g>,
}

/// One layer. Which norms there are follows from the architecture's [`Order`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EncoderLayerTensors<'g> {
    /// Norm of the attention's input.
    pub attention_input: Option<Norm<'g>>,
    /// The attention.
    pub attention: EncoderAttentionTensors<'g>,
    /// Norm of the attention's output before it is added.
    pub post_attention: Option<Norm<'g>>,
    /// Norm of the sum of the attention's output and the layer's input.
    pub attention_output: Option<Norm<'g>>,
    /// Norm of that with the layer's input added again.
    pub attention_output_2: Option<Norm<'g>>,
    /// Norm of the MLP's input.
    pub mlp_input: Option<Norm<'g>>,
    /// The MLP.
    pub mlp: EncoderMlpTensors<'g>,
    /// Norm of the MLP's output before it is added.
    pub post_mlp: Option<Norm<'g>>,
    /// Norm of the sum of the MLP's output and its input.
    pub layer_output: Option<Norm<'g>>,
    /// Greatest distance of tokens that see each other.
    pub window: Option<usize>,
}

/// Attention of a layer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EncoderAttentionTensors<'g> {
    /// Projections to queries, keys and values.
    pub input: QkvTensors<'g>,
    /// RMSNorms of each head of queries and of keys.
    pub head_norms: Option<(Vector<'g>, Vector<'g>)>,
    /// Norms of all heads of queries and of keys at once.
    pub whole_norms: (Option<Norm<'g>>, Option<Norm<'g>>),
    /// Projection of all heads' outputs to the hidden state.
    pub output: Projection<'g>,
}

/// MLP of a layer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EncoderMlpTensors<'g> {
    /// Projections to the hidden values.
    pub input: GateUpTensors<'g>,
    /// Projection of the hidden values to the hidden state.
    pub down: Projection<'g>,
}

/// Head that ranks: a projection with activation and norm, and one to scores. Without any part the file has
/// no head.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct HeadTensors<'g> {
    /// First projection (`cls`).
    pub dense: Option<Projection<'g>>,
    /// Norm behind it (`cls.norm`).
    pub norm: Option<Norm<'g>>,
    /// Projection to scores (`cls.output`).
    pub output: Option<Projection<'g>>,
}

impl<'g> EncoderDescription<'g> {
    /// Describes the encoder with `config` of `gguf`, whose tokenizer knows `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`LoadError::Tensor`] for a tensor that is missing, has a wrong shape, or is not known to the
    /// architecture.
    pub fn read(gguf: &'g Gguf, config: EncoderConfig, tokens: usize) -> Result<Self, LoadError> {
        let mut finder = Finder::new(gguf);
        let (architecture, n_embd) = (config.architecture, config.n_embd);
        let n_vocab = finder.rows("token_embd.weight")?;
        if n_vocab < tokens {
            return Err(LoadError::Tensor {
                name: "token_embd.weight".to_owned(),
                problem: format!("it has {n_vocab} rows, but the vocabulary has {tokens} tokens"),
            });
        }
        let embedding = finder.matrix("token_embd.weight", n_vocab, n_embd)?;
        let has_types = match architecture.token_types {
            TokenTypes::Absent => false,
            TokenTypes::Optional => finder.has("token_types.weight"),
            TokenTypes::Required => true,
        };
        let token_types = if has_types {
            Some(finder.matrix("token_types.weight", config.token_types, n_embd)?)
        } else {
            None
        };
        let positions = if architecture.positions == Positions::Learned {
            Some(finder.matrix("position_embd.weight", config.n_ctx, n_embd)?)
        } else {
            None
        };
        let mut norm = |name, there| {
            if there { finder.norm(architecture.norm, name, n_embd).map(Some) } else { Ok(None) }
        };
        let embedding_norm = norm("token_embd_norm", architecture.embedding_norm)?;
        let output_norm = norm("output_norm", architecture.output_norm)?;
        let mut layers = Vec::new();
        for index in 0..config.n_layer {
            layers.push(EncoderLayerTensors::find(&config, index, &mut finder)?);
        }
        let dense = dense(&config, &mut finder)?;
        let head = HeadTensors::find(&config, &mut finder)?;
        // A projection to logits serves nothing.
        if architecture.dense && finder.has("output.weight") {
            finder.matrix("output.weight", n_vocab, n_embd)?;
        }
        finder.finish()?;
        if config.pooling == Some(Pooling::Rank) && !head.is_there() {
            return Err(LoadError::Tensor {
                name: "cls.output.weight".to_owned(),
                problem: format!("missing: {}.pooling_type 4 needs a head that ranks", architecture.name),
            });
        }
        Ok(Self {
            n_vocab,
            embedding,
            token_types,
            positions,
            embedding_norm,
            layers,
            output_norm,
            dense,
            head,
            config,
        })
    }
}

/// Projections of the pooled vector.
fn dense<'g>(config: &EncoderConfig, finder: &mut Finder<'g>) -> Result<Vec<Projection<'g>>, LoadError> {
    let (out, input) = config.dense;
    let mut dense = Vec::new();
    if config.architecture.dense {
        if finder.has("dense_2.weight") {
            dense.push(finder.projection("dense_2", out, config.n_embd)?);
        }
        if finder.has("dense_3.weight") {
            dense.push(finder.projection("dense_3", config.n_embd, input)?);
        }
        let width = dense.first().map_or(config.n_embd, |first| first.weight.rows);
        if let Some(last) = dense.get(1).filter(|last| last.weight.columns != width) {
            return Err(LoadError::Tensor {
                name: last.weight.tensor.name.clone(),
                problem: format!("it takes {} values, but {width} are given", last.weight.columns),
            });
        }
    }
    Ok(dense)
}

impl<'g> EncoderLayerTensors<'g> {
    fn find(config: &EncoderConfig, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let (architecture, n_embd) = (config.architecture, config.n_embd);
        let name = |part: &str| format!("blk.{index}.{part}");
        let attention = EncoderAttentionTensors::find(config, index, finder)?;
        let mlp = EncoderMlpTensors::find(config, index, finder)?;
        let order = architecture.order;
        // The embeddings of some models are normalized, and then need no norm before the first attention.
        let first = order == Order::Before && index == 0;
        let has_input = order != Order::After && (!first || finder.has(&name("attn_norm.weight")));
        let has_second = architecture.optional_norms && finder.has(&name("attn_norm_2.weight"));
        let mut norm = |part, there| {
            if there { finder.norm(architecture.norm, &name(part), n_embd).map(Some) } else { Ok(None) }
        };
        Ok(Self {
            attention_input: norm("attn_norm", has_input)?,
            post_attention: norm("post_attention_norm", order == Order::Around)?,
            attention_output: norm("attn_output_norm", order == Order::After)?,
            attention_output_2: norm("attn_norm_2", has_second)?,
            mlp_input: norm("ffn_norm", order != Order::After)?,
            post_mlp: norm("post_ffw_norm", order == Order::Around)?,
            layer_output: norm("layer_output_norm", order == Order::After)?,
            window: config.window(index),
            attention,
            mlp,
        })
    }
}

impl<'g> EncoderAttentionTensors<'g> {
    fn find(config: &EncoderConfig, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &EncoderConfig { architecture, n_embd, n_head, n_head_kv, head_dim, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, width_kv) = (n_head * head_dim, n_head_kv * head_dim);
        let input = if finder.has(&name("attn_qkv.weight")) {
            QkvTensors::Fused(finder.projection(&name("attn_qkv"), width + 2 * width_kv, n_embd)?)
        } else {
            QkvTensors::Split {
                query: finder.projection(&name("attn_q"), width, n_embd)?,
                key: finder.projection(&name("attn_k"), width_kv, n_embd)?,
                value: finder.projection(&name("attn_v"), width_kv, n_embd)?,
            }
        };
        let head_norms = if architecture.head_norms {
            let query = finder.rms_norm(&name("attn_q_norm"), head_dim)?;
            Some((query, finder.rms_norm(&name("attn_k_norm"), head_dim)?))
        } else {
            None
        };
        let mut whole = |part: &str, len: usize| {
            let there = architecture.optional_norms && finder.has(&format!("{}.weight", name(part)));
            if there { finder.norm(architecture.norm, &name(part), len).map(Some) } else { Ok(None) }
        };
        let whole_norms = (whole("attn_q_norm", width)?, whole("attn_k_norm", width_kv)?);
        let output = finder.projection(&name("attn_output"), n_embd, width)?;
        Ok(Self { input, head_norms, whole_norms, output })
    }
}

impl<'g> EncoderMlpTensors<'g> {
    fn find(config: &EncoderConfig, index: usize, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let &EncoderConfig { architecture, n_embd, n_ff, .. } = config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let kind = match architecture.mlp {
            Some(kind) => kind,
            None if finder.has(&name("ffn_gate.weight")) => MlpKind::Gated,
            None if finder.rows(&name("ffn_up.weight"))? == n_ff => MlpKind::Ungated,
            None => MlpKind::FusedGate,
        };
        let input = match kind {
            MlpKind::FusedGate => {
                GateUpTensors::Fused(finder.projection(&name("ffn_up"), 2 * n_ff, n_embd)?)
            }
            MlpKind::Gated => GateUpTensors::Split {
                gate: finder.projection(&name("ffn_gate"), n_ff, n_embd)?,
                up: finder.projection(&name("ffn_up"), n_ff, n_embd)?,
            },
            MlpKind::Ungated => GateUpTensors::Ungated(finder.projection(&name("ffn_up"), n_ff, n_embd)?),
        };
        Ok(Self { input, down: finder.projection(&name("ffn_down"), n_embd, n_ff)? })
    }
}

impl<'g> HeadTensors<'g> {
    fn find(config: &EncoderConfig, finder: &mut Finder<'g>) -> Result<Self, LoadError> {
        let width = config.architecture.head_width.unwrap_or(config.n_embd);
        let dense = if finder.has("cls.weight") {
            Some(finder.projection("cls", width, config.n_embd)?)
        } else {
            None
        };
        let norm = if finder.has("cls.norm.weight") {
            Some(finder.norm(NormKind::Layer { bias: false }, "cls.norm", width)?)
        } else {
            None
        };
        let output = if finder.has("cls.output.weight") {
            Some(finder.projection("cls.output", config.labels, dense.map_or(config.n_embd, |_| width))?)
        } else {
            None
        };
        Ok(Self { dense, norm, output })
    }

    /// Whether the file has a head.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.dense.is_some() || self.output.is_some()
    }
}
