//! Tensors of a mixture of experts.

use super::finder::Finder;
use super::{GateUpTensors, Matrix, MlpTensors, Projection, Vector};
use crate::architecture::{Activation, SelectionBias};
use crate::config::Config;
use crate::experts::{ExpertConfig, Routing};
use exsa_core::error::LoadError;
use exsa_core::gguf::TensorInfo;

/// A mixture of experts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExpertTensors<'g> {
    /// Choice of a token's experts.
    pub routing: Routing,
    /// Projection of the hidden state to the scores of the experts.
    pub router: Projection<'g>,
    /// Bias on the scores for the choice alone, one value for each expert.
    pub selection_bias: Option<Vector<'g>>,
    /// Projections to the hidden values.
    pub input: ExpertInputTensors<'g>,
    /// Projections of the hidden values to the hidden state.
    pub down: ExpertProjection<'g>,
    /// Activation of the gates.
    pub activation: Activation,
    /// Hidden values of an expert.
    pub n_ff: usize,
    /// The expert that all tokens share.
    pub shared: Option<SharedExpertTensors<'g>>,
}

/// Projections of experts to their hidden values.
#[derive(Clone, Copy, Debug)]
pub enum ExpertInputTensors<'g> {
    /// Gate and up by one matrix, in this order.
    Fused(ExpertProjection<'g>),
    /// Gate and up by a matrix each.
    Split {
        /// The gates.
        gate: ExpertProjection<'g>,
        /// The values that they multiply.
        up: ExpertProjection<'g>,
    },
}

/// A linear layer of each expert. The matrices lie one after the other.
#[derive(Clone, Copy, Debug)]
pub struct ExpertProjection<'g> {
    /// The tensor in the file, of shape `[columns, rows, experts]` there.
    pub tensor: &'g TensorInfo,
    /// Number of experts.
    pub experts: usize,
    /// Rows of a matrix: values of the output.
    pub rows: usize,
    /// Columns of a matrix: values of the input.
    pub columns: usize,
    /// The biases, a row for each expert and a value for each row of its matrix.
    pub bias: Option<Matrix<'g>>,
}

/// The expert that all tokens share.
#[derive(Clone, Copy, Debug)]
pub struct SharedExpertTensors<'g> {
    /// The expert.
    pub mlp: MlpTensors<'g>,
    /// The sigmoid of its product with the hidden state is a factor on the expert's output.
    pub gate: Option<Vector<'g>>,
}

impl<'g> ExpertTensors<'g> {
    /// The mixture of layer `index` of a model with `config`.
    pub(super) fn find(
        config: &Config,
        experts: &ExpertConfig,
        index: usize,
        finder: &mut Finder<'g>,
    ) -> Result<Self, LoadError> {
        let &Config { architecture, n_embd, .. } = config;
        let &ExpertConfig { routing, n_ff, n_ff_shared, .. } = experts;
        let name = |part: &str| format!("blk.{index}.{part}");
        let old = name("ffn_gate.0.weight");
        if finder.has(&old) {
            return Err(LoadError::Unsupported {
                what: format!("experts in a tensor each ('{old}')"),
                supported: format!(
                    "all experts of a layer in one tensor ('{}')",
                    name("ffn_gate_exps.weight")
                ),
            });
        }
        let router = finder.projection(&name("ffn_gate_inp"), routing.experts, n_embd)?;
        let selection_bias = match architecture.mixture.map(|mixture| mixture.selection_bias) {
            Some(SelectionBias::Required) => Some(finder.vector(&name("exp_probs_b.bias"), routing.experts)?),
            Some(SelectionBias::IfPresent) => {
                finder.optional_vector(&name("exp_probs_b.bias"), routing.experts)?
            }
            Some(SelectionBias::Never) | None => None,
        };
        let is_fused = finder.has(&name("ffn_gate_up_exps.weight"));
        let mut projection =
            |part: &str, rows: usize| finder.expert_projection(&name(part), (routing.experts, rows, n_embd));
        let input = if is_fused {
            ExpertInputTensors::Fused(projection("ffn_gate_up_exps", 2 * n_ff)?)
        } else {
            ExpertInputTensors::Split {
                gate: projection("ffn_gate_exps", n_ff)?,
                up: projection("ffn_up_exps", n_ff)?,
            }
        };
        let down = finder.expert_projection(&name("ffn_down_exps"), (routing.experts, n_embd, n_ff))?;
        let shared = match n_ff_shared {
            Some(n_ff) => {
                let gated = architecture.mixture.is_some_and(|mixture| mixture.shared_gate);
                Some(SharedExpertTensors::find(config, (n_ff, gated), index, finder)?)
            }
            None => None,
        };
        let activation = architecture.activation;
        Ok(Self { routing, router, selection_bias, input, down, activation, n_ff, shared })
    }
}

impl<'g> SharedExpertTensors<'g> {
    fn find(
        config: &Config,
        (n_ff, gated): (usize, bool),
        index: usize,
        finder: &mut Finder<'g>,
    ) -> Result<Self, LoadError> {
        let n_embd = config.n_embd;
        let name = |part: &str| format!("blk.{index}.{part}");
        let input = GateUpTensors::Split {
            gate: finder.projection(&name("ffn_gate_shexp"), n_ff, n_embd)?,
            up: finder.projection(&name("ffn_up_shexp"), n_ff, n_embd)?,
        };
        let down = finder.projection(&name("ffn_down_shexp"), n_embd, n_ff)?;
        let mlp = MlpTensors { input, down, activation: config.architecture.activation, n_ff };
        let gate =
            if gated { Some(finder.vector(&name("ffn_gate_inp_shexp.weight"), n_embd)?) } else { None };
        Ok(Self { mlp, gate })
    }
}
