//! Lookups and the start with 10,000 entries: `cargo bench -p exsa-cache --bench lookup`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use exsa_cache::PromptCache;
use exsa_core::prompt_cache::{PromptStore, SavedPrompt};
use std::hint::black_box;
use support::{Folder, key, record, tokens};

const ENTRIES: u64 = 10_000;

fn lookup(criterion: &mut Criterion) {
    let folder = Folder::new("bench");
    let cache = PromptCache::open(folder.options().queue_max(64)).unwrap();
    // A tenth share a system prompt of 1,000 tokens; each has 4,000 in all, and a small record.
    let prompt = |seed: u64| match seed % 10 {
        0 => [tokens(u64::MAX, 1000), tokens(seed, 3000)].concat(),
        _ => tokens(seed, 4000),
    };
    for seed in 0..ENTRIES {
        let tokens = prompt(seed);
        drop(cache.buffer(100, support::PATIENCE).unwrap());
        cache.write(SavedPrompt::new(&key(&tokens), record(&tokens, 1000)));
    }
    assert!(cache.flush(support::PATIENCE * 20));
    assert_eq!(cache.stats().entries as u64, ENTRIES);
    for (name, tokens) in [
        ("4,000 tokens stored", prompt(5001)),
        (
            "4,000 tokens after a common system prompt",
            [tokens(u64::MAX, 1000), tokens(1 << 40, 3000)].concat(),
        ),
        ("unknown prompt", tokens(1 << 41, 4000)),
    ] {
        for whole in [false, true] {
            let name = format!("{name}{}", if whole { ", whole entries" } else { "" });
            criterion.bench_function(&name, |bencher| {
                bencher.iter(|| black_box(cache.find(&key(&tokens), whole)));
            });
        }
    }
    drop(cache);
    let mut group = criterion.benchmark_group("start");
    group.sample_size(10);
    group.bench_function("10,000 entries", |bencher| bencher.iter(|| folder.open()));
}

criterion_group!(benches, lookup);
criterion_main!(benches);
