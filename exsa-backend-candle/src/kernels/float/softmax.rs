//! Online softmax: weighted sums of values whose weights are relative to the largest score so far (Milakov
//! and Gimelshein, arXiv:1805.02867).

use crate::kernels::simd::exp::exp;
use std::ops::Range;

/// State of an online softmax: accumulators, and the maximum and the sum of each row.
#[derive(Clone)]
pub(super) struct OnlineSoftmax {
    /// Weighted sums of values, `[rows][room]`.
    pub acc: Vec<f32>,
    /// Largest score of each row.
    pub row_max: Vec<f32>,
    /// Sum of each row's weights.
    pub row_sum: Vec<f32>,
}

impl OnlineSoftmax {
    /// Room for `rows` rows of `room` values.
    pub fn new(rows: usize, room: usize) -> Self {
        Self { acc: vec![0.0; rows * room], row_max: vec![0.0; rows], row_sum: vec![0.0; rows] }
    }

    /// Floats of a state with room for `rows` rows of `room` values.
    pub fn floats(rows: usize, room: usize) -> usize {
        rows * (room + 2)
    }

    /// Nothing is seen yet.
    #[inline(always)]
    pub fn begin(&mut self, rows: usize, room: usize) {
        self.acc[..rows * room].fill(0.0);
        // Not infinity, so that the difference of two of them is a number.
        self.row_max[..rows].fill(f32::MIN);
        self.row_sum[..rows].fill(0.0);
    }

    /// Copies the state to `to`: accumulators, maxima and sums.
    #[inline(always)]
    pub fn save(&self, rows: usize, room: usize, to: &mut [f32]) {
        let (acc, rest) = to.split_at_mut(rows * room);
        let (row_max, row_sum) = rest.split_at_mut(rows);
        acc.copy_from_slice(&self.acc[..rows * room]);
        row_max.copy_from_slice(&self.row_max[..rows]);
        row_sum.copy_from_slice(&self.row_sum[..rows]);
    }

    /// Adds the result of the next split.
    #[inline(always)]
    pub fn add(&mut self, acc: &[f32], row_max: &[f32], row_sum: &[f32], rows: usize, room: usize) {
        for row in 0..rows {
            let highest = if row_max[row] > self.row_max[row] { row_max[row] } else { self.row_max[row] };
            let (old, new) = (exp(self.row_max[row] - highest), exp(row_max[row] - highest));
            self.row_max[row] = highest;
            self.row_sum[row] = self.row_sum[row] * old + row_sum[row] * new;
            let sums = self.acc[row * room..(row + 1) * room].iter_mut();
            sums.zip(&acc[row * room..]).for_each(|(sum, x)| *sum = *sum * old + x * new);
        }
    }
}

/// One step of the online softmax of a row: its scores, of which those in `visible` count, become weights
/// relative to the largest score so far.
#[inline(always)]
pub(super) fn online_softmax(
    scores: &mut [f32],
    visible: Range<usize>,
    softcap: Option<f32>,
    acc: &mut [f32],
    row_max: &mut f32,
    row_sum: &mut f32,
) {
    if visible.is_empty() {
        return scores.fill(0.0);
    }
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
    if let Some(cap) = softcap {
        scores[visible].iter_mut().for_each(|score| {
            // tanh(y) = 1 - 2 / (e^(2y) + 1)
            *score = cap * (1.0 - 2.0 / (exp(2.0 / cap * *score) + 1.0));
        });
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    for scores in scores.chunks_exact(16) {
        lanes
            .iter_mut()
            .zip(scores)
            .for_each(|(lane, score)| *lane = if *score > *lane { *score } else { *lane });
    }
    let highest = lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    if highest > *row_max {
        let shrink = exp(*row_max - highest);
        acc.iter_mut().for_each(|value| *value *= shrink);
        *row_sum *= shrink;
        *row_max = highest;
    }
    let mut lanes = [0.0f32; 16];
    for scores in scores.chunks_exact_mut(16) {
        for (lane, score) in lanes.iter_mut().zip(scores) {
            *score = exp(*score - *row_max);
            *lane += *score;
        }
    }
    *row_sum += super::matmul::sum(&lanes);
}
