//! Core's sampler against llama.cpp's samplers, on random logits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::TokenId;
use exsa_core::gguf::Gguf;
use exsa_core::sampler::{
    Accepted, Candidates, Mirostat, SampleScratch, Sampler, SamplerContext, SamplingError, SamplingParams,
    Step, Transform, TransformFactory, TransformKind,
};
use exsa_core::tokenizer::{self, Tokenizer};
use llama_cpp_sys_2 as sys;
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

/// Numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Uniform in `low..high`.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }

    /// Logits as models have them: a bell curve, with some tokens far above it.
    fn row(&mut self, n_vocab: usize) -> Vec<f32> {
        let spread = self.between(0.5, 3.0);
        let mut row: Vec<f32> =
            (0..n_vocab).map(|_| (0..4).map(|_| self.between(-1.0, 1.0)).sum::<f32>() * spread).collect();
        for _ in 0..self.below(10) {
            let at = self.below(n_vocab);
            row[at] += self.between(2.0, 8.0);
        }
        row
    }
}

/// A chain of llama.cpp's samplers.
struct Chain(*mut sys::llama_sampler);

impl Chain {
    fn new(samplers: impl IntoIterator<Item = *mut sys::llama_sampler>) -> Self {
        // SAFETY: the chain takes ownership of samplers that were just made and belong to nothing else.
        unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            samplers.into_iter().for_each(|sampler| sys::llama_sampler_chain_add(chain, sampler));
            Self(chain)
        }
    }

    fn accept(&mut self, tokens: &[TokenId]) {
        for &token in tokens {
            // SAFETY: the chain is alive.
            unsafe { sys::llama_sampler_accept(self.0, token as i32) };
        }
    }

    fn reset(&mut self) {
        // SAFETY: the chain is alive.
        unsafe { sys::llama_sampler_reset(self.0) };
    }

    /// The tokens that are left with their logits, and the token that was selected, if any.
    fn apply(&mut self, row: &[f32]) -> (Vec<(TokenId, f32)>, Option<TokenId>) {
        let token = |(id, &logit): (i32, &f32)| sys::llama_token_data { id, logit, p: 0.0 };
        let mut data: Vec<_> = (0..).zip(row).map(token).collect();
        let (size, data_ptr) = (data.len(), data.as_mut_ptr());
        let mut array = sys::llama_token_data_array { data: data_ptr, size, selected: -1, sorted: false };
        // SAFETY: the chain is alive, and the array describes `data`, which outlives the call and is of
        // `size` tokens. Samplers reorder the tokens, move the start and shorten the array, always within
        // `data`.
        let left = unsafe {
            sys::llama_sampler_apply(self.0, &mut array);
            std::slice::from_raw_parts(array.data, array.size)
        };
        let selected = usize::try_from(array.selected).ok().map(|i| left[i].id as TokenId);
        let left = left.iter().map(|token| (token.id as TokenId, token.logit));
        (left.filter(|(_, logit)| *logit > f32::NEG_INFINITY).collect(), selected)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: the chain is alive and owns its samplers; nothing uses it later.
        unsafe { sys::llama_sampler_free(self.0) };
    }
}

/// Records the distribution at its place in our chain, and the log probabilities of drawn tokens.
#[derive(Clone, Debug, Default)]
struct Recorder {
    left: Arc<Mutex<Vec<(TokenId, f32)>>>,
    logprob: Arc<Mutex<Option<f32>>>,
}

impl Transform for Recorder {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        *self.left.lock().unwrap() = candidates.probabilities().collect();
    }

    fn accept(&mut self, accepted: &Accepted) {
        *self.logprob.lock().unwrap() = accepted.logprob;
    }

    fn needs_logprob(&self) -> bool {
        true
    }
}

impl TransformFactory for Recorder {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(self.clone()))
    }
}

/// Our sampler with the steps of `order` and a recorder behind them.
fn ours(
    params: SamplingParams,
    order: &[TransformKind],
    context: &SamplerContext<'_>,
) -> (Sampler, Recorder) {
    let recorder = Recorder::default();
    let params = params.order([order, &[TransformKind::Host]].concat());
    (params.build_with(context, &[Arc::new(recorder.clone())]).unwrap(), recorder)
}

fn neutral() -> SamplingParams {
    SamplingParams::default().temperature(1.0).top_k(None).top_p(1.0).min_p(0.0).seed(1)
}

