//! Attention of an encoder: every token sees its whole text, or the tokens near it.

use crate::kernels::memory::team::Team;
use crate::kernels::simd::{Simd, dispatch};
use std::ops::Range;

/// Keys whose weights are made at once.
const KEYS: usize = 32;
/// Sums of a product that are added up side by side.
const SUMS: usize = 16;

/// Queries, keys and values of a layer, and what their scores go through.
pub(super) struct Attention<'a> {
    /// `[tokens, n_head, head_dim]`.
    pub queries: &'a [f32],
    /// `[tokens, n_head_kv, head_dim]`.
    pub keys: &'a [f32],
    /// As the keys.
    pub values: &'a [f32],
    /// Values from one row of keys to the next.
    pub stride_kv: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// By head, how fast scores fall with the distance; empty for not at all.
    pub slopes: &'a [f32],
    /// Greatest distance of tokens that see each other.
    pub window: Option<usize>,
    /// Tokens of the text of each token.
    pub texts: &'a [Range<u32>],
}

impl Attention<'_> {
    /// For each token and head the mean of the values that it sees, weighted by the softmax of its scores:
    /// `[tokens, n_head * head_dim]`.
    pub fn run(&self, out: &mut [f32], team: &mut Team) {
        team.for_each_run(out, self.head_dim, |i, out| attend(self, i, out));
    }

    /// Tokens that `token` sees.
    fn seen(&self, token: usize) -> Range<usize> {
        let Range { start, end } = self.texts[token];
        let (start, end) = (start as usize, end as usize);
        match self.window {
            Some(window) => {
                start.max(token.saturating_sub(window))..end.min(token.saturating_add(window + 1))
            }
            None => start..end,
        }
    }
}

dispatch! {
    /// Attends for token and head `item`.
    attend = attend_body(attention: &Attention<'_>, item: usize, out: &mut [f32])
}

#[inline(always)]
fn attend_body<S: Simd>(attention: &Attention<'_>, item: usize, out: &mut [f32]) {
    let &Attention { queries, keys, values, stride_kv, n_head, n_head_kv, head_dim, scale, .. } = attention;
    let (token, head) = (item / n_head, item % n_head);
    let query = &queries[item * head_dim..][..head_dim];
    let first = head / (n_head / n_head_kv) * head_dim;
    let row = |i: usize| i * stride_kv + first..i * stride_kv + first + head_dim;
    let slope = attention.slopes.get(head).copied().unwrap_or(0.0);
    let (mut highest, mut sum) = (f32::NEG_INFINITY, 0.0);
    out.fill(0.0);
    let seen = attention.seen(token);
    let mut start = seen.start;
    while start < seen.end {
        let end = seen.end.min(start + KEYS);
        let mut weights = [0.0; KEYS];
        let mut block_highest = highest;
        for (weight, key) in weights.iter_mut().zip(start..end) {
            let score = dot::<S>(query, &keys[row(key)]);
            *weight = score * scale - slope * token.abs_diff(key) as f32;
            block_highest = block_highest.max(*weight);
        }
        let factor = if highest == f32::NEG_INFINITY { 0.0 } else { (highest - block_highest).exp() };
        highest = block_highest;
        sum *= factor;
        out.iter_mut().for_each(|out| *out *= factor);
        for (weight, key) in weights.iter().zip(start..end) {
            let weight = (weight - highest).exp();
            sum += weight;
            for (out, value) in out.iter_mut().zip(&values[row(key)]) {
                *out = S::multiply_add(weight, *value, *out);
            }
        }
        start = end;
    }
    out.iter_mut().for_each(|out| *out /= sum);
}

#[inline(always)]
fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; SUMS];
    let (a_blocks, b_blocks) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
    let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = S::multiply_add(*a, *b, *sum);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Slopes of ALiBi (Press et al., arXiv:2108.12409) of `n_head` heads, of which the steepest would be
/// `2^-exponent`: where their number is no power of two, the rest lie between those of the next lower one.
pub(super) fn slopes(n_head: usize, exponent: f32) -> Vec<f32> {
    let power = if n_head.is_power_of_two() { n_head } else { n_head.next_power_of_two() / 2 };
    let base = (-exponent / power as f32).exp2();
    let between = (-exponent / 2.0 / power as f32).exp2();
    let slope = |head: usize| {
        if head < power { base.powi(head as i32 + 1) } else { between.powi(2 * (head - power) as i32 + 1) }
    };
    (0..n_head).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(slopes(8, 8.0), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        let twelve = slopes(12, 8.0);
        assert_eq!(twelve[..8], slopes(8, 8.0));
        let between = [0.5f32.sqrt(), 0.125f32.sqrt()];
        assert!(twelve[8..].iter().zip(between).all(|(a, b)| (a - b).abs() < 1e-6), "{twelve:?}");
    }

    /// Two heads of 20 values, three texts, and a window: as the formula says.
    #[test]
    fn tokens_see_their_text_and_no_other() {
        let (n_head, head_dim, tokens) = (2, 20, 90);
        let width = n_head * head_dim;
        let value = |seed: usize| ((seed * 7919 % 1000) as f32 / 500.0 - 1.0) * 0.7;
        let matrix = |salt: usize| (0..tokens * width).map(|i| value(i + salt)).collect::<Vec<f32>>();
        let (queries, keys, values) = (matrix(1), matrix(2), matrix(3));
        let bounds: [Range<u32>; 3] = [0..1, 1..70, 70..90];
        let texts: Vec<Range<u32>> =
            bounds.iter().flat_map(|text| text.clone().map(|_| text.clone())).collect();
        let mut team = Team::new(2).unwrap();
        for (window, slopes) in [(None, vec![]), (Some(5), vec![]), (None, vec![0.5, 0.1])] {
            let mut out = vec![0.0; tokens * width];
            let attention = Attention {
                queries: &queries,
                keys: &keys,
                values: &values,
                stride_kv: width,
                n_head,
                n_head_kv: n_head,
                head_dim,
                scale: 0.3,
                slopes: &slopes,
                window,
                texts: &texts,
            };
            attention.run(&mut out, &mut team);
            for (token, text) in texts.iter().enumerate() {
                for head in 0..n_head {
                    let at = |matrix: &[f32], i: usize, d: usize| {
                        f64::from(matrix[i * width + head * head_dim + d])
                    };
                    let sees = |key: &usize| {
                        text.contains(&(*key as u32)) && window.is_none_or(|w| token.abs_diff(*key) <= w)
                    };
                    let weight = |key: usize| {
                        let dot: f64 =
                            (0..head_dim).map(|d| at(&queries, token, d) * at(&keys, key, d)).sum();
                        let slope = slopes.get(head).copied().unwrap_or(0.0);
                        (dot * 0.3 - f64::from(slope) * token.abs_diff(key) as f64).exp()
                    };
                    let seen: Vec<usize> = (0..tokens).filter(sees).collect();
                    let sum: f64 = seen.iter().map(|key| weight(*key)).sum();
                    for d in 0..head_dim {
                        let expected: f64 = seen.iter().map(|key| weight(*key) * at(&values, *key, d)).sum();
                        let given = at(&out, token, d);
                        assert!((given - expected / sum).abs() < 1e-5, "{token} {head} {d}");
                    }
                }
            }
        }
    }
}
