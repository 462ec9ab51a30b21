//! The sampler compared with a naive reference: everything sorted, everything in f64.

mod chain;
mod draw;
mod feedback;
mod transforms;

use super::noise::Noise;
use super::random::Random;
use super::*;
use proptest::prelude::*;

/// Runs a sampler once over `logits`.
fn sample_at(
    params: &SamplingParams,
    logits: &[f32],
    history: &[TokenId],
    position: u64,
) -> Result<Sampled, SampleError> {
    build(params, logits.len()).sample(logits, history, position, &mut SampleScratch::default())
}

/// The sampler of valid parameters.
fn build(params: &SamplingParams, n_vocab: usize) -> Sampler {
    params.build(&SamplerContext::new(n_vocab)).unwrap()
}

/// No filters, no penalties, temperature 1.
fn plain() -> SamplingParams {
    SamplingParams { temperature: 1.0, top_k: None, top_p: 1.0, min_p: 0.0, ..Default::default() }
}

/// Logits with the spread of a real model's, from a seed.
fn model_row(n: usize, seed: u64) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let mut random = Random::new(seed, i as u64);
            let sum: f64 = (0..4).map(|_| random.unit()).sum();
            ((sum - 2.0) * 5.0) as f32
        })
        .collect()
}

/// The distribution that the documentation describes: probability of each token. Logits change in f32, as
/// documented; all else is in f64.
fn reference(params: &SamplingParams, logits: &[f32], history: &[TokenId]) -> Vec<f64> {
    let mut logits = logits.to_vec();
    for &(token, bias) in &params.logit_bias {
        logits[token as usize] += bias;
    }
    let window = params.penalty_window.map_or(usize::MAX, |n| n as usize);
    let window = &history[history.len().saturating_sub(window)..];
    for (id, logit) in logits.iter_mut().enumerate() {
        let count = window.iter().filter(|&&t| t as usize == id).count();
        if count > 0 {
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            *logit -= count as f32 * params.frequency_penalty + params.presence_penalty;
        }
    }
    // Zeros of either sign are equal.
    let logits: Vec<f64> = logits.into_iter().map(|x| f64::from(x) + 0.0).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let best = logits[order[0]];
    let mut probabilities = vec![0.0; logits.len()];
    if params.temperature == 0.0 {
        probabilities[order[0]] = 1.0;
        return probabilities;
    }
    if let Some(k) = params.top_k.filter(|&k| k > 0) {
        order.truncate(k as usize);
    }
    if params.top_p < 1.0 {
        let total: f64 = order.iter().map(|&i| (logits[i] - best).exp()).sum();
        let mut sum = 0.0;
        let reached = order.iter().position(|&i| {
            sum += (logits[i] - best).exp();
            sum >= f64::from(params.top_p) * total
        });
        order.truncate(reached.map_or(order.len(), |i| i + 1));
    }
    order.retain(|&i| logits[i] > f64::NEG_INFINITY && (logits[i] - best).exp() >= f64::from(params.min_p));
    let weight = |i: usize| ((logits[i] - best) / f64::from(params.temperature)).exp();
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    order.iter().for_each(|&i| probabilities[i] = weight(i) / total);
    probabilities
}

/// Whether `token` wins the race of the reference distribution at this position, up to rounding between
/// candidates of nearly equal scores.
fn agrees(params: &SamplingParams, probabilities: &[f64], position: u64, token: TokenId) -> bool {
    let noise = Noise::new(params.seed.unwrap_or(0), position);
    let greedy = params.temperature == 0.0;
    let score = |id: usize| probabilities[id].ln() + if greedy { 0.0 } else { noise.gumbel(id as TokenId) };
    let best = (0..probabilities.len()).map(score).fold(f64::NEG_INFINITY, f64::max);
    let slack = 1e-4;
    probabilities[token as usize] > 0.0 && score(token as usize) >= best - slack
}

