//! From a GGUF to a model that runs.

use crate::adapters::Adapters;
use crate::config::{Config, FreqFactors};
use crate::error::CandleError;
use crate::kernels::quantized::Isa;
use crate::layers::attention::{Attention, HeadNorm, Qkv};
use crate::layers::experts::FeedForward;
use crate::layers::mlp::{GateUp, Mlp};
use crate::layers::norm::{Input, LayerNorm};
use crate::layers::vector::Vector;
use crate::models::{Inputs, MlpKind, NormKind, QkNorm};
use crate::packed_cache::BackgroundCheck;
use crate::transformer::{Layer, Transformer};
use crate::weights::Weights;
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;

/// A model on its device, shared by its sessions.
pub(crate) struct LoadedModel {
    /// Hyperparameters.
    pub config: Config,
    /// Rows of embeddings, which is the length of a row of logits.
    pub n_vocab: usize,
    /// Weights.
    pub transformer: Transformer,
    /// Frequency factors of RoPE.
    pub freq_factors: RopeFreqFactors,
    /// Tells models apart.
    pub fingerprint: Fingerprint,
    /// Whether the output has weights of its own, and not those of the token embedding.
    pub has_output: bool,
    /// Instruction set of the host's kernels; `None` over tensors.
    pub isa: Option<Isa>,
    /// Adapters that spans can use.
    pub adapters: Adapters,
    /// Check of the packed weights that goes on.
    pub check: Option<BackgroundCheck>,
}

/// Frequency factors of RoPE, one for each pair of rotary dimensions, which divide its frequencies.
#[derive(Clone, Debug, Default)]
pub(crate) struct RopeFreqFactors {
    /// For every context.
    pub all: Option<Vec<f32>>,
    /// For contexts up to the original one.
    pub short: Option<Vec<f32>>,
    /// For longer ones.
    pub long: Option<Vec<f32>>,
}

/// Loads the model that `config` describes; its tokenizer knows `tokens` tokens.
pub(crate) fn load(
    config: Config,
    tokens: usize,
    mut weights: Weights<'_, '_>,
) -> Result<LoadedModel, LoadError> {
    // Some models have embeddings to spare, to make their number round.
    let n_vocab = weights.rows("token_embd.weight")?;
    if n_vocab < tokens {
        return Err(LoadError::Tensor {
            name: "token_embd.weight".to_owned(),
            problem: format!("it has {n_vocab} rows, but the vocabulary has {tokens} tokens"),
        });
    }
    let embedding = weights.embedding("token_embd.weight", n_vocab, config.n_embd, config.embedding_scale)?;
    let freq_factors = load_freq_factors(&config, &mut weights)?;
    // The count is a claim of the file: the layers are made one by one, and the first that is missing ends
    // it.
    let mut layers = Vec::new();
    for index in 0..config.n_layer {
        layers.push(load_layer(&config, index, &mut weights)?);
    }
    let norm = load_norm(&config, "output_norm", &mut weights)?;
    let (has_output, isa) = (weights.has("output.weight"), weights.isa());
    let output = if has_output {
        weights.linear("output", n_vocab, config.n_embd)?
    } else {
        weights.linear("token_embd", n_vocab, config.n_embd)?
    };
    let (softcap, logit_scale) = (config.logit_softcap, config.logit_scale);
    let transformer = Transformer { embedding, layers, norm, output, softcap, logit_scale };
    let (fingerprint, adapters) = (weights.finish()?, Adapters::default());
    Ok(LoadedModel {
        n_vocab,
        transformer,
        freq_factors,
        fingerprint,
        has_output,
        isa,
        adapters,
        check: None,
        config,
    })
}

fn load_layer(config: &Config, index: usize, weights: &mut Weights<'_, '_>) -> Result<Layer, LoadError> {
    let &Config { architecture, n_embd, norm_epsilon, residual_scale, .. } = config;
    let name = |part: &str| format!("blk.{index}.{part}");
    let attention = load_attention(config, index, weights)?;
    let mlp = FeedForward::Dense(load_mlp(config, index, weights)?);
    let mut input = |part: &str| load_norm(config, &name(part), weights);
    let (attention_input, mlp_input) = match architecture.inputs {
        Inputs::Normed => (input("attn_norm")?, input("ffn_norm")?),
        Inputs::Plain => (Input::Plain, Input::Plain),
        Inputs::Parallel => (input("attn_norm")?, Input::Shared),
    };
    let mut norm = |part: &str| weights.norm(&name(part), n_embd, norm_epsilon);
    let (post_attention_norm, post_mlp_norm) = if architecture.post_norms {
        (Some(norm("post_attention_norm")?), Some(norm("post_ffw_norm")?))
    } else {
        (None, None)
    };
    let rope = config.layer_rope(index);
    Ok(Layer {
        attention_input,
        attention,
        post_attention_norm,
        mlp_input,
        mlp,
        post_mlp_norm,
        residual_scale,
        rope,
    })
}

