//! Tensors of a model by their place in the network.

mod experts;
pub(crate) mod finder;
mod layer;

pub use experts::{ExpertInputTensors, ExpertProjection, ExpertTensors, SharedExpertTensors};
pub use layer::{
    AttentionTensors, DeltaNetTensors, FeedForwardTensors, GateUpTensors, HeadNormTensors, InputTensors,
    LayerTensors, MixerTensors, MlpTensors, QkvTensors, ShortConvTensors,
};

use crate::config::Config;
use crate::rope::{FreqFactors, ROPE_FACTORS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT};
use exsa_core::error::LoadError;
use exsa_core::gguf::{Gguf, TensorInfo};
use finder::Finder;

/// A matrix of weights, `[rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'g> {
    /// The tensor in the file, of shape `[columns, rows]` there.
    pub tensor: &'g TensorInfo,
    /// Rows: values of the output.
    pub rows: usize,
    /// Columns: values of the input.
    pub columns: usize,
}

/// A vector of weights.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'g> {
    /// The tensor in the file.
    pub tensor: &'g TensorInfo,
    /// Number of values.
    pub len: usize,
}

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'g> {
    /// The matrix.
    pub weight: Matrix<'g>,
    /// The bias, one value for each row.
    pub bias: Option<Vector<'g>>,
}

/// A norm of the hidden state.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'g> {
    /// RMSNorm (Zhang and Sennrich, arXiv:1910.07467) by this weight.
    Rms(Vector<'g>),
    /// Layer normalization (Ba et al., arXiv:1607.06450).
    Layer {
        /// The weight.
        weight: Vector<'g>,
        /// The bias.
        bias: Option<Vector<'g>>,
    },
}

/// Tensors with the frequency factors of RoPE, one value for each pair of rotary dimensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct RopeFactorTensors<'g> {
    /// For every context.
    pub all: Option<Vector<'g>>,
    /// For contexts up to the original one.
    pub short: Option<Vector<'g>>,
    /// For longer ones.
    pub long: Option<Vector<'g>>,
}

/// A model: its hyperparameters, and its tensors with their shapes checked. No weight has been read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelDescription<'g> {
    /// Hyperparameters.
    pub config: Config,
    /// Rows of the token embeddings, which is the length of a row of logits.
    pub n_vocab: usize,
    /// Token embeddings, `[n_vocab, n_embd]`.
    pub embedding: Matrix<'g>,
    /// Frequency factors of RoPE.
    pub rope_factors: RopeFactorTensors<'g>,
    /// Layers, first to last.
    pub layers: Vec<LayerTensors<'g>>,
    /// Norm before the output projection.
    pub output_norm: Norm<'g>,
    /// Projection to logits, `[n_vocab, n_embd]`.
    pub output: Projection<'g>,
    /// Whether the output has weights of its own, and not those of the token embeddings.
    pub has_output: bool,
}

impl<'g> ModelDescription<'g> {
    /// Describes the model of `gguf`, whose tokenizer knows `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`LoadError::Gguf`] and [`LoadError::Unsupported`] as from [`Config::from_metadata`];
    /// [`LoadError::Tensor`] for a tensor that is missing, has a wrong shape, or is not known to the
    /// architecture.
    pub fn read(gguf: &'g Gguf, tokens: usize) -> Result<Self, LoadError> {
        let config = Config::from_metadata(gguf.metadata())?;
        let mut finder = Finder::new(gguf);
        // Some models have embeddings to spare, to make their number round.
        let n_vocab = finder.rows("token_embd.weight")?;
        if n_vocab < tokens {
            return Err(LoadError::Tensor {
                name: "token_embd.weight".to_owned(),
                problem: format!("it has {n_vocab} rows, but the vocabulary has {tokens} tokens"),
            });
        }
        let embedding = finder.matrix("token_embd.weight", n_vocab, config.n_embd)?;
        let rope_factors = rope_factors(&config, &mut finder)?;
        // The count is a claim of the file: the layers are found one by one, and the first that is missing
        // ends it.
        let mut layers = Vec::new();
        for index in 0..config.n_layer {
            layers.push(LayerTensors::find(&config, index, &mut finder)?);
        }
        for index in config.n_layer..config.n_layer + config.n_nextn {
            finder.leave_out(&format!("blk.{index}."));
        }
        let output_norm =
            finder.norm(config.architecture.norm, config.architecture.output_norm, config.n_embd)?;
        let has_output = finder.has("output.weight");
        let output = if has_output { "output" } else { "token_embd" };
        let output = finder.projection(output, n_vocab, config.n_embd)?;
        finder.finish()?;
        Ok(Self { config, n_vocab, embedding, rope_factors, layers, output_norm, output, has_output })
    }
}

/// Whether `tensor` is a matrix, or the matrices of all experts, that a product multiplies by: neither a
/// vector, nor biases of experts, nor the weights of a convolution. The token embeddings count as one, which
/// they are where they are the output projection too.
#[must_use]
pub fn is_operand(tensor: &TensorInfo) -> bool {
    let name = tensor.name.as_str();
    matches!(tensor.shape.len(), 2 | 3) && !name.ends_with(".bias") && !layer::is_kernel(name)
}

fn rope_factors<'g>(config: &Config, finder: &mut Finder<'g>) -> Result<RopeFactorTensors<'g>, LoadError> {
    let pairs = config.rope.dims / 2;
    let all = finder.optional_vector(ROPE_FACTORS, pairs)?;
    let short = finder.optional_vector(ROPE_FACTORS_SHORT, pairs)?;
    let long = finder.optional_vector(ROPE_FACTORS_LONG, pairs)?;
    let required = config.rope.freq_factors == FreqFactors::Required;
    for (name, present, other) in [
        (ROPE_FACTORS_SHORT, short.is_some(), long.is_some()),
        (ROPE_FACTORS_LONG, long.is_some(), short.is_some()),
    ] {
        if !present && (required || other) {
            return Err(LoadError::Tensor { name: name.to_owned(), problem: "missing".to_owned() });
        }
    }
    Ok(RopeFactorTensors { all, short, long })
}