fn any_params(n: u32) -> impl Strategy<Value = SamplingParams> {
    let cuts = (
        prop_oneof![Just(0.0f32), Just(1.0), 0.05f32..3.0],
        prop_oneof![Just(None), Just(Some(0)), (1..2 * n).prop_map(Some)],
        prop_oneof![Just(1.0f32), Just(0.0), 0.0f32..1.0],
        prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..0.3],
    );
    let penalties = (
        prop_oneof![Just(1.0f32), 0.5f32..2.0],
        prop_oneof![Just(0.0f32), -1.0f32..1.0],
        prop_oneof![Just(0.0f32), -1.0f32..1.0],
        prop_oneof![Just(None), (0u32..20).prop_map(Some)],
    );
    let bias = proptest::collection::btree_map(0..n, prop_oneof![Just(f32::NEG_INFINITY), -5f32..5.0], 0..4);
    (cuts, penalties, bias, any::<u64>()).prop_map(|(cuts, penalties, bias, seed)| SamplingParams {
        temperature: cuts.0,
        top_k: cuts.1,
        top_p: cuts.2,
        min_p: cuts.3,
        repetition_penalty: penalties.0,
        frequency_penalty: penalties.1,
        presence_penalty: penalties.2,
        penalty_window: penalties.3,
        logit_bias: bias.into_iter().collect(),
        seed: Some(seed),
        ..Default::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn sampling_follows_the_reference(
        params in any_params(300),
        row_seed in any::<u64>(),
        n in 300usize..1000,
        coarse in any::<bool>(),
        history in proptest::collection::vec(0u32..300, 0..40),
    ) {
        let mut row = model_row(n, row_seed);
        if coarse {
            // Many equal logits, so that cuts fall among ties.
            row.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0);
        }
        // A token right at a cut may fall on either side of it by rounding.
        let wants = [0.0, -1e-5, 1e-5].map(|shift| {
            let cut = |x: f32| if x > 0.0 && x < 1.0 { x + x.min(1.0 - x) * shift } else { x };
            let shifted = SamplingParams { top_p: cut(params.top_p), min_p: cut(params.min_p), ..params.clone() };
            reference(&shifted, &row, &history)
        });
        let mut sampler = build(&params, n);
        let mut scratch = SampleScratch::default();
        for position in 0..8 {
            let got = sampler.sample(&row, &history, position, &mut scratch).unwrap();
            prop_assert!(wants.iter().any(|want| agrees(&params, want, position, got.token)), "{params:?} {got:?}");
        }
    }

    #[test]
    fn any_bits_give_a_token_or_a_typed_error(
        params in any_params(70),
        bits in proptest::collection::vec(any::<u32>(), 70..200),
        history in proptest::collection::vec(any::<u32>(), 0..100),
    ) {
        let row: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let first_nan = row.iter().position(|x| x.is_nan());
        match (sample_at(&params, &row, &history, 0), first_nan) {
            (Err(SampleError::NotANumber { index, .. }), Some(at)) => prop_assert_eq!(index, at),
            (Ok(sampled), None) => prop_assert!((sampled.token as usize) < row.len()),
            (got, nan) => prop_assert!(false, "{:?} with NaN at {:?}", got, nan),
        }
    }

    #[test]
    fn extreme_values_give_a_possible_token(
        params in any_params(70),
        picks in proptest::collection::vec(0usize..8, 70..140),
        history in proptest::collection::vec(0u32..70, 0..100),
        logprobs in any::<bool>(),
    ) {
        let values = [f32::INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, f32::NEG_INFINITY, f32::MIN_POSITIVE, 1.0];
        let row: Vec<f32> = picks.iter().map(|&i| values[i]).collect();
        let params = SamplingParams { logprobs, ..params };
        match sample_at(&params, &row, &history, 3) {
            Ok(Sampled { token, logprob, .. }) => {
                prop_assert!(row[token as usize] > f32::NEG_INFINITY);
                prop_assert!(!params.logit_bias.contains(&(token, f32::NEG_INFINITY)));
                prop_assert_eq!(logprob.is_some(), logprobs);
                prop_assert!(logprob.is_none_or(|p| p <= 0.0));
            }
            Err(error) => prop_assert_eq!(error, SampleError::NoCandidate { n_vocab: row.len() }),
        }
    }

    #[test]
    fn counts_kept_between_calls_change_nothing(
        params in any_params(20),
        steps in proptest::collection::vec((0usize..200, 0usize..6, any::<u32>()), 1..30),
        window in prop_oneof![Just(None), Just(Some(5)), Just(Some(64))],
    ) {
        // A history that grows, loses its end and is replaced, as with drafts and preemption.
        let params = SamplingParams { repetition_penalty: 1.5, penalty_window: window, ..params };
        let row = model_row(20, 5);
        let mut kept = build(&params, 20);
        let mut scratch = SampleScratch::default();
        let mut history: Vec<TokenId> = Vec::new();
        for (cut, grow, token) in steps {
            if cut < 20 {
                history.truncate(history.len().saturating_sub(cut));
            }
            if cut == 20 {
                history.iter_mut().for_each(|t| *t = (*t + 1) % 20);
            }
            history.extend((0..grow as u32).map(|i| token.wrapping_add(i) % 20));
            let position = history.len() as u64;
            let got = kept.sample(&row, &history, position, &mut scratch);
            prop_assert_eq!(got, sample_at(&params, &row, &history, position));
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    let mut row = vec![0.0f32; 1000];
    for id in [999, 700, 333] {
        row[id] = 5.0;
    }
    let greedy = SamplingParams::greedy();
    let want = Sampled { token: 333, logprob: None, top_logprobs: Vec::new() };
    assert_eq!(sample_at(&greedy, &row, &[], 0), Ok(want));
    let banned = SamplingParams { logit_bias: vec![(333, f32::NEG_INFINITY)], ..greedy.clone() };
    assert_eq!(sample_at(&banned, &row, &[], 0).unwrap().token, 700);
    assert_eq!(sample_at(&greedy, &[-0.0, 0.0], &[], 0).unwrap().token, 0);
    assert_eq!(sample_at(&greedy, &[f32::MIN], &[], 0).unwrap().token, 0);
    row[800] = f32::INFINITY;
    assert_eq!(sample_at(&greedy, &row, &[], 0).unwrap().token, 800);
}

#[test]
fn bad_rows_are_typed_errors() {
    let params = SamplingParams::default();
    let mut sampler = build(&params, 100);
    let mut scratch = SampleScratch::default();
    let mut row = vec![0.0f32; 100];
    let mut sample = |row: &[f32]| sampler.sample(row, &[], 0, &mut scratch).unwrap_err();
    assert_eq!(sample(&row[..99]), SampleError::Length { found: 99, expected: 100 });
    assert_eq!(sample(&[]), SampleError::Length { found: 0, expected: 100 });
    row[70] = f32::NAN;
    row[80] = f32::NAN;
    assert_eq!(sample(&row), SampleError::NotANumber { index: 70, n_vocab: 100 });
    row.fill(f32::NEG_INFINITY);
    assert_eq!(sample(&row), SampleError::NoCandidate { n_vocab: 100 });
    row[3] = 1.0;
    let all_banned = SamplingParams { logit_bias: vec![(3, f32::NEG_INFINITY)], ..params };
    for params in [SamplingParams { temperature: 0.0, ..all_banned.clone() }, all_banned] {
        assert_eq!(sample_at(&params, &row, &[], 0), Err(SampleError::NoCandidate { n_vocab: 100 }));
    }
}

#[test]
fn bad_parameters_are_named() {
    let ok = SamplingParams::default;
    let range = |params: SamplingParams| match params.build(&SamplerContext::new(100)).map(|_| ()) {
        Err(SamplingError::Range { parameter, .. }) => parameter,
        other => panic!("{other:?}"),
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1] {
        assert_eq!(range(SamplingParams { temperature: bad, ..ok() }), "temperature");
        assert_eq!(range(SamplingParams { top_p: bad, ..ok() }), "top_p");
        assert_eq!(range(SamplingParams { min_p: bad, ..ok() }), "min_p");
        assert_eq!(range(SamplingParams { repetition_penalty: bad, ..ok() }), "repetition_penalty");
    }
    for bad in [f32::NAN, f32::INFINITY, -101.0, 101.0] {
        assert_eq!(range(SamplingParams { frequency_penalty: bad, ..ok() }), "frequency_penalty");
        assert_eq!(range(SamplingParams { presence_penalty: bad, ..ok() }), "presence_penalty");
    }
    for bad in [f32::NAN, f32::INFINITY, -0.1, 101.0] {
        assert_eq!(range(ok().typical_p(bad)), "typical_p");
        assert_eq!(range(ok().xtc_probability(bad)), "xtc_probability");
        assert_eq!(range(ok().xtc_threshold(bad)), "xtc_threshold");
        assert_eq!(range(ok().dynatemp_exponent(bad)), "dynatemp_exponent");
        assert_eq!(range(ok().mirostat_tau(bad)), "mirostat_tau");
        assert_eq!(range(ok().mirostat_eta(bad)), "mirostat_eta");
        assert_eq!(range(ok().adaptive_target(bad)), "adaptive_target");
        assert_eq!(range(ok().adaptive_decay(bad)), "adaptive_decay");
        assert_eq!(range(ok().dry_multiplier(bad)), "dry_multiplier");
        assert_eq!(range(ok().dry_base(bad)), "dry_base");
    }
    assert_eq!(range(ok().top_n_sigma(f32::NAN)), "top_n_sigma");
    assert_eq!(range(ok().dynatemp_range(f32::INFINITY)), "dynatemp_range");
    assert_eq!(range(ok().adaptive_decay(1.0)), "adaptive_decay");
    assert_eq!(range(ok().dry_allowed_length(0)), "dry_allowed_length");
    assert_eq!(range(SamplingParams { top_p: 1.1, ..ok() }), "top_p");
    assert_eq!(range(SamplingParams { repetition_penalty: 0.0, ..ok() }), "repetition_penalty");
    assert_eq!(range(SamplingParams { top_logprobs: 21, ..ok() }), "top_logprobs");
    assert!(ok().top_logprobs(20).build(&SamplerContext::new(100)).is_ok());
    assert_eq!(range(SamplingParams { logit_bias: vec![(0, f32::NAN)], ..ok() }), "logit_bias");
    assert_eq!(range(SamplingParams { logit_bias: vec![(0, f32::INFINITY)], ..ok() }), "logit_bias");
    let bias = |logit_bias| {
        SamplingParams { logit_bias, ..ok() }.build(&SamplerContext::new(100)).map(|_| ()).unwrap_err()
    };
    assert_eq!(bias(vec![(100, 1.0)]), SamplingError::BiasToken { token: 100, n_vocab: 100 });
    assert_eq!(bias(vec![(5, 1.0), (4, 0.0), (5, 1.0)]), SamplingError::BiasTwice { token: 5 });
    assert_eq!(
        ok().build(&SamplerContext::new(0)).map(|_| ()).unwrap_err(),
        SamplingError::Vocabulary { n_vocab: 0 }
    );
    let error = |params: SamplingParams| params.build(&SamplerContext::new(100)).map(|_| ()).unwrap_err();
    let twice = ok().order([TransformKind::TopK, TransformKind::MinP, TransformKind::TopK]);
    assert_eq!(error(twice), SamplingError::OrderTwice { kind: TransformKind::TopK });
    let both = error(ok().mirostat(Mirostat::V1).adaptive_target(0.5));
    assert_eq!(both.to_string(), "mirostat and adaptive_target exclude each other, but both are set");
    assert_eq!(error(ok().dry_sequence_breakers(vec!["a"; 65])), SamplingError::BreakerCount { count: 65 });
    let long = error(ok().dry_sequence_breakers(["a".into(), "a".repeat(65)]));
    assert_eq!(long, SamplingError::BreakerLength { index: 1, bytes: 65 });
    let no_tokenizer = SamplingError::NoTokenizer { parameter: "dry_sequence_breakers" };
    assert_eq!(error(ok().dry_multiplier(1.0)), no_tokenizer);
    assert!(ok().dry_multiplier(1.0).dry_sequence_breakers([""]).build(&SamplerContext::new(100)).is_ok());
    let text = SamplingParams { top_p: -1.0, ..ok() }
        .build(&SamplerContext::new(100))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert_eq!(text, "top_p is -1, but must be a number from 0 to 1");
}

#[test]
fn logprob_is_that_of_the_untouched_logits() {
    let row: Vec<f32> = model_row(1000, 3);
    let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
    let params = SamplingParams {
        logprobs: true,
        logit_bias: vec![(17, 50.0)],
        repetition_penalty: 1.7,
        temperature: 0.3,
        ..Default::default()
    };
    let got = sample_at(&params, &row, &[17, 17, 4], 0).unwrap();
    assert_eq!(got.token, 17, "the bias decides");
    let want = f64::from(row[17]) - total.ln();
    assert!((f64::from(got.logprob.unwrap()) - want).abs() < 1e-5);
    // Far from zero nothing overflows.
    let row: Vec<f32> = [1e30, 1e30].to_vec();
    let got = sample_at(&SamplingParams { logprobs: true, ..plain() }, &row, &[], 0).unwrap();
    assert!((got.logprob.unwrap() + std::f32::consts::LN_2).abs() < 1e-6);
    let row = [f32::INFINITY, 0.0, f32::INFINITY];
    let got = sample_at(&SamplingParams { logprobs: true, ..plain() }, &row, &[], 0).unwrap();
    assert!((got.logprob.unwrap() + std::f32::consts::LN_2).abs() < 1e-6);
}

#[test]
fn top_logprobs_are_the_best_of_the_untouched_logits() {
    let mut row = model_row(1000, 4);
    (row[10], row[500], row[900]) = (30.0, 31.0, 31.0);
    let params = SamplingParams::default().logit_bias([(500, f32::NEG_INFINITY)]).logprobs(true).seed(1);
    let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
    for n in [0, 1, 3, 20] {
        let got = sample_at(&params.clone().top_logprobs(n), &row, &[], 0).unwrap();
        let mut order: Vec<usize> = (0..1000).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let ids: Vec<usize> = got.top_logprobs.iter().map(|&(id, _)| id as usize).collect();
        assert_eq!(ids, order[..n as usize]);
        for &(id, logprob) in &got.top_logprobs {
            let want = f64::from(row[id as usize]) - total.ln();
            assert!((f64::from(logprob) - want).abs() < 1e-5, "{logprob} {want}");
        }
        assert_eq!(got.token, sample_at(&params, &row, &[], 0).unwrap().token);
    }
    // Impossible tokens are not listed.
    let row = [0.0, f32::NEG_INFINITY, 0.0];
    let got = sample_at(&plain().top_logprobs(3), &row, &[], 0).unwrap();
    let half = -std::f32::consts::LN_2;
    assert_eq!(got.top_logprobs, [(0, half), (2, half)]);
    assert_eq!(got.logprob, None);
    let row = [0.0, f32::INFINITY, f32::INFINITY];
    let got = sample_at(&plain().top_logprobs(3), &row, &[], 0).unwrap();
    assert_eq!(got.top_logprobs, [(1, half), (2, half)]);
}

#[test]
fn setters_set_their_fields() {
    let got = SamplingParams::default()
        .temperature(0.5)
        .top_k(7)
        .top_p(0.25)
        .min_p(0.125)
        .repetition_penalty(1.5)
        .frequency_penalty(2.0)
        .presence_penalty(3.0)
        .penalty_window(None)
        .logit_bias([(1, 2.0)])
        .seed(9)
        .logprobs(true)
        .top_logprobs(4)
        .order([TransformKind::MinP, TransformKind::Temperature])
        .penalize_prompt(false)
        .typical_p(0.75)
        .top_n_sigma(1.5)
        .xtc_probability(0.5)
        .xtc_threshold(0.25)
        .dynatemp_range(0.125)
        .dynatemp_exponent(2.0)
        .mirostat(Mirostat::V2)
        .mirostat_tau(3.0)
        .mirostat_eta(0.2)
        .adaptive_target(0.375)
        .adaptive_decay(0.625)
        .dry_multiplier(0.875)
        .dry_base(1.25)
        .dry_allowed_length(3)
        .dry_window(None)
        .dry_sequence_breakers(["x"])
        .min_tokens(6);
    let want = SamplingParams {
        temperature: 0.5,
        top_k: Some(7),
        top_p: 0.25,
        min_p: 0.125,
        repetition_penalty: 1.5,
        frequency_penalty: 2.0,
        presence_penalty: 3.0,
        penalty_window: None,
        logit_bias: vec![(1, 2.0)],
        seed: Some(9),
        logprobs: true,
        top_logprobs: 4,
        order: vec![TransformKind::MinP, TransformKind::Temperature],
        penalize_prompt: false,
        typical_p: 0.75,
        top_n_sigma: 1.5,
        xtc_probability: 0.5,
        xtc_threshold: 0.25,
        dynatemp_range: 0.125,
        dynatemp_exponent: 2.0,
        mirostat: Mirostat::V2,
        mirostat_tau: 3.0,
        mirostat_eta: 0.2,
        adaptive_target: Some(0.375),
        adaptive_decay: 0.625,
        dry_multiplier: 0.875,
        dry_base: 1.25,
        dry_allowed_length: 3,
        dry_window: None,
        dry_sequence_breakers: vec!["x".into()],
        min_tokens: 6,
    };
    assert_eq!(got, want);
}

#[test]
fn infinite_logits_share_the_probability() {
    let row = [0.0, f32::INFINITY, 7.0, f32::INFINITY];
    for params in [plain(), SamplingParams::default(), SamplingParams { top_p: 0.5, ..plain() }] {
        let tokens: Vec<TokenId> =
            (0..50).map(|position| sample_at(&params, &row, &[], position).unwrap().token).collect();
        assert!(tokens.iter().all(|t| [1, 3].contains(t)), "{tokens:?}");
        assert_eq!(tokens.contains(&3), params.top_p != 0.5, "half of the mass is one of them");
    }
}

#[test]
fn temperatures_at_the_ends_of_f32_work() {
    let row = model_row(500, 1);
    let best = sample_at(&SamplingParams::greedy(), &row, &[], 0).unwrap();
    for temperature in [f32::MIN_POSITIVE / 4.0, f32::MIN_POSITIVE, 1e-20] {
        let params = SamplingParams { temperature, ..plain() };
        for position in 0..20 {
            assert_eq!(sample_at(&params, &row, &[], position).unwrap(), best);
        }
    }
    let mut sampler = build(&SamplingParams { temperature: f32::MAX, ..plain() }, 500);
    let mut scratch = SampleScratch::default();
    let mut seen: Vec<_> =
        (0..5000).map(|i| sampler.sample(&row, &[], i, &mut scratch).unwrap().token).collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 490, "all are equally probable, but only {} were drawn", seen.len());
}

#[test]
fn the_same_seed_gives_the_same_tokens_on_every_machine() {
    let row = model_row(5000, 11);
    let mut tokens = Vec::new();
    for params in
        [plain(), SamplingParams::default(), SamplingParams { top_p: 0.9, temperature: 1.3, ..plain() }]
    {
        let params = SamplingParams { seed: Some(42), ..params };
        tokens.push((0..6).map(|i| sample_at(&params, &row, &[], i).unwrap().token).collect::<Vec<_>>());
    }
    let want = [
        [904, 3512, 4198, 878, 3863, 2815],
        [904, 659, 2740, 878, 3863, 653],
        [904, 3512, 4198, 878, 2626, 2815],
    ];
    assert_eq!(tokens, want);
}
