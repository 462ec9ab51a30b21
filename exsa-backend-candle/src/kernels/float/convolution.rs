//! Causal convolution over the tokens of a sequence, channel by channel.

use crate::kernels::memory::team::Team;

/// Rows below which one thread does it all.
const ROWS_MIN: usize = 16;

/// Rows of a batch that follow each other in one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceSpan {
    /// First row.
    pub row: usize,
    /// Number of rows.
    pub len: usize,
    /// Whether the first row is the first token of its sequence.
    pub is_first: bool,
    /// Index of the sequence's state.
    pub state: usize,
}

/// States of all sequences in one layer.
pub(crate) struct StateRows<'a> {
    /// `[sequences][len]`.
    pub values: &'a mut [f32],
    /// Values of a state.
    pub len: usize,
}

/// Operands of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Convolution<'a> {
    /// Weights, `[tokens][width]`, the oldest token first.
    pub kernel: &'a [f32],
    /// Channels.
    pub width: usize,
    /// Inputs, `[rows][stride]`, of which the first `width` values of a row count.
    pub input: &'a [f32],
    /// From one row of inputs to the next.
    pub stride: usize,
    /// Spans of all rows, in order.
    pub spans: &'a [SequenceSpan],
}

/// Rows that a thread takes at a time.
pub(super) fn grain(rows: usize, team: &Team) -> usize {
    rows.div_ceil(4 * team.threads()).max(ROWS_MIN)
}

/// Computes `out`, `[rows][width]`: each channel's sum over the last tokens by its weights, after which
/// `finish` changes the row. The states begin with `[tokens - 1][width]` inputs of the tokens before each
/// span, and hold those before the next span afterwards.
pub(crate) fn convolve(
    convolution: Convolution<'_>,
    states: &mut StateRows<'_>,
    out: &mut [f32],
    finish: impl Fn(usize, &mut [f32]) + Sync,
    team: &mut Team,
) {
    let Convolution { kernel, width, input, stride, spans } = convolution;
    let (rows, held) = (out.len() / width, kernel.len() / width - 1);
    assert!(input.len() == rows * stride && out.len() == rows * width && states.len >= held * width);
    let input = |row: usize| &input[row * stride..][..width];
    let (before, state_len) = (&*states.values, states.len);
    let grain = grain(rows, team);
    team.for_each_run(out, width * grain, |run, out| {
        for (row, out) in (run * grain..).zip(out.chunks_exact_mut(width)) {
            let span = spans[spans.partition_point(|span| span.row <= row) - 1];
            let offset = row - span.row;
            out.fill(0.0);
            for (tap, weights) in kernel.chunks_exact(width).enumerate() {
                // Rows back from this one.
                let back = held - tap;
                let input = if back <= offset {
                    input(row - back)
                } else if span.is_first {
                    continue;
                } else {
                    &before[span.state * state_len + (held + offset - back) * width..][..width]
                };
                let terms = weights.iter().zip(input);
                out.iter_mut().zip(terms).for_each(|(out, (weight, input))| *out += weight * input);
            }
            finish(row, out);
        }
    });
    for span in spans {
        let state = &mut states.values[span.state * state_len..][..held * width];
        if span.is_first {
            state.fill(0.0);
        }
        let kept = held.saturating_sub(span.len);
        state.copy_within((held - kept) * width.., 0);
        let last_rows = span.row + span.len + kept - held..;
        for (to, row) in state[kept * width..].chunks_exact_mut(width).zip(last_rows) {
            to.copy_from_slice(input(row));
        }
    }
}

/// Computes the gated convolution `out = c * conv(b * x)` of the rows of `bcx`, `[rows][3 * width]` with `b`,
/// `c` and `x` in this order. The place of `b` is overwritten.
pub(crate) fn convolve_gated(
    (kernel, width): (&[f32], usize),
    spans: &[SequenceSpan],
    bcx: &mut [f32],
    states: &mut StateRows<'_>,
    out: &mut [f32],
    team: &mut Team,
) {
    let stride = 3 * width;
    let grain = grain(out.len() / width, team);
    team.for_each_run(bcx, stride * grain, |_, rows| {
        for row in rows.chunks_exact_mut(stride) {
            let (b, cx) = row.split_at_mut(width);
            b.iter_mut().zip(&cx[width..]).for_each(|(b, x)| *b *= x);
        }
    });
    let bcx = &*bcx;
    let convolution = Convolution { kernel, width, input: bcx, stride, spans };
    let finish = |row: usize, out: &mut [f32]| {
        let c = &bcx[row * stride + width..][..width];
        out.iter_mut().zip(c).for_each(|(out, c)| *out *= c);
    };
    convolve(convolution, states, out, finish, team);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences in one batch, then each in pieces: the same values as one after the other.
    #[test]
    fn pieces_are_equal_to_the_whole() {
        let (width, tokens, len, state_len) = (5, 3, 9, 13);
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let kernel: Vec<f32> = (0..tokens * width).map(value).collect();
        let rows: Vec<f32> = (0..2 * len * 3 * width).map(|i| value(i + 31)).collect();
        let mut team = Team::new(2).unwrap();
        let mut run = |pieces: &[&[(usize, usize, usize)]]| {
            let mut outputs = vec![vec![0.0; len * width]; 2];
            let mut states = vec![f32::NAN; 2 * state_len];
            for piece in pieces {
                let (mut spans, mut bcx) = (Vec::new(), Vec::new());
                for &(state, first, len_here) in *piece {
                    let row = bcx.len() / (3 * width);
                    spans.push(SequenceSpan { row, len: len_here, is_first: first == 0, state });
                    let start = (state * len + first) * 3 * width;
                    bcx.extend_from_slice(&rows[start..start + len_here * 3 * width]);
                }
                let mut out = vec![0.0; bcx.len() / 3];
                let mut states = StateRows { values: &mut states, len: state_len };
                convolve_gated((&kernel, width), &spans, &mut bcx, &mut states, &mut out, &mut team);
                for (span, &(state, first, len_here)) in spans.iter().zip(*piece) {
                    outputs[state][first * width..(first + len_here) * width]
                        .copy_from_slice(&out[span.row * width..(span.row + len_here) * width]);
                }
            }
            outputs
        };
        let whole = run(&[&[(0, 0, 9)], &[(1, 0, 9)]]);
        assert_eq!(whole, run(&[&[(0, 0, 9), (1, 0, 9)]]));
        assert_eq!(whole, run(&[&[(1, 0, 1), (0, 0, 4)], &[(0, 4, 1), (1, 1, 1)], &[(1, 2, 7), (0, 5, 4)]]));
        // The first token sees itself alone, the third all three weights.
        let bx = |row: usize, channel: usize| {
            rows[row * 3 * width + channel] * rows[row * 3 * width + 2 * width + channel]
        };
        let c = |row: usize, channel: usize| rows[row * 3 * width + width + channel];
        assert_eq!(whole[0][2], c(0, 2) * (kernel[2 * width + 2] * bx(0, 2)));
        let sum = (0..3).fold(0.0, |sum, tap| sum + kernel[tap * width + 2] * bx(tap, 2));
        assert_eq!(whole[0][2 * width + 2], c(2, 2) * sum);
    }
}
