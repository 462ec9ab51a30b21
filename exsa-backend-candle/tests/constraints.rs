//! Constrained answers of real models: the same however they come about, and instances of their schemas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_conformance::real_model;
use exsa_core::backend::{Model, SessionOptions};
use exsa_core::constraint::Constraint;
use exsa_core::speculate::{PromptLookup, Speculation};
use exsa_core::stream::Completion;
use exsa_core::{Engine, EngineOptions, FinishReason, Message, Prompt, Request, Resume, TokenId};
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
    let alone: Vec<_> = (0..16).flat_map(|i| answers(&engine(), [request(i)])).collect();
    for (_, text) in &alone {
        check(&schema(), &serde_json::from_str(text).unwrap(), text);
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

/// A random number generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

const NAMES: [&str; 8] = ["name", "city", "age", "tags", "is_open", "price in €", "address", "notes"];

/// A random schema whose instances are bounded.
fn random_schema(random: &mut Random, depth: u32) -> Value {
    match random.below(if depth == 0 { 5 } else { 7 }) {
        0 => json!({"type": "string", "maxLength": 4 + random.below(12)}),
        1 => json!({"type": "integer", "minimum": -5, "maximum": random.below(2000)}),
        2 => json!({"type": "boolean"}),
        3 => json!({"enum": ["red", "green", 3, null]}),
        4 => json!({"type": "string", "format": "date"}),
        5 => {
            let items = random_schema(random, depth - 1);
            json!({"type": "array", "items": items, "minItems": random.below(2), "maxItems": 2})
        }
        _ => {
            let n = 1 + random.below(4) as usize;
            let properties: serde_json::Map<_, _> = NAMES[..n]
                .iter()
                .map(|name| ((*name).to_owned(), random_schema(random, depth - 1)))
                .collect();
            let required = &NAMES[..random.below(n as u64 + 1) as usize];
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
        }
    }
}

/// Checks an instance of the schemas above.
fn check(schema: &Value, instance: &Value, text: &str) {
    let number = |name: &str| schema.get(name).and_then(Value::as_i64);
    let ok = match schema.get("type").and_then(Value::as_str) {
        None => schema["enum"].as_array().unwrap().contains(instance),
        Some("boolean") => instance.is_boolean(),
        Some("integer") => {
            let value = instance.as_i64().unwrap_or(i64::MAX);
            number("minimum").unwrap() <= value && value <= number("maximum").unwrap()
        }
        Some("string") => instance.as_str().is_some_and(|string| {
            let len = string.chars().count() as i64;
            let is_date = || {
                let parts: Vec<u32> = string.split('-').filter_map(|part| part.parse().ok()).collect();
                matches!(parts[..], [_, 1..=12, 1..=31]) && string.len() == 10
            };
            number("minLength").unwrap_or(0) <= len
                && len <= number("maxLength").unwrap_or(i64::MAX)
                && (schema.get("format").is_none() || is_date())
        }),
        Some("array") => instance.as_array().is_some_and(|items| {
            items.iter().for_each(|item| check(&schema["items"], item, text));
            let len = items.len() as i64;
            number("minItems").unwrap() <= len && len <= number("maxItems").unwrap()
        }),
        _ => instance.as_object().is_some_and(|fields| {
            for (name, field) in fields {
                let schema = schema["properties"].get(name).unwrap_or_else(|| panic!("{name}: {text}"));
                check(schema, field, text);
            }
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
        }),
    };
    assert!(ok, "{instance} is no instance of {schema}, in {text}");
}

/// `EXSA_SCHEMAS` is the number of schemas, 12 by default.
#[test]
fn a_real_model_answers_with_instances() {
    let Some(model) = real_model::load(&exsa_backend_candle::CandleBackend::new()) else { return };
    let n: usize = std::env::var("EXSA_SCHEMAS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let session = SessionOptions::new().sequences(16).context_tokens(512);
    let engine = Engine::start(model.unwrap(), EngineOptions::default().session(session)).unwrap();
    let mut random = Random(1);
    let schemas: Vec<Value> = (0..n).map(|_| random_schema(&mut random, 2)).collect();
    let streams = schemas.iter().zip(0..).map(|(schema, seed)| {
        let ask = format!("Give an example of JSON of this schema: {schema}");
        let request = Request::chat([Message::user(ask)]).max_tokens(120).seed(seed);
        engine.submit(request.constraint(Constraint::json_schema(schema.to_string()))).unwrap()
    });
    let streams: Vec<_> = streams.collect();
    let mut ended = 0;
    for (schema, stream) in schemas.iter().zip(streams) {
        let answer = stream.complete().unwrap();
        if answer.reason == FinishReason::EndOfGeneration {
            ended += 1;
            let instance =
                serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{}: {e}", answer.text));
            check(schema, &instance, &answer.text);
        }
    }
    assert!(ended * 10 >= n * 9, "{ended} of {n} answers ended");
}
