//! Turning ids into text one by one, with and without a search for stop strings.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exsa_benches::text::prose;
use exsa_benches::vocabulary::Learnt;
use exsa_core::scripted::ByteTokenizer;
use exsa_core::text::Detokenizer;
use exsa_core::text::StopMatcher;
use exsa_core::tokenizer::{EncodeOptions, Tokenizer, TokenizerModel};
use std::sync::Arc;

const BYTES: usize = 16 << 10;

fn detokenizer(criterion: &mut Criterion) {
    let learnt = Learnt::from_text(&prose(BYTES, 1), 1000);
    // Every byte a token: characters of four bytes are held back three times.
    let mut tokenizers: Vec<(&str, Arc<dyn Tokenizer>, String)> =
        vec![("bytes", Arc::new(ByteTokenizer::new()), "Grüße, 世界 🎈 ".repeat(BYTES / 22))];
    for (name, model) in [("spm", TokenizerModel::Spm), ("bpe", TokenizerModel::Bpe)] {
        match learnt.tokenizer(model) {
            Ok(tokenizer) => tokenizers.push((name, tokenizer, prose(BYTES, 2))),
            Err(error) => eprintln!("skipped: {name}: {error}"),
        }
    }
    for (name, tokenizer, text) in &tokenizers {
        let mut ids = Vec::new();
        tokenizer.encode(text, &EncodeOptions::default(), &mut ids);
        let mut group = criterion.benchmark_group("detokenizer");
        group.throughput(Throughput::Elements(ids.len() as u64));
        let mut out = String::with_capacity(2 * text.len());
        group.bench_function(BenchmarkId::new("push", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                let mut detokenizer = Detokenizer::new(&**tokenizer, true);
                ids.iter().for_each(|id| detokenizer.push(&**tokenizer, *id, &mut out));
                detokenizer.finish(&mut out);
                out.len()
            });
        });
        group.finish();
    }
}

fn stop(criterion: &mut Criterion) {
    let text = prose(BYTES, 2);
    let mut group = criterion.benchmark_group("stop");
    group.throughput(Throughput::Bytes(text.len() as u64));
    for count in [1, 4, 16] {
        let stops: Vec<_> = (0..count).map(|i| format!(". The end {i}")).collect();
        let Ok(matcher) = StopMatcher::new(&stops) else { continue };
        let mut out = String::with_capacity(2 * text.len());
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                out.clear();
                let mut matcher = matcher.clone();
                for piece in text.split_inclusive(' ') {
                    matcher.push(piece, &mut out);
                }
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, detokenizer, stop);
criterion_main!(benches);
