//! Greedy texts of real models, to the letter.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_llamacpp::{KvLayout, LlamaCppBackend};
use exsa_conformance::harness::{argmax, greedy};
use exsa_conformance::{Failure, Fixture, texts};
use exsa_core::SeqId;
use exsa_core::backend::ModelSource;
use exsa_core::batch::{Batch, Span};
use exsa_core::tokenizer::EncodeOptions;
use std::path::PathBuf;
use support::{candle, exact, exact_options, load_with, session};

fn plain(model: ModelSource) -> Fixture {
    Fixture::new(exact(), model).session_options(exact_options())
}

#[test]
fn stories260k() -> Result<(), Failure> {
    texts::stories260k(plain)
}

#[test]
fn stories260k_in_8_bits_begins_alike() -> Result<(), Failure> {
    texts::stories260k_in_8_bits_begins_alike(plain)
}

#[test]
fn exsa_tiny() -> Result<(), Failure> {
    texts::exsa_tiny(plain)
}

/// The built-in model, from a file, from memory and embedded, with default options, as candle writes it.
#[test]
fn built_in_model() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let bytes = std::fs::read(&path).unwrap();
    let leaked: &'static [u8] = Vec::leak([&[0], &bytes[..]].concat());
    let expected = {
        let model = candle(path.clone());
        let bos = model.tokenizer().special().bos.unwrap();
        greedy(&mut *session(&model), 0, &[bos], 40)
    };
    for source in
        [ModelSource::File(path), ModelSource::Memory(bytes.into()), ModelSource::Embedded(&leaked[1..])]
    {
        let model = load_with(&LlamaCppBackend::new(), &source);
        let bos = model.tokenizer().special().bos.unwrap();
        let mut session = model.session(&support::options()).unwrap();
        assert_eq!(greedy(&mut *session, 0, &[bos], 40), expected);
    }
}

/// Several sequences in one batch write what each writes alone.
#[test]
fn together_as_alone() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    for layout in [KvLayout::Unified, KvLayout::Streams] {
        let model = load_with(&LlamaCppBackend::new().kv_layout(layout), &ModelSource::file(&path));
        let tokenizer = model.tokenizer();
        let prompts =
            ["Once upon a time", "The dog", "Tom and Lily went to the park. They saw"].map(|text| {
                let mut ids = vec![tokenizer.special().bos.unwrap()];
                tokenizer.encode(text, &EncodeOptions::default(), &mut ids);
                ids
            });
        let session = || model.session(&support::options()).unwrap();
        let alone: Vec<_> = prompts.iter().map(|ids| greedy(&mut *session(), 5, ids, 32)).collect();
        let mut session = session();
        let mut texts = prompts.to_vec();
        let mut held = [0; 3];
        for _ in 0..32 {
            let mut batch = Batch::new();
            for (i, text) in texts.iter().enumerate() {
                batch.push(Span::tokens(SeqId(i as u32), held[i], &text[held[i]..]).rows(1));
            }
            let logits = session.forward(&batch).unwrap().logits().unwrap();
            for (i, text) in texts.iter_mut().enumerate() {
                held[i] = text.len();
                text.push(argmax(logits.row(i).unwrap()));
            }
        }
        for (i, text) in texts.iter().enumerate() {
            assert_eq!(text[prompts[i].len()..], alone[i], "{layout:?}, sequence {i}");
        }
    }
}
