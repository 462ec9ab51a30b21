//! The steps of the chain: their order, and each step compared with its definition in f64.

use super::*;
use crate::scripted::ByteTokenizer;
use crate::tokenizer::Tokenizer;
use std::sync::{Arc, Mutex};

/// Records the candidates at its place in the chain, without changing them.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<(TokenId, f32)>>>);

impl Transform for Seen {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        *self.0.lock().unwrap() = candidates.probabilities().collect();
    }
}

impl TransformFactory for Seen {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(self.clone()))
    }
}

/// The distribution after the steps of `order`, by token.
fn distribution(
    params: &SamplingParams,
    order: &[TransformKind],
    row: &[f32],
    history: &[TokenId],
) -> Vec<(TokenId, f32)> {
    let seen = Seen::default();
    let order = [order, &[TransformKind::Host]].concat();
    let context = SamplerContext::new(row.len());
    let mut sampler = params.clone().order(order).build_with(&context, &[Arc::new(seen.clone())]).unwrap();
    sampler.sample(row, history, 7, &mut SampleScratch::default()).unwrap();
    let seen = seen.0.lock().unwrap();
    seen.clone()
}

/// Softmax at a temperature, in f64.
fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|x| ((x - best) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

fn assert_close(got: &[(TokenId, f32)], want: &[(TokenId, f64)]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.0, want.0);
        assert!((f64::from(got.1) - want.1).abs() < 1e-5 * want.1 + 1e-9, "{got:?} {want:?}");
    }
}

#[test]
fn steps_are_applied_in_the_order_asked_for() {
    use TransformKind::{MinP, Temperature, TopK};
    let row = [3.0, 2.0, 1.0, 0.0, -1.0];
    let params = SamplingParams::default().temperature(4.0).min_p(0.2).top_k(4);
    let ids = |order: &[TransformKind]| -> Vec<TokenId> {
        distribution(&params, order, &row, &[]).iter().map(|&(id, _)| id).collect()
    };
    // e^-1 is above the ratio and e^-2 below; at temperature 4, e^-1.5 is the last above.
    assert_eq!(ids(&[MinP, Temperature]), [0, 1]);
    assert_eq!(ids(&[Temperature, MinP]), [0, 1, 2, 3, 4]);
    assert_eq!(ids(&[Temperature, MinP, TopK]), [0, 1, 2, 3]);
    assert_eq!(ids(&[]), [0, 1, 2, 3, 4], "a step that is not listed is not applied");
    let flat = distribution(&params, &[Temperature], &row, &[]);
    assert_close(&flat, &(0..).zip(softmax(&row.map(f64::from), 4.0)).collect::<Vec<_>>());
    let steep = distribution(&params, &[], &row, &[]);
    assert_close(&steep, &(0..).zip(softmax(&row.map(f64::from), 1.0)).collect::<Vec<_>>());
}

#[test]
fn a_hosts_transforms_have_a_place_in_every_order() {
    use TransformKind::{Dry, Host, MinP, Penalties, Temperature, TopK};
    let row = [3.0, 2.0, 1.0, 0.0, -1.0];
    for (order, left) in [
        (vec![TopK], 5),
        (vec![Penalties, Dry, TopK], 5),
        (vec![TopK, Host], 2),
        (vec![Temperature, TopK, Host, MinP], 2),
        (vec![Penalties], 5),
        (vec![], 5),
    ] {
        let seen = Seen::default();
        let params = SamplingParams::default().top_k(2).repetition_penalty(2.0).order(order.clone());
        let factory: Arc<dyn TransformFactory> = Arc::new(seen.clone());
        let mut sampler = params.build_with(&SamplerContext::new(5), &[factory]).unwrap();
        sampler.sample(&row, &[0], 0, &mut SampleScratch::default()).unwrap();
        assert_eq!(seen.0.lock().unwrap().len(), left, "{order:?}");
    }
}

#[test]
fn greedy_decoding_applies_what_changes_logits_alone() {
    let row = [3.0, 2.5, 1.0];
    let all = SamplingParams::greedy().xtc_probability(1.0).xtc_threshold(0.1).mirostat(Mirostat::V2);
    assert_eq!(sample_at(&all, &row, &[], 0).unwrap().token, 0);
    let dynamic = SamplingParams::greedy().dynatemp_range(5.0).typical_p(0.1).adaptive_target(0.1);
    assert_eq!(sample_at(&dynamic, &row, &[], 0).unwrap().token, 0);
    assert_eq!(sample_at(&all.repetition_penalty(2.0), &row, &[0], 0).unwrap().token, 1);
}

