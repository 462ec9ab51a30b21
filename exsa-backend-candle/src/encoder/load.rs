//! From the description of an encoder to one that runs.

use super::EncoderModel;
use super::attention::slopes;
use super::head::Head;
use super::layer::EncoderLayer;
use crate::layers::attention::Qkv;
use crate::layers::linear::Linear;
use crate::layers::norm::{Input, RmsNorm};
use crate::load;
use crate::weights::Weights;
use exsa_core::error::LoadError;
use exsa_models::EncoderDescription;
use exsa_models::encoder::{EncoderConfig, EncoderLayerTensors, HeadTensors, Positions};
use exsa_models::tensors::{Norm, Projection, QkvTensors};

/// Loads the encoder that `model` describes.
pub(crate) fn load<'a>(
    model: EncoderDescription<'a>,
    mut weights: Weights<'a, '_>,
) -> Result<EncoderModel, LoadError> {
    let EncoderDescription {
        config,
        n_vocab,
        embedding,
        token_types,
        positions,
        embedding_norm,
        output_norm,
        dense,
        head,
        ..
    } = model;
    let weights = &mut weights;
    let scale = if config.architecture.scaled_embeddings { (config.n_embd as f32).sqrt() } else { 1.0 };
    let embedding = weights.embedding(embedding, scale)?;
    let token_types = token_types.map(|table| weights.embedding(table, 1.0)).transpose()?;
    let positions = positions.map(|table| weights.embedding(table, 1.0)).transpose()?;
    let embedding_norm = norm(embedding_norm, &config, weights)?;
    let mut layers = Vec::new();
    for layer in model.layers {
        layers.push(load_layer(layer, &config, weights)?);
    }
    let output_norm = norm(output_norm, &config, weights)?;
    let slopes = match config.architecture.positions {
        Positions::Alibi(exponent) => slopes(config.n_head, exponent),
        Positions::Learned | Positions::Rope => Vec::new(),
    };
    let head = load_head(head, dense, &config, weights)?;
    let fingerprint = weights.fingerprint();
    Ok(EncoderModel {
        config,
        n_vocab,
        fingerprint,
        embedding,
        token_types,
        positions,
        embedding_norm,
        layers,
        output_norm,
        slopes,
        head,
    })
}

fn norm<'a>(
    norm: Option<Norm<'a>>,
    config: &EncoderConfig,
    weights: &mut Weights<'a, '_>,
) -> Result<Option<Input>, LoadError> {
    norm.map(|norm| load::load_norm(norm, config.norm_epsilon, weights)).transpose()
}

/// An RMSNorm of what is added; there is no other.
fn rms<'a>(
    tensor: Option<Norm<'a>>,
    config: &EncoderConfig,
    weights: &mut Weights<'a, '_>,
) -> Result<Option<RmsNorm>, LoadError> {
    match norm(tensor, config, weights)? {
        None => Ok(None),
        Some(Input::Rms(norm)) => Ok(Some(norm)),
        Some(_) => Err(LoadError::Backend("a norm of another kind than RMSNorm".to_owned())),
    }
}

fn load_layer<'a>(
    layer: EncoderLayerTensors<'a>,
    config: &EncoderConfig,
    weights: &mut Weights<'a, '_>,
) -> Result<EncoderLayer, LoadError> {
    let attention = layer.attention;
    let qkv = match attention.input {
        QkvTensors::Fused(projection) => Qkv::Fused(weights.linear(projection)?),
        QkvTensors::Split { query, key, value } => Qkv::Split {
            query: weights.linear(query)?,
            key: weights.linear(key)?,
            value: weights.linear(value)?,
        },
    };
    let head_norms = match attention.head_norms {
        Some((query, key)) => {
            Some((weights.rms_norm(query, config.norm_epsilon)?, weights.rms_norm(key, config.norm_epsilon)?))
        }
        None => None,
    };
    let (query, key) = attention.whole_norms;
    let whole_norms = (norm(query, config, weights)?, norm(key, config, weights)?);
    Ok(EncoderLayer {
        attention_input: norm(layer.attention_input, config, weights)?.unwrap_or(Input::Plain),
        qkv,
        head_norms,
        whole_norms,
        attention_output: weights.linear(attention.output)?,
        post_attention: rms(layer.post_attention, config, weights)?,
        after_attention: norm(layer.attention_output, config, weights)?,
        after_attention_2: norm(layer.attention_output_2, config, weights)?,
        mlp_input: norm(layer.mlp_input, config, weights)?.unwrap_or(Input::Plain),
        mlp: load::load_gate_up(layer.mlp.input, weights)?,
        activation: config.activation,
        down: weights.linear(layer.mlp.down)?,
        post_mlp: rms(layer.post_mlp, config, weights)?,
        after_mlp: norm(layer.layer_output, config, weights)?,
        window: layer.window,
    })
}

fn load_head<'a>(
    head: HeadTensors<'a>,
    dense: Vec<Projection<'a>>,
    config: &EncoderConfig,
    weights: &mut Weights<'a, '_>,
) -> Result<Head, LoadError> {
    let mut linear = |projection: Projection<'a>| -> Result<(Linear, usize), LoadError> {
        Ok((weights.linear(projection)?, projection.weight.rows))
    };
    Ok(Head {
        dense: dense.into_iter().map(&mut linear).collect::<Result<_, _>>()?,
        pooling: config.head_pooling,
        first: head.dense.map(&mut linear).transpose()?,
        gelu: config.architecture.head_gelu,
        scores: head.output.map(&mut linear).transpose()?,
        norm: norm(head.norm, config, weights)?,
    })
}