/// Probabilities of tokens with logits, in f64, ascending by token.
fn probabilities(left: &[(TokenId, f32)]) -> Vec<(TokenId, f64)> {
    let best = left.iter().map(|&(_, logit)| logit).fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit) - f64::from(best)).exp();
    let total: f64 = left.iter().map(|&(_, logit)| weight(logit)).sum();
    let mut all: Vec<_> = left.iter().map(|&(id, logit)| (id, weight(logit) / total)).collect();
    all.sort_by_key(|&(id, _)| id);
    all
}

/// Whether both distributions are the same up to rounding.
fn same(ours: &[(TokenId, f32)], theirs: &[(TokenId, f32)]) -> bool {
    let theirs = probabilities(theirs);
    ours.len() == theirs.len()
        && ours
            .iter()
            .zip(&theirs)
            .all(|(a, b)| a.0 == b.0 && (f64::from(a.1) - b.1).abs() <= 2e-4 * b.1 + 1e-9)
}

/// Compares one step of the chain on random logits. A token right at a cut may fall on either side of it by
/// rounding, so one case in 100 may differ, by one token.
fn compare(
    name: &str,
    mut params: impl FnMut(&mut Random) -> (SamplingParams, Vec<*mut sys::llama_sampler>),
    order: &[TransformKind],
    history: impl Fn(&mut Random, usize) -> Vec<TokenId>,
) {
    const CASES: u64 = 300;
    let (mut different, mut shortened) = (0, 0);
    for case in 0..CASES {
        let mut random = Random(case);
        let n_vocab = [40, 300, 2000][random.below(3)];
        let row = random.row(n_vocab);
        let history = history(&mut random, n_vocab);
        let (params, samplers) = params(&mut random);
        let mut theirs = Chain::new(samplers);
        theirs.accept(&history);
        let (want, _) = theirs.apply(&row);
        let (mut sampler, recorder) = ours(params.clone(), order, &SamplerContext::new(n_vocab));
        sampler.sample(&row, &history, case, &mut SampleScratch::default()).unwrap();
        let got = recorder.left.lock().unwrap().clone();
        shortened += usize::from(got.len() < n_vocab);
        if !same(&got, &want) {
            different += 1;
            let lens = (got.len(), want.len());
            assert!(lens.0.abs_diff(lens.1) <= 1, "{name}, case {case}: {lens:?} tokens, {params:?}");
            eprintln!("{name}, case {case}: {lens:?} tokens, {params:?}");
        }
    }
    assert!(different <= CASES / 100, "{name}: {different} of {CASES} cases differ");
    eprintln!("{name}: {different} of {CASES} cases differ, {shortened} were cut");
}

fn no_history(_random: &mut Random, _n_vocab: usize) -> Vec<TokenId> {
    Vec::new()
}

/// Few different tokens, with repetitions.
fn repetitive(random: &mut Random, n_vocab: usize) -> Vec<TokenId> {
    let few = 2 + random.below(n_vocab.min(12) - 1);
    (0..random.below(120)).map(|_| random.below(few) as TokenId).collect()
}

// Constructors of llama.cpp's samplers take plain numbers and keep no pointer to ours.
macro_rules! theirs {
    ($($function:ident($($argument:expr),*)),+ $(,)?) => {
        // SAFETY: the arguments are numbers in the ranges that llama.h names.
        unsafe { vec![$(sys::$function($($argument),*)),+] }
    };
}

#[test]
fn filters_keep_the_tokens_that_llama_cpp_keeps() {
    use TransformKind::{MinP, TopK, TopNSigma, TopP, TypicalP, Xtc};
    compare(
        "top-k",
        |random| {
            let k = 1 + random.below(60) as u32;
            (neutral().top_k(k), theirs![llama_sampler_init_top_k(k as i32)])
        },
        &[TopK],
        no_history,
    );
    compare(
        "top-p",
        |random| {
            let p = random.between(0.1, 1.0);
            (neutral().top_p(p), theirs![llama_sampler_init_top_p(p, 0)])
        },
        &[TopP],
        no_history,
    );
    compare(
        "min-p",
        |random| {
            let p = random.between(0.001, 0.5);
            (neutral().min_p(p), theirs![llama_sampler_init_min_p(p, 0)])
        },
        &[MinP],
        no_history,
    );
    compare(
        "typical-p",
        |random| {
            let p = random.between(0.05, 0.99);
            (neutral().typical_p(p), theirs![llama_sampler_init_typical(p, 0)])
        },
        &[TypicalP],
        no_history,
    );
    compare(
        "top-n-sigma",
        |random| {
            let n = random.between(0.3, 4.0);
            (neutral().top_n_sigma(n), theirs![llama_sampler_init_top_n_sigma(n)])
        },
        &[TopNSigma],
        no_history,
    );
    compare(
        "xtc",
        |random| {
            let threshold = random.between(0.01, 0.4);
            let params = neutral().xtc_probability(1.0).xtc_threshold(threshold);
            (params, theirs![llama_sampler_init_xtc(1.0, threshold, 0, 1)])
        },
        &[Xtc],
        no_history,
    );
}

