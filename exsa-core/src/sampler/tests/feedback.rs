//! Transforms that adapt to drawn tokens: mirostat and adaptive-p, their rollback, and their state across a
//! resume.

use super::*;

fn feedback(kind: usize) -> SamplingParams {
    let base = SamplingParams::default().temperature(1.1).seed(11);
    match kind {
        0 => base.mirostat(Mirostat::V1).mirostat_tau(3.0),
        1 => base.mirostat(Mirostat::V2).mirostat_tau(3.0).mirostat_eta(0.3),
        _ => base.top_k(None).top_p(1.0).adaptive_target(0.3).adaptive_decay(0.7),
    }
}

/// Rows of a small model: a function of the last token.
fn next_row(history: &[TokenId]) -> Vec<f32> {
    model_row(150, u64::from(history.last().copied().unwrap_or(0)))
}

/// Draws `n` tokens after `history`.
fn generate(sampler: &mut Sampler, history: &mut Vec<TokenId>, n: usize) {
    let mut scratch = SampleScratch::default();
    for _ in 0..n {
        let row = next_row(history);
        let token = sampler.sample(&row, history, history.len() as u64, &mut scratch).unwrap().token;
        sampler.accept(token);
        history.push(token);
    }
}

#[test]
fn a_resumed_answer_goes_on_as_the_uncut_one() {
    for kind in 0..3 {
        let params = feedback(kind);
        let mut uncut = vec![1, 2, 3];
        let mut sampler = build(&params, 150);
        generate(&mut sampler, &mut uncut, 60);
        let state = sampler.state().unwrap();
        let mut differ = 0;
        for cut in 3..uncut.len() {
            let mut resumed = build(&params, 150);
            resumed.restore(&state, cut - 3).unwrap();
            resumed.replay(&uncut[3..cut]);
            let mut history = uncut[..cut].to_vec();
            generate(&mut resumed, &mut history, uncut.len() - cut);
            assert_eq!(history, uncut, "kind {kind} cut at {cut}");
            assert_eq!(resumed.state(), Some(state.clone()), "kind {kind} cut at {cut}");
            // Without the state, feedback starts from its initial state.
            let mut fresh = build(&params, 150);
            fresh.replay(&uncut[3..cut]);
            let mut history = uncut[..cut].to_vec();
            generate(&mut fresh, &mut history, uncut.len() - cut);
            differ += usize::from(history != uncut);
        }
        assert!(differ > 5, "kind {kind}: the state matters, but only {differ} answers differ without it");
    }
}

#[test]
fn states_of_other_parameters_are_refused() {
    let state = build(&feedback(1), 150).state().unwrap();
    let mut without = build(&SamplingParams::default(), 150);
    assert_eq!(without.state(), None);
    assert_eq!(without.restore(&state, 0), Err(SamplingError::State { found: 1, expected: 0 }));
    let mut with = build(&feedback(2), 150);
    let empty = SamplerState::default();
    assert_eq!(with.restore(&empty, 0), Err(SamplingError::State { found: 0, expected: 1 }));
}

proptest! {
    #[test]
    fn rollback_leaves_no_trace(
        kind in 0usize..3,
        steps in proptest::collection::vec((0usize..4, 0usize..5), 1..40),
    ) {
        let params = feedback(kind);
        let mut sampler = build(&params, 150);
        let mut history = vec![5];
        // The state of each length that the answer had, from a sampler that never rolled back.
        let mut scratch = SampleScratch::default();
        for (what, n) in steps {
            match what {
                0 => {
                    let n = n.min(history.len() - 1);
                    sampler.rollback(n);
                    history.truncate(history.len() - n);
                }
                // A token that the sampler did not draw.
                1 => {
                    sampler.accept(n as TokenId);
                    history.push(n as TokenId);
                }
                _ => generate(&mut sampler, &mut history, n),
            }
            let state = sampler.state().unwrap();
            let mut fresh = build(&params, 150);
            fresh.restore(&state, history.len() - 1).unwrap();
            fresh.replay(&history[1..]);
            let (row, position) = (next_row(&history), history.len() as u64);
            let want = fresh.sample(&row, &history, position, &mut scratch).unwrap();
            // Sampling twice changes nothing.
            for _ in 0..2 {
                prop_assert_eq!(&sampler.sample(&row, &history, position, &mut scratch).unwrap(), &want);
            }
            prop_assert_eq!(fresh.state(), sampler.state());
        }
    }

    #[test]
    fn any_state_gives_tokens(
        kind in 0usize..3,
        bits in proptest::collection::vec(any::<u32>(), 0..20),
        generated in 0usize..20,
    ) {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let state = SamplerState::new([&values[..]].into_iter());
        let mut sampler = build(&feedback(kind), 150);
        sampler.restore(&state, generated).unwrap();
        sampler.replay(&vec![3; generated]);
        let mut history = vec![3; generated + 1];
        generate(&mut sampler, &mut history, 5);
    }
}

