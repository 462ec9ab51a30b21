//! The draw: its distribution, and how often similar distributions draw the same token.

use super::*;

/// Fails if `draws` positions do not follow the reference distribution of these parameters (chi-squared,
/// tokens that are expected fewer than five times taken together).
fn follows(params: &SamplingParams, row: &[f32], draws: u64) {
    let want = reference(params, row, &[]);
    let mut sampler = build(params, row.len());
    let mut scratch = SampleScratch::default();
    let mut counts = vec![0u32; row.len()];
    for position in 0..draws {
        counts[sampler.sample(row, &[], position, &mut scratch).unwrap().token as usize] += 1;
    }
    let (mut chi, mut cells, mut rare, mut rare_count) = (0.0, 0, 0.0, 0);
    let mut cell = |want: f64, count: u32| {
        chi += (f64::from(count) - want).powi(2) / want;
        cells += 1;
    };
    for (&probability, &count) in want.iter().zip(&counts) {
        let expected = probability * draws as f64;
        if expected >= 5.0 {
            cell(expected, count);
        } else {
            rare += expected;
            rare_count += count;
        }
    }
    if rare >= 5.0 {
        cell(rare, rare_count);
    } else {
        assert!(rare_count < 25, "{rare_count} draws of tokens expected {rare} times");
    }
    let freedom = f64::from(cells - 1).max(1.0);
    let deviation = (chi - freedom) / (2.0 * freedom).sqrt();
    assert!(deviation < 5.0, "chi squared is {chi} with {freedom} degrees of freedom; {params:?}");
}

#[test]
fn draws_follow_the_distribution() {
    let two = vec![0.0, -1.0];
    let far = vec![0.0, -7.0];
    let shares = [0.1f32, 0.2, 0.3, 0.4].map(f32::ln).to_vec();
    let flat = vec![3.0; 200];
    let bell = model_row(300, 8);
    let mut peaked = model_row(300, 9);
    (peaked[77], peaked[200]) = (15.0, 14.0);
    for (i, row) in [two, far, shares, flat, bell, peaked].iter().enumerate() {
        for temperature in [0.3, 1.0, 2.0] {
            let open = plain().temperature(temperature).seed(i as u64);
            for params in [open.clone(), open.clone().top_k(3), open.clone().top_p(0.8), open.min_p(0.2)] {
                follows(&params, row, 20_000);
            }
        }
    }
}

#[test]
fn draws_follow_the_distribution_over_seeds() {
    let row = [0.1f32, 0.2, 0.3, 0.4].map(f32::ln);
    let mut counts = [0u32; 4];
    for seed in 0..40_000 {
        counts[sample_at(&plain().seed(seed), &row, &[], 3).unwrap().token as usize] += 1;
    }
    let want = [4_000.0, 8_000.0, 12_000.0, 16_000.0];
    let chi: f64 = counts.iter().zip(want).map(|(&n, want)| (f64::from(n) - want).powi(2) / want).sum();
    assert!(chi < 21.1, "chi squared is {chi} with 3 degrees of freedom, {counts:?}");
}

#[test]
fn similar_distributions_mostly_draw_the_same_token() {
    const DRAWS: u64 = 10_000;
    for pair in 0..12 {
        let n = [2, 40, 300][pair % 3];
        let row = model_row(n, pair as u64);
        let change = model_row(n, 100 + pair as u64);
        let strength = [0.02, 0.1, 0.3, 1.0][pair / 3];
        let other: Vec<f32> = row.iter().zip(&change).map(|(x, y)| x + strength * y).collect();
        // A filter that the other distribution does not have.
        let filtered = if pair % 2 == 0 { plain() } else { plain().top_k(20) };
        let (p, q) = (reference(&plain(), &row, &[]), reference(&filtered, &other, &[]));
        let distance = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
        let (mut a, mut b) = (build(&plain().seed(7), n), build(&filtered.seed(7), n));
        let mut scratch = SampleScratch::default();
        let equal = (0..DRAWS).filter(|&position| {
            let a = a.sample(&row, &[], position, &mut scratch).unwrap();
            a == b.sample(&other, &[], position, &mut scratch).unwrap()
        });
        let share = equal.count() as f64 / DRAWS as f64;
        let bound = (1.0 - distance) / (1.0 + distance);
        assert!(share >= bound - 4.0 * 0.5 / (DRAWS as f64).sqrt(), "{share} for a distance of {distance}");
    }
}

#[test]
fn scores_of_an_unfiltered_vocabulary_are_compared_exactly() {
    // More than one chunk, so that chunks are ruled out by their bound; all scores computed here.
    for (i, spread) in [0.0, 0.01, 1.0, 3.0].into_iter().enumerate() {
        let row: Vec<f32> = model_row(5000, i as u64).iter().map(|x| x * spread).collect();
        let best = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        for position in 0..40 {
            let noise = Noise::new(1, position);
            let score =
                |id: usize| (f64::from(row[id]) - best) * f64::from(1.0f32 / 0.7) + noise.gumbel(id as u32);
            // The first of equal scores, as `max_by` would take the last.
            let want = (0..row.len()).rev().max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
            let got = sample_at(&plain().temperature(0.7).seed(1), &row, &[], position).unwrap();
            assert_eq!(got.token as usize, want);
        }
    }
}

#[test]
fn huge_logits_do_not_drown_the_noise() {
    let row = [1e30, 1e30, -1e30];
    let tokens: Vec<_> = (0..100).map(|i| sample_at(&plain(), &row, &[], i).unwrap().token).collect();
    let zeros = tokens.iter().filter(|&&t| t == 0).count();
    assert!((25..75).contains(&zeros) && !tokens.contains(&2), "{tokens:?}");
}

proptest! {
    #[test]
    fn filters_do_not_move_the_noise(row_seed: u64, seed: u64, k in 1u32..200, coarse: bool) {
        let mut row = model_row(500, row_seed);
        if coarse {
            row.iter_mut().for_each(|x| *x = x.round());
        }
        let open = plain().seed(seed);
        let token = sample_at(&open, &row, &[], 5).unwrap().token;
        let kept = reference(&open.clone().top_k(k), &row, &[]);
        if kept[token as usize] > 0.0 {
            prop_assert_eq!(sample_at(&open.top_k(k), &row, &[], 5).unwrap().token, token);
        }
    }
}
