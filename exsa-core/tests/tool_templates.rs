//! Round trips: the parser finds the calls that a model's chat template writes into a conversation.
#![cfg(all(feature = "tool-parsers", feature = "chat-template"))]
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::chat::{ChatOptions, ChatTemplate, ControlTexts, Json, Message, ToolCall};
use exsa_core::tools::{Delta, OutputParser, ReasoningFormat, ToolFormat, detect};
use std::path::PathBuf;

/// Texts that end a turn, which a tokenizer knows as ends of generation, and the head of an empty answer
/// after it.
const ENDS: [&str; 7] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<EOS>",
    "<|call|>",
    "<｜end▁of▁sentence｜>",
    "<｜Assistant｜>",
];

fn folder() -> Option<PathBuf> {
    let data = match std::env::var_os("EXSA_TEST_DATA") {
        Some(folder) => folder.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
    };
    let folder = data.join("models/templates");
    if !folder.is_dir() {
        eprintln!("skipped: no chat templates in {}", folder.display());
        return None;
    }
    Some(folder)
}

fn tools() -> Vec<Json> {
    let weather = r#"{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "City"},
        "days": {"type": "integer", "description": "Days"}}, "required": ["city"]}}}"#;
    vec![weather.parse().unwrap()]
}

/// The text that the model writes for `answer`, and the prompt before it.
fn written(template: &ChatTemplate, answer: Message) -> (String, String) {
    let options = ChatOptions::default().tools(tools());
    let user = Message::user("What is the weather in Bern?");
    let prompt = template.render(std::slice::from_ref(&user), &options).unwrap().text;
    let options = options.add_generation_prompt(false);
    let whole = template.render(&[user, answer], &options).unwrap().text;
    // Templates may open reasoning in the prompt that they leave out of a turn that is over.
    let same = prompt.char_indices().zip(whole.chars()).take_while(|((_, a), b)| a == b);
    let end = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    // Two different markers may begin alike.
    let end = prompt[..end].trim_end_matches('<').len();
    let mut output = whole[end..].trim_end();
    while let Some(rest) = ENDS.iter().find_map(|text| output.strip_suffix(text)) {
        output = rest.trim_end();
    }
    (prompt[..end].to_owned(), output.to_owned())
}

#[test]
fn calls_make_a_round_trip() {
    let Some(folder) = folder() else { return };
    let formats = [
        ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", ToolFormat::Hermes, ReasoningFormat::None),
        ("Qwen-Qwen2.5-7B-Instruct", ToolFormat::Hermes, ReasoningFormat::None),
        ("Qwen-Qwen3-0.6B", ToolFormat::Hermes, ReasoningFormat::Think),
        ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", ToolFormat::DeepSeekV3, ReasoningFormat::Think),
        ("google-gemma-2-2b-it", ToolFormat::None, ReasoningFormat::None),
        ("meta-llama-Llama-3.1-8B-Instruct", ToolFormat::Llama3Json, ReasoningFormat::None),
        ("microsoft-Phi-3.5-mini-instruct", ToolFormat::None, ReasoningFormat::None),
        ("mistralai-Mistral-Nemo-Instruct-2407", ToolFormat::Mistral, ReasoningFormat::None),
        ("openai-gpt-oss-120b", ToolFormat::Harmony, ReasoningFormat::Harmony),
    ];
    let cases = [
        vec![r#"{"city": "Bern", "days": 2}"#],
        vec![r#"{"city": "Zürich \"}</tool_call>\" \\ 北京\n"}"#],
        vec![r#"{"city": "Bern"}"#, r#"{"city": "Rome", "days": -1}"#],
    ];
    let mut wrong = Vec::new();
    for (name, tools_format, reasoning) in formats {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let found = detect(&source, "");
        if (found.tools, found.reasoning) != (tools_format, reasoning) {
            wrong.push(format!("{name}: {found:?}"));
        }
        if found.tools == ToolFormat::None {
            continue;
        }
        let texts = ControlTexts::new(ENDS).variable("bos_token", "<BOS>").variable("eos_token", "<EOS>");
        let template = ChatTemplate::parse(&source, texts).unwrap();
        for case in &cases {
            // These templates take one call in a turn.
            let single = matches!(found.tools, ToolFormat::Llama3Json | ToolFormat::Harmony);
            if single && case.len() > 1 {
                continue;
            }
            let call = |(i, arguments): (usize, &&str)| {
                ToolCall::new("get_weather", *arguments).id(format!("abcdefgh{i}"))
            };
            let calls: Vec<ToolCall> = case.iter().enumerate().map(call).collect();
            let answer = calls.iter().cloned().fold(Message::assistant(""), Message::tool_call);
            let (prompt, output) = written(&template, answer);
            let mut parser =
                OutputParser::new(found.tools, found.reasoning, &tools()).after_prompt(&prompt, &[]);
            let mut deltas = parser.push(&output);
            deltas.extend(parser.finish());
            let mut got: Vec<(String, String)> = Vec::new();
            for delta in &deltas {
                match delta {
                    Delta::ToolCall(delta) => {
                        got.extend(delta.name.clone().map(|name| (name, String::new())));
                        got.last_mut().unwrap().1.push_str(&delta.arguments);
                    }
                    Delta::Text(text) | Delta::Reasoning(text) if text.trim().is_empty() => {}
                    _ => wrong.push(format!("{name}: {delta:?} of {output:?}")),
                }
            }
            let value = |arguments: &str| serde_json::from_str::<serde_json::Value>(arguments).unwrap();
            let same = got.len() == calls.len()
                && got.iter().zip(&calls).all(|((name, arguments), call)| {
                    *name == call.name && value(arguments) == value(&call.arguments)
                });
            if !same {
                wrong.push(format!("{name}: {got:?} of {output:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
