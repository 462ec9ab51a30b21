//! Gated delta rule: linear attention with a state that forgets and corrects.

use super::convolution::{SequenceSpan, StateRows};
use super::rows::Norm;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::simd::exp::exp;
use crate::kernels::simd::{Simd, dispatch};
use exsa_models::DeltaNetConfig;

/// Maximum values of a head.
pub(crate) const HEAD_DIM_MAX: usize = 256;

/// Shape of the heads of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaHeads {
    /// Heads of queries and keys.
    pub n_key: usize,
    /// Heads of values, a multiple of `n_key`: head `h` belongs to key head `h % n_key`.
    pub n_value: usize,
    /// Values in a head, at most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
}

impl DeltaHeads {
    /// Those of a model.
    pub fn of(config: DeltaNetConfig) -> Self {
        let DeltaNetConfig { n_key, n_value, head_dim } = config;
        Self { n_key, n_value, head_dim }
    }

    /// Values of queries, keys and values of a token, in this order.
    pub fn qkv_width(&self) -> usize {
        (2 * self.n_key + self.n_value) * self.head_dim
    }

    /// Values of all heads of values.
    pub fn value_width(&self) -> usize {
        self.n_value * self.head_dim
    }
}

/// Operands of [`delta_rule`], by rows of a batch.
#[derive(Clone, Copy)]
pub(crate) struct DeltaInputs<'a> {
    /// Shape of the heads.
    pub heads: DeltaHeads,
    /// Queries, keys and values, `[rows][qkv_width]`.
    pub qkv: &'a [f32],
    /// Projections whose sigmoid is the strength of a correction, `[rows][n_value]`.
    pub beta: &'a [f32],
    /// Projections that the decay is made of, `[rows][n_value]`.
    pub alpha: &'a [f32],
    /// Bias of `alpha`, `[n_value]`.
    pub alpha_bias: &'a [f32],
    /// Factors on `softplus(alpha + bias)`, negative: `[n_value]`.
    pub decay: &'a [f32],
    /// Gates of the outputs, `[rows][value_width]`.
    pub gate: &'a [f32],
    /// Norm of each head's output before its gate.
    pub norm: Norm<'a>,
    /// Added to the square of the length of queries and keys.
    pub epsilon: f32,
    /// Spans of all rows, in order.
    pub spans: &'a [SequenceSpan],
    /// Values of a state before those of the heads.
    pub state_offset: usize,
}

/// Computes `out`, `[rows][value_width]`. For each token and head, with query `q` and key `k` of length 1,
/// value `v`, strength `b` and decay `a` (Yang et al., arXiv:2412.06464):
///
/// `S = a S; S = S + k (b (v - k S)); out = norm(q S / sqrt(head_dim)) * silu(gate)`
///
/// A state holds `S` of each head, `[n_value][head_dim of keys][head_dim of values]`, from `state_offset` on.
pub(crate) fn delta_rule(
    inputs: &DeltaInputs<'_>,
    states: &mut StateRows<'_>,
    out: &mut [f32],
    team: &mut Team,
) {
    let heads = inputs.heads;
    let (width, per_head) = (heads.value_width(), heads.head_dim * heads.head_dim);
    let rows = out.len() / width;
    assert!(inputs.qkv.len() == rows * heads.qkv_width() && inputs.gate.len() == out.len());
    assert!(inputs.beta.len() == rows * heads.n_value && inputs.alpha.len() == inputs.beta.len());
    assert!(heads.head_dim <= HEAD_DIM_MAX && states.len >= inputs.state_offset + heads.n_value * per_head);
    assert!(inputs.spans.iter().all(|span| (span.state + 1) * states.len <= states.values.len()));
    let (state_len, offset) = (states.len, inputs.state_offset);
    let (states, out) = (Target(states.values.as_mut_ptr()), Target(out.as_mut_ptr()));
    team.for_each(inputs.spans.len() * heads.n_value, 1, |range| {
        for item in range {
            let (span, head) = (inputs.spans[item / heads.n_value], item % heads.n_value);
            // SAFETY: the state is there by the assertions; spans are of different sequences and each head is
            // handed out once.
            let state = unsafe {
                std::slice::from_raw_parts_mut(
                    states.at(span.state * state_len + offset + head * per_head),
                    per_head,
                )
            };
            if span.is_first {
                state.fill(0.0);
            }
            for row in span.row..span.row + span.len {
                // SAFETY: the row is there; its part of this head is handed out once.
                let out = unsafe {
                    std::slice::from_raw_parts_mut(
                        out.at(row * width + head * heads.head_dim),
                        heads.head_dim,
                    )
                };
                token(inputs, row, head, state, out);
            }
        }
    });
}

