//! From the description of a model to a model that runs.

use crate::adapters::Adapters;
use crate::kernels::float::delta_rule::DeltaHeads;
use crate::kernels::quantized::Isa;
use crate::layers::attention::{Attention, HeadNorm, Qkv};
use crate::layers::delta_net::DeltaNet;
use crate::layers::experts::{ExpertInput, Experts, FeedForward, SharedExpert};
use crate::layers::mlp::{GateUp, Mlp};
use crate::layers::norm::{Input, LayerNorm};
use crate::layers::short_conv::ShortConv;
use crate::packed_cache::BackgroundCheck;
use crate::transformer::{Layer, Mixer, Transformer};
use crate::weights::Weights;
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;
use exsa_models::tensors::{
    AttentionTensors, DeltaNetTensors, ExpertInputTensors, FeedForwardTensors, GateUpTensors,
    HeadNormTensors, InputTensors, LayerTensors, Matrix, MixerTensors, MlpTensors, Norm, QkvTensors,
    RopeFactorTensors, ShortConvTensors,
};
use exsa_models::{Config, LayerRope, ModelDescription, RopeFreqFactors};
use std::sync::Arc;

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

/// Loads the model that `model` describes.
pub(crate) fn load<'a>(
    model: ModelDescription<'a>,
    mut weights: Weights<'a, '_>,
) -> Result<LoadedModel, LoadError> {
    let ModelDescription {
        config, n_vocab, embedding, rope_factors, output_norm, output, has_output, ..
    } = model;
    let embedding = weights.embedding(embedding, config.embedding_scale)?;
    let freq_factors = load_freq_factors(rope_factors, &mut weights)?;
    let (mut layers, mut places) = (Vec::new(), Places::default());
    for layer in model.layers {
        layers.push(load_layer(&config, layer, &mut places, &mut weights)?);
    }
    let norm = load_norm(output_norm, config.norm_epsilon, &mut weights)?;
    let isa = weights.isa();
    let output = weights.linear(output)?;
    let (softcap, logit_scale) = (config.logit_softcap, config.logit_scale);
    let transformer = Transformer { embedding, layers, norm, output, softcap, logit_scale };
    let (fingerprint, adapters) = (weights.fingerprint(), Adapters::default());
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

/// Next layers in the KV cache and among the states.
#[derive(Default)]
struct Places {
    kv: Counter,
    states: Counter,
}

#[derive(Default)]
struct Counter(usize);

impl Counter {
    fn next(&mut self) -> usize {
        self.0 += 1;
        self.0 - 1
    }
}

fn load_layer<'a>(
    config: &Config,
    layer: LayerTensors<'a>,
    places: &mut Places,
    weights: &mut Weights<'a, '_>,
) -> Result<Layer, LoadError> {
    let &Config { norm_epsilon, residual_scale, .. } = config;
    let (rope, mixer) = match layer.mixer {
        MixerTensors::Attention(tensors) => {
            let rope = tensors.rope;
            let attention = load_attention(tensors, norm_epsilon, weights)?;
            (rope, Mixer::Attention(Box::new(attention), places.kv.next()))
        }
        MixerTensors::ShortConv(tensors) => {
            (LayerRope::Absent, Mixer::ShortConv(load_short_conv(tensors, weights)?, places.states.next()))
        }
        MixerTensors::DeltaNet(tensors) => {
            let net = load_delta_net(tensors, norm_epsilon, weights)?;
            (LayerRope::Absent, Mixer::DeltaNet(Box::new(net), places.states.next()))
        }
        _ => return Err(LoadError::Backend("a layer of an unknown kind".to_owned())),
    };
    let mlp = load_feed_forward(layer.mlp, weights)?;
    let mut input = |input| match input {
        InputTensors::Normed(norm) => load_norm(norm, norm_epsilon, weights),
        InputTensors::Plain => Ok(Input::Plain),
        InputTensors::Shared => Ok(Input::Shared),
    };
    let (attention_input, mlp_input) = (input(layer.attention_input)?, input(layer.mlp_input)?);
    let mut norm =
        |weight: Option<_>| weight.map(|weight| weights.rms_norm(weight, norm_epsilon)).transpose();
    let (post_attention_norm, post_mlp_norm) = (norm(layer.post_attention_norm)?, norm(layer.post_mlp_norm)?);
    Ok(Layer {
        attention_input,
        mixer,
        post_attention_norm,
        mlp_input,
        mlp,
        post_mlp_norm,
        residual_scale,
        rope,
    })
}

/// A norm of the hidden state.
pub(crate) fn load_norm<'a>(
    norm: Norm<'a>,
    epsilon: f32,
    weights: &mut Weights<'a, '_>,
) -> Result<Input, LoadError> {
    match norm {
        Norm::Rms(weight) => weights.rms_norm(weight, epsilon).map(Input::Rms),
        Norm::Layer { weight, bias } => {
            let weight = weights.vector(weight)?;
            let bias = bias.map(|bias| weights.vector(bias)).transpose()?;
            Ok(Input::Layer(LayerNorm::new(weight, bias, epsilon)))
        }
    }
}

