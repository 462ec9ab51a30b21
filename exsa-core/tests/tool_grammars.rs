//! Arguments of forced calls in formats that write strings as plain text: enforced, or refused.
#![cfg(all(feature = "tool-parsers", feature = "constraints"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::chat::Json;
use exsa_core::constraint::{Allowed, Compiler, ConstraintError};
use exsa_core::scripted::ByteTokenizer;
use exsa_core::tools::{
    Delta, GrammarOptions, OutputParser, ReasoningFormat, ToolChoice, ToolFormat, call_constraint,
};
use std::sync::Arc;

/// Formats with plain text in tags, and their call of `f` with one parameter `x`.
const FORMATS: [(ToolFormat, &str, &str); 5] = [
    (
        ToolFormat::Qwen3Coder,
        "<tool_call>\n<function=f>\n<parameter=x>\n",
        "\n</parameter>\n</function>\n</tool_call>",
    ),
    (
        ToolFormat::SeedOss,
        "<seed:tool_call>\n<function=f>\n<parameter=x>",
        "</parameter>\n</function>\n</seed:tool_call>",
    ),
    (
        ToolFormat::MiniMaxM2,
        "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"x\">",
        "</parameter>\n</invoke>\n</minimax:tool_call>",
    ),
    (ToolFormat::Glm4, "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>", "</arg_value>\n</tool_call>"),
    (ToolFormat::FunctionGemma, "<start_function_call>call:f{x:<escape>", "<escape>}<end_function_call>"),
];

