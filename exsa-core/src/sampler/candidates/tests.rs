//! All operations, in random order, compared with a naive sorted and filtered list.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Change(TokenId, f32),
    KeepBest(usize),
    RemoveBest(usize),
    KeepMass(f64),
    KeepRatio(f32),
    KeepProbable(f64),
    KeepTypical(f64),
    KeepSigma(f32),
    Temperature(f32),
    Retain(Vec<u64>),
}

fn any_op(n: usize) -> impl Strategy<Value = Op> {
    let words = n.div_ceil(64);
    let word = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), (0u32..64).prop_map(|bit| 1 << bit)];
    let value = prop_oneof![
        4 => (-20i32..20).prop_map(|x| x as f32 / 4.0),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ];
    prop_oneof![
        6 => (0..n as TokenId + 3, value).prop_map(|(id, x)| Op::Change(id, x)),
        1 => (0..=n + 2).prop_map(Op::KeepBest),
        2 => (0..=n / 4).prop_map(Op::RemoveBest),
        1 => (0..=n + 2).prop_map(Op::RemoveBest),
        1 => (0.3f64..=1.0).prop_map(Op::KeepMass),
        1 => prop_oneof![Just(0.0f32), 0.0f32..0.2].prop_map(Op::KeepRatio),
        1 => prop_oneof![Just(0.0f64), Just(1.0), 0.0f64..0.05].prop_map(Op::KeepProbable),
        1 => (0.0f64..=1.0).prop_map(Op::KeepTypical),
        1 => prop_oneof![Just(0.0f32), 0.5f32..5.0].prop_map(Op::KeepSigma),
        1 => (0.3f32..3.0).prop_map(Op::Temperature),
        2 => proptest::collection::vec(word, words.saturating_sub(1)..=words + 1).prop_map(Op::Retain),
    ]
}

/// The candidates as a plain list, best first.
#[derive(Clone, Debug)]
struct Naive {
    list: Vec<(TokenId, f32)>,
    scale: f64,
}

impl Naive {
    fn sort(&mut self) {
        self.list.retain(|c| c.1 > f32::NEG_INFINITY);
        self.list.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    }

    /// Infinite logits take all of the probability.
    fn settle(&mut self) {
        if self.list.first().is_some_and(|c| c.1 == f32::INFINITY) {
            self.list.retain(|c| c.1 == f32::INFINITY);
            self.list.iter_mut().for_each(|c| c.1 = 0.0);
        }
    }

