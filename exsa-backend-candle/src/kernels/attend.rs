//! Attention of a few queries to the keys and values of one block.

use super::exp::exp;
use super::product::sum;
use super::simd::{Simd, dispatch};
use std::ops::Range;

/// Queries, and keys, whose scores are computed at a time.
const QUERIES: usize = 3;
const KEYS: usize = 4;

/// Most keys in a block.
pub(crate) const KEYS_MAX: usize = 32;

/// Queries that share a head of keys and values, and what they have seen so far.
pub(crate) struct Queries<'a> {
    /// `[queries, head_dim]`, scaled.
    pub queries: &'a [f32],
    /// Weighted sums of values so far, `[queries, head_dim]`.
    pub mixed: &'a mut [f32],
    /// Largest score of each query so far; at first the lowest value.
    pub largest: &'a mut [f32],
    /// Sum of each query's weights so far.
    pub total: &'a mut [f32],
    /// Scores of this block, `[queries, KEYS_MAX]`.
    pub scores: &'a mut [f32],
}

/// Keys and values of up to [`KEYS_MAX`] consecutive tokens.
pub(crate) struct Block<'a> {
    /// Keys; that of token `i` begins at `i * stride`.
    pub keys: &'a [f32],
    /// Values, likewise.
    pub values: &'a [f32],
    /// Distance of two tokens.
    pub stride: usize,
    /// Number of tokens.
    pub len: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Scores go through `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Tokens that each query sees.
    pub visible: &'a [Range<usize>],
}

dispatch! {
    /// Lets `queries` see `block`: scores, softmax with a running maximum (Milakov and Gimelshein, arXiv:1805.02867), and
    /// the weighted sum of values.
    attend = attend_body(queries: &mut Queries<'_>, block: &Block<'_>)
}

#[inline(always)]
fn attend_body<S: Simd>(queries: &mut Queries<'_>, block: &Block<'_>) {
    match S::LANES {
        16 => attend_in::<S, 16>(queries, block),
        _ => attend_in::<S, 8>(queries, block),
    }
}

#[inline(always)]
fn attend_in<S: Simd, const LANES: usize>(queries: &mut Queries<'_>, block: &Block<'_>) {
    let head_dim = block.head_dim;
    let vectors = queries.queries.chunks(QUERIES * head_dim);
    for (queries, scores) in vectors.zip(queries.scores.chunks_mut(QUERIES * KEYS_MAX)) {
        if queries.len() == QUERIES * head_dim {
            score::<S, QUERIES, LANES>(queries, block, scores);
        } else {
            for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(KEYS_MAX)) {
                score::<S, 1, LANES>(query, block, scores);
            }
        }
    }
    let rows = queries.scores.chunks_exact_mut(KEYS_MAX).zip(queries.mixed.chunks_exact_mut(head_dim));
    for (i, (scores, mixed)) in rows.enumerate() {
        let visible = block.visible[i].clone();
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        if visible.is_empty() {
            scores.fill(0.0);
            continue;
        }
        if let Some(cap) = block.softcap {
            scores[visible].iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
        }
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        if highest > queries.largest[i] {
            let shrink = exp(queries.largest[i] - highest);
            mixed.iter_mut().for_each(|value| *value *= shrink);
            queries.total[i] *= shrink;
            queries.largest[i] = highest;
        }
        let largest = queries.largest[i];
        scores.iter_mut().for_each(|score| *score = exp(*score - largest));
        let mut lanes = [0.0; LANES];
        for scores in scores.chunks_exact(LANES) {
            lanes.iter_mut().zip(scores).for_each(|(lane, score)| *lane += score);
        }
        queries.total[i] += sum(&lanes);
    }
    let scores = queries.scores.chunks(QUERIES * KEYS_MAX);
    for (scores, mixed) in scores.zip(queries.mixed.chunks_mut(QUERIES * head_dim)) {
        if mixed.len() == QUERIES * head_dim {
            mix::<S, QUERIES, LANES>(scores, block, mixed);
        } else {
            for (scores, mixed) in scores.chunks_exact(KEYS_MAX).zip(mixed.chunks_exact_mut(head_dim)) {
                mix::<S, 1, LANES>(scores, block, mixed);
            }
        }
    }
}

/// The scores of `M` queries with all keys, `[M, KEYS_MAX]`.
#[inline(always)]
fn score<S: Simd, const M: usize, const LANES: usize>(
    queries: &[f32],
    block: &Block<'_>,
    scores: &mut [f32],
) {
    let whole = block.len / KEYS * KEYS;
    for key in (0..whole).step_by(KEYS) {
        score_keys::<S, M, KEYS, LANES>(queries, block, key, scores);
    }
    for key in whole..block.len {
        score_keys::<S, M, 1, LANES>(queries, block, key, scores);
    }
}

#[inline(always)]
fn score_keys<S: Simd, const M: usize, const N: usize, const LANES: usize>(
    queries: &[f32],
    block: &Block<'_>,
    first: usize,
    scores: &mut [f32],
) {
    let width = block.head_dim;
    let queries: [&[f32]; M] = std::array::from_fn(|i| &queries[i * width..(i + 1) * width]);
    let keys: [&[f32]; N] = std::array::from_fn(|j| &block.keys[(first + j) * block.stride..][..width]);
    let products = super::product::sums::<S, M, N, LANES>(queries, keys, width);
    for (i, row) in products.iter().enumerate() {
        scores[i * KEYS_MAX + first..][..N].copy_from_slice(row);
    }
}

/// Adds the values of all tokens, weighted for `M` queries, to `[M, head_dim]`.
#[inline(always)]
fn mix<S: Simd, const M: usize, const LANES: usize>(weights: &[f32], block: &Block<'_>, mixed: &mut [f32]) {
    let width = block.head_dim;
    let weights: [&[f32]; M] = std::array::from_fn(|i| &weights[i * KEYS_MAX..(i + 1) * KEYS_MAX]);
    let whole = width / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sums: [[f32; LANES]; M] =
            std::array::from_fn(|i| std::array::from_fn(|lane| mixed[i * width + at + lane]));
        for token in 0..block.len {
            let values = &block.values[token * block.stride + at..][..LANES];
            for (sums, weights) in sums.iter_mut().zip(weights) {
                let weight = weights[token];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = S::multiply_add(weight, *value, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            mixed[i * width + at..][..LANES].copy_from_slice(sums);
        }
    }
    for at in whole..width {
        for i in 0..M {
            let values = (0..block.len).map(|token| block.values[token * block.stride + at]);
            let pairs = weights[i].iter().zip(values);
            mixed[i * width + at] = pairs
                .fold(mixed[i * width + at], |sum, (weight, value)| S::multiply_add(*weight, value, sum));
        }
    }
}
