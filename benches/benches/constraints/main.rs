//! Masks of grammars over a vocabulary of 128 thousand tokens, and constrained streams beside others.
//!
//! `EXSA_TEST_DATA` names the folder with `models/vocab/ggml-vocab-llama-bpe.gguf`; without it there are no
//! masks. `EXSA_BENCH_MODEL` names the GGUF of the streams; without it, it is SmolLM2 where that was fetched,
//! else the built-in model, whose steps are shorter than those of any model in use.
#![allow(missing_docs)]

mod masks;
mod streams;

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

fn configured() -> Criterion {
    let criterion = Criterion::default().sample_size(20);
    criterion.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

fn streams(_criterion: &mut Criterion) {
    if let Err(error) = streams::run() {
        eprintln!("streams: {error}");
    }
}

criterion_group! {
    name = benches;
    config = configured();
    targets = masks::masks, streams
}
criterion_main!(benches);
