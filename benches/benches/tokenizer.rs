//! Encoding 64 KiB of text: with vocabularies learnt on the spot, that of the built-in model, and published
//! ones where the test data has them.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exsa_benches::text::{one_word, prose, test_data};
use exsa_benches::vocabulary::Learnt;
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer::{self, EncodeOptions, Tokenizer, TokenizerModel};
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BYTES: usize = 64 << 10;
/// Path of the built-in model.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf");

fn encode(criterion: &mut Criterion, name: &str, tokenizer: &dyn Tokenizer, texts: &[(&str, String)]) {
    let mut group = criterion.benchmark_group(format!("tokenizer/{name}"));
    let mut ids = Vec::new();
    for (kind, text) in texts {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(kind), |bencher| {
            bencher.iter(|| {
                ids.clear();
                tokenizer.encode(text, &EncodeOptions::default(), &mut ids);
                ids.len()
            });
        });
    }
    group.finish();
}

fn learnt(criterion: &mut Criterion) {
    let learnt = Learnt::from_text(&prose(BYTES, 1), 1000);
    let texts = [("prose", prose(BYTES, 2)), ("one_word", one_word(BYTES))];
    for (name, model) in
        [("spm", TokenizerModel::Spm), ("bpe", TokenizerModel::Bpe), ("wpm", TokenizerModel::Wpm)]
    {
        match learnt.tokenizer(model) {
            Ok(tokenizer) => encode(criterion, &format!("learnt-{name}"), &*tokenizer, &texts),
            Err(error) => eprintln!("skipped: learnt-{name}: {error}"),
        }
    }
}

fn published(criterion: &mut Criterion) {
    let data = test_data();
    let english = data.as_ref().and_then(|data| fs::read(data.join("models/heldout.txt")).ok());
    let english = english.map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES)]).into_owned());
    let texts = [("prose", english.unwrap_or_else(|| prose(BYTES, 2))), ("one_word", one_word(BYTES))];
    let mut files = vec![PathBuf::from(BUILT_IN)];
    match &data {
        Some(data) => files.extend(vocabularies(&data.join("models/vocab"))),
        None => eprintln!("skipped: published vocabularies; EXSA_TEST_DATA names no folder with models/"),
    }
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match load(&file) {
            Ok(tokenizer) => encode(criterion, &name, &*tokenizer, &texts),
            Err(error) => eprintln!("skipped: {}: {error}", file.display()),
        }
    }
}

fn vocabularies(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    files
}

fn load(path: &Path) -> Result<Arc<dyn Tokenizer>, Box<dyn Error>> {
    let gguf = Gguf::read(&mut File::open(path)?)?;
    Ok(tokenizer::load(gguf.metadata())?)
}

criterion_group!(benches, learnt, published);
criterion_main!(benches);
