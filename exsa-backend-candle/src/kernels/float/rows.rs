//! Passes over the rows of a batch between products: sums, norms, RoPE, gates; each row by itself.

use super::elementwise::{clamped_swiglu, clamped_swish, gelu, gelu_gate, silu, silu_gate};
use super::kv_layout::HeadLayout;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::simd::exp::exp;
use crate::kernels::simd::{Simd, dispatch};
use crate::shape::{BLOCK_TOKENS, Slot};
use exsa_models::RopePairs;
use exsa_models::architecture::Activation;

/// Values below which one thread does it all: sharing costs a microsecond or two.
const SHARED_VALUES_MIN: usize = 1 << 14;

/// Values of a run of an elementwise pass that is shared out.
const RUN_VALUES: usize = 4096;

/// Runs of rows for each thread.
const RUNS_PER_THREAD: usize = 4;

/// A weight and what is added to the mean square, of a norm.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    /// One for each value of a row.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// A weight, a bias and what is added to the variance, of a layer normalization.
#[derive(Clone, Copy)]
pub(crate) struct LayerNorm<'a> {
    /// One for each value of a row.
    pub weight: &'a [f32],
    /// One for each value of a row.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Input of the next part, made from hidden states.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Normalized by RMSNorm.
    Rms(Norm<'a>),
    /// Normalized by layer normalization.
    Layer(LayerNorm<'a>),
    /// Copied.
    Copy,
    /// The input that is there stays.
    Keep,
}

impl Input<'_> {
    /// Makes it of the row `x`.
    fn of(&self, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Rms(norm) => normalize(x, norm.weight, norm.epsilon, out),
            Self::Layer(norm) => {
                center(x, norm.weight, norm.epsilon, out);
                if let Some(bias) = norm.bias {
                    out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                }
            }
            Self::Copy => out.copy_from_slice(x),
            Self::Keep => {}
        }
    }
}

/// Items that a thread takes at a time, of `n` items of `width` values each.
fn grain(n: usize, width: usize, team: &Team) -> usize {
    if n * width < SHARED_VALUES_MIN { n } else { (n / (team.threads() * RUNS_PER_THREAD)).max(1) }
}

/// `out = input(x)`, row by row of `width` values.
pub(crate) fn input(input: Input<'_>, x: &[f32], width: usize, out: &mut [f32], team: &mut Team) {
    let grain = grain(x.len() / width, width, team);
    team.for_each_run(out, width * grain, |i, out| {
        let x = &x[i * width * grain..];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            input.of(x, out);
        }
    });
}

/// Changes of the output of attention or MLP before it is added to the hidden states.
#[derive(Clone, Copy)]
pub(crate) struct Residual<'a> {
    /// Its norm.
    pub norm: Option<Norm<'a>>,
    /// Factor on it, after the norm.
    pub scale: Option<f32>,
}

/// `x += y`, where `y` goes through `residual`; then `out = next(x)`, row by row.
pub(crate) fn add(
    x: &mut [f32],
    y: &mut [f32],
    residual: Residual<'_>,
    next: Input<'_>,
    width: usize,
    out: &mut [f32],
    team: &mut Team,
) {
    let rows = x.len() / width;
    assert!(x.len() == rows * width && y.len() == x.len() && out.len() == x.len());
    let grain = grain(rows, width, team);
    let (x, y, out) = (Target(x.as_mut_ptr()), Target(y.as_mut_ptr()), Target(out.as_mut_ptr()));
    team.for_each(rows, grain, |range| {
        for row in range {
            // SAFETY: the row is in all three, and handed out once.
            let (x, y, out) = unsafe { (x.row(row, width), y.row(row, width), out.row(row, width)) };
            if let Some(norm) = residual.norm {
                normalize_in_place(y, norm.weight, norm.epsilon);
            }
            if let Some(scale) = residual.scale {
                y.iter_mut().for_each(|y| *y *= scale);
            }
            x.iter_mut().zip(&*y).for_each(|(x, y)| *x += y);
            next.of(x, out);
        }
    });
}

