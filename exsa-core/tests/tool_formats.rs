//! Sample outputs of every tool call format, whole and split at every position.
//!
//! A file of `data/tools` holds the samples of a format: outputs of a model with their expected parts.
#![cfg(feature = "tool-parsers")]
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::chat::Json;
use exsa_core::tools::{Delta, OutputParser, ReasoningFormat, ToolFormat};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Parameters with types, as the samples use them.
const TOOLS: &str = r#"[
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}, "tags": {"type": "array"}}}}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {
        "zone": {"type": "string"}}}}}
]"#;

/// A part of an output.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Reasoning(String),
    /// Name and arguments.
    Call(String, String),
    Malformed(String),
}

struct Sample {
    title: String,
    format: ToolFormat,
    reasoning: ReasoningFormat,
    control: Vec<String>,
    prompt: String,
    output: String,
    parts: Vec<Part>,
}

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tools"));
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|file| samples(&std::fs::read_to_string(file).unwrap())).collect()
});

fn samples(file: &str) -> Vec<Sample> {
    let mut parts = file.split("### ");
    let head = parts.next().unwrap();
    let fields = |name: &str| {
        let prefix = format!("{name}: ");
        head.lines().filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned)).collect::<Vec<_>>()
    };
    let (format, reasoning) = (fields("format").remove(0), fields("reasoning").remove(0));
    let sample = |text: &str| {
        let (head, rest) = text.split_once("--- output\n").unwrap();
        let (output, parts) = rest.split_once("\n--- parts\n").unwrap();
        let prompt =
            head.lines().find_map(|line| line.strip_prefix("prompt: ")).map(string).unwrap_or_default();
        Sample {
            title: format!("{format}: {}", head.lines().next().unwrap()),
            format: format.parse().unwrap(),
            reasoning: reasoning.parse().unwrap(),
            control: fields("control"),
            prompt,
            output: output.to_owned(),
            parts: parts.lines().filter(|line| !line.is_empty()).map(part).collect(),
        }
    };
    parts.map(sample).collect()
}

fn string(text: &str) -> String {
    text.parse::<Json>().unwrap().as_str().unwrap().to_owned()
}

fn part(line: &str) -> Part {
    let (kind, value) = line.split_once(": ").unwrap();
    match kind {
        "text" => Part::Text(string(value)),
        "reasoning" => Part::Reasoning(string(value)),
        "malformed" => Part::Malformed(string(value)),
        "call" => {
            let (name, arguments) = value.split_once(' ').unwrap();
            Part::Call(name.to_owned(), arguments.to_owned())
        }
        _ => panic!("{kind}"),
    }
}

fn parser(sample: &Sample) -> OutputParser {
    let tools: Json = TOOLS.parse().unwrap();
    // A prompt that the template wrote protects nothing.
    OutputParser::new(sample.format, sample.reasoning, tools.as_array().unwrap())
        .after_prompt(&sample.prompt, &[])
}

/// Merges deltas into parts. A malformed call replaces its deltas.
fn joined(deltas: &[Delta]) -> Vec<Part> {
    let mut parts: Vec<(Option<usize>, Part)> = Vec::new();
    let mut ids = BTreeSet::new();
    for delta in deltas {
        match (delta, parts.last_mut()) {
            (Delta::Text(text), Some((_, Part::Text(last)))) => last.push_str(text),
            (Delta::Text(text), _) => parts.push((None, Part::Text(text.clone()))),
            (Delta::Reasoning(text), Some((_, Part::Reasoning(last)))) => last.push_str(text),
            (Delta::Reasoning(text), _) => parts.push((None, Part::Reasoning(text.clone()))),
            (Delta::ToolCall(delta), _) => {
                if let Some(name) = &delta.name {
                    assert!(ids.insert(delta.id.clone().unwrap()), "ids differ");
                    parts.push((Some(delta.call), Part::Call(name.clone(), String::new())));
                }
                let (call, Part::Call(_, arguments)) = parts.last_mut().unwrap() else { panic!("{delta:?}") };
                assert_eq!(*call, Some(delta.call));
                arguments.push_str(&delta.arguments);
            }
            (Delta::Malformed(malformed), _) => {
                if malformed.call.is_some() {
                    parts.retain(|(call, _)| *call != malformed.call);
                }
                parts.push((None, Part::Malformed(malformed.text.clone())));
            }
            _ => panic!("{delta:?}"),
        }
    }
    // A call that turned out to be none may have stood between texts.
    let mut joined: Vec<Part> = Vec::new();
    for (_, part) in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Text(last)), Part::Text(text)) => last.push_str(&text),
            (_, part) => joined.push(part),
        }
    }
    joined
}

