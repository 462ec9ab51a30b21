//! From the hidden states of a text to its vector or scores.

use super::activation::gelu;
use crate::error::CandleError;
use crate::kernels::float::rows;
use crate::kernels::memory::team::Team;
use crate::layers::linear::{Activations, Linear};
use crate::layers::norm::Input;
use crate::pooling::pool;
use exsa_core::backend::Pooling;
use exsa_core::error::StepError;

/// Projections of pooled vectors.
pub(super) struct Head {
    /// Of vectors, in this order, with the values that each gives.
    pub dense: Vec<(Linear, usize)>,
    /// Pooling before scores.
    pub pooling: Pooling,
    /// First projection to scores, and the values that it gives.
    pub first: Option<(Linear, usize)>,
    /// Whether its activation is GELU, and not the hyperbolic tangent.
    pub gelu: bool,
    /// Norm behind it.
    pub norm: Option<Input>,
    /// Projection to scores, and their number.
    pub scores: Option<(Linear, usize)>,
}

impl Head {
    /// Whether there are scores.
    pub fn ranks(&self) -> bool {
        self.first.is_some() || self.scores.is_some()
    }

    /// Values of a vector of `pooling`, of a model of width `n_embd`.
    pub fn width(&self, pooling: Pooling, n_embd: usize) -> usize {
        let last = if pooling == Pooling::Rank {
            self.scores.as_ref().or(self.first.as_ref())
        } else {
            self.dense.last()
        };
        last.map_or(n_embd, |(_, width)| *width)
    }

    /// Appends the vector of a text, or its scores, by `pooling`; `states` are its hidden states.
    pub fn apply<'a>(
        &self,
        mut states: impl ExactSizeIterator<Item = &'a [f32]> + DoubleEndedIterator,
        pooling: Pooling,
        (team, activations): (&mut Team, &mut Activations),
        vectors: &mut Vec<f32>,
    ) -> Result<(), StepError> {
        let ranks = pooling == Pooling::Rank;
        let mut vector = Vec::new();
        match if ranks { self.pooling } else { pooling } {
            Pooling::Last => vector.extend_from_slice(states.next_back().unwrap_or_default()),
            other => pool(states, other, &mut vector),
        }
        if ranks {
            if let Some(first) = &self.first {
                vector = project(first, &vector, team, activations)?;
                vector.iter_mut().for_each(|x| *x = if self.gelu { gelu(*x) } else { x.tanh() });
                if let Some(norm) = &self.norm {
                    let mut out = vec![0.0; vector.len()];
                    rows::input(norm.host(), &vector, vector.len(), &mut out, team);
                    vector = out;
                }
            }
            if let Some(scores) = &self.scores {
                vector = project(scores, &vector, team, activations)?;
            }
        } else {
            for dense in &self.dense {
                vector = project(dense, &vector, team, activations)?;
            }
        }
        vectors.append(&mut vector);
        Ok(())
    }
}

fn project(
    (linear, width): &(Linear, usize),
    vector: &[f32],
    team: &mut Team,
    activations: &mut Activations,
) -> Result<Vec<f32>, StepError> {
    let mut out = vec![0.0; *width];
    Linear::multiply([(linear, &mut *out)], vector, 1, team, activations).step()?;
    Ok(out)
}