/// Rows of a matrix that are added up with weights.
#[derive(Clone, Copy)]
pub(crate) struct WeightedRows<'a> {
    /// `[rows, width]`.
    pub values: &'a [f32],
    /// Rows to add up.
    pub rows: &'a [u32],
    /// Factor on each.
    pub weights: &'a [f32],
}

/// Writes the weighted sums of every `n` rows, in their order, to `out`, row by row of `width` values.
pub(crate) fn add_weighted(
    terms: WeightedRows<'_>,
    n: usize,
    width: usize,
    out: &mut [f32],
    team: &mut Team,
) {
    let count = out.len() / width;
    assert!(terms.rows.len() == count * n && terms.weights.len() == count * n, "weights for every row");
    let grain = grain(count, n * width, team);
    team.for_each_run(out, width * grain, |i, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let first = (i * grain + row) * n;
            for (term, (from, weight)) in
                terms.rows[first..].iter().zip(&terms.weights[first..]).take(n).enumerate()
            {
                let values = &terms.values[*from as usize * width..][..width];
                if term == 0 {
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = weight * value);
                } else {
                    out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
                }
            }
        }
    });
}

/// `x += sigmoid(gate · input) * y`, row by row; without a gate `x += y`.
pub(crate) fn add_gated(
    x: &mut [f32],
    y: &[f32],
    gate: Option<(&[f32], &[f32])>,
    width: usize,
    team: &mut Team,
) {
    assert!(
        x.len() == y.len() && gate.is_none_or(|(gate, input)| gate.len() == width && input.len() == x.len())
    );
    let grain = grain(x.len() / width, width, team);
    team.for_each_run(x, width * grain, |i, x| {
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let at = (i * grain + row) * width..(i * grain + row + 1) * width;
            let factor = gate.map(|(gate, input)| 1.0 / (1.0 + exp(-dot(gate, &input[at.clone()]))));
            match factor {
                Some(factor) => x.iter_mut().zip(&y[at]).for_each(|(x, y)| *x += factor * y),
                None => x.iter_mut().zip(&y[at]).for_each(|(x, y)| *x += y),
            }
        }
    });
}

/// The product of two vectors, in an order that does not depend on the processor.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `gate = activation(gate) * up`, elementwise; of a row of `2 * width` values in `gate` alone, if there is
/// no `up`, with the result in the first `rows * width` values.
pub(crate) fn gate(
    activation: Activation,
    gate: &mut [f32],
    up: Option<&[f32]>,
    width: usize,
    team: &mut Team,
) {
    let apply = |gate: &mut [f32], up: &[f32]| match activation {
        Activation::Silu => silu_gate(gate, up),
        Activation::GeluTanh => gelu_gate(gate, up),
        Activation::ClampedSwiglu => clamped_swiglu(gate, up),
    };
    match up {
        Some(up) => {
            assert_eq!(gate.len(), up.len(), "as many gates as values");
            let len = gate.len();
            let run = if len < SHARED_VALUES_MIN { len.max(1) } else { RUN_VALUES };
            team.for_each_run(gate, run, |i, gate| apply(gate, &up[i * run..]));
        }
        None => {
            let run = if gate.len() < SHARED_VALUES_MIN { gate.len().max(1) } else { 2 * width };
            team.for_each_run(gate, run, |_, rows| {
                for both in rows.chunks_exact_mut(2 * width) {
                    let (gate, up) = both.split_at_mut(width);
                    apply(gate, up);
                }
            });
            pack(gate, 2 * width, width, None);
        }
    }
}

/// Takes the queries out of rows in which each head has `head_dim` values of the query and as many of its
/// gate.
pub(crate) fn take_queries(both: &[f32], queries: &mut [f32], head_dim: usize, team: &mut Team) {
    assert_eq!(both.len(), 2 * queries.len(), "queries and gates");
    let heads = grain(queries.len() / head_dim, head_dim, team).max(1);
    team.for_each_run(queries, head_dim * heads, |i, queries| {
        let both = both[2 * i * head_dim * heads..].chunks_exact(2 * head_dim);
        for (query, both) in queries.chunks_exact_mut(head_dim).zip(both) {
            query.copy_from_slice(&both[..head_dim]);
        }
    });
}

