//! Mixtures of experts (Shazeer et al., arXiv:1701.06538; Fedus et al., arXiv:2101.03961): MLPs of which each
//! token goes through a few.

use super::linear::{Activations, Linear};
use super::mlp::Mlp;
use crate::kernels::float::packed::{FloatMatrix, FloatProduct, FloatSizes, multiply_float_groups};
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::activations::ActivationSizes;
use crate::kernels::quantized::{Isa, PackedMatrix, Product, multiply_groups};
use crate::kernels::{ExpertRows, MatrixShape};
use crate::mapped_weights::MappedRows;
use candle_core::{Result, Tensor};
use exsa_models::Routing;
use exsa_models::architecture::Activation;

/// The MLP of a layer.
pub(crate) enum FeedForward {
    /// One, for every token.
    Dense(Mlp),
    /// A mixture of experts.
    Experts(Box<Experts>),
}

impl FeedForward {
    /// Over candle's tensors: `x` and the result are `[rows, n_embd]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Experts(_) => candle_core::bail!("a mixture of experts in a pass over tensors"),
        }
    }
}

/// A mixture of experts, on the CPU: the sum of the outputs of a token's experts, each by its weight, and of
/// the shared expert.
pub(crate) struct Experts {
    /// Choice of a token's experts.
    pub routing: Routing,
    /// Scores of the experts, `[experts, n_embd]`.
    pub router: Linear,
    /// Added to the scores for the choice alone, `[experts]`.
    pub selection_bias: Option<Box<[f32]>>,
    /// Projections to the hidden values of each expert.
    pub input: ExpertInput,
    /// Back to the hidden state, `[n_embd, n_ff]` each.
    pub down: ExpertLinear,
    /// The activation.
    pub activation: Activation,
    /// Values between the projections of an expert.
    pub n_ff: usize,
    /// Expert of all tokens.
    pub shared: Option<SharedExpert>,
}

impl Experts {
    /// Makes room in `activations` for products of batches of up to `tokens` tokens, however they are routed.
    pub fn reserve(&self, tokens: usize, activations: &mut Activations) {
        let rows = tokens * self.routing.used;
        let groups = rows.min(self.routing.experts);
        let inputs = match &self.input {
            ExpertInput::Split { gate, up } => [Some(gate), Some(up)],
            ExpertInput::Fused(both) => [Some(both), None],
        };
        for linear in inputs.into_iter().flatten().chain([&self.down]) {
            linear.reserve(rows, groups, activations);
        }
    }
}

/// Projections to the hidden values of experts.
pub(crate) enum ExpertInput {
    /// By two matrices, `[n_ff, n_embd]` each.
    Split { gate: ExpertLinear, up: ExpertLinear },
    /// By one, `[2 * n_ff, n_embd]`, the gate first.
    Fused(ExpertLinear),
}

/// The expert of all tokens.
pub(crate) struct SharedExpert {
    /// The expert.
    pub mlp: Mlp,
    /// The sigmoid of the product with the input is a factor on the output, `[n_embd]`.
    pub gate: Option<Box<[f32]>>,
}

/// Projections `y = W x + b` of all experts, with weights of any type that a file can have.
pub(crate) struct ExpertLinear {
    weight: ExpertWeight,
    /// `[experts, out]`.
    bias: Option<Vec<f32>>,
}

enum ExpertWeight {
    /// Packed for our own products.
    Packed(PackedMatrix, Isa),
    /// Floats, packed for our own products.
    Float(FloatMatrix, Isa),
    /// In place in host memory, of a type that is multiplied in f32.
    Wide(MappedRows, MatrixShape),
}

/// Rows of a product, sorted by their experts.
#[derive(Clone, Copy)]
pub(crate) struct SortedRows<'a> {
    /// The experts that have rows, ascending.
    pub groups: &'a [ExpertRows],
    /// Row of the input for each, if the inputs are not sorted.
    pub sources: Option<&'a [u32]>,
}

impl ExpertLinear {
    /// By packed `weight`, a matrix for each expert, and `bias`.
    pub fn packed(weight: PackedMatrix, isa: Isa, bias: Option<Vec<f32>>) -> Self {
        Self { weight: ExpertWeight::Packed(weight, isa), bias }
    }

    /// By packed floats.
    pub fn float(weight: FloatMatrix, isa: Isa, bias: Option<Vec<f32>>) -> Self {
        Self { weight: ExpertWeight::Float(weight, isa), bias }
    }

