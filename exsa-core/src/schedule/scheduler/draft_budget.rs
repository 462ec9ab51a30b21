//! Number of drafts that a step verifies: a budget of rows shared by all streams.

use super::draft_costs::RowCost;

/// One draft that a step could verify.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Index of its stream among those with drafts.
    pub(crate) stream: u32,
    /// Position in the stream's run of drafts.
    pub(crate) position: u32,
    /// Probability that it becomes part of the answer.
    pub(crate) expected: f32,
    /// Seconds to generate the draft, in addition to the row that verifies it.
    pub(crate) seconds: f32,
}

impl Candidate {
    /// Expected tokens per second of the row.
    fn rate(&self, row: f64) -> f64 {
        f64::from(self.expected) / (row + f64::from(self.seconds))
    }
}

/// Selects at most `room` candidates, so that the expected tokens per second of a step with `decodes` decodes
/// are maximal, and calls `take` with the stream of each. `factor` is the ratio between the time of a step
/// with a given number of rows and the linear model `cost`.
///
/// A step yields one token per decode, plus the accepted drafts. Rows are taken in descending order of their
/// own tokens per second. Within a stream, the expected tokens decrease from position to position, so the
/// selection is a prefix of its run.
pub(crate) fn select(
    candidates: &mut [Candidate],
    cost: RowCost,
    decodes: usize,
    room: usize,
    factor: impl Fn(usize) -> f64,
    mut take: impl FnMut(usize),
) {
    candidates.sort_unstable_by(|a, b| {
        let better = b.rate(cost.row).total_cmp(&a.rate(cost.row));
        better.then((a.position, a.stream).cmp(&(b.position, b.stream)))
    });
    // Expected tokens, seconds of the step by the linear model, and seconds to draft.
    let (mut tokens, mut step, mut drafting) = (decodes as f64, cost.step, 0.0);
    let (mut best, mut selected) = (tokens / (step * factor(decodes)), 0);
    for (candidate, drafts) in candidates.iter().take(room).zip(1..) {
        tokens += f64::from(candidate.expected);
        step += cost.row;
        drafting += f64::from(candidate.seconds);
        let rate = tokens / (step * factor(decodes + drafts) + drafting);
        if rate > best {
            (best, selected) = (rate, drafts);
        }
    }
    candidates.iter().take(selected).for_each(|candidate| take(candidate.stream as usize));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drafts selected for each stream, whose drafts are accepted with this probability each.
    fn selected(acceptance: &[f32], decodes: usize, cost: RowCost, room: usize) -> Vec<usize> {
        let mut candidates = Vec::new();
        for (stream, acceptance) in acceptance.iter().enumerate() {
            for position in 0..16 {
                let expected = acceptance.powi(position + 1);
                let (stream, position) = (stream as u32, position as u32);
                candidates.push(Candidate { stream, position, expected, seconds: 0.0 });
            }
        }
        let mut taken = vec![0; acceptance.len()];
        select(&mut candidates, cost, decodes, room, |_| 1.0, |stream| taken[stream] += 1);
        taken
    }

    /// Rows of a 1B model on a CPU.
    fn cpu(decodes: usize) -> RowCost {
        RowCost { step: 0.028 + 0.0023 * decodes as f64, row: 0.0023 }
    }

    #[test]
    fn rows_go_where_they_yield_most() {
        assert_eq!(selected(&[0.9, 0.5, 0.1], 3, cpu(3), 100), [9, 1, 0]);
        assert_eq!(selected(&[0.9, 0.5, 0.1], 3, cpu(3), 4), [4, 0, 0], "the batch is full");
        assert_eq!(selected(&[0.5, 0.5], 2, cpu(2), 3), [2, 1], "equal streams take turns");
    }

    #[test]
    fn under_load_there_are_none() {
        assert_eq!(selected(&[0.6], 1, cpu(1), 100), [3]);
        // Steps that are bound by computing: a row costs as much as a decode.
        let bound = |decodes: usize| RowCost { step: 0.005 * decodes as f64, row: 0.005 };
        assert_eq!(selected(&[0.99; 32], 32, bound(32), 100), [0; 32]);
        assert_eq!(selected(&[0.6], 32, cpu(32), 100), [0], "31 other streams make rows dear");
    }

    /// The selection has the highest expected tokens per second of all choices.
    #[test]
    fn no_other_choice_is_better() {
        let acceptance = [0.85_f32, 0.6, 0.3];
        for decodes in [3, 6, 12] {
            let cost = cpu(decodes);
            let rate = |drafts: &[usize]| {
                let expected =
                    acceptance.iter().zip(drafts).flat_map(|(p, n)| (1..=*n).map(|i| p.powi(i as i32)));
                let rows = drafts.iter().sum::<usize>() as f64;
                (decodes as f64 + f64::from(expected.sum::<f32>())) / (cost.step + cost.row * rows)
            };
            let best = rate(&selected(&acceptance, decodes, cost, usize::MAX));
            for a in 0..16 {
                for b in 0..16 {
                    for c in 0..16 {
                        assert!(rate(&[a, b, c]) <= best * (1.0 + 1e-6), "{decodes}: {:?}", [a, b, c]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_dear_panel_is_filled_or_left_alone() {
        let panel = |rows: usize| if rows > 16 { 1.1 } else { 1.0 };
        let selected = |expected: f32, room| {
            let candidate = |i| Candidate { stream: 0, position: i, expected, seconds: 0.0 };
            let mut candidates: Vec<_> = (0..16).map(candidate).collect();
            let mut taken = 0;
            select(&mut candidates, cpu(12), 12, room, panel, |_| taken += 1);
            taken
        };
        assert_eq!(selected(0.9, 16), 16, "many drafts pay for the panel");
        assert_eq!(selected(0.9, 6), 4, "few do not");
        assert_eq!(selected(0.6, 16), 4, "nor do poor ones");
    }

    #[test]
    fn drafts_that_take_time_count_for_it() {
        let candidate = |seconds| Candidate { stream: 0, position: 0, expected: 0.5, seconds };
        for (seconds, expected) in [(0.0, 1), (0.010, 1), (0.020, 0)] {
            let mut taken = 0;
            select(&mut [candidate(seconds)], cpu(1), 1, 9, |_| 1.0, |_| taken += 1);
            assert_eq!(taken, expected, "{seconds}");
        }
    }
}
