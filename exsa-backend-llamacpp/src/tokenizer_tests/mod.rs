//! Core's tokenizers against llama.cpp's, on every vocabulary of the test data, on vocabularies made here for
//! every kind of tokenizer and every pre-tokenizer, and on random texts.

mod charsmap;
mod made;

use crate::ffi::Vocab;
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer::{self, EncodeOptions, Tokenizer};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RANDOM_TEXTS: u64 = 2000;

/// Alphabets that texts are drawn from, as ranges of code points.
const ALPHABETS: [&[(u32, u32)]; 9] = [
    &[(0x20, 0x7e)],
    &[(0x61, 0x7a), (0x20, 0x20), (0x27, 0x27)],
    &[(0x30, 0x39), (0x2c, 0x2e), (0x20, 0x20)],
    &[
        (0x09, 0x0d),
        (0x20, 0x20),
        (0x85, 0x85),
        (0xa0, 0xa0),
        (0x2000, 0x200d),
        (0x3000, 0x3000),
        (0x61, 0x63),
    ],
    &[(0xc0, 0x24f), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff), (0x20, 0x20)],
    &[(0x4e00, 0x4fff), (0x3040, 0x30ff), (0xac00, 0xacff), (0x3001, 0x3002)],
    &[(0x1f300, 0x1f6ff), (0x1f1e6, 0x1f1ff), (0xfe0f, 0xfe0f), (0x200d, 0x200d), (0x20, 0x20)],
    &[(0x590, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f), (0x660, 0x669), (0x20, 0x20)],
    &[(0x1, 0xd7ff), (0xe000, 0x10ffff)],
];

/// A random text: the same for the same seed.
fn random_text(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let len = next(60);
    let mut text = String::new();
    let mut alphabet = ALPHABETS[next(ALPHABETS.len() as u64) as usize];
    for _ in 0..len {
        if next(12) == 0 {
            alphabet = ALPHABETS[next(ALPHABETS.len() as u64) as usize];
        }
        let (first, last) = alphabet[next(alphabet.len() as u64) as usize];
        text.extend(char::from_u32(first + next(u64::from(last - first) + 1) as u32));
    }
    text
}

fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let models = root.join("models");
    if models.is_dir() {
        return Some(models);
    }
    eprintln!("skipped: {} is not there; set EXSA_TEST_DATA to the folder of test data", models.display());
    None
}

fn ours(path: &Path) -> Arc<dyn Tokenizer> {
    let gguf = Gguf::read(&mut File::open(path).unwrap()).unwrap();
    tokenizer::load(gguf.metadata()).unwrap()
}

#[test]
fn ids_are_those_of_llama_cpp() {
    let built_in = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let mut paths = vec![built_in];
    if let Some(models) = shared() {
        paths.push(models.join("stories260K-f32.gguf"));
        let files = std::fs::read_dir(models.join("vocab")).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|ending| ending == "gguf")));
    }
    let mut different = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (ours, theirs) = (ours(path), Vocab::load(path).unwrap());
        let mut texts: Vec<String> = (0..RANDOM_TEXTS).map(random_text).collect();
        if let Ok(inputs) = std::fs::read_to_string(format!("{}.inp", path.display())) {
            texts.extend(inputs.split("\n__ggml_vocab_test__\n").map(str::to_owned));
        }
        compare(&name, &*ours, &theirs, texts, &mut different);
    }
    check(&different);
}

fn check(different: &[String]) {
    assert!(
        different.is_empty(),
        "{} texts:\n{}",
        different.len(),
        different[..different.len().min(40)].join("\n")
    );
}

/// Adds the texts for which the two differ to `different`.
fn compare(
    name: &str,
    ours: &dyn Tokenizer,
    theirs: &Vocab,
    texts: impl IntoIterator<Item = String>,
    different: &mut Vec<String>,
) {
    let before = different.len();
    for text in texts {
        let mut ids = Vec::new();
        ours.encode(&text, &EncodeOptions::default(), &mut ids);
        let expected = theirs.tokenize(&text);
        if ids != expected {
            different.push(format!("{name}: {text:?}\n  ours {ids:?}\n  llama.cpp {expected:?}"));
        }
    }
    eprintln!("{name}: {} different", different.len() - before);
}
