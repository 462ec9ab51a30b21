//! Chat templates: any source and any conversation end in a text or a typed error, in time and within limits;
//! and in templates as models have them, what users write never becomes a control token.
#![no_main]

use exsa_core::chat::{ChatOptions, ChatTemplate, ControlTexts, Json, Message, ToolCall, ToolFallback};
use exsa_core::scripted::ByteTokenizer;
use exsa_core::tokenizer::Tokenizer;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// Templates that copy what messages hold, as those of models do. The control tokens are `<|bos|>` and
/// `<|eos|>`.
const COPYING: [&str; 5] = [
    "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>\n{% endfor %}{% if add_generation_prompt %}<|bos|>assistant\n{% endif %}",
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] | trim + eos_token }}{% endfor %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{{ m.content }}os|>{{ m.content }}<|b{{ m.content }}{% endfor %}",
    "{% set ns = namespace(last='') %}{% for m in messages %}{% set ns.last = m.content %}{{ ns.last ~ eos_token }}{% endfor %}",
];

static PARSED: LazyLock<Vec<ChatTemplate>> =
    LazyLock::new(|| COPYING.iter().map(|source| parse(source).expect("a sound template")).collect());

fn parse(source: &str) -> std::result::Result<ChatTemplate, exsa_core::chat::ChatTemplateError> {
    ChatTemplate::parse(source, ControlTexts::of(&ByteTokenizer::new()))
}

/// A text of pieces from which control tokens could come to be, and of anything else.
fn text(data: &mut Unstructured<'_>) -> Result<String> {
    const PIECES: [&str; 12] =
        ["<|bos|>", "<|eos|>", "<|", "<|b", "os|>", "|>", "eos", "bos", " ", "\n", "\u{fdd0}", "{{ x }}"];
    let mut text = String::new();
    for _ in 0..data.int_in_range(0..=6)? {
        if data.arbitrary()? {
            text.push_str(data.choose(&PIECES)?);
        } else {
            text.extend(data.arbitrary::<&str>()?.chars().take(20));
        }
    }
    Ok(text)
}

fn json(data: &mut Unstructured<'_>, depth: usize) -> Result<Json> {
    Ok(match data.int_in_range(0..=6)? {
        0 => Json::Null,
        1 => Json::Bool(data.arbitrary()?),
        2 => Json::from(data.arbitrary::<i64>()?),
        3 if depth < 4 => {
            let count = data.int_in_range(0..=3)?;
            Json::Array((0..count).map(|_| json(data, depth + 1)).collect::<Result<_>>()?)
        }
        4 => data.arbitrary::<&str>()?.parse().unwrap_or(Json::Null),
        _ => Json::from(text(data)?),
    })
}

fn messages(data: &mut Unstructured<'_>) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    for _ in 0..data.int_in_range(0..=4)? {
        let role = match data.int_in_range(0..=4)? {
            0 => "system".into(),
            1 => "assistant".into(),
            2 => data.arbitrary::<&str>()?.into(),
            _ => String::from("user"),
        };
        messages.push(Message::new(role, text(data)?));
    }
    Ok(messages)
}

/// Control tokens that a rendered conversation has.
fn control_tokens(template: &ChatTemplate, messages: &[Message], options: &ChatOptions) -> Option<usize> {
    let tokenizer = ByteTokenizer::new();
    let rendered = match template.render(messages, options) {
        Ok(rendered) => rendered,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    assert!(rendered.text.len() <= options.output_bytes_max);
    assert!(rendered.protected_offsets.is_sorted());
    assert!(rendered.protected_offsets.iter().all(|at| *at <= rendered.text.len()));
    let mut ids = Vec::new();
    tokenizer.encode(&rendered.text, &rendered.encode_options(), &mut ids);
    Some(ids.into_iter().filter(|id| tokenizer.is_control(*id)).count())
}

fn run(data: &mut Unstructured<'_>) -> Result<()> {
    let options = ChatOptions::default()
        .add_generation_prompt(data.arbitrary()?)
        .now(SystemTime::UNIX_EPOCH + Duration::from_secs(data.arbitrary::<u32>()?.into()))
        .output_bytes_max(1 << data.int_in_range(0..=20)?);
    let options = match data.int_in_range(0..=5)? {
        0 => options.continue_final_message(true),
        1 => options.enable_thinking(data.arbitrary::<bool>()?).reasoning_effort("low"),
        2 => options.tool_fallback(*data.choose(&[ToolFallback::Refuse, ToolFallback::Omit])?),
        _ => options,
    };
    let messages_are_plain: bool = data.arbitrary()?;
    let mut messages = messages(data)?;
    if data.arbitrary()? {
        let template = data.choose(&PARSED)?;
        let written = control_tokens(template, &messages, &options);
        // The template's own texts meet around an empty message.
        let is_empty = |m: &Message| m.text().is_none_or(|text| text.is_empty());
        let plain = |m: &Message| Message::new(m.role.as_str(), if is_empty(m) { "" } else { "x" });
        let harmless: Vec<_> = messages.iter().map(plain).collect();
        if let (Some(written), Some(expected)) = (written, control_tokens(template, &harmless, &options)) {
            assert_eq!(written, expected, "text of a message became a control token");
        }
        return Ok(());
    }
    let mut options = options;
    if !messages_are_plain {
        for message in &mut messages {
            let field = data.choose(&["x", "thinking", "content"])?;
            message.extra.insert((*field).into(), json(data, 0)?);
            message.name = data.arbitrary::<bool>()?.then(|| text(data)).transpose()?;
            message.reasoning = data.arbitrary::<bool>()?.then(|| text(data)).transpose()?;
            for _ in 0..data.int_in_range(0..=2)? {
                message.tool_calls.push(ToolCall::new(text(data)?, json(data, 0)?.to_string()).id(text(data)?));
            }
        }
        options.tools.push(json(data, 0)?);
        options.documents.push(json(data, 0)?);
        options.variables.insert(data.choose(&["enable_thinking", "x", "messages"])?.to_string(), json(data, 0)?);
    }
    let source = String::from_utf8_lossy(data.bytes(data.len())?).into_owned();
    match parse(&source) {
        Ok(template) => drop(control_tokens(&template, &messages, &options)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Too little data for a case is no case.
    let _ = run(&mut Unstructured::new(data));
});
