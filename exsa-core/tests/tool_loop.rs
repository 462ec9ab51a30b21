//! Rust functions as tools, the loop that calls them, and typed answers.
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::chat::{Json, Message, ToolCall};
use exsa_core::generator::{Generator, SubmitError};
use exsa_core::model_info::ModelInfo;
use exsa_core::request::Prompt;
use exsa_core::stats::EngineStats;
use exsa_core::stream::{Finished, StreamSignal, Token, TokenStream, ToolCallDelta, channel};
use exsa_core::tools::{ToolChoice, ToolError, ToolEvent, ToolLoop, ToolLoopError, ToolOptions, Toolbox};
use exsa_core::{FinishReason, Request};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

#[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
struct Weather {
    /// Name of the city.
    city: String,
    days: Option<u32>,
}

/// An answer: text, or calls by name and arguments.
type Script = (&'static str, Vec<(&'static str, &'static str)>);

/// A generator with scripted answers, which records the requests.
struct Scripted {
    answers: Mutex<VecDeque<Script>>,
    requests: Mutex<Vec<Request>>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Script>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()), requests: Mutex::default() }
    }
}

impl Generator for Scripted {
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        Vec::new()
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        let (sender, stream) = channel(64, |_: StreamSignal| {});
        let (text, calls) = self.answers.lock().unwrap().pop_front().unwrap();
        sender.token(Token::new(1, text));
        for (index, (name, arguments)) in calls.iter().enumerate() {
            sender.tool_call(
                ToolCallDelta::new(index).id(format!("id{index}")).name(*name).arguments(*arguments),
            );
        }
        sender.finish(Finished::new(FinishReason::EndOfGeneration));
        self.requests.lock().unwrap().push(request);
        Ok(stream)
    }

    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}

fn tools() -> Toolbox {
    Toolbox::new()
        .function("get_weather", "Weather of a city", |weather: Weather| match &*weather.city {
            "" => Err("no city"),
            city => Ok(format!("{city}: {}", weather.days.unwrap_or(1))),
        })
        .json_function("echo", "Gives its arguments", "{}".parse().unwrap(), |arguments: Json| {
            Ok::<_, String>(arguments.to_string())
        })
}

fn request() -> Request {
    Request::chat([Message::user("Weather?")])
}

#[test]
fn definitions_have_the_schema_of_the_arguments() {
    let definition = tools().definitions().remove(0);
    let function = definition.get("function").unwrap();
    assert_eq!(function.get("name").and_then(Json::as_str), Some("get_weather"));
    let parameters = function.get("parameters").unwrap();
    let city = parameters.get("properties").and_then(|properties| properties.get("city")).unwrap();
    assert_eq!(city.get("description").and_then(Json::as_str), Some("Name of the city."));
    assert_eq!(parameters.get("required"), Some(&Json::from(vec!["city"])));
    // Names of Rust's number types are no formats of JSON Schema.
    assert!(!definition.to_string().contains("uint32"), "{definition}");
}

#[test]
fn calls_and_their_errors_are_typed() {
    let tools = tools();
    let call = |name: &str, arguments: &str| tools.call(&ToolCall::new(name, arguments));
    assert_eq!(call("get_weather", r#"{"city": "Bern", "days": 2}"#).unwrap(), "Bern: 2");
    assert_eq!(call("echo", "").unwrap(), "{}");
    assert!(matches!(call("get_weather", "{}"), Err(ToolError::Arguments { .. })));
    assert!(matches!(call("echo", "[]"), Err(ToolError::Arguments { .. })));
    assert!(matches!(call("get_weather", r#"{"city": ""}"#), Err(ToolError::Failed { .. })));
    assert_eq!(
        call("news", "{}").unwrap_err().to_string(),
        "there is no tool 'news'; tools: get_weather, echo"
    );
}

#[test]
fn the_loop_runs_calls_until_an_answer() {
    let generator = Scripted::new([
        ("", vec![("get_weather", r#"{"city": "Bern"}"#), ("get_weather", "{}")]),
        ("Sunny.", vec![]),
    ]);
    let (tools, mut called) = (tools(), Vec::new());
    let mut text = String::new();
    let outcome = ToolLoop::new(&generator, &tools)
        .on_event(|event| match event {
            ToolEvent::Called { call, result } => called.push((call.name.clone(), result.is_ok())),
            ToolEvent::Answer(exsa_core::Event::Token(token)) => text.push_str(&token.text),
            _ => {}
        })
        .run(request().tools(ToolOptions::default().choice(ToolChoice::Required)))
        .unwrap();
    assert_eq!((&*outcome.answer.text, outcome.rounds, &*text), ("Sunny.", 1, "Sunny."));
    assert_eq!(called, [("get_weather".to_owned(), true), ("get_weather".to_owned(), false)]);
    let results: Vec<_> = outcome.messages.iter().filter(|message| message.role == "tool").collect();
    assert_eq!(results[0], &Message::tool("id0", "Bern: 1").name("get_weather"));
    assert!(results[1].text().unwrap().starts_with("Error: arguments of get_weather: missing field `city`"));
    assert_eq!(outcome.messages.last(), Some(&Message::assistant("Sunny.")));
    let requests = generator.requests.lock().unwrap();
    let choices: Vec<_> = requests.iter().map(|request| request.tools.choice.clone()).collect();
    assert_eq!(choices, [ToolChoice::Required, ToolChoice::Auto]);
    assert_eq!(requests[0].chat.tools, tools.definitions());
    let Prompt::Chat(messages) = &requests[1].prompt else { panic!() };
    assert_eq!(messages.len(), 4);
}

#[test]
fn rounds_are_limited() {
    let call = || ("", vec![("echo", "{}")]);
    let generator = Scripted::new([call(), call(), call()]);
    let tools = tools();
    let error = ToolLoop::new(&generator, &tools).rounds_max(2).run(request()).unwrap_err();
    let ToolLoopError::Rounds { rounds: 2, messages } = error else { panic!("{error}") };
    assert_eq!(messages.len(), 6);
    let error = ToolLoop::new(&generator, &tools).run(Request::text("x")).unwrap_err();
    assert!(matches!(error, ToolLoopError::NoConversation));
}

#[test]
fn answers_are_parsed() {
    let answer =
        |text| Scripted::new([(text, vec![])]).submit(Request::text("?")).unwrap().complete().unwrap();
    let weather = Weather { city: "Bern".into(), days: None };
    assert_eq!(answer(" {\"city\": \"Bern\"}\n").parse::<Weather>().unwrap(), weather);
    let error = answer("{\"city\": \"Be").parse::<Weather>().unwrap_err();
    assert!(error.type_name.ends_with("Weather"), "{error}");
}