#[test]
fn dynamic_temperature_follows_its_formula() {
    for (seed, exponent) in [(1, 1.0), (2, 0.5), (3, 2.0), (4, 0.0)] {
        let row = model_row(300, seed);
        let params = plain().temperature(1.2).dynatemp_range(0.9).dynatemp_exponent(exponent);
        let logits: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let entropy: f64 = softmax(&logits, 1.0).iter().map(|p| -p * p.ln()).sum();
        let power = (entropy / 300f64.ln()).powf(f64::from(exponent));
        let temperature = f64::from(1.2f32 - 0.9) + 1.8 * power;
        let got = distribution(&params, &[TransformKind::Temperature], &row, &[]);
        assert_close(&got, &(0..).zip(softmax(&logits, temperature)).collect::<Vec<_>>());
    }
    // Below 0 there is no temperature: of one certain token, the best is left.
    let params = plain().temperature(0.5).dynatemp_range(2.0);
    let got = distribution(&params, &[TransformKind::Temperature], &[100.0, 0.0, 0.0], &[]);
    assert_eq!(got, [(0, 1.0)]);
    let got = distribution(&params, &[TransformKind::Temperature], &[1.0], &[]);
    assert_eq!(got, [(0, 1.0)]);
}

#[test]
fn xtc_excludes_top_choices_as_often_as_asked() {
    const DRAWS: u64 = 40_000;
    let row = [0.4f32, 0.3, 0.2, 0.06, 0.04].map(f32::ln);
    let params = plain().xtc_probability(0.3).xtc_threshold(0.15).seed(3);
    let mut sampler = build(&params, row.len());
    let (mut scratch, mut counts) = (SampleScratch::default(), [0u32; 5]);
    for position in 0..DRAWS {
        counts[sampler.sample(&row, &[], position, &mut scratch).unwrap().token as usize] += 1;
    }
    // Of the three that reach the threshold, the least probable one stays.
    let excluded = [0.0, 0.0, 0.2 / 0.3, 0.06 / 0.3, 0.04 / 0.3];
    let chi: f64 = [0.4, 0.3, 0.2, 0.06, 0.04]
        .iter()
        .zip(excluded)
        .zip(counts)
        .map(|((all, excluded), count)| {
            let want = (0.7 * all + 0.3 * excluded) * DRAWS as f64;
            (f64::from(count) - want).powi(2) / want
        })
        .sum();
    assert!(chi < 18.5, "chi squared is {chi} with 4 degrees of freedom, {counts:?}");
}

#[test]
fn xtc_leaves_distributions_without_two_top_choices_alone() {
    let row = [0.6f32, 0.1, 0.1, 0.1, 0.1].map(f32::ln);
    for (threshold, left) in [(0.3, 5), (0.05, 1), (0.51, 5)] {
        let params = plain().xtc_probability(1.0).xtc_threshold(threshold);
        assert_eq!(distribution(&params, &[TransformKind::Xtc], &row, &[]).len(), left, "{threshold}");
    }
}

#[test]
fn the_prompt_counts_for_penalties_as_asked() {
    let row = [1.0, 1.0, 1.0];
    let mut scratch = SampleScratch::default();
    for (prompt, want) in [(true, [false, false, true]), (false, [true, false, true])] {
        let params = SamplingParams::greedy().presence_penalty(5.0).penalize_prompt(prompt);
        let mut sampler = build(&params, 3);
        sampler.accept(1);
        // A prompt of token 0, an answer of token 1: the first token without a penalty is chosen.
        let token = sampler.sample(&row, &[0, 1], 2, &mut scratch).unwrap().token;
        assert_eq!(Some(token as usize), want.iter().position(|&free| free));
        sampler.rollback(1);
        let token = sampler.sample(&row, &[0], 1, &mut scratch).unwrap().token;
        assert_eq!(token, u32::from(prompt), "the answer is empty");
    }
}

#[test]
fn an_answer_has_its_minimum_of_tokens() {
    let tokenizer = ByteTokenizer::new();
    let context =
        SamplerContext::new(ByteTokenizer::N_VOCAB).with_tokenizer(&tokenizer).with_stop_tokens(&[9]);
    let mut row = vec![0.0; ByteTokenizer::N_VOCAB];
    (row[ByteTokenizer::EOS as usize], row[9], row[8]) = (5.0, 4.0, 3.0);
    let mut sampler = SamplingParams::greedy().min_tokens(3).build(&context).unwrap();
    let mut scratch = SampleScratch::default();
    let mut token = |sampler: &mut Sampler| sampler.sample(&row, &[7; 20], 20, &mut scratch).unwrap().token;
    // Tokens of an earlier run count.
    sampler.replay(&[8]);
    for _ in 0..2 {
        assert_eq!(token(&mut sampler), 8);
        sampler.accept(8);
    }
    assert_eq!(token(&mut sampler), ByteTokenizer::EOS);
    sampler.rollback(1);
    assert_eq!(token(&mut sampler), 8);

    // The answer ends if nothing else is left.
    row.fill(f32::NEG_INFINITY);
    row[ByteTokenizer::EOS as usize] = 1.0;
    let token = sampler.sample(&row, &[7; 20], 20, &mut scratch).unwrap().token;
    assert_eq!(token, ByteTokenizer::EOS);
}