/// Mirostat 2 by the paper, in f64: the candidates that it keeps, best first, as probabilities.
fn mirostat_v2(row: &[f32], temperature: f64, mu: f64) -> Vec<(usize, f64)> {
    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: f32| ((f64::from(x) - f64::from(best)) / temperature).exp();
    let total: f64 = row.iter().map(|&x| weight(x)).sum();
    let mut all: Vec<_> = row.iter().map(|&x| weight(x) / total).enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let kept = all.iter().take_while(|(_, p)| -p.log2() <= mu).count().max(1);
    all.truncate(kept);
    let total: f64 = all.iter().map(|(_, p)| p).sum();
    all.iter_mut().for_each(|(_, p)| *p /= total);
    all
}

#[test]
fn mirostat_v2_follows_the_paper() {
    let (tau, eta) = (3.0, 0.3);
    let mut sampler = build(&feedback(1), 150);
    let (mut scratch, mut history, mut mu) = (SampleScratch::default(), vec![1], 2.0 * tau);
    let mut surprises = 0.0;
    for position in 0..400 {
        let row = next_row(&history);
        let kept = mirostat_v2(&row, f64::from(1.1f32), mu);
        let token = sampler.sample(&row, &history, position, &mut scratch).unwrap().token;
        let probability = kept.iter().find(|(id, _)| *id == token as usize).expect("a token that is kept").1;
        // The draw: the kept token with the largest sum of log probability and noise.
        let noise = Noise::new(11, position);
        let score = |&(id, p): &(usize, f64)| p.ln() + noise.gumbel(id as TokenId);
        let most = kept.iter().map(score).fold(f64::NEG_INFINITY, f64::max);
        assert!(score(&(token as usize, probability)) >= most - 1e-4, "position {position}");
        sampler.accept(token);
        history.push(token);
        surprises -= probability.log2();
        mu -= eta * (-probability.log2() - tau);
    }
    assert!((surprises / 400.0 - tau).abs() < 0.05 * tau, "{}", surprises / 400.0);
}

#[test]
fn mirostat_v1_reaches_its_target() {
    for tau in [1.5f32, 3.0] {
        let params =
            SamplingParams::default().temperature(1.0).seed(2).mirostat(Mirostat::V1).mirostat_tau(tau);
        let mut sampler = build(&params, 150);
        let mut history = vec![1];
        generate(&mut sampler, &mut history, 2000);
        let state = sampler.state().unwrap();
        let logprobs: Vec<f32> = state.observations(2000).next().unwrap();
        let mean = -logprobs.iter().sum::<f32>() / 2000.0 * std::f32::consts::LOG2_E;
        assert!((mean - tau).abs() < 0.05 * tau, "{mean} bits, target {tau}");
    }
}

#[test]
fn mirostat_v1_keeps_one_token_or_all_at_the_extremes() {
    let mut scratch = SampleScratch::default();
    for row in [vec![0.0; 50], vec![1.0], vec![5.0, 5.0], model_row(50, 1)] {
        for tau in [0.0, 100.0] {
            let params = SamplingParams::default().mirostat(Mirostat::V1).mirostat_tau(tau);
            let mut sampler = build(&params, row.len());
            for position in 0..50 {
                let token = sampler.sample(&row, &[], position, &mut scratch).unwrap().token;
                sampler.accept(token);
            }
        }
    }
}

#[test]
fn adaptive_p_follows_its_definition() {
    const DRAWS: u64 = 40_000;
    // One step from the start: the target is the parameter itself.
    let probabilities = [0.5f64, 0.3, 0.12, 0.05, 0.03];
    let row = probabilities.map(|p| p.ln() as f32);
    let params = plain().adaptive_target(0.3).adaptive_decay(0.5).seed(4);
    let reshaped = |target: f64| {
        let weights = probabilities.map(|p| {
            let distance = (p - target).abs() / 0.3;
            (5.0 - 10.0 * distance * distance / (1.0 + distance)).exp()
        });
        weights.map(|weight| weight / weights.iter().sum::<f64>())
    };
    let mut scratch = SampleScratch::default();
    for accepted in 0..3 {
        let mut sampler = build(&params, 5);
        // Average of the probabilities so far, which starts at the target with the weight of two tokens.
        let (mut sum, mut weight) = (0.3 / 0.5, 1.0 / 0.5);
        for position in 0..accepted {
            let token = sampler.sample(&row, &[], position, &mut scratch).unwrap().token;
            sampler.accept(token);
            (sum, weight) = (probabilities[token as usize] + 0.5 * sum, 1.0 + 0.5 * weight);
        }
        let want = reshaped((2.0 * 0.3 - sum / weight).clamp(0.0, 1.0));
        let mut counts = [0u32; 5];
        for position in 100..100 + DRAWS {
            counts[sampler.sample(&row, &[], position, &mut scratch).unwrap().token as usize] += 1;
        }
        let chi: f64 = counts
            .iter()
            .zip(want)
            .map(|(&count, want)| (f64::from(count) - want * DRAWS as f64).powi(2) / (want * DRAWS as f64))
            .sum();
        assert!(chi < 18.5, "chi squared is {chi} with 4 degrees of freedom, {counts:?} {want:?}");
    }
}
