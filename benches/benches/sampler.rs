//! Sampling one token, over vocabularies of 32 and 128 thousand.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exsa_benches::random::Random;
use exsa_core::sampler::{SampleScratch, SamplerContext, SamplingParams};
use std::hint::black_box;

/// Different rows, so that no branch is learnt by heart.
const ROWS: usize = 16;
/// Tokens of history for the penalties.
const HISTORY: usize = 1000;

fn chains() -> [(&'static str, SamplingParams); 6] {
    let base = SamplingParams::default;
    let open = || base().top_k(None).top_p(1.0).min_p(0.0);
    [
        ("greedy", SamplingParams::greedy()),
        ("default", base()),
        ("top_k", open().top_k(40)),
        ("top_p", open().top_p(0.95)),
        ("temperature", open()),
        ("penalties", base().repetition_penalty(1.1).frequency_penalty(0.2)),
    ]
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

fn sampler(criterion: &mut Criterion) {
    for n_vocab in [32_000, 128_256] {
        let mut group = criterion.benchmark_group(format!("sampler/{n_vocab}"));
        group.throughput(Throughput::Elements(n_vocab as u64));
        let rows = rows(n_vocab);
        let mut random = Random::new(7);
        let history: Vec<_> = (0..HISTORY).map(|_| random.below(n_vocab) as u32).collect();
        for (name, params) in chains() {
            let Ok(mut sampler) = params.build(&SamplerContext::new(n_vocab)) else { continue };
            let mut scratch = SampleScratch::default();
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                let mut position = 0;
                bencher.iter(|| {
                    position += 1;
                    let row = &rows[position as usize % ROWS];
                    black_box(sampler.sample(row, &history, position, &mut scratch))
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sampler);
criterion_main!(benches);