/// `x = x * sigmoid(gate)`, with the gates that [`take_queries`] left.
pub(crate) fn gate_heads(x: &mut [f32], both: &[f32], head_dim: usize, team: &mut Team) {
    assert_eq!(both.len(), 2 * x.len(), "queries and gates");
    let heads = grain(x.len() / head_dim, head_dim, team).max(1);
    team.for_each_run(x, head_dim * heads, |i, x| {
        let both = both[2 * i * head_dim * heads..].chunks_exact(2 * head_dim);
        for (x, both) in x.chunks_exact_mut(head_dim).zip(both) {
            x.iter_mut().zip(&both[head_dim..]).for_each(|(x, gate)| *x /= 1.0 + exp(-gate));
        }
    });
}

/// `x = activation(x)`, elementwise.
pub(crate) fn activate(activation: Activation, x: &mut [f32], team: &mut Team) {
    let run = if x.len() < SHARED_VALUES_MIN { x.len().max(1) } else { RUN_VALUES };
    team.for_each_run(x, run, |_, x| match activation {
        Activation::Silu => silu(x),
        Activation::GeluTanh => gelu(x),
        Activation::ClampedSwiglu => clamped_swish(x),
    });
}

/// Moves the first `width` values of the rows `rows`, ascending, of `stride` values to the front, side by
/// side; of all rows without a list.
pub(crate) fn pack(values: &mut [f32], stride: usize, width: usize, rows: Option<&[u32]>) {
    let n = rows.map_or(values.len() / stride, <[u32]>::len);
    for to in 0..n {
        let from = rows.map_or(to, |rows| rows[to] as usize);
        values.copy_within(from * stride..from * stride + width, to * width);
    }
}

/// Adds `bias` to every row.
pub(crate) fn add_bias(out: &mut [f32], bias: &[f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
}

/// `x = cap * tanh(x / cap)`.
pub(crate) fn cap(x: &mut [f32], cap: f32, team: &mut Team) {
    let run = if x.len() < SHARED_VALUES_MIN { x.len().max(1) } else { RUN_VALUES };
    team.for_each_run(x, run, |_, x| soft_cap(x, cap));
}

/// `x = factor * x`.
pub(crate) fn scale(x: &mut [f32], factor: f32, team: &mut Team) {
    let run = if x.len() < SHARED_VALUES_MIN { x.len().max(1) } else { RUN_VALUES };
    team.for_each_run(x, run, |_, x| x.iter_mut().for_each(|x| *x *= factor));
}

/// RoPE table: cosines and sines for the rows of a batch.
#[derive(Clone, Copy)]
pub(crate) struct RopeTable<'a> {
    /// `[rows, pairs]`.
    pub cos: &'a [f32],
    /// `[rows, pairs]`.
    pub sin: &'a [f32],
    /// Pairs of rotary dimensions of a head.
    pub n_pairs: usize,
    /// Which values make a pair.
    pub pairs: RopePairs,
}

/// Norm of queries or keys before RoPE.
#[derive(Clone, Copy)]
pub(crate) enum HeadNorm<'a> {
    /// None.
    Absent,
    /// Of each head by itself.
    Each(Norm<'a>),
    /// Of all heads of a row at once.
    Whole(Norm<'a>),
}

/// Heads that lie in the rows of a matrix: those of row `r` begin at `start + r * stride`.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    /// Index of the first row's heads.
    pub start: usize,
    /// From one row to the next.
    pub stride: usize,
    /// Heads in a row.
    pub heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Their norm.
    pub norm: HeadNorm<'a>,
}

impl HeadRows<'_> {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Whether `rows` rows are in `len` values.
    fn fits(&self, rows: usize, len: usize) -> bool {
        rows == 0 || self.start + (rows - 1) * self.stride + self.width() <= len
    }

    /// The heads of row `row`.
    ///
    /// # Safety
    ///
    /// They are there, and nobody else uses them.
    unsafe fn row<'a>(&self, matrix: &Target<f32>, row: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(matrix.at(self.start + row * self.stride), self.width()) }
    }
}