/// One token of one head.
fn token(inputs: &DeltaInputs<'_>, row: usize, head: usize, state: &mut [f32], out: &mut [f32]) {
    let DeltaHeads { n_key, n_value, head_dim } = inputs.heads;
    let qkv = &inputs.qkv[row * inputs.heads.qkv_width()..][..inputs.heads.qkv_width()];
    let part = |head: usize| &qkv[head * head_dim..][..head_dim];
    let (q, k, v) = (part(head % n_key), part(n_key + head % n_key), part(2 * n_key + head));
    let (beta, alpha) = (inputs.beta[row * n_value + head], inputs.alpha[row * n_value + head]);
    let strength = 1.0 / (1.0 + exp(-beta));
    let alpha = alpha + inputs.alpha_bias[head];
    // softplus(x) = ln(1 + e^x), which is x where e^x is large.
    let softplus = if alpha > 20.0 { alpha } else { exp(alpha).ln_1p() };
    let decay = exp(inputs.decay[head] * softplus);
    let scale = |x: &[f32]| 1.0 / (x.iter().map(|x| x * x).sum::<f32>() + inputs.epsilon).sqrt();
    let (q_scale, k_scale) = (scale(q) / (head_dim as f32).sqrt(), scale(k));
    let (mut query, mut key) = ([0.0; HEAD_DIM_MAX], [0.0; HEAD_DIM_MAX]);
    query.iter_mut().zip(q).for_each(|(to, q)| *to = q * q_scale);
    key.iter_mut().zip(k).for_each(|(to, k)| *to = k * k_scale);
    let mut read = [0.0; HEAD_DIM_MAX];
    update(state, &query[..head_dim], &key[..head_dim], v, (decay, strength), &mut read[..head_dim], out);
    let mean_square = out.iter().map(|x| x * x).sum::<f32>() / head_dim as f32;
    let factor = 1.0 / (mean_square + inputs.norm.epsilon).sqrt();
    let gate = &inputs.gate[row * n_value * head_dim + head * head_dim..][..head_dim];
    for ((out, weight), gate) in out.iter_mut().zip(inputs.norm.weight).zip(gate) {
        *out = *out * factor * weight * (gate / (1.0 + exp(-gate)));
    }
}

dispatch! {
    /// `state = decay * state`; `state += key * strength * (value - key * state)`; `out = query * state`. The
    /// memory of `read` is used.
    update = update_body(
        state: &mut [f32],
        query: &[f32],
        key: &[f32],
        value: &[f32],
        factors: (f32, f32),
        read: &mut [f32],
        out: &mut [f32],
    )
}

