//! Bad input on its way through the engine and a real model: each a typed error with words that help, and the
//! next request is answered.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, ModelSource, SessionOptions, ThreadOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, GgufWriter, Value};
use exsa_core::sampler::{SamplingError, SamplingParams};
use exsa_core::{Engine, EngineOptions, Message, Request, RequestError, SubmitError};
use std::sync::Arc;
use support::edit_of;

const CONTEXT: usize = 48;

fn engine(edit: &Edit) -> Engine {
    let session = SessionOptions::new().context_tokens(CONTEXT).threads(ThreadOptions::compute(1));
    Engine::start(edit.load(&CandleBackend::new()).unwrap(), EngineOptions::default().session(session))
        .unwrap()
}

fn refused(engine: &Engine, request: Request, words: &[&str]) -> SubmitError {
    let Err(error) = engine.submit(request) else { panic!("accepted, but should say {words:?}") };
    let text = error.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "'{text}' does not say '{word}'"));
    error
}

#[test]
fn prompts_that_cannot_be_answered() {
    let engine = engine(&edit_of("llama-f32"));
    let long = vec![5; CONTEXT];
    let error = refused(&engine, Request::tokens(long.clone()), &["48", "47", "the context"]);
    assert!(matches!(error, SubmitError::PromptTooLong { tokens: 48, limit: 47, .. }));
    let text = "word ".repeat(1000);
    assert!(matches!(refused(&engine, Request::text(text), &["47"]), SubmitError::PromptTooLong { .. }));
    assert!(matches!(refused(&engine, Request::tokens([]), &["empty"]), SubmitError::EmptyPrompt));
    for token in [512, u32::MAX] {
        let text = token.to_string();
        let words = [text.as_str(), "512"];
        assert!(matches!(
            refused(&engine, Request::tokens([5, token]), &words),
            SubmitError::InvalidToken { n_vocab: 512, .. }
        ));
        refused(&engine, Request::text("a").stop_token(token), &words);
    }
    assert!(matches!(
        refused(&engine, Request::text("a").max_tokens(0), &["max_tokens"]),
        SubmitError::NoTokens
    ));
    assert!(matches!(refused(&engine, Request::text("a").stop(""), &["stop"]), SubmitError::Stop(_)));
    // The longest that fits, and then one token.
    let answer = engine.submit(Request::tokens(&long[1..]).ignore_eos(true)).unwrap().complete().unwrap();
    assert_eq!((answer.usage.prompt_tokens, answer.usage.completion_tokens), (47, 1));
    assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);
}

#[test]
fn conversations_that_cannot_be_rendered() {
    for (template, words) in [
        ("{{ raise_exception('no users here') }}", "no users here"),
        ("{% for m in messages %}", "parsed"),
        ("{{ messages[0].content.nothing() }}", "nothing"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "steps"),
    ] {
        let edit = edit_of("llama-f32").set("tokenizer.chat_template", Value::Str(template.into()));
        let engine = engine(&edit);
        let error = refused(&engine, Request::chat([Message::user("a")]), &[words]);
        assert!(matches!(error, SubmitError::Chat(_)), "{error}");
        engine.submit(Request::text("a").max_tokens(1)).unwrap().complete().unwrap();
    }
}

#[test]
fn sampling_values_out_of_range() {
    let engine = engine(&edit_of("llama-f32"));
    let usual = SamplingParams::default;
    let bad = [f32::NAN, -1.0, f32::INFINITY, f32::NEG_INFINITY];
    for value in bad {
        let cases = [
            ("temperature", usual().temperature(value)),
            ("top_p", usual().top_p(value)),
            ("min_p", usual().min_p(value)),
            ("repetition_penalty", usual().repetition_penalty(value)),
        ];
        for (name, sampling) in cases {
            let error = refused(&engine, Request::text("a").sampling(sampling), &[name, "must be"]);
            assert!(matches!(error, SubmitError::Sampling(SamplingError::Range { .. })), "{error}");
        }
    }
    for value in [f32::NAN, f32::INFINITY, 1e9, -1e9] {
        let cases = [
            ("frequency_penalty", usual().frequency_penalty(value)),
            ("presence_penalty", usual().presence_penalty(value)),
        ];
        for (name, sampling) in cases {
            refused(&engine, Request::text("a").sampling(sampling), &[name, "-100 to 100"]);
        }
    }
    for (bias, words) in [
        (vec![(5, f32::NAN)], ["logit_bias", "NaN"]),
        (vec![(5, f32::INFINITY)], ["logit_bias", "inf"]),
        (vec![(512, 1.0)], ["512", "vocabulary"]),
        (vec![(5, 1.0), (5, 2.0)], ["5", "more than once"]),
    ] {
        refused(&engine, Request::text("a").sampling(usual().logit_bias(bias)), &words);
    }
    // Everything forbidden is no parameter out of range, and ends that request alone.
    let all: Vec<_> = (0..512).map(|token| (token, f32::NEG_INFINITY)).collect();
    let nothing = Request::text("a").sampling(usual().logit_bias(all));
    let error = engine.submit(nothing).unwrap().complete().unwrap_err();
    assert!(matches!(error, RequestError::Sample(_)), "{error}");
    let answer =
        engine.submit(Request::text("a").max_tokens(3).ignore_eos(true)).unwrap().complete().unwrap();
    assert_eq!(answer.tokens.len(), 3);
}