/// KV cache of a layer, and the slots that new keys and values go to.
pub(crate) struct Cache<'a> {
    /// `[blocks][heads]`, each as `layout` says.
    pub bytes: &'a mut [u8],
    /// How they lie.
    pub layout: HeadLayout,
    /// Slots of the batch's rows, all different.
    pub slots: &'a [Slot],
}

/// Normalizes `n` rows of queries in `matrix` and applies RoPE; `rows` lists their rows of the table, if not
/// all in order.
pub(crate) fn apply_rope(
    matrix: &mut [f32],
    queries: HeadRows<'_>,
    n: usize,
    rows: Option<&[u32]>,
    rope: RopeTable<'_>,
    team: &mut Team,
) {
    assert!(queries.fits(n, matrix.len()), "a row of queries for every row");
    let grain = grain(n, queries.width(), team);
    let matrix = Target(matrix.as_mut_ptr());
    team.for_each(n, grain, |range| {
        for i in range {
            let row = rows.map_or(i, |rows| rows[i] as usize);
            // SAFETY: the row is there, and handed out once.
            rotate(unsafe { queries.row(&matrix, i) }, queries.head_dim, queries.norm, rope, row);
        }
    });
}

/// Normalizes keys in `matrix`, applies RoPE, and writes them and the values to the cache; one row for each
/// slot.
pub(crate) fn write_keys(
    matrix: &mut [f32],
    keys: HeadRows<'_>,
    values: HeadRows<'_>,
    rope: RopeTable<'_>,
    cache: Cache<'_>,
    team: &mut Team,
) {
    let Cache { bytes, layout, slots } = cache;
    let (n, heads, head_dim, norm) = (slots.len(), keys.heads, keys.head_dim, keys.norm);
    let block_bytes = heads * layout.bytes;
    assert!(keys.fits(n, matrix.len()) && values.fits(n, matrix.len()), "keys and values for every row");
    assert!(slots.iter().all(|slot| (slot.block as usize + 1) * block_bytes <= bytes.len()), "blocks");
    assert!(bytes.as_ptr().cast::<f32>().is_aligned() && slots.iter().all(|slot| slot.token < BLOCK_TOKENS));
    let grain = grain(n, 2 * keys.width(), team);
    let (matrix, bytes) = (Target(matrix.as_mut_ptr()), Target(bytes.as_mut_ptr()));
    team.for_each(n, grain, |range| {
        for row in range {
            // SAFETY: the row's keys and values are there, do not overlap, and are handed out once.
            let (keys, values) = unsafe { (keys.row(&matrix, row), values.row(&matrix, row)) };
            rotate(keys, head_dim, norm, rope, row);
            let Slot { block, token } = slots[row];
            for (head, (key, value)) in
                keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)).enumerate()
            {
                let at = bytes.at(block as usize * block_bytes + head * layout.bytes);
                // SAFETY: the block is there, and no two rows have the same slot.
                unsafe { layout.write(at, token, key, value) };
            }
        }
    });
}

dispatch! {
    /// Normalizes the heads of a row, if there is a norm, and applies RoPE.
    rotate = rotate_body(values: &mut [f32], head_dim: usize, norm: HeadNorm<'_>, rope: RopeTable<'_>, row: usize)
}

/// RoPE (Su et al., arXiv:2104.09864): rotates each pair of values by its angle; dimensions beyond the rotary
/// ones pass.
#[inline(always)]
fn rotate_body<S: Simd>(
    values: &mut [f32],
    head_dim: usize,
    norm: HeadNorm<'_>,
    rope: RopeTable<'_>,
    row: usize,
) {
    let n = rope.n_pairs;
    let (cos, sin) = (&rope.cos[row * n..(row + 1) * n], &rope.sin[row * n..(row + 1) * n]);
    if let HeadNorm::Whole(norm) = norm {
        scale_in_place::<S>(values, norm.weight, norm.epsilon);
    }
    for head in values.chunks_exact_mut(head_dim) {
        if let HeadNorm::Each(norm) = norm {
            scale_in_place::<S>(head, norm.weight, norm.epsilon);
        }
        match rope.pairs {
            RopePairs::Interleaved => {
                for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    let (a, b) = (pair[0], pair[1]);
                    pair[0] = a * cos - b * sin;
                    pair[1] = a * sin + b * cos;
                }
            }
            RopePairs::Neox => {
                let (first, second) = head.split_at_mut(n);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}

dispatch! {
    /// RMSNorm (Zhang and Sennrich, arXiv:1910.07467): `out = x / sqrt(mean(x^2) + epsilon) * weight`.
    normalize = normalize_body(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32])
}

#[inline(always)]
fn normalize_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let factor = factor::<S>(x, epsilon);
    out.iter_mut().zip(x).zip(weight).for_each(|((out, x), w)| *out = x * factor * w);
}

