//! Constrained answers of the built-in model: the same however they come about, and instances of the schema.
#![allow(clippy::unwrap_used)]

mod support;

use exsa_core::backend::{Model, SessionOptions};
use exsa_core::constraint::Constraint;
use exsa_core::speculate::{PromptLookup, Speculation, SpeculationMode};
use exsa_core::stream::Completion;
use exsa_core::{Engine, EngineOptions, Request, Resume, TokenId};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

fn model() -> Arc<dyn Model> {
    support::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")))
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 10},
            "kind": {"enum": ["little frog", "big dog", "red bird"]},
            "legs": {"type": "integer", "minimum": 2, "maximum": 40},
            "likes": {"type": "array", "items": {"enum": ["sun", "rain"]}, "minItems": 1, "maxItems": 2},
        },
        "required": ["name", "kind", "legs", "likes"],
        "additionalProperties": false,
    })
}

fn request(i: u64) -> Request {
    Request::text(format!("Once upon a time there was animal number {i}. "))
        .constraint(Constraint::json_schema(schema().to_string()))
        .max_tokens(120)
        .seed(i)
        .temperature(if i.is_multiple_of(2) { 0.0 } else { 0.9 })
}

fn ids(answer: &Completion) -> Vec<TokenId> {
    answer.tokens.iter().filter_map(|token| token.id).collect()
}

fn answers(engine: &Engine, requests: impl IntoIterator<Item = Request>) -> Vec<(Vec<TokenId>, String)> {
    let streams: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let complete = streams.into_iter().map(|stream| stream.complete().unwrap());
    complete.map(|answer| (ids(&answer), answer.text)).collect()
}

#[test]
fn answers_are_the_same_alone_in_a_batch_with_drafts_preempted_and_resumed() {
    let model = model();
    let engine = || Engine::start(model.clone(), EngineOptions::default()).unwrap();
    let plain = EngineOptions::default().speculation(SpeculationMode::Off);
    let plain = || Engine::start(model.clone(), plain.clone()).unwrap();
    let alone: Vec<_> = (0..16).flat_map(|i| answers(&plain(), [request(i)])).collect();
    for (_, text) in &alone {
        let instance = serde_json::from_str(text).unwrap();
        assert!(jsonschema::is_valid(&schema(), &instance), "{text}");
    }
    assert_eq!(answers(&engine(), (0..16).map(request)), alone, "in a batch");

    let drafting = engine();
    drafting.speculate(Some(Speculation::new(PromptLookup::default()).drafts_max(5)));
    assert_eq!(answers(&drafting, (0..16).map(request)), alone, "with drafts");

    let session = SessionOptions::new().kv_tokens(512).context_tokens(256);
    let small = Engine::start(model.clone(), EngineOptions::default().session(session)).unwrap();
    assert_eq!(answers(&small, (0..16).map(request)), alone, "with little KV");

    for i in [0, 1] {
        let (whole, _) = &alone[i as usize];
        for cut in 1..=whole.len() {
            let resumed = request(i).resume(Resume::new(&whole[..cut]));
            let rest = answers(&engine(), [resumed]).remove(0).0;
            assert_eq!(rest, whole[cut..], "request {i}, cut at {cut}");
        }
    }
}
