//! Templates of published models, compared with the output of Hugging Face transformers.
//!
//! The conversations are ours; the templates are read from the test data, and of the expected texts only
//! lengths and hashes are stored. `tools/chat_expected.py` writes them.
#![cfg(feature = "chat-template")]
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::chat::{
    ChatOptions, ChatTemplate, ChatTemplateError, ControlTexts, Json, Message, ToolCall, ToolFallback,
};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

const CONVERSATIONS: &str = include_str!("data/conversations.json");
const EXPECTED: &str = include_str!("data/chat_expected.txt");

fn test_data() -> PathBuf {
    match std::env::var_os("EXSA_TEST_DATA") {
        Some(folder) => folder.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
    }
}

fn message(value: &Json) -> Message {
    let Json::Object(fields) = value else { panic!("a message is an object") };
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    fields.iter().fold(Message::default(), |mut message, (field, value)| {
        match (field.as_str(), value) {
            ("role", role) => message.role = text(role),
            ("content", Json::Null) => {}
            ("content", content) => message = message.part(text(content)),
            ("reasoning_content", reasoning) => message = message.reasoning(text(reasoning)),
            ("tool_call_id", id) => message.tool_call_id = Some(text(id)),
            ("name", name) => message = message.name(text(name)),
            ("tool_calls", calls) => {
                message.tool_calls = calls.as_array().unwrap().iter().map(tool_call).collect()
            }
            _ => message = message.with(field, value.clone()),
        }
        message
    })
}

fn tool_call(value: &Json) -> ToolCall {
    let function = value.get("function").unwrap();
    let arguments = match function.get("arguments").unwrap() {
        Json::String(text) => text.clone(),
        mapping => mapping.to_string(),
    };
    ToolCall::new(function.get("name").and_then(Json::as_str).unwrap(), arguments)
        .id(value.get("id").and_then(Json::as_str).unwrap())
}

fn conversation(value: &Json) -> (Vec<Message>, ChatOptions) {
    let messages = value.get("messages").and_then(Json::as_array).unwrap().iter().map(message).collect();
    let mut options = ChatOptions::default()
        // 9 March 2025, 08:05:07
        .now(UNIX_EPOCH + Duration::from_secs(1_741_507_507))
        .tool_fallback(ToolFallback::Omit)
        .add_generation_prompt(value.get("add_generation_prompt") != Some(&Json::Bool(false)))
        .tools(value.get("tools").and_then(Json::as_array).unwrap_or_default().to_vec());
    if let Some(Json::Object(variables)) = value.get("variables") {
        options.variables.extend(variables.iter().cloned());
    }
    (messages, options)
}

fn texts() -> ControlTexts {
    ControlTexts::new(["<|im_start|>"]).variable("bos_token", "<BOS>").variable("eos_token", "<EOS>")
}

/// FNV-1a, 64 bit.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

