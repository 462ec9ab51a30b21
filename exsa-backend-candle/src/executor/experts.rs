//! Mixtures of experts in a pass on the CPU.
//!
//! The rows of a batch are sorted by their experts, so that the weights of an expert are read once for all of
//! its rows, and those of experts without rows are not read. The outputs of a row's experts are added up in
//! the order of their scores, whatever else is in the batch.

use super::workspace::{PASS, float_bytes, zeroed};
use crate::kernels::ExpertRows;
use crate::kernels::float::router::choose_experts;
use crate::kernels::float::rows::{self, WeightedRows};
use crate::kernels::memory::team::{Target, Team};
use crate::layers::experts::{ExpertInput, ExpertLinear, Experts, SortedRows};
use crate::layers::linear::{Activations, Linear};
use candle_core::Result;
use exsa_core::error::LoadError;
use exsa_models::Config;

/// Scores below which one thread chooses all experts.
const SHARED_SCORES_MIN: usize = 1 << 12;

/// Sizes of the mixtures of a model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExpertSizes {
    /// Experts of a layer; 0 for models without.
    pub experts: usize,
    /// Experts of a token.
    pub used: usize,
    /// Values of a row that the projections to the hidden values give.
    pub hidden: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
}

impl ExpertSizes {
    /// Of the model that `config` describes.
    pub fn of(config: &Config) -> Self {
        let Some(experts) = &config.experts else { return Self::default() };
        let (routing, n_embd) = (&experts.routing, config.n_embd);
        Self { experts: routing.experts, used: routing.used, hidden: 2 * experts.n_ff, n_embd }
    }

    /// Floats, numbers and groups for `tokens` tokens.
    fn lengths(&self, tokens: usize) -> [usize; 7] {
        let Self { experts, used, hidden, n_embd } = *self;
        let rows = tokens.saturating_mul(used);
        let row = |width: usize| rows.saturating_mul(width);
        [tokens.saturating_mul(experts), rows, row(hidden), row(n_embd), rows, experts, experts.min(rows)]
    }
}

/// Buffers of mixtures. Pages that no batch has touched are not resident.
pub(super) struct ExpertWorkspace {
    /// The router's output, `[tokens, experts]`.
    scores: Vec<f32>,
    /// Weights of a token's experts, `[tokens, used]`.
    weights: Vec<f32>,
    /// Hidden values of the sorted rows: gate and up, two matrices one after the other or one.
    hidden: Vec<f32>,
    /// Outputs of the sorted rows, `[tokens * used, n_embd]`; before, inputs for types that gather them, and
    /// afterwards the output of the shared expert.
    pub outputs: Vec<f32>,
    /// Experts of a token, and then their sorted rows, `[tokens, used]`.
    chosen: Vec<u32>,
    /// Token of each sorted row.
    sources: Vec<u32>,
    /// Rows of each expert, and then its next sorted row.
    counts: Vec<u32>,
    /// The experts that have rows.
    groups: Vec<ExpertRows>,
}

impl ExpertWorkspace {
    /// Buffers for batches of up to `tokens` tokens.
    pub fn new(sizes: ExpertSizes, tokens: usize) -> std::result::Result<Self, LoadError> {
        let [scores, weights, hidden, outputs, chosen, experts, groups] = sizes.lengths(tokens);
        Ok(Self {
            scores: zeroed(scores, PASS)?,
            weights: zeroed(weights, PASS)?,
            hidden: zeroed(hidden, PASS)?,
            outputs: zeroed(outputs, PASS)?,
            chosen: vec![0; chosen],
            sources: vec![0; chosen],
            counts: vec![0; experts],
            groups: Vec::with_capacity(groups),
        })
    }

    /// Bytes of it.
    pub fn bytes(sizes: ExpertSizes, tokens: usize) -> u64 {
        let [scores, weights, hidden, outputs, chosen, experts, groups] = sizes.lengths(tokens);
        let floats = [scores, weights, hidden, outputs].map(float_bytes);
        let numbers = (2 * chosen + experts) * size_of::<u32>() + groups * size_of::<ExpertRows>();
        floats.into_iter().fold(numbers as u64, u64::saturating_add)
    }