/// Weights that are not numbers make logits that are none.
#[test]
fn logits_that_are_not_numbers() {
    let mut edit = edit_of("llama-f32");
    let norm = edit.tensor("output_norm.weight").unwrap();
    norm.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let engine = engine(&edit);
    for sampling in [SamplingParams::greedy(), SamplingParams::default()] {
        let streams: Vec<_> =
            (0..3).map(|_| engine.submit(Request::text("a").sampling(sampling.clone())).unwrap()).collect();
        for stream in streams {
            let error = stream.complete().unwrap_err();
            assert!(matches!(error, RequestError::Sample(_)), "{error}");
            assert!(error.to_string().contains("not a number"), "{error}");
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.scheduler.kv_tokens_used), (6, 0));
}

/// Infinite weights end in infinities or in none; either way the engine goes on.
#[test]
fn logits_that_are_infinite() {
    for value in [f32::INFINITY, f32::MAX] {
        let mut edit = edit_of("llama-f32");
        for name in ["output_norm.weight", "blk.0.attn_norm.weight"] {
            let norm = edit.tensor(name).unwrap();
            norm.data.chunks_exact_mut(4).for_each(|x| x.copy_from_slice(&value.to_le_bytes()));
        }
        let engine = engine(&edit);
        for sampling in [SamplingParams::greedy(), SamplingParams::default().seed(1)] {
            if let Err(error) =
                engine.submit(Request::text("a").sampling(sampling).max_tokens(4)).unwrap().complete()
            {
                assert!(matches!(error, RequestError::Sample(_)), "{error}");
            }
        }
        assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);
    }
}

fn load(bytes: Vec<u8>) -> LoadError {
    let source = ModelSource::Memory(Arc::from(bytes));
    match CandleBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none()) {
        Ok(_) => panic!("it loads"),
        Err(error) => error,
    }
}

/// Every section of a file cut at its beginning, in its middle and before its end.
#[test]
fn files_cut_in_every_section() {
    let edit = edit_of("llama-q4_0");
    let whole = edit.bytes();
    let keys_only = edit.metadata.iter().fold(GgufWriter::new(), |w, (key, value)| w.key(key, value.clone()));
    let keys_end = keys_only.to_bytes().len();
    let data: usize = edit.tensors.iter().map(|tensor| tensor.data.len().next_multiple_of(32)).sum();
    let last = edit.tensors.last().unwrap().data.len();
    let data_start = whole.len() - (data - last.next_multiple_of(32) + last);
    let sections = [("magic", 0, 4), ("version", 4, 8), ("counts", 8, 24), ("metadata", 24, keys_end)];
    let sections = sections
        .into_iter()
        .chain([("tensor directory", keys_end, data_start - 32), ("tensor data", data_start, whole.len())]);
    for (section, start, end) in sections {
        for cut in [start, start + 1, (start + end) / 2, end - 1] {
            let error = load(whole[..cut].to_vec());
            assert!(matches!(error, LoadError::Gguf(_)), "{section} cut at {cut}: {error:?}");
            assert!(error.to_string().len() > 10, "{section} cut at {cut}: {error}");
        }
    }
}

#[test]
fn words_for_what_a_file_cannot_say() {
    let says = |error: LoadError, words: &[&str]| {
        let text = error.to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "'{text}' does not say '{word}'"));
    };
    let edit = || edit_of("llama-q4_0");
    says(load(edit().set("general.alignment", Value::U32(0)).bytes()), &["general.alignment", "0"]);
    let mut twice = edit();
    let first = twice.metadata[0].clone();
    twice.metadata.push(first.clone());
    says(load(twice.bytes()), &[&first.0]);
    let mut twice = edit();
    let first = twice.tensors[0].clone();
    twice.tensors.push(first.clone());
    says(load(twice.bytes()), &[&first.name]);
    says(load(edit().set("tokenizer.ggml.tokens", Value::U32(3)).bytes()), &["tokenizer.ggml.tokens", "u32"]);
    let mut unknown = edit();
    let tensor = unknown.tensor("blk.0.ffn_down.weight").unwrap();
    tensor.dtype = GgmlType::Iq1S;
    let blocks = tensor.shape.iter().product::<u64>() / GgmlType::Iq1S.block_len();
    tensor.data = vec![0; (blocks * GgmlType::Iq1S.block_bytes()) as usize];
    if blocks > 0 && tensor.shape[0].is_multiple_of(GgmlType::Iq1S.block_len()) {
        says(load(unknown.bytes()), &["blk.0.ffn_down.weight", "Q4_K"]);
    }
}