#[test]
fn temperatures_are_those_of_llama_cpp() {
    compare(
        "temperature",
        |random| {
            let t = random.between(0.1, 3.0);
            (neutral().temperature(t), theirs![llama_sampler_init_temp(t)])
        },
        &[TransformKind::Temperature],
        no_history,
    );
    compare(
        "dynamic temperature",
        |random| {
            let (t, range) = (random.between(0.5, 2.0), random.between(0.1, 0.5));
            let exponent = random.between(0.2, 3.0);
            let params = neutral().temperature(t).dynatemp_range(range).dynatemp_exponent(exponent);
            (params, theirs![llama_sampler_init_temp_ext(t, range, exponent)])
        },
        &[TransformKind::Temperature],
        no_history,
    );
}

#[test]
fn penalties_are_those_of_llama_cpp() {
    compare(
        "penalties",
        |random| {
            let (n, repetition) = (random.below(100) as u32 + 1, random.between(0.5, 2.0));
            let (frequency, presence) = (random.between(-1.0, 1.0), random.between(-1.0, 1.0));
            let params = neutral().penalty_window(n).repetition_penalty(repetition);
            let params = params.frequency_penalty(frequency).presence_penalty(presence);
            // The vocabulary is the smallest of the cases; llama.cpp does not look further than at tokens it
            // was told of.
            let theirs = theirs![llama_sampler_init_penalties(40, n as i32, repetition, frequency, presence)];
            (params, theirs)
        },
        &[TransformKind::Penalties],
        repetitive,
    );
}

#[test]
fn dry_is_that_of_llama_cpp() {
    compare(
        "DRY",
        |random| {
            let (multiplier, base) = (random.between(0.2, 2.0), random.between(1.0, 2.0));
            let (allowed, n) = (1 + random.below(4) as i32, 1 + random.below(150) as i32);
            let params = neutral().dry_multiplier(multiplier).dry_base(base).dry_window(n as u32);
            let params = params.dry_allowed_length(allowed as u32).dry_sequence_breakers([""]);
            let (vocab, texts) = (null_mut(), null_mut());
            // Without breakers, the vocabulary is not used.
            (params, theirs![llama_sampler_init_dry(vocab, multiplier, base, allowed, n, texts, 0)])
        },
        &[TransformKind::Dry],
        repetitive,
    );
}

/// The vocabulary of a file, in llama.cpp.
struct Vocabulary(*mut sys::llama_model);

impl Vocabulary {
    fn load(path: &Path) -> Self {
        let text = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string that outlives the call.
        let model = unsafe {
            sys::llama_backend_init();
            let mut params = sys::llama_model_default_params();
            params.vocab_only = true;
            sys::llama_model_load_from_file(text.as_ptr(), params)
        };
        assert!(!model.is_null(), "{}", path.display());
        Self(model)
    }

    fn dry(&self, breakers: &[&str], window: i32) -> Chain {
        let texts: Vec<CString> = breakers.iter().map(|text| CString::new(*text).unwrap()).collect();
        let mut pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        // SAFETY: the model is alive; llama.cpp copies what it needs of the texts, which outlive the call.
        let dry = unsafe {
            let vocab = sys::llama_model_get_vocab(self.0);
            sys::llama_sampler_init_dry(vocab, 0.7, 1.6, 2, window, pointers.as_mut_ptr(), pointers.len())
        };
        Chain::new([dry])
    }
}

impl Drop for Vocabulary {
    fn drop(&mut self) {
        // SAFETY: the model is alive, and its samplers need it only while they are made.
        unsafe { sys::llama_model_free(self.0) };
    }
}

