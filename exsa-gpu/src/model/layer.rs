//! Layers of a model on the device.

use super::weights::{Linear, Loader, NormWeights};
use crate::device::Device;
use exsa_core::error::LoadError;
use exsa_models::architecture::Activation;
use exsa_models::tensors::{
    AttentionTensors, GateUpTensors, HeadNormTensors, InputTensors, LayerTensors, MlpTensors, QkvTensors,
};
use exsa_models::{Heads, LayerRope};

/// One layer: attention and MLP, added to the hidden state.
#[derive(Debug)]
pub(crate) struct Layer<D: Device> {
    pub attention_input: Input<D>,
    pub attention: Attention<D>,
    /// Weight of the RMSNorm of what attention gives.
    pub post_attention_norm: Option<D::Buffer>,
    pub mlp_input: Input<D>,
    pub mlp: Mlp<D>,
    /// Weight of the RMSNorm of what the MLP gives.
    pub post_mlp_norm: Option<D::Buffer>,
}

/// Input of attention or MLP.
#[derive(Debug)]
pub(crate) enum Input<D: Device> {
    /// The hidden state, normalized.
    Normed(NormWeights<D>),
    /// The hidden state as it is.
    Plain,
    /// The input of the attention.
    Shared,
}

#[derive(Debug)]
pub(crate) struct Attention<D: Device> {
    pub input: Qkv<D>,
    pub query_norm: HeadNorm<D>,
    pub key_norm: HeadNorm<D>,
    pub output: Linear<D>,
    pub heads: Heads,
    pub rope: LayerRope,
}

/// Projections to queries, keys and values.
#[derive(Debug)]
pub(crate) enum Qkv<D: Device> {
    Fused(Linear<D>),
    /// Queries, keys, values.
    Split([Linear<D>; 3]),
}

/// RMSNorm of queries or keys.
#[derive(Debug)]
pub(crate) enum HeadNorm<D: Device> {
    Absent,
    /// Head by head, by one weight.
    Each(D::Buffer),
    /// Over all heads at once.
    Whole(D::Buffer),
}

#[derive(Debug)]
pub(crate) struct Mlp<D: Device> {
    pub input: GateUp<D>,
    pub down: Linear<D>,
    pub activation: Activation,
    pub n_ff: usize,
}

/// Projections of an MLP to its hidden values.
#[derive(Debug)]
pub(crate) enum GateUp<D: Device> {
    /// Gate and up by one matrix.
    Fused(Linear<D>),
    /// Gate and up.
    Split([Linear<D>; 2]),
    /// Up alone.
    Ungated(Linear<D>),
}

impl<D: Device> Layer<D> {
    pub fn load(layer: LayerTensors<'_>, loader: &mut Loader<'_, '_, D>) -> Result<Self, LoadError> {
        let mut input = |input| {
            Ok::<_, LoadError>(match input {
                InputTensors::Normed(norm) => Input::Normed(loader.norm(norm)?),
                InputTensors::Plain => Input::Plain,
                InputTensors::Shared => Input::Shared,
            })
        };
        let (attention_input, mlp_input) = (input(layer.attention_input)?, input(layer.mlp_input)?);
        let attention = Attention::load(layer.attention, loader)?;
        let mlp = Mlp::load(layer.mlp, loader)?;
        let mut norm = |weight: Option<_>| weight.map(|weight| loader.vector(weight)).transpose();
        let (post_attention_norm, post_mlp_norm) =
            (norm(layer.post_attention_norm)?, norm(layer.post_mlp_norm)?);
        Ok(Self { attention_input, attention, post_attention_norm, mlp_input, mlp, post_mlp_norm })
    }

    /// Whether the MLP reads the hidden state itself.
    pub fn mlp_input_is_plain(&self) -> bool {
        matches!(self.mlp_input, Input::Plain)
    }
}

impl<D: Device> Attention<D> {
    fn load(tensors: AttentionTensors<'_>, loader: &mut Loader<'_, '_, D>) -> Result<Self, LoadError> {
        let input = match tensors.input {
            QkvTensors::Fused(projection) => Qkv::Fused(loader.linear(projection)?),
            QkvTensors::Split { query, key, value } => {
                Qkv::Split([loader.linear(query)?, loader.linear(key)?, loader.linear(value)?])
            }
        };
        let mut norm = |norm| {
            Ok::<_, LoadError>(match norm {
                HeadNormTensors::Absent => HeadNorm::Absent,
                HeadNormTensors::Each(weight) => HeadNorm::Each(loader.vector(weight)?),
                HeadNormTensors::Whole(weight) => HeadNorm::Whole(loader.vector(weight)?),
            })
        };
        let (query_norm, key_norm) = (norm(tensors.query_norm)?, norm(tensors.key_norm)?);
        let output = loader.linear(tensors.output)?;
        Ok(Self { input, query_norm, key_norm, output, heads: tensors.heads, rope: tensors.rope })
    }
}

impl<D: Device> Mlp<D> {
    fn load(tensors: MlpTensors<'_>, loader: &mut Loader<'_, '_, D>) -> Result<Self, LoadError> {
        let input = match tensors.input {
            GateUpTensors::Fused(projection) => GateUp::Fused(loader.linear(projection)?),
            GateUpTensors::Split { gate, up } => GateUp::Split([loader.linear(gate)?, loader.linear(up)?]),
            GateUpTensors::Ungated(projection) => GateUp::Ungated(loader.linear(projection)?),
        };
        let down = loader.linear(tensors.down)?;
        Ok(Self { input, down, activation: tensors.activation, n_ff: tensors.n_ff })
    }
}
