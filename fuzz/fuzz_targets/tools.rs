//! Parsers of tool calls and reasoning: any output of a model in any format ends in parts, the same however
//! it is cut; arguments of complete calls are JSON objects, and text is not lost.
#![no_main]

use exsa_core::chat::Json;
use exsa_core::tools::{Delta, OutputParser, ReasoningFormat, ToolFormat};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TOOLS: LazyLock<Json> = LazyLock::new(|| {
    r#"[{"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}},
        {"name": "time", "parameters": {"properties": {"zone": {"type": ["string", "null"]}}}}]"#
        .parse()
        .expect("JSON")
});

/// Text, reasoning, and calls with malformed ones in the place of their deltas.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    text: String,
    reasoning: String,
    calls: Vec<(usize, String, String)>,
}

fn parse(formats: (ToolFormat, ReasoningFormat), text: &str, step: usize) -> Parts {
    let tools = TOOLS.as_array().expect("an array");
    let mut parser = OutputParser::new(formats.0, formats.1, tools);
    let mut parts = Parts::default();
    let mut deltas = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let cut = (step.max(1)..rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(cut);
        deltas.extend(parser.push(piece));
        rest = after;
    }
    deltas.extend(parser.finish());
    for delta in deltas {
        match delta {
            Delta::Text(text) => parts.text.push_str(&text),
            Delta::Reasoning(text) => parts.reasoning.push_str(&text),
            Delta::ToolCall(call) => match call.name {
                Some(name) => parts.calls.push((call.call, name, call.arguments)),
                None => {
                    let (index, _, arguments) = parts.calls.last_mut().expect("a name comes first");
                    assert_eq!(*index, call.call);
                    arguments.push_str(&call.arguments);
                }
            },
            Delta::Malformed(malformed) => {
                parts.calls.retain(|(index, ..)| Some(*index) != malformed.call);
                parts.text.push_str(&malformed.text);
            }
            other => panic!("{other:?}"),
        }
    }
    parts
}

fuzz_target!(|data: &[u8]| {
    let [format, reasoning, step, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let formats = (
        ToolFormat::ALL[*format as usize % ToolFormat::ALL.len()],
        ReasoningFormat::ALL[*reasoning as usize % ReasoningFormat::ALL.len()],
    );
    let whole = parse(formats, text, usize::MAX);
    assert_eq!(parse(formats, text, *step as usize), whole);
    for (_, _, arguments) in &whole.calls {
        // Numbers beyond the range of the reader and lone surrogates are left to the host.
        if !arguments.contains(['e', 'E', '\\']) {
            assert!(matches!(arguments.parse(), Ok(Json::Object(_))), "{arguments}");
        }
    }
    if whole.calls.is_empty() && whole.reasoning.is_empty() {
        let letters = |text: &str| text.chars().filter(|c| *c == '#').count();
        assert!(letters(&whole.text) == letters(text) || formats.0 == ToolFormat::Harmony);
    }
});