fn load_attention<'a>(
    attention: AttentionTensors<'a>,
    epsilon: f32,
    weights: &mut Weights<'a, '_>,
) -> Result<Attention, LoadError> {
    let input = match attention.input {
        QkvTensors::Fused(projection) => Qkv::Fused(weights.linear(projection)?),
        QkvTensors::Split { query, key, value } => Qkv::Split {
            query: weights.linear(query)?,
            key: weights.linear(key)?,
            value: weights.linear(value)?,
        },
    };
    let mut norm = |norm| -> Result<HeadNorm, LoadError> {
        Ok(match norm {
            HeadNormTensors::Absent => HeadNorm::Absent,
            HeadNormTensors::Each(weight) => HeadNorm::Each(weights.rms_norm(weight, epsilon)?),
            HeadNormTensors::Whole(weight) => HeadNorm::Whole(weights.rms_norm(weight, epsilon)?),
        })
    };
    let (query_norm, key_norm) = (norm(attention.query_norm)?, norm(attention.key_norm)?);
    let output = weights.linear(attention.output)?;
    let sinks = attention.sinks.map(|sinks| weights.values(sinks)).transpose()?;
    Ok(Attention {
        input,
        query_norm,
        key_norm,
        output,
        heads: attention.heads,
        gated: attention.gated,
        sinks,
    })
}

fn load_feed_forward<'a>(
    tensors: FeedForwardTensors<'a>,
    weights: &mut Weights<'a, '_>,
) -> Result<FeedForward, LoadError> {
    let experts = match tensors {
        FeedForwardTensors::Dense(mlp) => return load_mlp(mlp, weights).map(FeedForward::Dense),
        FeedForwardTensors::Experts(experts) => *experts,
    };
    let input = match experts.input {
        ExpertInputTensors::Fused(both) => ExpertInput::Fused(weights.expert_linear(both)?),
        ExpertInputTensors::Split { gate, up } => {
            ExpertInput::Split { gate: weights.expert_linear(gate)?, up: weights.expert_linear(up)? }
        }
    };
    let mut values = |vector: Option<_>| -> Result<Option<Box<[f32]>>, LoadError> {
        vector.map(|vector| weights.values(vector).map(Vec::into_boxed_slice)).transpose()
    };
    let selection_bias = values(experts.selection_bias)?;
    let gate = values(experts.shared.and_then(|shared| shared.gate))?;
    let shared = match experts.shared {
        Some(shared) => Some(SharedExpert { mlp: load_mlp(shared.mlp, weights)?, gate }),
        None => None,
    };
    Ok(FeedForward::Experts(Box::new(Experts {
        routing: experts.routing,
        router: weights.linear(experts.router)?,
        selection_bias,
        input,
        down: weights.expert_linear(experts.down)?,
        activation: experts.activation,
        n_ff: experts.n_ff,
        shared,
    })))
}

fn load_short_conv<'a>(
    tensors: ShortConvTensors<'a>,
    weights: &mut Weights<'a, '_>,
) -> Result<ShortConv, LoadError> {
    let input = weights.linear(tensors.input)?;
    let kernel = load_kernel(tensors.kernel, weights)?;
    Ok(ShortConv { input, kernel, output: weights.linear(tensors.output)? })
}

/// Weights of a convolution, `[tokens, channels]`.
fn load_kernel<'a>(kernel: Matrix<'a>, weights: &mut Weights<'a, '_>) -> Result<Arc<[f32]>, LoadError> {
    let Matrix { rows, columns, .. } = kernel;
    let values = weights.matrix_values(kernel)?;
    Ok((0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect())
}

fn load_delta_net<'a>(
    tensors: DeltaNetTensors<'a>,
    epsilon: f32,
    weights: &mut Weights<'a, '_>,
) -> Result<DeltaNet, LoadError> {
    Ok(DeltaNet {
        heads: DeltaHeads::of(tensors.heads),
        qkv: weights.linear(tensors.qkv)?,
        gate: weights.linear(tensors.gate)?,
        beta: weights.linear(tensors.beta)?,
        alpha: weights.linear(tensors.alpha)?,
        alpha_bias: weights.vector(tensors.alpha_bias)?,
        decay: weights.vector(tensors.decay)?,
        kernel: load_kernel(tensors.kernel, weights)?,
        norm: weights.rms_norm(tensors.norm, epsilon)?,
        output: weights.linear(tensors.output)?,
    })
}

fn load_mlp<'a>(mlp: MlpTensors<'a>, weights: &mut Weights<'a, '_>) -> Result<Mlp, LoadError> {
    let input = load_gate_up(mlp.input, weights)?;
    let down = weights.linear(mlp.down)?;
    Ok(Mlp { input, down, activation: mlp.activation, n_ff: mlp.n_ff })
}

/// Projections of an MLP to its hidden values.
pub(crate) fn load_gate_up<'a>(
    tensors: GateUpTensors<'a>,
    weights: &mut Weights<'a, '_>,
) -> Result<GateUp, LoadError> {
    Ok(match tensors {
        GateUpTensors::Fused(projection) => GateUp::Fused(weights.linear(projection)?),
        GateUpTensors::Split { gate, up } => {
            GateUp::Split { gate: weights.linear(gate)?, up: weights.linear(up)? }
        }
        GateUpTensors::Ungated(projection) => GateUp::Ungated(weights.linear(projection)?),
    })
}

fn load_freq_factors<'a>(
    tensors: RopeFactorTensors<'a>,
    weights: &mut Weights<'a, '_>,
) -> Result<RopeFreqFactors, LoadError> {
    let mut values = |vector: Option<_>| vector.map(|vector| weights.values(vector)).transpose();
    let factors = RopeFreqFactors {
        all: values(tensors.all)?,
        short: values(tensors.short)?,
        long: values(tensors.long)?,
    };
    factors.check()?;
    Ok(factors)
}