#[test]
fn templates_of_models_render_as_in_transformers() {
    let folder = test_data().join("models/templates");
    if !folder.is_dir() {
        eprintln!("skipped: no chat templates in {}", folder.display());
        return;
    }
    let conversations: Json = CONVERSATIONS.parse().unwrap();
    let conversations = conversations.as_array().unwrap();
    let mut wrong = Vec::new();
    for line in EXPECTED.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let (file, name, want) = (word(), word(), word());
        let source = std::fs::read_to_string(folder.join(file)).unwrap();
        let template = ChatTemplate::parse(&source, texts()).unwrap();
        let value =
            conversations.iter().find(|c| c.get("name").and_then(Json::as_str) == Some(name)).unwrap();
        let (messages, options) = conversation(value);
        let got = template.render(&messages, &options);
        let summary = match &got {
            Ok(rendered) => format!("{} {:016x}", rendered.text.len(), hash(&rendered.text)),
            Err(ChatTemplateError::Refused(_)) => "refused".to_owned(),
            Err(_) => "error".to_owned(),
        };
        // A text does no harm if Python fails for a reason of its own, as iterating over None.
        if summary != want && want != "error" {
            if let Some(folder) = std::env::var_os("EXSA_CHAT_WRONG") {
                let text = got.as_ref().map_or_else(ToString::to_string, |rendered| rendered.text.clone());
                std::fs::write(PathBuf::from(folder).join(format!("{file}.{name}")), text).unwrap();
            }
            wrong.push(format!("{file} {name}: {summary}, not {want}; {:?}", got.err()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        EXPECTED.lines().count(),
        wrong.join("\n")
    );
}

const SNIPPETS: &str = include_str!("data/snippets.json");

/// Small hand-written templates, each with the output of Jinja2. `SNIPPETS` in the script has the
/// conversation.
#[test]
fn snippets_render_as_in_jinja2() {
    let messages = [
        Message::system("Be brief."),
        Message::user(" Hi there\n"),
        Message::assistant("Hello"),
        Message::user("Bye"),
    ];
    let x = r#"{
        "text": "Some Text", "int": 42, "float": 1.5, "small": 1e-7, "large": 1e22, "bool": true, "none": null,
        "list": [1, "two", 3.0], "dict": {"a": 1, "b": [2, 3]},
        "mixed": [null, 1e-7, "it's", true, {"a": [1e22, "\n"]}, "\u00ad\u200b\u0301é"],
        "nested": {"k": ["it's", {"deep": null}], "ü": "é\n"},
        "shadow": {"items": 1, "get": 2, "keys": 3}, "shuffled": {"b": {"z": 1, "y": 2}, "a": 0},
        "people": [
            {"name": "Ann", "age": 41, "team": "b"}, {"name": "Bob", "age": 23, "team": "a"},
            {"name": "Cyd", "age": 35, "team": "b"}
        ]
    }"#;
    let options = ChatOptions::default()
        .now(UNIX_EPOCH + Duration::from_secs(1_741_507_507))
        .variable("x", x.parse::<Json>().unwrap());
    let snippets: Json = SNIPPETS.parse().unwrap();
    let snippets = snippets.as_array().unwrap();
    let mut wrong = Vec::new();
    for snippet in snippets {
        let source = snippet.get("template").and_then(Json::as_str).unwrap();
        let got =
            ChatTemplate::parse(source, texts()).and_then(|template| template.render(&messages, &options));
        let want = snippet.get("expected").unwrap();
        let right = match (&got, want) {
            (Ok(rendered), Json::String(want)) => rendered.text == *want,
            (Err(ChatTemplateError::Refused(got)), want) => {
                want.get("refused") == Some(&Json::from(got.as_str()))
            }
            (Err(_), Json::Null) => true,
            _ => false,
        };
        if !right {
            let got =
                got.map_or_else(|error| format!("{error:?}"), |rendered| format!("{:?}", rendered.text));
            wrong.push(format!("{source:?}\n   got {got}\n  want {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), snippets.len(), wrong.join("\n"));
}

fn template_of(path: &str) -> Option<String> {
    let path = test_data().join(path);
    let source = std::fs::read_to_string(&path).ok();
    if source.is_none() {
        eprintln!("skipped: no chat template at {}", path.display());
    }
    source
}

#[test]
fn qwen3_coder_asks_of_tools_and_arguments_what_they_are() {
    let Some(source) = template_of("cases/qwen3-coder.jinja") else { return };
    let template = ChatTemplate::parse(&source, texts()).unwrap();
    let render = |messages: &[Message]| template.render(messages, &ChatOptions::default()).unwrap().text;
    assert_eq!(render(&[Message::user("Hi")]), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    let call = ToolCall::new("get_weather", r#"{"city": "Bern", "days": 2, "hours": [1, 2], "unit": null}"#);
    let messages =
        [Message::user("Hi"), Message::assistant("").parts([]).tool_call(call), Message::tool("", "12")];
    assert_eq!(
        render(&messages),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<tool_call>\n<function=get_weather>\n\
         <parameter=city>\nBern\n</parameter>\n<parameter=days>\n2\n</parameter>\n\
         <parameter=hours>\n[1, 2]\n</parameter>\n<parameter=unit>\nNone\n</parameter>\n\
         </function>\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n12\n</tool_response>\n<|im_end|>\n\
         <|im_start|>assistant\n"
    );
}

#[test]
fn qwen3_leaves_out_old_reasoning_whatever_kind_of_token_its_marks_are() {
    let Some(source) = template_of("models/templates/Qwen-Qwen3-0.6B.jinja") else { return };
    let answer = Message::assistant("<think>\nhm\n</think>\n\nHello");
    let messages = [Message::user("Hi"), answer, Message::user("Bye")];
    for texts in [texts(), ControlTexts::new(["<|im_start|>", "<|im_end|>", "<think>", "</think>"])] {
        let template = ChatTemplate::parse(&source, texts).unwrap();
        assert_eq!(
            template.render(&messages, &ChatOptions::default()).unwrap().text,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
             <|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        );
    }
}

/// Features of published templates, as their authors document them.
#[test]
fn features_of_published_templates_are_found() {
    let folder = test_data().join("models/templates");
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: no chat templates in {}", folder.display());
        return;
    };
    let mut found = Vec::new();
    for path in files.map(|file| file.unwrap().path()) {
        let template = ChatTemplate::parse(&std::fs::read_to_string(&path).unwrap(), texts()).unwrap();
        let support = template.supports();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        found.push(format!(
            "{name}: system {}, tools {}, calls {}, parallel {}, {:?}, reasoning {}, {:?}, {:?}",
            support.system,
            support.tools,
            support.tool_calls,
            support.parallel_tool_calls,
            support.arguments,
            support.reasoning,
            support.thinking.map(|switch| switch.variable),
            support.reasoning_effort,
        ));
    }
    found.sort();
    let all = "tools true, calls true, parallel true, Mapping, reasoning false, None, None";
    let none = "tools false, calls false, parallel false, Mapping, reasoning false, None, None";
    assert_eq!(
        found,
        [
            format!("NousResearch-Hermes-3-Llama-3.1-8B-tool_use: system true, {all}"),
            format!("Qwen-Qwen2.5-7B-Instruct: system true, {all}"),
            "Qwen-Qwen3-0.6B: system true, tools true, calls true, parallel true, Mapping, reasoning true, \
             Some(\"enable_thinking\"), None"
                .into(),
            "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B: system true, tools false, calls true, parallel true, Mapping, \
             reasoning false, Some(\"enable_thinking\"), None"
                .into(),
            format!("google-gemma-2-2b-it: system false, {none}"),
            "meta-llama-Llama-3.1-8B-Instruct: system true, tools true, calls true, parallel false, Mapping, \
             reasoning false, None, None"
                .into(),
            format!("microsoft-Phi-3.5-mini-instruct: system true, {none}"),
            format!("mistralai-Mistral-Nemo-Instruct-2407: system true, {all}"),
            "openai-gpt-oss-120b: system true, tools true, calls true, parallel false, Mapping, reasoning true, \
             None, Some(\"reasoning_effort\")"
                .into(),
        ]
    );
}

#[test]
fn templates_of_models_do_not_depend_on_what_is_a_control_token() {
    let folder = test_data().join("models/templates");
    let conversations: Json = CONVERSATIONS.parse().unwrap();
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: no chat templates in {}", folder.display());
        return;
    };
    // Everything that the conversations hold and templates look for, as a control token.
    let control = [
        "<think>",
        "</think>",
        "<tool_response>",
        "</tool_response>",
        "<tool_call>",
        "<|im_end|>",
        "\"city\"",
        "Bern",
    ];
    let guarded = ControlTexts::new(control).variable("bos_token", "<BOS>").variable("eos_token", "<EOS>");
    let mut wrong = Vec::new();
    for file in files {
        let path = file.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let plain = ChatTemplate::parse(&source, texts()).unwrap();
        let guarded = ChatTemplate::parse(&source, guarded.clone()).unwrap();
        for value in conversations.as_array().unwrap() {
            let (messages, options) = conversation(value);
            let text =
                |template: &ChatTemplate| template.render(&messages, &options).map(|rendered| rendered.text);
            let (guarded, plain) = (text(&guarded), text(&plain));
            if guarded.as_ref().ok() != plain.as_ref().ok() {
                wrong.push(format!("{} {:?}:\n{guarded:?}\n{plain:?}", path.display(), value.get("name")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