#[inline(always)]
fn update_body<S: Simd>(
    state: &mut [f32],
    query: &[f32],
    key: &[f32],
    value: &[f32],
    (decay, strength): (f32, f32),
    read: &mut [f32],
    out: &mut [f32],
) {
    let n = out.len();
    read.fill(0.0);
    for (row, &k) in state.chunks_exact_mut(n).zip(key) {
        for (s, read) in row.iter_mut().zip(&mut *read) {
            *s *= decay;
            *read = S::multiply_add(k, *s, *read);
        }
    }
    for (read, v) in read.iter_mut().zip(value) {
        *read = strength * (v - *read);
    }
    out.fill(0.0);
    for ((row, &k), &q) in state.chunks_exact_mut(n).zip(key).zip(query) {
        for ((s, correction), out) in row.iter_mut().zip(&*read).zip(&mut *out) {
            *s = S::multiply_add(k, *correction, *s);
            *out = S::multiply_add(q, *s, *out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the formulas in f64, a batch of two sequences in pieces.
    #[test]
    fn formulas_hold_in_any_pieces() {
        let heads = DeltaHeads { n_key: 2, n_value: 4, head_dim: 6 };
        let (rows, d) = (7, heads.head_dim);
        let value = |i: usize, seed: usize| ((i * 7919 + seed * 104_729 + 13) % 1009) as f32 / 500.0 - 1.0;
        let make = |len: usize, seed: usize| (0..len).map(|i| value(i, seed)).collect::<Vec<f32>>();
        let (qkv, gate) = (make(rows * heads.qkv_width(), 1), make(rows * heads.value_width(), 2));
        let (beta, alpha) = (make(rows * 4, 3), make(rows * 4, 4));
        let (alpha_bias, weight) = (make(4, 5), make(d, 6));
        let decay = [-0.1, -1.0, -3.0, -0.5];
        let mut team = Team::new(2).unwrap();
        let (offset, state_len) = (5, 5 + 4 * d * d);
        let mut run = |pieces: &[usize]| {
            let (mut states, mut all) = (vec![f32::NAN; 2 * state_len], Vec::new());
            let mut first = 0;
            for &len in pieces {
                // The same rows twice, as two sequences.
                let twice = |x: &[f32], width: usize| x[first * width..(first + len) * width].repeat(2);
                let span = |row: usize, state: usize| SequenceSpan { row, len, is_first: first == 0, state };
                let inputs = DeltaInputs {
                    heads,
                    qkv: &twice(&qkv, heads.qkv_width()),
                    beta: &twice(&beta, 4),
                    alpha: &twice(&alpha, 4),
                    alpha_bias: &alpha_bias,
                    decay: &decay,
                    gate: &twice(&gate, heads.value_width()),
                    norm: Norm { weight: &weight, epsilon: 1e-3 },
                    epsilon: 1e-3,
                    spans: &[span(0, 1), span(len, 0)],
                    state_offset: offset,
                };
                let mut out = vec![0.0; 2 * len * heads.value_width()];
                let mut states = StateRows { values: &mut states, len: state_len };
                delta_rule(&inputs, &mut states, &mut out, &mut team);
                let (a, b) = out.split_at(out.len() / 2);
                assert_eq!(a, b);
                all.extend_from_slice(a);
                first += len;
            }
            all
        };
        let whole = run(&[rows]);
        assert_eq!(whole, run(&[1, 3, 1, 2]));
        let f = f64::from;
        for head in 0..4 {
            let mut state = vec![vec![0.0f64; d]; d];
            for row in 0..rows {
                let part = |head: usize| -> Vec<f64> {
                    qkv[row * heads.qkv_width() + head * d..][..d].iter().map(|x| f(*x)).collect()
                };
                let unit = |x: Vec<f64>| -> Vec<f64> {
                    let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-3).sqrt();
                    x.iter().map(|x| x / length).collect()
                };
                let (q, k, v) = (unit(part(head % 2)), unit(part(2 + head % 2)), part(4 + head));
                let at = row * 4 + head;
                let strength = 1.0 / (1.0 + (-f(beta[at])).exp());
                let a = (f(decay[head]) * (1.0 + (f(alpha[at]) + f(alpha_bias[head])).exp()).ln()).exp();
                let mut y = vec![0.0; d];
                for j in 0..d {
                    (0..d).for_each(|i| state[i][j] *= a);
                    let read: f64 = (0..d).map(|i| k[i] * state[i][j]).sum();
                    (0..d).for_each(|i| state[i][j] += k[i] * strength * (v[j] - read));
                    y[j] = (0..d).map(|i| q[i] * state[i][j]).sum::<f64>() / (d as f64).sqrt();
                }
                let rms = (y.iter().map(|y| y * y).sum::<f64>() / d as f64 + 1e-3).sqrt();
                for j in 0..d {
                    let g = f(gate[row * 4 * d + head * d + j]);
                    let expected = y[j] / rms * f(weight[j]) * g / (1.0 + (-g).exp());
                    let found = f(whole[row * 4 * d + head * d + j]);
                    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
                }
            }
        }
    }
}