/// The penalties of DRY, computed from its definition by comparing texts.
fn dry_penalties(history: &[TokenId], params: &SamplingParams) -> Vec<f64> {
    let mut penalties = vec![0.0f64; ByteTokenizer::N_VOCAB];
    let window = params.dry_window.map_or(usize::MAX, |n| n as usize);
    let tokens = &history[history.len().saturating_sub(window)..];
    let text: Vec<u8> = tokens.iter().map(|&token| token as u8).collect();
    let ends = |end: usize, breaker: &String| text[..end].ends_with(breaker.as_bytes());
    let broken =
        (0..=text.len()).rev().find(|&end| params.dry_sequence_breakers.iter().any(|b| ends(end, b)));
    let longest = text.len() - broken.unwrap_or(0);
    let allowed = params.dry_allowed_length as usize;
    for next in 1..tokens.len() {
        let before = tokens[..next].iter().rev().zip(tokens.iter().rev());
        let len = before.take_while(|(a, b)| a == b).count().min(longest);
        let token = tokens[next] as usize;
        if len >= allowed && !params.dry_sequence_breakers.iter().any(|b| b.as_bytes() == [token as u8]) {
            let power = f64::from(params.dry_base).powi((len - allowed) as i32);
            penalties[token] = penalties[token].max(f64::from(params.dry_multiplier) * power);
        }
    }
    penalties
}

proptest! {
    #[test]
    fn dry_follows_its_definition(
        history in proptest::collection::vec(97u32..101, 0..80),
        window in prop_oneof![Just(None), (1u32..60).prop_map(Some)],
        allowed in 1u32..4,
        breakers in proptest::sample::subsequence(vec!["a", "bc", "dd", "ab", ""], 0..4),
    ) {
        let params = plain().temperature(1.0).dry_multiplier(0.5).dry_base(1.5).dry_window(window);
        let params = params.dry_allowed_length(allowed).dry_sequence_breakers(breakers);
        let seen = Seen::default();
        let tokenizer = ByteTokenizer::new();
        let context = SamplerContext::new(ByteTokenizer::N_VOCAB).with_tokenizer(&tokenizer);
        let mut sampler = params.build_with(&context, &[Arc::new(seen.clone())]).unwrap();
        let row = vec![0.0; ByteTokenizer::N_VOCAB];
        sampler.sample(&row, &history, 0, &mut SampleScratch::default()).unwrap();
        let mut plain = params;
        plain.dry_sequence_breakers.retain(|text| !text.is_empty());
        let logits: Vec<f64> = dry_penalties(&history, &plain).iter().map(|penalty| -penalty).collect();
        let want = softmax(&logits, 1.0);
        for (id, got) in seen.0.lock().unwrap().iter() {
            prop_assert!((f64::from(*got) - want[*id as usize]).abs() < 1e-6, "token {}", id);
        }
    }
}

#[test]
fn breakers_of_several_tokens_are_found() {
    let tokenizer = ByteTokenizer::new();
    let control = tokenizer.control_tokens();
    let (id, text) = control.first().unwrap().clone();
    let params = SamplingParams::greedy().dry_multiplier(10.0).dry_window(None);
    let context = SamplerContext::new(ByteTokenizer::N_VOCAB).with_tokenizer(&tokenizer);
    let next = |breakers: &[&str], history: &[TokenId]| {
        let params = params.clone().dry_sequence_breakers(breakers.iter().copied());
        let mut row = vec![0.0; ByteTokenizer::N_VOCAB];
        row[usize::from(b'z')] = 1.0;
        let mut scratch = SampleScratch::default();
        params.build(&context).unwrap().sample(&row, history, 0, &mut scratch).unwrap().token
    };
    let tokens = |text: &str| text.bytes().map(TokenId::from).collect::<Vec<_>>();
    assert_ne!(next(&[], &tokens("xyz..xy")), u32::from(b'z'));
    assert_eq!(next(&["xy"], &tokens("xyz..xy")), u32::from(b'z'));
    assert_ne!(next(&["x."], &tokens("xyz..xy")), u32::from(b'z'));
    // A control token by its text.
    let repeated = [tokens("wxyz"), vec![id], tokens("xy")].concat();
    assert_ne!(next(&[], &repeated), u32::from(b'z'));
    let broken = [tokens("x"), vec![id], tokens("yz"), tokens("x"), vec![id], tokens("y")].concat();
    assert_ne!(next(&[], &broken), u32::from(b'z'));
    assert_eq!(next(&[&text], &broken), u32::from(b'z'));
}
