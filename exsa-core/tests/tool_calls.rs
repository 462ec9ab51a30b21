//! Tool calls and reasoning through the engine: events, limits, resume.
#![cfg(all(feature = "tool-parsers", feature = "chat-template"))]
#![allow(clippy::unwrap_used, clippy::panic)]

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
fn a_choice_needs_its_tool() {
    let named = ToolOptions::default().choice(ToolChoice::Named("place".into()));
    let error = engine("").submit(chat().tools(named)).unwrap_err();
    assert!(matches!(&error, SubmitError::Option { option: "tool_choice", .. }));
    assert_eq!(error.to_string(), "tool_choice: 'place' is no tool of the request; tools: time");
    let required = ToolOptions::default().choice(ToolChoice::Required);
    assert!(engine("").submit(Request::chat([Message::user("?")]).tools(required)).is_err());
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
    let options = ToolOptions::default().format(ToolFormat::Hermes);
    let reasoning = ReasoningOptions::default().format(ReasoningFormat::Think);
    for cut in 1..text.len() {
        let tokens: Vec<u32> =
            b"?".iter().chain(&text.as_bytes()[..cut]).map(|byte| u32::from(*byte)).collect();
        let mut request = Request::tokens(tokens).resume(Resume::new(cut));
        request.chat.tools = chat().chat.tools;
        let request =
            request.sampling(SamplingParams::greedy()).tools(options.clone()).reasoning(reasoning.clone());
        let rest = answer(&text, request);
        assert!(whole.text.ends_with(&rest.text), "{cut}: {:?}", rest.text);
        assert!(whole.reasoning.ends_with(&rest.reasoning), "{cut}: {:?}", rest.reasoning);
        assert!(rest.malformed_tool_calls.is_empty(), "{cut}");
        let arguments: String = rest.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        assert!(TIME.1.ends_with(&arguments), "{cut}: {arguments:?}");
    }
}
