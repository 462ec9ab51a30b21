//! Greedy texts of real models, to the letter.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_core::tokenizer::EncodeOptions;
use support::{greedy, load, session, shared_model};

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
    let model = load(shared_model(name)?);
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