dispatch! {
    /// The same, in place.
    normalize_in_place = scale_in_place(x: &mut [f32], weight: &[f32], epsilon: f32)
}

#[inline(always)]
fn scale_in_place<S: Simd>(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let factor = factor::<S>(x, epsilon);
    x.iter_mut().zip(weight).for_each(|(x, w)| *x = *x * factor * w);
}

dispatch! {
    /// Layer normalization (Ba et al., arXiv:1607.06450) without bias:
    /// `out = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight`.
    center = center_body(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32])
}

#[inline(always)]
fn center_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = total(x) / x.len() as f32;
    out.iter_mut().zip(x).for_each(|(out, x)| *out = x - mean);
    let factor = factor::<S>(out, epsilon);
    out.iter_mut().zip(weight).for_each(|(out, w)| *out = *out * factor * w);
}

/// The sum, in as many partial sums as fill some registers.
#[inline(always)]
fn total(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; 64];
    let chunks = x.chunks_exact(64);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x);
    }
    super::matmul::sum(&sums) + rest
}

/// One over the root of the mean square, in as many partial sums as fill some registers.
#[inline(always)]
fn factor<S: Simd>(x: &[f32], epsilon: f32) -> f32 {
    let mut sums = [0.0f32; 64];
    let chunks = x.chunks_exact(64);
    let rest = chunks.remainder().iter().fold(0.0, |sum, x| S::multiply_add(*x, *x, sum));
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum = S::multiply_add(*x, *x, *sum);
        }
    }
    let mean_square = (super::matmul::sum(&sums) + rest) / x.len() as f32;
    1.0 / (mean_square + epsilon).sqrt()
}

dispatch! {
    /// `x = cap * tanh(x / cap)`.
    soft_cap = soft_cap_body(x: &mut [f32], cap: f32)
}

#[inline(always)]
fn soft_cap_body<S: Simd>(x: &mut [f32], cap: f32) {
    // tanh(y) = 1 - 2 / (e^(2y) + 1)
    x.iter_mut().for_each(|x| *x = cap * (1.0 - 2.0 / (exp(2.0 / cap * *x) + 1.0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Widths below, at and beyond the number of partial sums.
    #[test]
    fn layer_normalization_is_that_of_the_formula() {
        let mut team = Team::new(1).unwrap();
        for width in [2, 48, 64, 100, 200] {
            let x: Vec<f32> = (0..2 * width).map(|i| 7.0 + (i * 37 % 101) as f32 * 0.05).collect();
            let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 * 0.01).collect();
            let bias: Vec<f32> = (0..width).map(|i| i as f32 * 0.02 - 1.0).collect();
            for bias in [None, Some(bias.as_slice())] {
                let norm = LayerNorm { weight: &weight, bias, epsilon: 1e-3 };
                let mut out = vec![0.0; x.len()];
                input(Input::Layer(norm), &x, width, &mut out, &mut team);
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
                    let variance =
                        x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width as f64;
                    for (i, (x, out)) in x.iter().zip(out).enumerate() {
                        let normed = (f64::from(*x) - mean) / (variance + 1e-3).sqrt();
                        let expected =
                            normed * f64::from(weight[i]) + bias.map_or(0.0, |bias| f64::from(bias[i]));
                        assert!((f64::from(*out) - expected).abs() < 1e-5, "{width}: {out}, not {expected}");
                    }
                }
            }
        }
    }
}