    fn probabilities(&self) -> Vec<f64> {
        let best = self.list.first().map_or(0.0, |c| f64::from(c.1));
        let weights: Vec<f64> =
            self.list.iter().map(|c| ((f64::from(c.1) - best) * self.scale).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    /// Applies an operation; cuts by probability are moved by `slack`, relatively.
    fn apply(&mut self, op: &Op, slack: f64) {
        match op {
            Op::Change(id, value) => {
                if let Some(c) = self.list.iter_mut().find(|c| c.0 == *id) {
                    c.1 = if value.is_nan() { f32::NEG_INFINITY } else { c.1 + value };
                }
            }
            Op::KeepBest(k) => {
                self.settle();
                self.list.truncate(*k);
            }
            Op::RemoveBest(n) => drop(self.list.drain(..(*n).min(self.list.len()))),
            Op::KeepMass(share) => {
                self.settle();
                let mut sum = 0.0;
                let last = self.probabilities().iter().position(|p| {
                    sum += p;
                    sum >= share * (1.0 + slack)
                });
                self.list.truncate(last.map_or(self.list.len(), |last| last + 1));
            }
            Op::KeepRatio(ratio) => {
                if *ratio > 0.0 {
                    self.settle();
                    let probabilities = self.probabilities();
                    let floor = probabilities.first().map_or(0.0, |best| best * f64::from(*ratio));
                    let kept = probabilities.iter().filter(|p| **p >= floor * (1.0 + slack)).count();
                    self.list.truncate(kept);
                }
            }
            Op::KeepProbable(min) => {
                if *min > 0.0 {
                    self.settle();
                    let probabilities = self.probabilities();
                    let kept = probabilities.iter().filter(|p| **p >= min * (1.0 + slack)).count();
                    self.list.truncate(kept.max(1));
                }
            }
            Op::KeepTypical(share) => {
                self.settle();
                let probabilities = self.probabilities();
                let surprise = |p: f64| -p.max(f64::MIN_POSITIVE).ln();
                let entropy: f64 = probabilities.iter().map(|&p| p * surprise(p)).sum();
                let distance = |i: usize| (surprise(probabilities[i]) - entropy + slack).abs();
                let mut order: Vec<usize> = (0..self.list.len()).collect();
                order.sort_by(|&a, &b| {
                    let ids = self.list[a].0.cmp(&self.list[b].0);
                    // Equal logits have equal distances, up to rounding.
                    let equal = self.list[a].1 == self.list[b].1;
                    if equal { ids } else { distance(a).total_cmp(&distance(b)) }
                });
                let mut sum = 0.0;
                let last = order.iter().position(|&i| {
                    sum += probabilities[i];
                    sum >= share * (1.0 + slack)
                });
                order.truncate(last.map_or(order.len(), |last| last + 1));
                self.list = order.into_iter().map(|i| self.list[i]).collect();
            }
            Op::KeepSigma(n) => {
                if *n > 0.0 && !self.list.is_empty() {
                    self.settle();
                    let (count, best) = (self.list.len() as f64, f64::from(self.list[0].1));
                    let mean = self.list.iter().map(|c| f64::from(c.1)).sum::<f64>() / count;
                    let variance =
                        self.list.iter().map(|c| (f64::from(c.1) - mean).powi(2)).sum::<f64>() / count;
                    let floor = best - f64::from(*n) * variance.sqrt() * (1.0 + slack);
                    self.list.retain(|c| f64::from(c.1) >= floor);
                }
            }
            Op::Temperature(temperature) => self.scale /= f64::from(*temperature),
            Op::Retain(mask) => self
                .list
                .retain(|c| mask.get(c.0 as usize / 64).is_some_and(|word| word >> (c.0 % 64) & 1 == 1)),
        }
        self.sort();
    }
}

fn apply(candidates: &mut Candidates<'_>, op: &Op) {
    match op {
        Op::Change(id, value) => candidates.change(*id, |x| x + value),
        Op::KeepBest(k) => candidates.keep_best(*k),
        Op::RemoveBest(n) => candidates.remove_best(*n),
        Op::KeepMass(share) => candidates.keep_mass(*share),
        Op::KeepRatio(ratio) => candidates.keep_ratio(*ratio),
        Op::KeepProbable(min) => candidates.keep_probable(*min),
        Op::KeepTypical(share) => candidates.keep_typical(*share),
        Op::KeepSigma(n) => candidates.keep_sigma(*n),
        Op::Temperature(temperature) => candidates.scale_temperature(*temperature),
        Op::Retain(mask) => candidates.retain(mask),
    }
}

/// Applies the operations to both and compares after each.
fn check(row: &[f32], ops: &[Op]) -> Result<(), TestCaseError> {
    // Scratch memory of another row, which must not matter.
    let mut buffers = Buffers { row: vec![9.0; 100], bests: vec![8.0; 3], ..Buffers::default() };
    let mut candidates = Candidates::new(row, &mut buffers).unwrap();
    let mut naive = Naive { list: (0..).zip(row.iter().copied()).collect(), scale: 1.0 };
    naive.sort();
    for op in ops {
        apply(&mut candidates, op);
        let mut got: Vec<(TokenId, f32)> = candidates.iter().collect();
        prop_assert!(got.is_sorted_by_key(|c| c.0));
        got.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
        // A candidate right at a cut may fall on either side of it by rounding.
        let either: Vec<Naive> = [0.0, -1e-5, 1e-5]
            .into_iter()
            .map(|slack| {
                let mut naive = naive.clone();
                naive.apply(op, slack);
                naive
            })
            .filter(|naive| naive.list == got)
            .collect();
        prop_assert!(!either.is_empty(), "{:?} made {:?} of {:?}", op, got, naive);
        naive = either[0].clone();
        prop_assert_eq!(candidates.len(), got.len());
        prop_assert_eq!(candidates.is_empty(), got.is_empty());
        prop_assert_eq!(candidates.best(), got.first().copied());
        for id in [0, row.len() as TokenId / 2, row.len() as TokenId] {
            let want = got.iter().find(|c| c.0 == id).map(|c| c.1);
            prop_assert_eq!(candidates.logit(id), want);
        }
        if !candidates.listed {
            let bests: Vec<f32> = candidates.row().chunks(CHUNK).map(chunk_best).collect();
            prop_assert_eq!(&bests, &candidates.buffers.bests);
        }
    }
    naive.settle();
    let probabilities = naive.probabilities();
    let entropy: f64 = probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
    prop_assert!((candidates.entropy() - entropy).abs() < 1e-4, "{} {entropy}", candidates.entropy());
    let reaching = |slack: f64| probabilities.iter().filter(|p| **p >= 0.01 * (1.0 + slack)).count();
    let counted = candidates.count_probable(0.01);
    prop_assert!((reaching(1e-5)..=reaching(-1e-5)).contains(&counted), "{counted} {}", reaching(0.0));
    let mut want: Vec<(TokenId, f64)> = naive.list.iter().map(|c| c.0).zip(naive.probabilities()).collect();
    want.sort_by_key(|c| c.0);
    let got: Vec<(TokenId, f32)> = candidates.probabilities().collect();
    prop_assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(&want) {
        prop_assert_eq!(got.0, want.0);
        prop_assert!((f64::from(got.1) - want.1).abs() < 1e-5, "{:?} {:?}", got, want);
    }
    Ok(())
}

fn any_row(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    // A coarse grid, so that cuts fall among equals.
    let logit = prop_oneof![
        20 => (-24i32..24).prop_map(|x| x as f32 / 4.0),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(-0.0f32),
    ];
    (proptest::collection::vec(logit, n), proptest::option::weighted(0.1, any::<proptest::sample::Index>()))
        .prop_map(|(mut row, infinite)| {
            if let Some(at) = infinite {
                let at = at.index(row.len());
                row[at] = f32::INFINITY;
            }
            row
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn operations_match_a_plain_list(
        row in any_row(1..400),
        ops in proptest::collection::vec(any_op(400), 1..12),
    ) {
        check(&row, &ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn operations_match_a_plain_list_on_long_rows(
        row in any_row(17_000..18_000),
        ops in proptest::collection::vec(any_op(1000), 1..6),
    ) {
        check(&row, &ops)?;
    }
}

#[test]
fn arguments_out_of_range_change_nothing() {
    let row = [1.0, 2.0, 3.0];
    let mut buffers = Buffers::default();
    let mut candidates = Candidates::new(&row, &mut buffers).unwrap();
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        candidates.scale_temperature(temperature);
    }
    candidates.keep_ratio(f32::NAN);
    candidates.keep_ratio(-1.0);
    candidates.keep_mass(f64::NAN);
    candidates.keep_probable(f64::NAN);
    candidates.keep_probable(-1.0);
    candidates.keep_sigma(f32::NAN);
    candidates.keep_sigma(0.0);
    candidates.keep_typical(1.5);
    assert_eq!(candidates.count_probable(f64::NAN), 3);
    candidates.keep_mass(7.0);
    let probabilities: Vec<f32> = candidates.probabilities().map(|(_, p)| p).collect();
    assert_eq!(probabilities.len(), 3);
    assert!((probabilities[2] - 0.665_24).abs() < 1e-4, "{probabilities:?}");
    candidates.keep_ratio(7.0);
    assert_eq!(candidates.iter().collect::<Vec<_>>(), [(2, 3.0)]);
    // No product of infinity and 0, whatever the temperatures.
    candidates.scale_temperature(f32::MAX);
    candidates.scale_temperature(f32::MAX);
    candidates.change(0, |_| 1.0);
    assert_eq!(candidates.probabilities().collect::<Vec<_>>(), [(2, 1.0)]);
}