fn tool(parameters: &str) -> Json {
    format!(r#"{{"type": "function", "function": {{"name": "f", "parameters": {parameters}}}}}"#)
        .parse()
        .unwrap()
}

fn of(x: &str) -> Json {
    tool(&format!(r#"{{"type": "object", "properties": {{"x": {x}}}, "required": ["x"]}}"#))
}

/// Whether the grammar of a forced call takes a text.
fn accepts(format: ToolFormat, tool: &Json, text: &str) -> Result<bool, ConstraintError> {
    let tokenizer = ByteTokenizer::new();
    let options = GrammarOptions::default();
    let tools = std::slice::from_ref(tool);
    let constraint = call_constraint(format, tools, &ToolChoice::Required, options, &tokenizer)?.unwrap();
    let mut state = Compiler::new(Arc::new(tokenizer)).compile(&constraint)?.state()?;
    for byte in text.bytes() {
        let allowed = match state.allowed() {
            Ok(Allowed::Forced(token)) => token == u32::from(byte),
            Ok(Allowed::Mask(mask)) => mask[usize::from(byte) / 64] >> (byte % 64) & 1 == 1,
            Ok(_) => true,
            Err(ConstraintError::NoToken) => false,
            Err(error) => return Err(error),
        };
        if !allowed {
            return Ok(false);
        }
        state.accept(byte.into())?;
    }
    state.is_complete()
}

/// The arguments that the parser reads in a text with one call.
fn arguments(format: ToolFormat, tool: &Json, text: &str) -> String {
    let mut parser = OutputParser::new(format, ReasoningFormat::None, std::slice::from_ref(tool));
    let mut deltas = parser.push(text);
    deltas.extend(parser.finish());
    let mut arguments = String::new();
    for delta in deltas {
        match delta {
            Delta::ToolCall(delta) => arguments.push_str(&delta.arguments),
            other => panic!("{format}: {other:?} in {text}"),
        }
    }
    arguments
}

#[test]
fn restrictions_of_strings_are_enforced() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r#"{"type": "string"}"#, &["", "a", "two\nlines", "<b>ü</b>"], &[]),
        (r#"{"type": "string", "minLength": 2, "maxLength": 3}"#, &["ab", "äöü"], &["", "a", "abcd"]),
        (r#"{"type": "string", "pattern": "^[a-z]+$"}"#, &["abc"], &["", "Abc", "ab1", "a\nb"]),
        (r#"{"type": "string", "pattern": "b+c"}"#, &["bc", "abbcd"], &["", "b", "cb"]),
        (r#"{"type": "string", "pattern": "^a|z$"}"#, &["a", "ab", "xyz"], &["", "b", "za "]),
        (r#"{"type": "string", "pattern": "^\\d{2}/\\d$"}"#, &["12/3"], &["12-3", "٣٣/٣"]),
        (r#"{"type": "string", "enum": ["red", "gr\"een", ""]}"#, &["red", "gr\"een", ""], &["re", "green"]),
        (r#"{"const": "on"}"#, &["on"], &["off", "", "\"on\""]),
        (r#"{"type": "string", "format": "date"}"#, &["2024-02-29"], &["2023-02-29", "today", ""]),
        (r#"{"type": "string", "format": "uuid"}"#, &["01234567-89ab-cdef-0123-456789abcdef"], &["0123", ""]),
        (r#"{"type": "string", "format": "ipv4"}"#, &["10.0.0.255"], &["10.0.0.256", "10.0.0"]),
        (
            r#"{"type": "string", "format": "ipv6"}"#,
            &["::1", "fe80::1:2", "1:2:3:4:5:6:7:8"],
            &["1::2::3", "1:2"],
        ),
        (r#"{"type": "string", "format": "email"}"#, &["a.b@example.com"], &["a@", "@b.com", "a b@c.de"]),
        (
            r#"{"type": "string", "format": "uri"}"#,
            &["https://example.com/a?b=c", "mailto:a@b.de"],
            &["example", "/a"],
        ),
        (r#"{"type": "string", "format": "hostname"}"#, &["a.example.com"], &["-a.com", "a..com", ""]),
        (r#"{"type": "string", "format": "duration"}"#, &["P1DT2H", "P3W", "PT5M"], &["1D", "P", "PT"]),
        (r##"{"$ref": "#/$defs/code"}"##, &["AB12"], &["", "ab12", "\"AB12\""]),
        (
            r#"{"allOf": [{"type": "string", "minLength": 3}, {"pattern": "^a"}]}"#,
            &["abc"],
            &["ab", "xbc", ""],
        ),
        (
            r#"{"anyOf": [{"type": "string", "enum": ["auto"]}, {"type": "string", "pattern": "^[0-9]{2}px$"}]}"#,
            &["auto", "12px"],
            &["", "1px", "autopx"],
        ),
    ];
    for (format, before, after) in FORMATS {
        for (schema, valid, invalid) in cases {
            let parameters = format!(
                r#"{{"type": "object", "properties": {{"x": {schema}}}, "required": ["x"],
                    "$defs": {{"code": {{"type": "string", "pattern": "^[A-Z]{{2}}[0-9]{{2}}$"}}}}}}"#
            );
            let tool = tool(&parameters);
            for text in *valid {
                let call = format!("{before}{text}{after}");
                assert!(accepts(format, &tool, &call).unwrap(), "{format}, {schema}, valid: {text:?}");
                let expected = Json::from_iter([("x", Json::from(*text))]).to_string();
                assert_eq!(arguments(format, &tool, &call), expected, "{format}, {schema}");
            }
            for text in *invalid {
                let call = format!("{before}{text}{after}");
                assert!(!accepts(format, &tool, &call).unwrap(), "{format}, {schema}, invalid: {text:?}");
            }
        }
    }
}

#[test]
fn a_string_ends_where_the_parser_finds_its_end() {
    let (free, bounded) = (of(r#"{"type": "string"}"#), of(r#"{"type": "string", "maxLength": 40}"#));
    for (format, before, after) in FORMATS {
        let end = match format {
            ToolFormat::Glm4 => "</arg_value>",
            ToolFormat::FunctionGemma => "<escape>",
            _ => "</parameter>",
        };
        for tool in [&free, &bounded] {
            for text in [format!("a{end}b"), format!("a {end}")] {
                assert!(
                    !accepts(format, tool, &format!("{before}{text}{after}")).unwrap(),
                    "{format}: {text}"
                );
            }
            let part = end.split_at(end.len() - 1).0;
            let call = format!("{before}a{part}{after}");
            assert!(accepts(format, tool, &call).unwrap(), "{format}: {part}");
            let expected = Json::from_iter([("x", Json::from(format!("a{part}")))]).to_string();
            assert_eq!(arguments(format, tool, &call), expected, "{format}");
        }
    }
    // The parser drops a line break at both ends of these.
    for (format, before, after) in [FORMATS[1], FORMATS[2]] {
        for text in ["\na", "a\n", "\n"] {
            assert!(
                !accepts(format, &free, &format!("{before}{text}{after}")).unwrap(),
                "{format}: {text:?}"
            );
        }
    }
}

#[test]
fn values_of_other_types_are_json() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r#"{"type": "integer", "minimum": 5, "maximum": 12}"#, &["5", "12"], &["4", "13", "5.5", "\"5\""]),
        (r#"{"type": "number", "exclusiveMinimum": 0, "maximum": 1}"#, &["0.5", "1"], &["0", "1.1", "x"]),
        (r#"{"type": "boolean"}"#, &["true", "false"], &["True", "1", "yes"]),
        (r#"{"enum": [1, "a"]}"#, &["1", "\"a\""], &["2", "a"]),
        (
            r#"{"type": ["string", "null"], "pattern": "^[a-z]+$"}"#,
            &["null", "\"abc\"", "\"null\""],
            &["abc", "\"ABC\"", ""],
        ),
        (
            r#"{"type": "array", "items": {"type": "string", "maxLength": 12}}"#,
            &[r#"["a, b]", "\"c\"", "{:}"]"#],
            &["[a]"],
        ),
        (
            r#"{"type": "array", "items": {"type": "integer"}, "maxItems": 2}"#,
            &["[]", "[1, 2]"],
            &["[1, 2, 3]"],
        ),
    ];
    for (format, before, after) in FORMATS {
        let (before, after) = (before.trim_end_matches("<escape>"), after.trim_start_matches("<escape>"));
        for (schema, valid, invalid) in cases {
            let tool = of(schema);
            for text in *valid {
                let call = format!("{before}{text}{after}");
                assert!(accepts(format, &tool, &call).unwrap(), "{format}, {schema}, valid: {text}");
                let read: Json = arguments(format, &tool, &call).parse().unwrap();
                assert_eq!(read.get("x").map(Json::to_string).as_deref(), Some(*text), "{format}, {schema}");
            }
            for text in *invalid {
                let call = format!("{before}{text}{after}");
                assert!(!accepts(format, &tool, &call).unwrap(), "{format}, {schema}, invalid: {text}");
            }
        }
    }
}

#[test]
fn other_schemas_are_refused_by_name() {
    let x = |schema: &str| format!(r#"{{"type": "object", "properties": {{"x": {schema}}}}}"#);
    let cases = [
        (x(r#"{"type": "string", "not": {"const": "a"}}"#), "'not'"),
        (x(r#"{"type": "string", "format": "iri"}"#), "'iri'"),
        (x(r#"{"type": "string", "pattern": "a(?=b)"}"#), "pattern"),
        (x(r#"{"type": "string", "minLength": 3, "maxLength": 2}"#), "maxLength"),
        (x(r#"{"type": "string", "minLength": -1}"#), "minLength"),
        (x(r#"{"type": "string", "oneOf": [{"pattern": "a"}, {"pattern": "b"}]}"#), "'oneOf'"),
        (x(r##"{"$ref": "#"}"##), "'#'"),
        (r#"{"type": "object", "properties": {}, "required": ["y"]}"#.to_owned(), "'y'"),
        (r#"{"type": "object", "properties": {"x": {}}, "minProperties": 1}"#.to_owned(), "'minProperties'"),
        (
            r#"{"type": "object", "properties": {"x": {}}, "anyOf": [{"required": ["x"]}]}"#.to_owned(),
            "'anyOf'",
        ),
        (r#"{"type": "array", "items": {}}"#.to_owned(), "'type'"),
    ];
    for (format, ..) in FORMATS {
        for (schema, name) in &cases {
            let error = accepts(format, &tool(schema), "").expect_err(schema);
            assert!(error.to_string().contains(name), "{format}, {schema}: {error}");
        }
    }
}

#[test]
fn hostile_schemas_end_at_a_limit() {
    // Each definition refers twice to the next: 2^40 strings.
    for combined in ["allOf", "anyOf"] {
        let definition = |i: usize| {
            let next = i + 1;
            format!(
                r##""d{i}": {{"{combined}": [{{"$ref": "#/$defs/d{next}"}}, {{"$ref": "#/$defs/d{next}"}}]}}"##
            )
        };
        let definitions: Vec<String> = (0..20).map(definition).collect();
        let schema = format!(
            r##"{{"type": "object", "properties": {{"x": {{"type": "string", "$ref": "#/$defs/d0"}}}},
                "$defs": {{{}, "d20": {{"type": "string"}}}}}}"##,
            definitions.join(", ")
        );
        let error = accepts(ToolFormat::Qwen3Coder, &tool(&schema), "").unwrap_err();
        assert!(matches!(error, ConstraintError::Limit { .. }), "{error}");
    }
    let nested = format!(r#"{{"type": "string", "pattern": "{}a{}"}}"#, "(".repeat(5000), ")".repeat(5000));
    let error = accepts(ToolFormat::Qwen3Coder, &of(&nested), "").unwrap_err();
    assert!(matches!(error, ConstraintError::Limit { .. }), "{error}");
}
