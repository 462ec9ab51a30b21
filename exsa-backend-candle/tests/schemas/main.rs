//! Answers of a real model under JSON schemas of many kinds, validated by the crate `jsonschema`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod random;
mod written;

use exsa_conformance::real_model;
use exsa_core::backend::SessionOptions;
use exsa_core::constraint::Constraint;
use exsa_core::{Engine, EngineOptions, FinishReason, Message, Request};
use random::Random;
use serde_json::Value;
use std::fmt::Write;

/// Token limit of an answer. Some schemas are recursive or have unbounded strings, so not every answer ends.
const ANSWER_TOKENS_MAX: usize = 320;

/// One written schema in eight; the rest is random.
fn schemas(n: usize) -> Vec<Value> {
    let written = written::schemas();
    let mut random = Random::new(1);
    let schema = |i: usize| match i.is_multiple_of(8) {
        true => written[i / 8 % written.len()].clone(),
        false => random.schema(),
    };
    (0..n).map(schema).collect()
}

/// The error of an answer that ended by itself.
fn problem(schema: &Value, text: &str) -> Option<String> {
    let instance: Value = match serde_json::from_str(text) {
        Ok(instance) => instance,
        Err(error) => return Some(error.to_string()),
    };
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    validator.validate(&instance).err().map(|error| error.to_string())
}

/// `EXSA_SCHEMAS` is the number of schemas, 16 by default.
#[test]
fn a_real_model_answers_with_instances() {
    let Some(model) = real_model::load(&exsa_backend_candle::CandleBackend::new()) else { return };
    let n: usize = std::env::var("EXSA_SCHEMAS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let session = SessionOptions::new().sequences(16).context_tokens(2048);
    let engine = Engine::start(model.unwrap(), EngineOptions::default().session(session)).unwrap();
    let schemas = schemas(n);
    let mut failures = String::new();
    let streams = schemas.iter().zip(0..).map(|(schema, seed)| {
        let ask = format!("Give an example of JSON of this schema: {schema}");
        let request = Request::chat([Message::user(ask)]).max_tokens(ANSWER_TOKENS_MAX).seed(seed);
        let request = request.constraint(Constraint::json_schema(schema.to_string()));
        let stream = engine.submit(request);
        let _ = stream.as_ref().map_err(|error| writeln!(failures, "refused: {error}\n  schema {schema}"));
        stream.ok()
    });
    let streams: Vec<_> = streams.collect();
    let mut ended = 0;
    for (schema, stream) in schemas.iter().zip(streams) {
        let Some(stream) = stream else { continue };
        let answer = stream.complete().unwrap_or_else(|error| panic!("{schema}: {error}"));
        if answer.reason != FinishReason::EndOfGeneration {
            continue;
        }
        ended += 1;
        if let Some(problem) = problem(schema, &answer.text) {
            let _ = writeln!(failures, "{problem}\n  schema {schema}\n  answer {}", answer.text);
        }
    }
    println!("{ended} of {n} answers ended by themselves, the others at {ANSWER_TOKENS_MAX} tokens");
    assert!(failures.is_empty(), "{failures}");
    assert!(ended * 10 >= n * 8, "{ended} of {n} answers ended");
}

#[test]
fn the_validator_tells_instances_from_others() {
    let schema = serde_json::json!({"type": "string", "format": "ipv4", "maxLength": 12});
    assert_eq!(problem(&schema, r#""10.0.0.1""#), None);
    for wrong in [r#""10.0.0.256""#, r#""100.100.100.100""#, "7", "{"] {
        assert!(problem(&schema, wrong).is_some(), "{wrong}");
    }
}