/// The built-in model, and published vocabularies of the test data.
fn vocabularies() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("../models/exsa-tiny-q8_0.gguf")];
    let shared = std::env::var_os("EXSA_TEST_DATA").map_or_else(|| root.join("../../shared"), PathBuf::from);
    let published = ["ggml-vocab-gpt-2.gguf", "ggml-vocab-qwen2.gguf"];
    paths.extend(published.iter().map(|name| shared.join("models/vocab").join(name)));
    paths.retain(|path| path.exists());
    paths
}

const TEXTS: [&str; 6] = [
    "one: two: one: two: one: two",
    "He said \"yes\". He said \"yes\". He said \"",
    "a list\n* item one\n* item two\n* item one\n*",
    "the cat sat on the mat and the cat sat on the hat and the cat sat on",
    "let x = 1;\nlet y = 2;\nlet x = 1;\nlet y =",
    "again and again and again and again and again and",
];

#[test]
fn sequence_breakers_are_those_of_llama_cpp() {
    let mut penalized = 0;
    for path in vocabularies() {
        let gguf = Gguf::read(&mut File::open(&path).unwrap()).unwrap();
        let tokenizer: Arc<dyn Tokenizer> = tokenizer::load(gguf.metadata()).unwrap();
        let (vocabulary, n_vocab) = (Vocabulary::load(&path), tokenizer.n_vocab());
        let context = SamplerContext::new(n_vocab).with_tokenizer(&*tokenizer);
        for breakers in [&["\n", ":", "\"", "*"][..], &["\n"], &[" cat"], &["item", "yes"], &["sat on the"]] {
            // A breaker of several tokens is encoded with the vocabulary's leading space by llama.cpp, and
            // never found.
            if tokenizer.leading_space() && breakers.iter().any(|text| text.len() > 1) {
                continue;
            }
            for window in [8, 200] {
                let params = neutral().dry_multiplier(0.7).dry_base(1.6).dry_window(window as u32);
                let params = params.dry_sequence_breakers(breakers.iter().copied());
                let (mut sampler, recorder) = ours(params, &[TransformKind::Dry], &context);
                let mut theirs = vocabulary.dry(breakers, window);
                for text in TEXTS {
                    let mut history = Vec::new();
                    tokenizer.encode(text, &Default::default(), &mut history);
                    let row = vec![0.0; n_vocab];
                    sampler.sample(&row, &history, 0, &mut SampleScratch::default()).unwrap();
                    theirs.reset();
                    theirs.accept(&history);
                    let (want, _) = theirs.apply(&row);
                    let got = recorder.left.lock().unwrap().clone();
                    assert!(same(&got, &want), "{}: {breakers:?} {text:?}", path.display());
                    penalized += usize::from(want.iter().any(|&(_, logit)| logit < 0.0));
                }
            }
        }
    }
    assert!(penalized > 8, "{penalized} cases have a penalty");
}

