//! Tool calls and reasoning through the engine: events, limits, resume.
#![cfg(all(feature = "tool-parsers", feature = "chat-template"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::chat::{ChatOptions, Json, Message, ToolCall};
use exsa_core::request::Resume;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::stream::Completion;
use exsa_core::tools::{ReasoningFormat, ReasoningOptions, ToolChoice, ToolFormat, ToolOptions};
use exsa_core::{Engine, EngineOptions, Event, FinishReason, Request, SamplingParams, SubmitError};

/// A template in the format of Hermes that opens reasoning if asked to.
const TEMPLATE: &str = "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}\
    {% if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>{% endif %}\
    {% if add_generation_prompt %}<|bos|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}\
    {# </think> #}";

const CALL: &str = "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>";

fn engine(answer: &str) -> Engine {
    let model = ScriptedModel::echo(answer).chat_template(TEMPLATE).shared();
    Engine::start(model, EngineOptions::default()).unwrap()
}

fn chat() -> Request {
    let tool: Json = r#"{"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}"#.parse().unwrap();
    Request::chat([Message::user("?")])
        .chat_options(ChatOptions::default().tools([tool]))
        .sampling(SamplingParams::greedy())
}

fn answer(text: &str, request: Request) -> Completion {
    engine(text).submit(request).unwrap().complete().unwrap()
}

fn calls(answer: &Completion) -> Vec<(&str, &str)> {
    answer.tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect()
}

fn ids(answer: &Completion) -> Vec<u32> {
    answer.tokens.iter().filter_map(|token| token.id).collect()
}

const TIME: (&str, &str) = ("time", "{\"zone\": \"UTC\"}");

#[test]
fn a_call_is_found_by_the_template() {
    let text = format!("I look.\n{CALL}");
    let found = answer(&text, chat());
    assert_eq!((&*found.text, calls(&found)), ("I look.", vec![TIME]));
    assert_eq!((found.finish_reason(), &found.reason), ("tool_calls", &FinishReason::EndOfGeneration));
    assert_eq!(found.tokens.len(), text.len(), "every token is there once");
    assert_eq!(found.tool_calls[0].id.as_ref().unwrap().len(), 9);
    let expected = ToolCall::new(TIME.0, TIME.1).id(found.tool_calls[0].id.clone().unwrap());
    assert_eq!(Message::from(found), Message::assistant("I look.").tool_call(expected));
}

#[test]
fn arguments_are_streamed() {
    let mut pieces = 0;
    for event in engine(CALL).submit(chat()).unwrap() {
        pieces += usize::from(matches!(event, Event::ToolCall(_)));
    }
    assert!(pieces > 10, "{pieces}");
}

#[test]
fn without_tools_or_with_the_choice_none_it_is_text() {
    let mut plain = chat();
    plain.chat.tools.clear();
    for request in [plain, chat().tools(ToolOptions::default().choice(ToolChoice::None)), Request::text("?")]
    {
        let found = answer(CALL, request.sampling(SamplingParams::greedy()));
        assert_eq!((&*found.text, found.tool_calls.len(), found.finish_reason()), (CALL, 0, "stop"));
    }
    let request = Request::text("?").sampling(SamplingParams::greedy());
    let found = answer(CALL, request.tools(ToolOptions::default().format(ToolFormat::Hermes)));
    assert_eq!(calls(&found), [TIME]);
}

#[test]
fn an_incomplete_call_is_text_with_a_flag() {
    let found = answer(CALL, chat().max_tokens(40));
    assert_eq!((&*found.text, found.tool_calls.len()), (&CALL[..40], 0));
    assert_eq!(found.malformed_tool_calls, [&CALL[..40]]);
    assert_eq!(found.finish_reason(), "length");
    let engine = engine(CALL);
    let mut stream = engine.submit(chat().max_tokens(40)).unwrap();
    let text: String = stream.text().map(|piece| piece.unwrap()).collect();
    assert_eq!(text, CALL[..40]);
}

#[test]
fn one_call_ends_the_answer_where_parallel_calls_are_off() {
    let text = format!("{CALL}\n{CALL}");
    assert_eq!(calls(&answer(&text, chat())), [TIME, TIME]);
    let found = answer(&text, chat().tools(ToolOptions::default().parallel(false)));
    assert_eq!((calls(&found), &found.reason), (vec![TIME], &FinishReason::ToolCall));
    assert_eq!(found.finish_reason(), "tool_calls");
}

#[test]
fn reasoning_comes_apart() {
    let text = "Hm, hm.\n</think>\n\nYes.";
    let thinking = chat().reasoning(ReasoningOptions::default().enabled(true));
    let found = answer(text, thinking);
    assert_eq!((&*found.reasoning, &*found.text), ("Hm, hm.", "Yes."));
    assert_eq!(found.tokens.len(), text.len());
    // The model opens it itself.
    let found = answer(&format!("<think>{text}"), chat());
    assert_eq!((&*found.reasoning, &*found.text), ("Hm, hm.", "Yes."));
    // A user's message opens nothing.
    let found =
        answer("a</think>b", Request::chat([Message::user("<think>")]).sampling(SamplingParams::greedy()));
    assert_eq!((&*found.reasoning, &*found.text), ("", "a</think>b"));
    let off = ReasoningOptions::default().format(ReasoningFormat::None);
    assert_eq!(answer("<think>a</think>b", chat().reasoning(off)).text, "<think>a</think>b");
}

