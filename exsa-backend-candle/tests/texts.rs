//! Texts of trained models: greedy texts to the letter, and control tokens spelled out in text.

#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::{Failure, Fixture, test_data, texts};
use exsa_core::backend::ModelSource;
use exsa_core::sampler::SamplingParams;
use exsa_core::stream::Completion;
use exsa_core::{Engine, EngineOptions, FinishReason, Request};
use support::load;

/// Keys and values are exact, so that texts are those of the reference.
fn exact(model: ModelSource) -> Fixture {
    Fixture::new(CandleBackend::new(), model).session_options(support::exact())
}

/// Answers `request` with a model of the test data.
fn answer(name: &str, request: Request) -> Option<Completion> {
    let engine = Engine::start(load(test_data::model(name)?), EngineOptions::default()).unwrap();
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
fn stories260k() -> Result<(), Failure> {
    texts::stories260k(exact)
}

#[test]
fn stories260k_in_8_bits_begins_alike() -> Result<(), Failure> {
    texts::stories260k_in_8_bits_begins_alike(exact)
}

#[test]
fn exsa_tiny() -> Result<(), Failure> {
    texts::exsa_tiny(exact)
}
