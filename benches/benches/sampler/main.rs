//! Sampling one token, over vocabularies of 32, 128 and 256 thousand. Lines with aims come first: with the
//! feature `llamacpp` our chains and llama.cpp's on the same rows, and with `EXSA_BENCH_MODEL=FILE`, a GGUF
//! of 1B parameters, the share that sampling has of a step.
#![allow(missing_docs)]

#[cfg(feature = "llamacpp")]
mod compare;
#[cfg(feature = "llamacpp")]
mod llama_cpp;
mod share;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exsa_benches::random::Random;
use exsa_core::sampler::{
    Candidates, Mirostat, SampleScratch, SamplerContext, SamplingError, SamplingParams, Step, Transform,
    TransformFactory,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Different rows, so that no branch is learnt by heart.
const ROWS: usize = 16;
/// Sequences of a batch, each with a row of its own.
const SEQUENCES: usize = 32;
/// Tokens of history for the penalties.
const HISTORY: usize = 1000;

fn chains() -> [(&'static str, SamplingParams); 14] {
    let base = SamplingParams::default;
    let open = || base().top_k(None).top_p(1.0).min_p(0.0);
    [
        ("greedy", SamplingParams::greedy()),
        ("default", base()),
        ("top_k_top_p", base().min_p(0.0)),
        ("top_k", open().top_k(40)),
        ("top_p", open().top_p(0.95)),
        ("min_p", open().min_p(0.05)),
        ("temperature", open()),
        ("penalties", base().min_p(0.0).repetition_penalty(1.1).frequency_penalty(0.2)),
        ("typical_p", open().typical_p(0.95)),
        ("top_n_sigma", open().top_n_sigma(1.0)),
        ("dynamic_temperature", open().dynatemp_range(0.5)),
        ("mirostat_1", open().mirostat(Mirostat::V1)),
        ("mirostat_2", open().mirostat(Mirostat::V2)),
        ("adaptive_p", open().adaptive_target(0.5)),
    ]
}

/// Keeps the tokens of a mask, as a grammar does.
#[derive(Clone, Debug)]
struct Mask(Vec<u64>);

impl Transform for Mask {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.retain(&self.0);
    }
}

impl TransformFactory for Mask {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(self.clone()))
    }
}

/// Masks that allow nearly all tokens, about half of them, and about one in a thousand.
fn masks(n_vocab: usize) -> [(&'static str, Mask); 3] {
    let mut random = Random::new(3);
    let mut mask = |share: usize| {
        let bit = |bit: usize, random: &mut Random| u64::from(random.below(1000) < share) << bit;
        Mask((0..n_vocab.div_ceil(64)).map(|_| (0..64).map(|i| bit(i, &mut random)).sum()).collect())
    };
    [("mask_999", mask(999)), ("mask_500", mask(500)), ("mask_1", mask(1))]
}

/// Logits as models have them: a bell curve, and a few tokens far above it.
fn rows(n_vocab: usize) -> Vec<Vec<f32>> {
    let row = |seed| {
        let mut random = Random::new(seed);
        let mut row: Vec<_> = (0..n_vocab).map(|_| random.bell() * 2.5).collect();
        for _ in 0..20 {
            let at = random.below(n_vocab);
            row[at] += 10.0 + random.bell();
        }
        row
    };
    (0..ROWS as u64).map(row).collect()
}

/// Logits that are nearly equal.
fn flat_rows(n_vocab: usize) -> Vec<Vec<f32>> {
    let mut random = Random::new(99);
    (0..ROWS).map(|_| (0..n_vocab).map(|_| random.bell() * 0.01).collect()).collect()
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Measures `sample` on the rows in turn.
fn bench_rows(group: &mut Group<'_>, name: &str, rows: &[Vec<f32>], sample: &mut dyn FnMut(&[f32])) {
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        let mut i = 0;
        bencher.iter(|| {
            i += 1;
            sample(&rows[i % ROWS]);
        });
    });
}

fn sampler(criterion: &mut Criterion) {
    for n_vocab in [32_000, 128_256, 256_000] {
        let mut group = criterion.benchmark_group(format!("sampler/{n_vocab}"));
        group.throughput(Throughput::Elements(n_vocab as u64));
        let rows = rows(n_vocab);
        let mut random = Random::new(7);
        let history: Vec<_> = (0..HISTORY).map(|_| random.below(n_vocab) as u32).collect();
        let context = SamplerContext::new(n_vocab);
        let bench = |group: &mut Group<'_>,
                     name: &str,
                     rows: &[Vec<f32>],
                     params: &SamplingParams,
                     mask: Option<Mask>| {
            let mask = mask.map(|mask| Arc::new(mask) as Arc<dyn TransformFactory>);
            let Ok(mut sampler) = params.build_with(&context, mask.as_slice()) else { return };
            let (mut scratch, mut position) = (SampleScratch::default(), 0);
            bench_rows(group, name, rows, &mut |row| {
                position += 1;
                let _ = black_box(sampler.sample(row, &history, position, &mut scratch));
            });
        };
        for (name, params) in chains() {
            bench(&mut group, name, &rows, &params, None);
        }
        let open = SamplingParams::default().top_k(None).top_p(1.0).min_p(0.0);
        bench(&mut group, "temperature_flat", &flat_rows(n_vocab), &open, None);
        for (name, mask) in masks(n_vocab) {
            bench(&mut group, name, &rows, &SamplingParams::greedy(), Some(mask));
        }
        for (name, params) in [("default", SamplingParams::default()), ("temperature", open)] {
            let samplers = (0..SEQUENCES as u64).map(|seed| params.clone().seed(seed).build(&context));
            let mut samplers: Vec<_> = samplers.flatten().collect();
            let (mut scratch, mut position) = (SampleScratch::default(), 0);
            group.bench_function(format!("{name}_{SEQUENCES}_sequences"), |bencher| {
                bencher.iter(|| {
                    position += 1;
                    for (sampler, row) in samplers.iter_mut().zip(rows.iter().cycle()) {
                        let _ = black_box(sampler.sample(row, &history, position, &mut scratch));
                    }
                });
            });
        }
        group.finish();
    }
}

fn compared(_criterion: &mut Criterion) {
    #[cfg(feature = "llamacpp")]
    compare::run();
    #[cfg(not(feature = "llamacpp"))]
    println!("chains against llama.cpp's: skipped: the feature llamacpp is off");
    share::run();
}

/// Some sixty figures: together, with those with aims, they take less than six minutes.
fn configured() -> Criterion {
    let criterion = Criterion::default().sample_size(20);
    criterion.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1500))
}

criterion_group! {
    name = benches;
    config = configured();
    targets = compared, sampler
}
criterion_main!(benches);
