//! JSON schemas.

use crate::{accepts, bytes};
use exsa_core::constraint::{Constraint, ConstraintError, JsonWhitespace};

#[test]
fn properties_come_in_the_order_of_the_schema() {
    let compiler = bytes();
    let schema = Constraint::json_schema(
        r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"enum":[1,"x",null]}},"required":["b"],
            "additionalProperties":false}"#,
    );
    assert!(accepts(&compiler, &schema, r#"{"b": "", "a": 1}"#));
    assert!(accepts(&compiler, &schema, r#"{"b": "é\n"}"#));
    for text in
        [r#"{"a": 1, "b": ""}"#, r#"{"b": "", "a": 2}"#, r#"{"b":""}"#, r#"{}"#, r#"{"b": "", "c": 1}"#]
    {
        assert!(!accepts(&compiler, &schema, text), "{text}");
    }
    let any = schema.clone().whitespace(JsonWhitespace::Any);
    assert!(accepts(&compiler, &any, "{\n  \"b\" : \"\" }"));
}

#[test]
fn json_object_is_any_object() {
    let compiler = bytes();
    let object = Constraint::json_object();
    assert!(accepts(&compiler, &object, r#"{}"#));
    assert!(accepts(&compiler, &object, r#"{"a": [1.5, {"b": null}], "c": true}"#));
    assert!(!accepts(&compiler, &object, "[]"));
}

#[test]
fn recursive_references_work() {
    let compiler = bytes();
    let tree = Constraint::json_schema(
        r##"{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}},"additionalProperties":false}"##,
    );
    assert!(accepts(&compiler, &tree, r#"{"left": {"right": {}}, "right": {}}"#));
    assert!(!accepts(&compiler, &tree, r#"{"left": 1}"#));
}

#[test]
fn unsupported_keywords_are_refused_with_their_place() {
    let compiler = bytes();
    let refused = |schema: &str| compiler.compile(&Constraint::json_schema(schema)).unwrap_err();
    let keyword =
        |keyword: &str, path: &str| ConstraintError::Keyword { keyword: keyword.into(), path: path.into() };
    assert_eq!(
        refused(r#"{"properties":{"a/b":{"not":{"type":"string"}}}}"#),
        keyword("not", "#/properties/a~1b")
    );
    assert_eq!(refused(r#"{"type":"array","uniqueItems":true}"#), keyword("uniqueItems", "#"));
    assert_eq!(
        refused(r##"{"$ref":"#/$defs/x","$defs":{"x":{"if":{},"then":{}}}}"##),
        keyword("if", "#/$defs/x")
    );
    assert_eq!(refused(r#"{"x-guidance":{"lenient":true},"not":{}}"#), keyword("x-guidance", "#"));
    assert_eq!(refused(r#"{"type":"object","minProperties":3}"#), keyword("minProperties", "#"));
    for invalid in [
        r##"{"$ref":"#/$defs/none"}"##,
        r##"{"$ref":"http://example.com/x"}"##,
        r#"{"$schema":"http://example.com/own"}"#,
        r#"{"type":"string","format":"unknown-format"}"#,
        r#"{"oneOf":[{"type":"integer"},{"minimum":2}]}"#,
        r#"{"type":"string","pattern":"(?=x)"}"#,
        r#"{"type":"integer","minimum":2,"maximum":1}"#,
        "[1]",
        "{",
        "false",
    ] {
        let error = refused(invalid);
        assert!(
            matches!(error, ConstraintError::Invalid { grammar: "JSON schema", .. }),
            "{invalid}: {error}"
        );
    }
    // Without effect.
    assert!(accepts(&compiler, &Constraint::json_schema(r#"{"type":"array","uniqueItems":false}"#), "[]"));
    assert!(accepts(&compiler, &Constraint::json_schema("true"), "[]"));
}

#[test]
fn an_old_draft_ignores_what_is_beside_a_reference() {
    let compiler = bytes();
    let schema = |draft: &str| {
        Constraint::json_schema(format!(
            r##"{{"$schema":"{draft}","$ref":"#/definitions/a","maximum":3,"definitions":{{"a":{{"type":"integer"}}}}}}"##
        ))
    };
    assert!(accepts(&compiler, &schema("http://json-schema.org/draft-07/schema#"), "7"));
    assert!(!accepts(&compiler, &schema("https://json-schema.org/draft/2020-12/schema"), "7"));
}
