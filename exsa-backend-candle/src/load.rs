//! From the description of a model to a model that runs.

use crate::adapters::Adapters;
use crate::kernels::quantized::Isa;
use crate::layers::attention::{Attention, HeadNorm, Qkv};
use crate::layers::mlp::{GateUp, Mlp};
use crate::layers::norm::{Input, LayerNorm};
use crate::packed_cache::BackgroundCheck;
use crate::transformer::{Layer, Transformer};
use crate::weights::Weights;
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;
use exsa_models::tensors::{
    AttentionTensors, GateUpTensors, HeadNormTensors, InputTensors, LayerTensors, MlpTensors, Norm,
    QkvTensors, RopeFactorTensors,
};
use exsa_models::{Config, ModelDescription, RopeFreqFactors};

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
    let mut layers = Vec::new();
    for layer in model.layers {
        layers.push(load_layer(&config, layer, &mut weights)?);
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

fn load_layer<'a>(
    config: &Config,
    layer: LayerTensors<'a>,
    weights: &mut Weights<'a, '_>,
) -> Result<Layer, LoadError> {
    let &Config { norm_epsilon, residual_scale, .. } = config;
    let rope = layer.attention.rope;
    let attention = load_attention(layer.attention, norm_epsilon, weights)?;
    let mlp = load_mlp(layer.mlp, weights)?;
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
        attention,
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
    Ok(Attention { input, query_norm, key_norm, output, heads: attention.heads })
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