    /// Writes the sum of the outputs of the experts of each row of `x`, `[m, n_embd]`, to `out`, `[m,
    /// n_embd]`, without the shared expert.
    pub fn run(
        &mut self,
        experts: &Experts,
        x: &[f32],
        (m, n_embd): (usize, usize),
        out: &mut [f32],
        team: &mut Team,
        activations: &mut Activations,
    ) -> Result<()> {
        let routing = &experts.routing;
        let scores = &mut self.scores[..m * routing.experts];
        Linear::multiply([(&experts.router, &mut *scores)], x, m, team, activations)?;
        let n = m * routing.used;
        self.choose(experts, m, team);
        self.sort(routing.used, n);
        let Self { hidden, outputs, groups, weights, chosen, sources, .. } = self;
        let (hidden, outputs) = (&mut hidden[..n * 2 * experts.n_ff], &mut outputs[..n * n_embd]);
        let rows = SortedRows { groups, sources: Some(&sources[..n]) };
        match &experts.input {
            ExpertInput::Split { gate, up } => {
                let (g, u) = hidden.split_at_mut(n * experts.n_ff);
                let projections = [(gate, &mut *g), (up, &mut *u)];
                ExpertLinear::multiply(projections, x, rows, outputs, team, activations);
                rows::gate(experts.activation, g, Some(u), experts.n_ff, team);
            }
            ExpertInput::Fused(both) => {
                let projections = [(both, &mut *hidden)];
                ExpertLinear::multiply(projections, x, rows, outputs, team, activations);
                rows::gate(experts.activation, hidden, None, experts.n_ff, team);
            }
        }
        let rows = SortedRows { groups, sources: None };
        let projections = [(&experts.down, &mut *outputs)];
        ExpertLinear::multiply(projections, &hidden[..n * experts.n_ff], rows, &mut [], team, activations);
        let weighted = WeightedRows { values: outputs, rows: &chosen[..n], weights: &weights[..n] };
        rows::add_weighted(weighted, routing.used, n_embd, out, team);
        Ok(())
    }

    /// Chooses the experts of `m` tokens by their scores.
    fn choose(&mut self, experts: &Experts, m: usize, team: &mut Team) {
        let (routing, bias) = (&experts.routing, experts.selection_bias.as_deref());
        let (n, used) = (routing.experts, routing.used);
        let scores = Target(self.scores.as_mut_ptr());
        let (chosen, weights) = (Target(self.chosen.as_mut_ptr()), Target(self.weights.as_mut_ptr()));
        assert!(
            self.scores.len() >= m * n && self.chosen.len() >= m * used && self.weights.len() >= m * used
        );
        let grain = if m * n < SHARED_SCORES_MIN { m } else { team.grain(m) };
        team.for_each(m, grain, |range| {
            for token in range {
                // SAFETY: the rows of the token are in all three, and handed out once.
                let (scores, chosen, weights) =
                    unsafe { (scores.row(token, n), chosen.row(token, used), weights.row(token, used)) };
                choose_experts(routing, scores, bias, chosen, weights);
            }
        });
    }

    /// Sorts the `n` rows of tokens by their experts; `chosen` has their places afterwards.
    fn sort(&mut self, used: usize, n: usize) {
        let Self { chosen, sources, counts, groups, .. } = self;
        let chosen = &mut chosen[..n];
        counts.fill(0);
        chosen.iter().for_each(|expert| counts[*expert as usize] += 1);
        groups.clear();
        let mut next = 0;
        for (expert, count) in counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let first = next;
            next += *count as usize;
            groups.push(ExpertRows { expert, rows: first..next });
            *count = first as u32;
        }
        for (index, place) in chosen.iter_mut().enumerate() {
            let row = &mut counts[*place as usize];
            *place = *row;
            *row += 1;
            sources[*place as usize] = (index / used) as u32;
        }
    }
}