fn parse<'a>(sample: &Sample, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Part> {
    let mut parser = parser(sample);
    let mut deltas: Vec<Delta> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    joined(&deltas)
}

/// The output as tokenized: control tokens separate from text.
fn tokens(sample: &Sample) -> Vec<(bool, String)> {
    let mut tokens: Vec<(bool, String)> = Vec::new();
    let mut rest = sample.output.as_str();
    while let Some(c) = rest.chars().next() {
        let control = sample.control.iter().find(|control| rest.starts_with(control.as_str()));
        let len = control.map_or(c.len_utf8(), String::len);
        tokens.push((control.is_some(), rest[..len].to_owned()));
        rest = &rest[len..];
    }
    tokens
}

#[test]
fn every_format_has_samples() {
    let covered: BTreeSet<_> = SAMPLES.iter().map(|sample| sample.format.name()).collect();
    let all: BTreeSet<_> = ToolFormat::ALL.iter().map(|format| format.name()).collect();
    assert_eq!(covered, all);
}

#[test]
fn samples_have_the_parts_that_they_list() {
    let mut wrong = Vec::new();
    for sample in &*SAMPLES {
        let parts = parse(sample, [sample.output.as_str()]);
        if parts != sample.parts {
            wrong.push(format!("{}: {parts:?}, not {:?}", sample.title, sample.parts));
        }
        for part in &sample.parts {
            if let Part::Call(_, arguments) = part {
                assert!(matches!(arguments.parse(), Ok(Json::Object(_))), "{}", sample.title);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cuts_make_no_difference() {
    let mut wrong = Vec::new();
    for sample in &*SAMPLES {
        let text = sample.output.as_str();
        let mut check = |parts: Vec<Part>, cut: &str| {
            if parts != sample.parts && wrong.last().is_none_or(|(title, _, _)| *title != sample.title) {
                wrong.push((sample.title.clone(), cut.to_owned(), parts));
            }
        };
        for (at, _) in text.char_indices() {
            check(parse(sample, [&text[..at], &text[at..]]), &format!("at {at}"));
        }
        let chars = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        check(parse(sample, chars), "into characters");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn control_tokens_are_markers_too() {
    let mut wrong = Vec::new();
    for sample in SAMPLES.iter().filter(|sample| !sample.control.is_empty()) {
        let mut parser = parser(sample);
        let mut deltas = Vec::new();
        let mut control_in_text = false;
        for (control, text) in tokens(sample) {
            deltas.extend(if control { parser.push_control(&text) } else { parser.push(&text) });
        }
        deltas.extend(parser.finish());
        // The text of a control token does not show if it is text of the answer.
        control_in_text |= sample.parts.iter().any(|part| match part {
            Part::Text(text) | Part::Reasoning(text) => {
                sample.control.iter().any(|c| text.contains(c.as_str()))
            }
            _ => false,
        });
        let parts = joined(&deltas);
        if !control_in_text && parts != sample.parts {
            wrong.push(format!("{}: {parts:?}, not {:?}", sample.title, sample.parts));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn control_tokens_show_if_asked_for() {
    for (show, expected) in [(false, "ab"), (true, "a<|x|>b")] {
        let mut parser = OutputParser::new(ToolFormat::Hermes, ReasoningFormat::None, &[]).show_control(show);
        let mut deltas = parser.push("a");
        deltas.extend(parser.push_control("<|x|>"));
        deltas.extend(parser.push("b"));
        deltas.extend(parser.finish());
        assert_eq!(joined(&deltas), [Part::Text(expected.into())]);
    }
}

#[test]
fn what_a_message_holds_opens_no_reasoning() {
    let prompt = "<|user|>say <think>";
    let parser = |protected: &[usize]| {
        OutputParser::new(ToolFormat::None, ReasoningFormat::Think, &[]).after_prompt(prompt, protected)
    };
    assert!(parser(&[]).in_reasoning());
    assert!(!parser(&[14]).in_reasoning());
    assert!(parser(&[3]).in_reasoning());
}

#[test]
fn arguments_come_as_they_are_written() {
    let mut parser = OutputParser::new(ToolFormat::Hermes, ReasoningFormat::None, &[]);
    let deltas = parser.push(r#"<tool_call>{"name": "f", "arguments": {"text": "some"#);
    let [Delta::ToolCall(call)] = &deltas[..] else { panic!("{deltas:?}") };
    assert_eq!((call.name.as_deref(), &*call.arguments), (Some("f"), r#"{"text": "some"#));
    let mut parser =
        OutputParser::new(ToolFormat::Qwen3Coder, ReasoningFormat::None, tools().as_array().unwrap());
    let deltas = parser.push("<tool_call><function=time><parameter=zone>\nUT\nC");
    let [Delta::ToolCall(call)] = &deltas[..] else { panic!("{deltas:?}") };
    assert_eq!(call.arguments, r#"{"zone": "UT\nC"#);
}

fn tools() -> Json {
    TOOLS.parse().unwrap()
}

#[test]
fn long_outputs_take_linear_time() {
    // A megabyte of beginnings of markers, in pieces of one byte; quadratic work would take minutes.
    let text = "<tool_<".repeat(150_000);
    let mut parser = OutputParser::new(ToolFormat::Hermes, ReasoningFormat::Think, &[]);
    let len: usize = text
        .chars()
        .flat_map(|c| parser.push(c.encode_utf8(&mut [0; 4])))
        .map(|delta| if let Delta::Text(text) = delta { text.len() } else { panic!("{delta:?}") })
        .sum();
    assert!(len + 16 > text.len());
    // Calls that never end are bounded.
    let mut parser = OutputParser::new(ToolFormat::Hermes, ReasoningFormat::Think, &[]);
    let mut malformed = 0;
    let mut deltas = parser.push(r#"<tool_call>{"name": "f", "arguments": {"a": ""#);
    for _ in 0..5 << 10 {
        deltas.extend(parser.push(&"x".repeat(1024)));
        malformed += deltas.drain(..).filter(|delta| matches!(delta, Delta::Malformed(_))).count();
    }
    assert_eq!(malformed, 1);
}

/// Pieces from which outputs are composed.
fn pieces() -> Vec<String> {
    let samples = SAMPLES.iter().flat_map(|sample| {
        let control = sample.control.iter().cloned();
        control.chain(sample.output.split_inclusive([' ', '>', '\n', '{']).map(str::to_owned))
    });
    samples.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Characters other than white space and those of markers.
fn letters(text: &str) -> BTreeMap<char, usize> {
    let mut counts = BTreeMap::new();
    for c in text.chars().filter(|c| matches!(c, '0'..='9' | 'ä' | 'é' | '北' | '#' | '%' | '~')) {
        *counts.entry(c).or_default() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_output_is_parsed_alike_however_it_is_cut(
        format in proptest::sample::select(ToolFormat::ALL),
        reasoning in proptest::sample::select(ReasoningFormat::ALL),
        parts in proptest::collection::vec(
            prop_oneof![proptest::sample::select(pieces()), "[#%~ä北 ]{1,3}", ".{0,3}"], 0..24),
        cuts in proptest::collection::vec(0usize..400, 0..12),
    ) {
        let output = parts.concat();
        let sample = Sample {
            title: String::new(), format, reasoning, control: Vec::new(), prompt: String::new(),
            output: output.clone(), parts: Vec::new(),
        };
        let whole = parse(&sample, [output.as_str()]);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|at| output.is_char_boundary(*at)).collect();
        cuts.extend([0, output.len()]);
        cuts.sort_unstable();
        let cut = parse(&sample, cuts.windows(2).map(|pair| &output[pair[0]..pair[1]]));
        prop_assert_eq!(&cut, &whole);
        // Text is never lost: outside of calls, every letter that is no part of a marker is there.
        if !whole.iter().any(|part| matches!(part, Part::Call(..))) {
            let all: String = whole
                .iter()
                .map(|part| match part {
                    Part::Text(text) | Part::Reasoning(text) | Part::Malformed(text) => text.as_str(),
                    Part::Call(..) => "",
                })
                .collect();
            if format != ToolFormat::Harmony && reasoning != ReasoningFormat::Harmony {
                prop_assert_eq!(letters(&all), letters(&output), "{:?}", whole);
            }
        }
    }
}