#[test]
fn a_budget_ends_reasoning() {
    // After the forced text, the script begins anew.
    let text = "abcdefgh\n</think>\n\nYes.";
    let budget = |tokens: usize| chat().reasoning(ReasoningOptions::default().enabled(true).budget(tokens));
    let found = answer(text, budget(3));
    assert_eq!((&*found.reasoning, &*found.text), ("abc", text));
    let ids: Vec<u8> = found.tokens.iter().map(|token| token.id.unwrap() as u8).collect();
    assert!(ids.starts_with(b"abc\n</think>\n\n"), "{:?}", String::from_utf8_lossy(&ids));
    assert_eq!(answer(text, budget(100)).reasoning, "abcdefgh");
    let found = answer(text, budget(0));
    assert_eq!((&*found.reasoning, &*found.text), ("", text));
    // Nothing tells how the reasoning of a text would end.
    let request = Request::text("?").reasoning(ReasoningOptions::default().budget(3));
    assert!(matches!(
        engine(text).submit(request),
        Err(SubmitError::Option { option: "thinking_budget", .. })
    ));
}

#[test]
fn a_budget_counts_tokens_that_banned_strings_hold_back() {
    let text = "abcdefgh\n</think>\n\nYes.";
    let budget = |tokens: usize| chat().reasoning(ReasoningOptions::default().enabled(true).budget(tokens));
    let plain = answer(text, budget(4));
    assert_eq!(plain.reasoning, "abcd");
    // From b on, all may belong to the banned string, so nothing is certain when the budget is used.
    let held = answer(text, budget(4).banned_string("bcdefgh!"));
    assert_eq!((&held.reasoning, &held.text), (&plain.reasoning, &plain.text));
    assert_eq!(ids(&held), ids(&plain));
    // A rewind takes back what was counted.
    let rewound = answer(text, budget(4).banned_string("cd"));
    assert_eq!(rewound.reasoning.chars().count(), 4, "{rewound:?}");
    assert!(rewound.reasoning.starts_with("ab") && !rewound.reasoning.contains("cd"), "{rewound:?}");
    let forced: Vec<u8> = ids(&rewound)[4..].iter().map(|id| *id as u8).collect();
    assert!(forced.starts_with(b"\n</think>\n\n"), "{:?}", String::from_utf8_lossy(&forced));
    // Nothing else can end the reasoning.
    let ended = answer(text, budget(4).banned_string("</think>"));
    assert_eq!(ended.reason, FinishReason::BannedString(0));
    assert_eq!(ended.reasoning, "abcd");
}

#[test]
fn a_choice_needs_its_tool() {
    let named = ToolOptions::default().choice(ToolChoice::Named("place".into()));
    let error = engine("").submit(chat().tools(named)).unwrap_err();
    assert!(matches!(&error, SubmitError::Option { option: "tool_choice", .. }));
    assert_eq!(error.to_string(), "tool_choice: 'place' is not a tool of the request; its tools: time");
    let required = ToolOptions::default().choice(ToolChoice::Required);
    assert!(engine("").submit(Request::chat([Message::user("?")]).tools(required)).is_err());
}

/// Two tools, one of them with parameters of several types.
#[cfg(feature = "constraints")]
fn typed_tools() -> Vec<Json> {
    let place = r#"{"type": "function", "function": {"name": "place", "parameters": {
        "type": "object", "additionalProperties": false, "required": ["city", "days"], "properties": {
            "city": {"enum": ["Bern", "Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 30},
            "metric": {"type": "boolean"}}}}}"#;
    let now = r#"{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {},
        "additionalProperties": false}}}"#;
    vec![place.parse().unwrap(), now.parse().unwrap()]
}

/// Whether a call is one of the typed tools, with arguments that its schema allows.
#[cfg(feature = "constraints")]
fn assert_valid(name: &str, arguments: &str, context: &str) {
    let arguments: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(arguments).expect(context);
    match name {
        "now" => assert!(arguments.is_empty(), "{context}"),
        "place" => {
            assert!(
                ["Bern", "Rome", "Oslo"].contains(&arguments["city"].as_str().expect(context)),
                "{context}"
            );
            assert!((1..=30).contains(&arguments["days"].as_i64().expect(context)), "{context}");
            let metric = arguments.get("metric");
            assert!(metric.is_none_or(serde_json::Value::is_boolean), "{context}");
            assert_eq!(arguments.len(), 2 + usize::from(metric.is_some()), "{context}");
        }
        _ => panic!("{context}"),
    }
}