    /// By `weight`, matrices of that shape one after the other.
    pub fn wide(weight: MappedRows, shape: MatrixShape, bias: Option<Vec<f32>>) -> Self {
        Self { weight: ExpertWeight::Wide(weight, shape), bias }
    }

    /// Makes room in `activations` for products of `rows` rows in up to `groups` groups.
    pub fn reserve(&self, rows: usize, groups: usize, activations: &mut Activations) {
        match &self.weight {
            ExpertWeight::Packed(weight, _) => {
                let sizes = ActivationSizes::grouped(rows, groups, weight.k(), weight.kind());
                activations.quantized.reserve(&sizes);
            }
            ExpertWeight::Float(weight, isa) => {
                let sizes = FloatSizes::grouped(rows, groups, weight.k(), weight.kind(), *isa);
                activations.float.reserve(&sizes);
            }
            ExpertWeight::Wide(..) => {}
        }
    }

    /// Projects rows of `x`, `[rows, in]`, each by the matrix of its expert, by several projections to an
    /// output each, `[sorted rows, out]`. Those that can share activations in one form are one step of the
    /// team. `gathered` has room for the inputs of all rows, `[sorted rows, in]`, where they are not sorted.
    pub fn multiply<const N: usize>(
        mut outputs: [(&Self, &mut [f32]); N],
        x: &[f32],
        rows: SortedRows<'_>,
        gathered: &mut [f32],
        team: &mut Team,
        activations: &mut Activations,
    ) {
        let SortedRows { groups, sources } = rows;
        let mut done = [false; N];
        for first in 0..N {
            let linear = outputs[first].0;
            if done[first] {
                continue;
            }
            match &linear.weight {
                ExpertWeight::Packed(weight, isa) => {
                    let acts = &mut activations.quantized;
                    acts.quantize_groups(x, (weight.k(), weight.kind()), (groups, sources), team);
                    let mut products = [const { None }; N];
                    for (i, (linear, out)) in outputs.iter_mut().enumerate().skip(first) {
                        if let ExpertWeight::Packed(other, _) = &linear.weight
                            && !done[i]
                            && other.shares_activations(weight)
                        {
                            products[i] = Some(Product::new(other, out));
                            done[i] = true;
                        }
                    }
                    multiply_groups(*isa, &products, groups, acts, team);
                }
                ExpertWeight::Float(weight, isa) => {
                    activations.float.fill_groups(x, weight.k(), (groups, sources), *isa, team);
                    let mut products = [const { None }; N];
                    for (i, (linear, out)) in outputs.iter_mut().enumerate().skip(first) {
                        if let ExpertWeight::Float(other, _) = &linear.weight
                            && !done[i]
                            && other.k() == weight.k()
                        {
                            products[i] = Some(FloatProduct::new(other, out));
                            done[i] = true;
                        }
                    }
                    multiply_float_groups(*isa, &products, groups, &mut activations.float, team);
                }
                ExpertWeight::Wide(weight, shape) => {
                    let (n, k) = (shape.rows, shape.columns);
                    let x = match sources {
                        Some(sources) => {
                            for (to, source) in gathered.chunks_exact_mut(k).zip(sources) {
                                to.copy_from_slice(&x[*source as usize * k..][..k]);
                            }
                            &*gathered
                        }
                        None => x,
                    };
                    let out = &mut *outputs[first].1;
                    for ExpertRows { expert, rows } in groups {
                        let (left, out) =
                            (&x[rows.start * k..rows.end * k], &mut out[rows.start * n..rows.end * n]);
                        weight.multiply(expert * n, (rows.len(), n), left, out, team);
                    }
                }
            }
        }
        for (linear, out) in outputs {
            if let Some(bias) = &linear.bias {
                linear.add_bias(bias, groups, out);
            }
        }
    }

    fn add_bias(&self, bias: &[f32], groups: &[ExpertRows], out: &mut [f32]) {
        let n = match &self.weight {
            ExpertWeight::Packed(weight, _) => weight.n(),
            ExpertWeight::Float(weight, _) => weight.n(),
            ExpertWeight::Wide(_, shape) => shape.rows,
        };
        for ExpertRows { expert, rows } in groups {
            crate::kernels::float::rows::add_bias(
                &mut out[rows.start * n..rows.end * n],
                &bias[expert * n..][..n],
            );
        }
    }
}