/// The norm `name` of the hidden state.
fn load_norm(config: &Config, name: &str, weights: &mut Weights<'_, '_>) -> Result<Input, LoadError> {
    let &Config { n_embd, norm_epsilon, .. } = config;
    match config.architecture.norm {
        NormKind::Rms => weights.norm(name, n_embd, norm_epsilon).map(Input::Rms),
        NormKind::Layer { bias } => {
            let mut vector = |part| {
                weights
                    .vector(&format!("{name}.{part}"), n_embd)
                    .and_then(|tensor| Vector::new(tensor).load())
            };
            let weight = vector("weight")?;
            let bias = if bias { Some(vector("bias")?) } else { None };
            Ok(Input::Layer(LayerNorm::new(weight, bias, norm_epsilon)))
        }
    }
}

fn load_attention(
    config: &Config,
    index: usize,
    weights: &mut Weights<'_, '_>,
) -> Result<Attention, LoadError> {
    let &Config { n_embd, n_head, n_head_kv, head_dim, norm_epsilon, .. } = config;
    let name = |part: &str| format!("blk.{index}.{part}");
    let (width, width_kv) = (n_head * head_dim, n_head_kv * head_dim);
    let input = if config.architecture.fused_qkv {
        Qkv::Fused(weights.linear(&name("attn_qkv"), width + 2 * width_kv, n_embd)?)
    } else {
        Qkv::Split {
            query: weights.linear(&name("attn_q"), width, n_embd)?,
            key: weights.linear(&name("attn_k"), width_kv, n_embd)?,
            value: weights.linear(&name("attn_v"), width_kv, n_embd)?,
        }
    };
    let mut norm = |part: &str, len: usize| weights.norm(&name(part), len, norm_epsilon);
    let (query_norm, key_norm) = match config.architecture.qk_norm {
        QkNorm::Never => (HeadNorm::Absent, HeadNorm::Absent),
        QkNorm::Heads => {
            (HeadNorm::Each(norm("attn_q_norm", head_dim)?), HeadNorm::Each(norm("attn_k_norm", head_dim)?))
        }
        QkNorm::Whole => {
            (HeadNorm::Whole(norm("attn_q_norm", width)?), HeadNorm::Whole(norm("attn_k_norm", width_kv)?))
        }
    };
    Ok(Attention {
        input,
        query_norm,
        key_norm,
        output: weights.linear(&name("attn_output"), n_embd, width)?,
        heads: config.heads(index),
    })
}

fn load_mlp(config: &Config, index: usize, weights: &mut Weights<'_, '_>) -> Result<Mlp, LoadError> {
    let &Config { n_embd, n_ff, .. } = config;
    let name = |part: &str| format!("blk.{index}.{part}");
    let input = match config.architecture.mlp {
        MlpKind::FusedGate => GateUp::Fused(weights.linear(&name("ffn_up"), 2 * n_ff, n_embd)?),
        MlpKind::Gated => GateUp::Split {
            gate: weights.linear(&name("ffn_gate"), n_ff, n_embd)?,
            up: weights.linear(&name("ffn_up"), n_ff, n_embd)?,
        },
        MlpKind::Ungated => GateUp::Ungated(weights.linear(&name("ffn_up"), n_ff, n_embd)?),
    };
    let down = weights.linear(&name("ffn_down"), n_embd, n_ff)?;
    Ok(Mlp { input, down, activation: config.architecture.activation, n_ff })
}

fn load_freq_factors(config: &Config, weights: &mut Weights<'_, '_>) -> Result<RopeFreqFactors, LoadError> {
    let pairs = config.rope.dims / 2;
    let mut load = |name: &str| -> Result<Option<Vec<f32>>, LoadError> {
        let Some(tensor) = weights.optional_vector(name, pairs)? else { return Ok(None) };
        let freq_factors: Vec<f32> = tensor.to_vec1().load()?;
        match freq_factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
            Some(bad) => Err(LoadError::Tensor {
                name: name.to_owned(),
                problem: format!("it holds {bad}, but frequency factors are positive"),
            }),
            None => Ok(Some(freq_factors)),
        }
    };
    let all = load("rope_freqs.weight")?;
    let short = load("rope_factors_short.weight")?;
    let long = load("rope_factors_long.weight")?;
    let required = config.rope.freq_factors == FreqFactors::Required;
    for (name, present, other) in [
        ("rope_factors_short.weight", short.is_some(), long.is_some()),
        ("rope_factors_long.weight", long.is_some(), short.is_some()),
    ] {
        if !present && (required || other) {
            return Err(LoadError::Tensor { name: name.to_owned(), problem: "missing".to_owned() });
        }
    }
    Ok(RopeFreqFactors { all, short, long })
}
