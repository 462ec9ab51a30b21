//! Tool calls of real models: forced calls whose arguments match the tool's schema, and free calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_conformance::real_model;
use exsa_core::backend::Model;
use exsa_core::chat::{ChatOptions, ToolFallback};
use exsa_core::stream::Completion;
use exsa_core::tools::{ToolChoice, ToolFormat, ToolOptions};
use exsa_core::{Engine, EngineOptions, FinishReason, Message, Request};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

fn model() -> Arc<dyn Model> {
    support::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")))
}

fn request(seed: u64) -> Request {
    let tool = json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "minLength": 1, "maxLength": 12},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "days", "unit"],
            "additionalProperties": false,
        },
    }});
    Request::chat([Message::user("What is the weather in Bern?")])
        .chat_options(ChatOptions::default().tools([tool.to_string().parse().unwrap()]))
        .max_tokens(300)
        .seed(seed)
        .temperature(if seed.is_multiple_of(2) { 0.0 } else { 1.0 })
}

fn check_arguments(answer: &Completion) {
    assert!(!answer.tool_calls.is_empty(), "{answer:?}");
    for call in &answer.tool_calls {
        assert_eq!(call.name, "get_weather");
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        assert!((1..=12).contains(&arguments["city"].as_str().unwrap().chars().count()), "{arguments}");
        assert!((1..=14).contains(&arguments["days"].as_i64().unwrap()), "{arguments}");
        assert!(["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().unwrap()), "{arguments}");
        assert_eq!(arguments.as_object().unwrap().len(), 3, "{arguments}");
    }
}

#[test]
fn forced_calls_of_the_built_in_model_have_valid_arguments() {
    let engine = Engine::start(model(), EngineOptions::default()).unwrap();
    // The model's context has no room for the text of tools, for which its template has no place.
    let request = |seed| {
        let mut request = request(seed);
        request.chat.tool_fallback = ToolFallback::Omit;
        request
    };
    let choices = [ToolChoice::Required, ToolChoice::Named("get_weather".into())];
    let formats = [None, Some(ToolFormat::Hermes), Some(ToolFormat::DeepSeekV3), Some(ToolFormat::Lfm2)];
    for seed in 0..12 {
        let (choice, format) = (&choices[seed as usize % 2], formats[seed as usize / 3]);
        let options = ToolOptions::default().choice(choice.clone()).parallel(false).format(format);
        let answer = engine.submit(request(seed).tools(options)).unwrap().complete().unwrap();
        assert_eq!((&*answer.text, answer.finish_reason()), ("", "tool_calls"), "{answer:?}");
        check_arguments(&answer);
    }
}

#[test]
fn smollm2_calls_tools() {
    let Some(path) = real_model::path() else { return };
    let engine = Engine::start(support::load(path), EngineOptions::default()).unwrap();
    // A forced call.
    let forced = ToolOptions::default().choice(ToolChoice::Required).parallel(false);
    let answer = engine.submit(request(0).tools(forced)).unwrap().complete().unwrap();
    check_arguments(&answer);
    // A free call: a conversation shows the format, so that the model goes on with it.
    let system = "You answer with a tool call and nothing else. Tool: get_weather(city, days, unit).";
    let call = |city: &str| {
        let arguments = format!("{{\"city\": \"{city}\", \"days\": 1, \"unit\": \"celsius\"}}");
        format!("<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    let question = |city: &str| Message::user(format!("What is the weather in {city}?"));
    let mut request = request(0).tools(ToolOptions::default().format(ToolFormat::Hermes).parallel(false));
    let turns = ["Rome", "Oslo"].map(|city| [question(city), Message::assistant(call(city))]);
    let messages =
        [Message::system(system)].into_iter().chain(turns.into_iter().flatten()).chain([question("Bern")]);
    request.prompt = Request::chat(messages.collect::<Vec<_>>()).prompt;
    let answer = engine.submit(request).unwrap().complete().unwrap();
    assert_eq!(answer.reason, FinishReason::ToolCall, "{answer:?}");
    assert!(answer.tool_calls[0].arguments.contains("Bern"), "{answer:?}");
    check_arguments(&answer);
}
