//! Greedy texts of real models, to the letter.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_llamacpp::{KvLayout, LlamaCppBackend};
use exsa_core::SeqId;
use exsa_core::backend::ModelSource;
use exsa_core::batch::{Batch, Span};
use exsa_core::tokenizer::EncodeOptions;
use std::path::PathBuf;
use support::{argmax, candle, greedy, load, load_with, session, shared};

const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One \
                     day, she saw a big, red ball. She wanted to play with it, but it was too high.\n\
                     Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She \
                     said, \"I want to play with your ball, but I can't find it.\"\n\
                     Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to \
                     do.\"\n\
                     Lily didn't want to help her mom, so she";

const TINY: &str = "Once upon a time, there was a little girl named Lily. She loved to play with her toys and eat \
                    cookies. One day, she found a big cake with a big bucket. She picked it up and put it in her \
                    pocket.\nLily took a bucket of cake and put it in her";

/// The text of `n` greedy tokens after BOS and `prompt`, with the prompt.
fn text(name: &str, prompt: &str, n: usize) -> Option<String> {
    let model = load(shared(name)?);
    let tokenizer = model.tokenizer();
    let mut ids = vec![tokenizer.special().bos.unwrap()];
    if !prompt.is_empty() {
        tokenizer.encode(prompt, &EncodeOptions::default(), &mut ids);
    }
    let continuation = greedy(&mut *session(&model), 0, &ids, n);
    ids.extend(continuation);
    let mut bytes = Vec::new();
    ids[1..].iter().for_each(|&id| tokenizer.piece(id, &mut bytes));
    let text = String::from_utf8(bytes).unwrap();
    Some(text.strip_prefix(' ').map(str::to_owned).unwrap_or(text))
}

#[test]
fn stories260k() {
    let Some(text) = text("stories260K-f32.gguf", "", 200) else { return };
    assert_eq!(text, STORY);
}

#[test]
fn stories260k_in_8_bits_begins_alike() {
    let Some(text) = text("stories260K-q8_0.gguf", "", 64) else { return };
    assert!(STORY.starts_with(&text), "{text}");
}

#[test]
fn exsa_tiny() {
    for name in ["exsa-tiny-f32.gguf", "exsa-tiny-f16.gguf"] {
        let Some(text) = text(name, "Once upon a time", 64) else { return };
        assert_eq!(text, TINY, "{name}");
    }
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
