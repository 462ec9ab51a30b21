//! Softmax in parts: weighted sums of values whose weights are relative to the largest score so far (Milakov and Gimelshein,
//! arXiv:1805.02867).

use crate::kernels::simd::exp::exp;
use std::ops::Range;

/// Weighted sums of values, and what their weights are relative to.
pub(super) struct Running {
    /// `[rows][room]`.
    pub mixed: Vec<f32>,
    /// Largest score of each row.
    pub largest: Vec<f32>,
    /// Sum of each row's weights.
    pub total: Vec<f32>,
}

impl Running {
    /// Room for `rows` rows of `room` values.
    pub fn new(rows: usize, room: usize) -> Self {
        Self { mixed: vec![0.0; rows * room], largest: vec![0.0; rows], total: vec![0.0; rows] }
    }

    /// Nothing is seen yet.
    #[inline(always)]
    pub fn begin(&mut self, rows: usize, room: usize) {
        self.mixed[..rows * room].fill(0.0);
        // Not infinity, so that the difference of two of them is a number.
        self.largest[..rows].fill(f32::MIN);
        self.total[..rows].fill(0.0);
    }

    /// Copies the result to `to`: sums, largest scores and totals.
    #[inline(always)]
    pub fn save(&self, rows: usize, room: usize, to: &mut [f32]) {
        let (mixed, rest) = to.split_at_mut(rows * room);
        let (largest, total) = rest.split_at_mut(rows);
        mixed.copy_from_slice(&self.mixed[..rows * room]);
        largest.copy_from_slice(&self.largest[..rows]);
        total.copy_from_slice(&self.total[..rows]);
    }

    /// Adds the result of the next split.
    #[inline(always)]
    pub fn add(&mut self, mixed: &[f32], largest: &[f32], total: &[f32], rows: usize, room: usize) {
        for row in 0..rows {
            let highest = if largest[row] > self.largest[row] { largest[row] } else { self.largest[row] };
            let (old, new) = (exp(self.largest[row] - highest), exp(largest[row] - highest));
            self.largest[row] = highest;
            self.total[row] = self.total[row] * old + total[row] * new;
            let sums = self.mixed[row * room..(row + 1) * room].iter_mut();
            sums.zip(&mixed[row * room..]).for_each(|(sum, x)| *sum = *sum * old + x * new);
        }
    }
}

/// Turns the scores of a row, of which those in `visible` count, into weights relative to the largest score so far.
#[inline(always)]
pub(super) fn weigh(
    scores: &mut [f32],
    visible: Range<usize>,
    softcap: Option<f32>,
    mixed: &mut [f32],
    largest: &mut f32,
    total: &mut f32,
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
    if highest > *largest {
        let shrink = exp(*largest - highest);
        mixed.iter_mut().for_each(|value| *value *= shrink);
        *total *= shrink;
        *largest = highest;
    }
    let mut lanes = [0.0f32; 16];
    for scores in scores.chunks_exact_mut(16) {
        for (lane, score) in lanes.iter_mut().zip(scores) {
            *score = exp(*score - *largest);
            *lane += *score;
        }
    }
    *total += super::matmul::sum(&lanes);
}
