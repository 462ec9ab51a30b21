//! Hostile grammars are refused by named limits, in bounded time and memory.

use crate::{accepts, bytes};
use exsa_core::chat::Json;
use exsa_core::constraint::{Constraint, ConstraintError};
use std::time::{Duration, Instant};

/// Compiles, or returns the error, within a time that would not block a server.
fn compile(constraint: &Constraint) -> Result<(), ConstraintError> {
    let begun = Instant::now();
    let result = bytes().compile(constraint).map(|_| ());
    eprintln!(
        "{:?}: {}",
        begun.elapsed(),
        result.as_ref().map_or_else(ToString::to_string, |()| "compiled".into())
    );
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    result
}

fn is_limit(constraint: &Constraint) -> bool {
    matches!(compile(constraint), Err(ConstraintError::Limit { .. }))
}

#[test]
fn nested_brackets() {
    let n = 60_000;
    let deep_schema = r#"{"items":"#.repeat(n) + "{}" + &"}".repeat(n);
    assert!(matches!(compile(&Constraint::json_schema(deep_schema)), Err(ConstraintError::Invalid { .. })));
    assert!(is_limit(&Constraint::regex("(".repeat(n) + "a" + &")".repeat(n))));
    assert!(is_limit(&Constraint::lark(format!("start: {}\"a\"{}", "(".repeat(n), ")".repeat(n)))));
    assert!(is_limit(&Constraint::gbnf(format!("root ::= {}\"a\"{}", "(".repeat(n), ")".repeat(n)))));
    let nested_json = format!("start: %json {}{}", "[".repeat(n), "]".repeat(n));
    assert!(is_limit(&Constraint::lark(nested_json)));
    let mut value = Json::Null;
    for _ in 0..100 {
        value = Json::Array(vec![value]);
    }
    assert!(matches!(compile(&Constraint::json_schema(value)), Err(ConstraintError::Invalid { .. })));
}

#[test]
fn cycles() {
    let cyclic = r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##;
    assert!(compile(&Constraint::json_schema(cyclic)).is_err());
    let meeting = r##"{"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}],"$defs":{
        "a":{"allOf":[{"$ref":"#/$defs/b"},{"type":"object"}]},"b":{"allOf":[{"$ref":"#/$defs/a"},{"type":"object"}]}}}"##;
    let _ = compile(&Constraint::json_schema(meeting));
    assert!(compile(&Constraint::lark("start: a\na: b\nb: a")).is_err());
    assert!(compile(&Constraint::gbnf("root ::= a\na ::= b\nb ::= a")).is_err());
    // A useful cycle, entered from the left.
    assert!(accepts(&bytes(), &Constraint::lark("start: start \"a\" | \"a\""), "aaa"));
}

#[test]
fn chains() {
    let chain = |n: usize| {
        let rules: String = (0..n).map(|i| format!("r{i}: r{}\n", i + 1)).collect();
        Constraint::lark(format!("start: r0\n{rules}r{n}: \"a\"\n"))
    };
    assert!(compile(&chain(9_000)).is_ok());
    assert!(is_limit(&chain(20_000)));
    let schema = |n: usize| {
        let defs: Vec<String> =
            (0..n).map(|i| format!(r##""d{i}":{{"$ref":"#/$defs/d{}"}}"##, i + 1)).collect();
        Constraint::json_schema(format!(
            r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d{n}":{{"type":"null"}}}}}}"##,
            defs.join(",")
        ))
    };
    assert!(compile(&schema(3_000)).is_ok());
    assert!(is_limit(&schema(20_000)));
    let wide: String = (0..3000).map(|i| format!("T{i}: T{}\n", i + 1)).collect();
    assert!(compile(&Constraint::lark(format!("start: T0\n{wide}T3000: \"a\"\n"))).is_ok());
}

#[test]
fn regular_expressions_that_explode() {
    let outcomes = [
        "(a?){200}a{200}",
        "(.*a){30}.{1000}",
        "((a{1,100}){1,100}){1,100}",
        "(x+x+)+y",
        r"(\p{L}{1,1000}[a-z]){1,1000}",
        "[a-z]{1,1000000000}",
    ];
    for regex in outcomes {
        match compile(&Constraint::regex(regex)) {
            Ok(()) | Err(ConstraintError::Limit { .. } | ConstraintError::Work(_)) => {}
            Err(ConstraintError::Invalid { problem, .. }) => eprintln!("{regex}: {problem}"),
            Err(error) => panic!("{regex}: {error:?}"),
        }
    }
}

#[test]
fn sizes() {
    let schema = format!(r#"{{"description":"{}"}}"#, "x".repeat(10 << 20));
    assert!(is_limit(&Constraint::json_schema(schema)));
    assert!(is_limit(&Constraint::lark(format!("start: \"a\" // {}", "x".repeat(10 << 20)))));
    assert!(is_limit(&Constraint::choice((0..300_000).map(|i| i.to_string()))));
    match compile(&Constraint::choice((0..100_000).map(|i| format!("choice {i}")))) {
        Ok(()) | Err(ConstraintError::Limit { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
    let combinations =
        format!(r#"{{"allOf":[{}]}}"#, vec![r#"{"anyOf":[{"minimum":1},{"maximum":5}]}"#; 40].join(","));
    assert!(is_limit(&Constraint::json_schema(combinations)));
    let patterns: Vec<String> = (0..200).map(|i| format!(r#""^a{i}x":{{}}"#)).collect();
    let patterns = format!(r#"{{"patternProperties":{{{}}}}}"#, patterns.join(","));
    assert!(is_limit(&Constraint::json_schema(patterns)));
}

/// Options inside a schema of a grammar could disable parts of the schema; escapes in their name must not
/// hide them.
#[test]
fn options_in_a_grammar_are_refused_in_any_spelling() {
    for name in ["x-guidance", r"x\u002dguidance", r"\u0078-guid\u0061nce"] {
        let grammar = format!(
            "start: %json {{\"{name}\": {{\"lenient\": true}}, \"type\": \"string\", \"not\": {{}}}}"
        );
        let error = compile(&Constraint::lark(grammar)).unwrap_err();
        assert!(error.to_string().contains("x-guidance"), "{name}: {error}");
    }
}
