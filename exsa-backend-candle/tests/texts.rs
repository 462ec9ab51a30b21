//! Greedy texts of real models, to the letter.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_core::sampler::SamplingParams;
use exsa_core::stream::Completion;
use exsa_core::tokenizer::EncodeOptions;
use exsa_core::{Engine, EngineOptions, FinishReason, Request};
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

/// Answers `request` with a model of the test data.
fn answer(name: &str, request: Request) -> Option<Completion> {
    let engine = Engine::start(load(shared_model(name)?), EngineOptions::default()).unwrap();
    Some(engine.submit(request).unwrap().complete().unwrap())
}

#[test]
fn a_stop_string_may_be_the_text_of_a_control_token() {
    let sampling = SamplingParams::greedy().logit_bias(vec![(3, 100.0)]);
    let request = Request::text("Once").sampling(sampling).max_tokens(8);
    let name = "exsa-tiny-q8_0.gguf";
    let Some(stopped) = answer(name, request.clone().stop("x").stop("<|im_start|>")) else { return };
    assert_eq!((stopped.text.as_str(), stopped.reason), ("", FinishReason::StopString(1)));
    assert_eq!(stopped.usage.completion_tokens, 1);
    let without = answer(name, request).unwrap();
    assert_eq!((without.reason, without.usage.completion_tokens), (FinishReason::MaxTokens, 8));
}

#[test]
fn a_prompt_that_spells_bos_has_it_once() {
    let tokens = |text: &str, parse_special| {
        let mut request = Request::text(text).max_tokens(1);
        request.parse_special = parse_special;
        answer("stories260K-f32.gguf", request).map(|answer| answer.usage.prompt_tokens)
    };
    let Some(plain) = tokens("Once", true) else { return };
    assert_eq!(tokens("<s>Once", true), Some(plain));
    assert_eq!(tokens("<s><s>Once", true), Some(plain + 1));
    assert!(tokens("<s>Once", false) > Some(plain + 1));
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
