//! Choice of experts: from the router's output for a token to its experts and their weights.

use crate::kernels::simd::exp::exp;
use exsa_models::Routing;
use exsa_models::architecture::ExpertScores;

/// Sum of weights that they are divided by at least: the smallest normal number of f16.
const WEIGHT_SUM_MIN: f32 = 6.103_515_6e-5;

/// Chooses experts by the router's output `scores` for one token, of which nothing is left: writes them to
/// `experts`, the best first, and their weights to `weights`, both of [`Routing::used`] values. `bias` is
/// added to the scores for the choice alone. Of equal scores the first is the best.
///
/// The weights are no numbers if the scores are none.
pub(crate) fn choose_experts(
    routing: &Routing,
    scores: &mut [f32],
    bias: Option<&[f32]>,
    experts: &mut [u32],
    weights: &mut [f32],
) {
    match routing.scores {
        ExpertScores::Softmax => softmax(scores),
        ExpertScores::Sigmoid => scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + exp(-*score))),
        ExpertScores::SoftmaxOfChosen => {}
    }
    let biased = |expert: usize| scores[expert] + bias.map_or(0.0, |bias| bias[expert]);
    let per_group = scores.len() / routing.groups;
    let mut groups = [0u32; Routing::GROUPS_MAX];
    let groups = &mut groups[..routing.groups_used];
    if routing.groups_used < routing.groups {
        let mut group_scores = [0.0; Routing::GROUPS_MAX];
        best(
            0..routing.groups,
            |group| best_two(per_group, |i| biased(group * per_group + i)),
            groups,
            &mut group_scores,
        );
        groups.sort_unstable();
    } else {
        groups.iter_mut().zip(0..).for_each(|(group, index)| *group = index);
    }
    let candidates = groups.iter().flat_map(|group| {
        let first = *group as usize * per_group;
        first..first + per_group
    });
    best(candidates, biased, experts, weights);
    for (weight, expert) in weights.iter_mut().zip(&*experts) {
        *weight = scores[*expert as usize];
    }
    if routing.scores == ExpertScores::SoftmaxOfChosen {
        softmax(weights);
    }
    if routing.normalize {
        let sum: f32 = weights.iter().sum();
        // Written so that NaN stays NaN.
        let sum = if sum < WEIGHT_SUM_MIN { WEIGHT_SUM_MIN } else { sum };
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    if routing.scale != 1.0 {
        weights.iter_mut().for_each(|weight| *weight *= routing.scale);
    }
}

/// The best of `candidates` by `score`, as many as `found` holds and at least that many, the best first, with
/// their scores.
fn best(
    candidates: impl Iterator<Item = usize>,
    score: impl Fn(usize) -> f32,
    found: &mut [u32],
    scores: &mut [f32],
) {
    let mut n = 0;
    for candidate in candidates {
        let score = score(candidate);
        let mut at = n;
        while at > 0 && score > scores[at - 1] {
            at -= 1;
        }
        if at == found.len() {
            continue;
        }
        n = found.len().min(n + 1);
        found.copy_within(at..n - 1, at + 1);
        scores.copy_within(at..n - 1, at + 1);
        (found[at], scores[at]) = (candidate as u32, score);
    }
}

/// The sum of the two best scores of `n`.
fn best_two(n: usize, score: impl Fn(usize) -> f32) -> f32 {
    let (mut found, mut scores) = ([0; 2], [0.0; 2]);
    best(0..n, score, &mut found, &mut scores);
    scores[0] + scores[1]
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = exp(*value - largest));
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(experts: usize, used: usize, scores: ExpertScores) -> Routing {
        Routing { experts, used, scores, groups: 1, groups_used: 1, normalize: false, scale: 1.0 }
    }

    fn choose(routing: &Routing, scores: &[f32], bias: Option<&[f32]>) -> (Vec<u32>, Vec<f32>) {
        let (mut experts, mut weights) = (vec![99; routing.used], vec![99.0; routing.used]);
        choose_experts(routing, &mut scores.to_vec(), bias, &mut experts, &mut weights);
        (experts, weights)
    }

    fn assert_close(weights: &[f32], expected: &[f64]) {
        assert_eq!(weights.len(), expected.len());
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((f64::from(*weight) - expected).abs() < 1e-6, "{weights:?}, but {expected} is expected");
        }
    }

    const SCORES: [f32; 5] = [0.5, 2.0, -1.0, 2.0, 1.0];

    #[test]
    fn softmax_over_all() {
        let sum: f64 = SCORES.iter().map(|score| f64::from(*score).exp()).sum();
        let weight = |score: f64| score.exp() / sum;
        let (experts, weights) = choose(&routing(5, 3, ExpertScores::Softmax), &SCORES, None);
        assert_eq!(experts, [1, 3, 4], "of equal ones the first");
        assert_close(&weights, &[weight(2.0), weight(2.0), weight(1.0)]);
        let normalized = Routing { normalize: true, scale: 2.5, ..routing(5, 3, ExpertScores::Softmax) };
        let (_, weights) = choose(&normalized, &SCORES, None);
        let chosen = 2.0 * weight(2.0) + weight(1.0);
        let scaled = [2.0, 2.0, 1.0].map(|score| 2.5 * weight(score) / chosen);
        assert_close(&weights, &scaled);
    }

    #[test]
    fn softmax_over_the_chosen() {
        let (experts, weights) = choose(&routing(5, 2, ExpertScores::SoftmaxOfChosen), &SCORES[2..], None);
        assert_eq!(experts, [1, 2]);
        let sum = 2f64.exp() + 1f64.exp();
        assert_close(&weights, &[2f64.exp() / sum, 1f64.exp() / sum]);
    }

    /// The bias decides who is chosen, and has no part in the weight.
    #[test]
    fn biased_choice() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let bias = [0.0, -1.0, 1.0, 0.0, 0.0];
        let (experts, weights) = choose(&routing(5, 2, ExpertScores::Sigmoid), &SCORES, Some(&bias));
        assert_eq!(experts, [2, 3]);
        assert_close(&weights, &[sigmoid(-1.0), sigmoid(2.0)]);
    }

    #[test]
    fn groups() {
        let routing = Routing { groups: 3, groups_used: 2, ..routing(6, 3, ExpertScores::SoftmaxOfChosen) };
        // The best expert is in the group whose two best are the worst together.
        let scores = [5.0, -9.0, 2.0, 1.0, 4.0, 1.0];
        assert_eq!(choose(&routing, &scores, None).0, [4, 2, 3]);
        let all = Routing { groups_used: 3, ..routing };
        assert_eq!(choose(&all, &scores, None).0, [0, 4, 2]);
    }

    /// Experts are there, and all different, whatever the scores are.
    #[test]
    fn scores_that_are_no_numbers() {
        for scores in [[f32::NAN; 5], [1.0, f32::NAN, 3.0, f32::INFINITY, 0.0], [f32::NEG_INFINITY; 5]] {
            for kind in [ExpertScores::Softmax, ExpertScores::Sigmoid, ExpertScores::SoftmaxOfChosen] {
                let (mut experts, weights) = choose(&routing(5, 4, kind), &scores, None);
                if scores[0].is_nan() {
                    assert!(weights.iter().all(|weight| weight.is_nan()));
                }
                experts.sort_unstable();
                experts.dedup();
                assert!(experts.len() == 4 && experts.iter().all(|expert| *expert < 5), "{scores:?}");
            }
        }
    }
}