#[cfg(feature = "constraints")]
#[test]
fn forced_calls_of_every_format_have_valid_arguments() {
    let engine = engine("no");
    let mut called = std::collections::BTreeSet::new();
    for format in ToolFormat::ALL.iter().copied().filter(|format| *format != ToolFormat::None) {
        for (seed, choice) in [ToolChoice::Named("place".into()), ToolChoice::Required, ToolChoice::Required]
            .into_iter()
            .enumerate()
        {
            let options = ToolOptions::default().format(format).choice(choice.clone()).parallel(seed == 2);
            let mut request = chat().tools(options).sampling(SamplingParams::default()).temperature(1.0);
            request.chat.tools = typed_tools();
            let request = request.reasoning(ReasoningOptions::default().format(ReasoningFormat::None));
            let found =
                engine.submit(request.seed(seed as u64).max_tokens(2000)).unwrap().complete().unwrap();
            let context = format!("{format}, {seed}: {found:?}");
            assert_eq!(found.finish_reason(), "tool_calls", "{context}");
            assert!(seed == 2 || found.tool_calls.len() == 1, "{context}");
            assert_eq!(found.text, "", "{context}");
            for call in &found.tool_calls {
                assert!(seed > 0 || call.name == "place", "{context}");
                assert_valid(&call.name, &call.arguments, &context);
                called.insert(call.name.clone());
            }
        }
    }
    assert_eq!(called.len(), 2, "{called:?}");
}

#[cfg(feature = "constraints")]
#[test]
fn schemas_of_forced_calls_are_enforced_or_refused() {
    let mut request = chat().tools(ToolOptions::default().choice(ToolChoice::Required));
    let tool = r#"{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
        "properties": {"a": {"type": "array", "uniqueItems": true}}}}}"#;
    request.chat.tools = vec![tool.parse().unwrap()];
    let error = engine("").submit(request).unwrap_err();
    assert!(error.to_string().contains("uniqueItems"), "{error}");
    let request = chat().tools(ToolOptions::default().choice(ToolChoice::Required));
    let both = request.constraint(exsa_core::constraint::Constraint::json_object());
    assert!(engine("").submit(both).unwrap_err().to_string().contains("tool_choice"));
}

#[cfg(feature = "constraints")]
#[test]
fn reasoning_comes_before_a_forced_call() {
    let request = || {
        let mut request = chat().tools(ToolOptions::default().choice(ToolChoice::Required).parallel(false));
        request.chat.tools = typed_tools();
        request.max_tokens(500)
    };
    // The template opens the reasoning.
    let reasoning = ReasoningOptions::default().enabled(true).budget(5);
    let found = answer("abcdefgh", request().reasoning(reasoning));
    assert_eq!((&*found.reasoning, found.tool_calls.len()), ("abcde", 1), "{found:?}");
    // The model opens it.
    let found = answer("<think>abc</think>", request());
    assert_eq!((&*found.reasoning, found.tool_calls.len()), ("abc", 1), "{found:?}");
}

#[cfg(feature = "constraints")]
#[test]
fn strict_calls_are_free_up_to_their_beginning() {
    let mut request = chat().tools(ToolOptions::default().strict(true).parallel(false)).max_tokens(500);
    request.chat.tools = typed_tools();
    let found = answer("Well. <tool_call>nothing", request);
    assert_eq!((&*found.text, found.tool_calls.len()), ("Well.", 1), "{found:?}");
    assert_valid(&found.tool_calls[0].name, &found.tool_calls[0].arguments, &format!("{found:?}"));
}

#[test]
fn stop_strings_come_before_the_parser() {
    let found = answer(CALL, chat().stop("UTC"));
    assert_eq!(found.reason, FinishReason::StopString(0));
    assert_eq!(
        found.malformed_tool_calls,
        ["<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \""]
    );
}

#[test]
fn control_tokens_show_on_request() {
    let bos = SamplingParams::greedy().logit_bias([(ByteTokenizer::BOS, 100.0)]);
    let request = || Request::text("?").sampling(bos.clone()).max_tokens(2);
    assert_eq!(answer("a", request()).text, "");
    assert_eq!(answer("a", request().skip_special_tokens(false)).text, "<|bos|><|bos|>");
}

#[test]
fn a_resume_at_any_token_goes_on_with_the_parts() {
    let text = format!("<think>a b</think>\nSo:\n{CALL} c");
    let whole = answer(&text, chat());
    for cut in 1..text.len() {
        let tokens: Vec<u32> = text.as_bytes()[..cut].iter().map(|byte| u32::from(*byte)).collect();
        let rest = answer(&text, chat().resume(Resume::new(tokens)));
        assert!(whole.text.ends_with(&rest.text), "{cut}: {:?}", rest.text);
        assert!(whole.reasoning.ends_with(&rest.reasoning), "{cut}: {:?}", rest.reasoning);
        assert!(rest.malformed_tool_calls.is_empty(), "{cut}");
        let arguments: String = rest.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        assert!(TIME.1.ends_with(&arguments), "{cut}: {arguments:?}");
    }
}