#[test]
fn whole_chains_agree() {
    use TransformKind::{Dry, MinP, Penalties, Temperature, TopK, TopNSigma, TopP, TypicalP};
    // Top-n-sigma of llama.cpp leaves tokens of logit -inf in place, whose surprise its typical-p cannot
    // compute: not both.
    for filter in [TopNSigma, TypicalP] {
        let steps = [Penalties, Dry, filter, TopK, TopP, MinP, Temperature];
        for rotation in 0..steps.len() {
            let mut order = steps;
            order.rotate_left(rotation);
            compare(
                "a chain",
                |random| {
                    let (k, p) = (5 + random.below(60) as u32, random.between(0.7, 1.0));
                    let (min_p, t) = (random.between(0.0, 0.1), random.between(0.5, 1.5));
                    let params = SamplingParams::default().top_k(k).top_p(p).min_p(min_p).temperature(t);
                    let params = params.top_n_sigma(3.0).typical_p(0.98).repetition_penalty(1.2);
                    let params = params.dry_multiplier(0.8).dry_sequence_breakers([""]).seed(1);
                    let samplers = order.map(|kind| match kind {
                        Penalties => theirs![llama_sampler_init_penalties(40, 64, 1.2, 0.0, 0.0)],
                        Dry => theirs![llama_sampler_init_dry(null_mut(), 0.8, 1.75, 2, 64, null_mut(), 0)],
                        TopNSigma => theirs![llama_sampler_init_top_n_sigma(3.0)],
                        TopK => theirs![llama_sampler_init_top_k(k as i32)],
                        TypicalP => theirs![llama_sampler_init_typical(0.98, 0)],
                        TopP => theirs![llama_sampler_init_top_p(p, 0)],
                        MinP => theirs![llama_sampler_init_min_p(min_p, 0)],
                        _ => theirs![llama_sampler_init_temp(t)],
                    });
                    (params, samplers.concat())
                },
                &order,
                repetitive,
            );
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_llama_cpp() {
    for case in 0..200 {
        let mut random = Random(case);
        let mut row = random.row(1000);
        if case % 4 == 0 {
            row.iter_mut().for_each(|logit| *logit = logit.round());
        }
        let mut sampler = SamplingParams::greedy().build(&SamplerContext::new(1000)).unwrap();
        let token = sampler.sample(&row, &[], 0, &mut SampleScratch::default()).unwrap().token;
        let (_, selected) = Chain::new(theirs![llama_sampler_init_greedy()]).apply(&row);
        assert_eq!(Some(token), selected, "case {case}");
    }
}

/// Answers of `len` tokens by a llama.cpp chain that draws, and our sampler led along: at each step, the
/// position whose noise makes ours draw the same token. Returns how many answers left the common path: those
/// where the log probability of a token differs.
fn diverging(
    answers: u64,
    len: usize,
    params: &SamplingParams,
    order: &[TransformKind],
    temperature: f32,
    theirs: impl Fn(usize, u32) -> *mut sys::llama_sampler,
) -> u64 {
    let mut different = 0;
    'answers: for answer in 0..answers {
        let mut random = Random(1000 + answer);
        let n_vocab = [40, 200][answer as usize % 2];
        let mut chain = Chain::new(
            theirs![llama_sampler_init_temp(temperature)]
                .into_iter()
                .chain([theirs(n_vocab, answer as u32 + 1)]),
        );
        let (mut sampler, recorder) = ours(params.clone(), order, &SamplerContext::new(n_vocab));
        let (mut scratch, mut position) = (SampleScratch::default(), answer << 32);
        for step in 0..len {
            let row = random.row(n_vocab);
            let (left, selected) = chain.apply(&row);
            let selected = selected.unwrap();
            let tries = (0..50_000).find(|_| {
                position += 1;
                sampler.sample(&row, &[], position, &mut scratch).unwrap().token == selected
            });
            let want = probabilities(&left).into_iter().find(|&(id, _)| id == selected).unwrap().1.ln();
            chain.accept(&[selected]);
            sampler.accept(selected);
            let got = recorder.logprob.lock().unwrap().map(f64::from);
            if tries.is_none() || got.is_none_or(|got| (got - want).abs() > 1e-3) {
                eprintln!("answer {answer}, step {step}: {got:?} {want}");
                different += 1;
                continue 'answers;
            }
        }
    }
    different
}

#[test]
fn mirostat_follows_llama_cpp() {
    for (version, tau, eta) in [
        // A k beyond the range of an integer becomes 1 in llama.cpp, which these targets do not reach.
        (Mirostat::V1, 1.0, 0.1),
        (Mirostat::V1, 1.5, 0.3),
        (Mirostat::V2, 3.0, 0.1),
        (Mirostat::V2, 1.5, 0.3),
    ] {
        let params = neutral().temperature(0.9).mirostat(version).mirostat_tau(tau).mirostat_eta(eta);
        let different = diverging(24, 12, &params, &[TransformKind::Temperature], 0.9, |n_vocab, seed| {
            // SAFETY: plain numbers. The vocabulary's size only enters the estimate of k.
            unsafe {
                match version {
                    Mirostat::V1 => sys::llama_sampler_init_mirostat(n_vocab as i32, seed, tau, eta, 100),
                    _ => sys::llama_sampler_init_mirostat_v2(seed, tau, eta),
                }
            }
        });
        // A k that is an integer up to rounding makes another one.
        assert!(different <= 2, "{version:?}: {different} of 24 answers differ");
    }
}

#[test]
fn adaptive_p_follows_llama_cpp() {
    for (target, decay) in [(0.3, 0.9), (0.6, 0.5), (0.1, 0.0)] {
        let params = neutral().temperature(0.7).adaptive_target(target).adaptive_decay(decay);
        let order = [TransformKind::Temperature, TransformKind::AdaptiveP];
        let different = diverging(16, 12, &params, &order, 0.7, |_, seed| {
            // SAFETY: plain numbers.
            unsafe { sys::llama_sampler_init_adaptive_p(target, decay, seed) }
        });
        assert_eq!(different, 0, "{target} {decay}");
    }
}
