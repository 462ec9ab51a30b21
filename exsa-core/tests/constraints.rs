//! Constraints: languages of grammars, refusals by named limits, and answers under constraints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::constraint::{Allowed, Compiler, Constraint, ConstraintError, ConstraintState};
use exsa_core::scripted::ByteTokenizer;
use std::sync::Arc;

mod constraint {
    mod engine;
    mod gbnf;
    mod hostile;
    mod schema;
    mod tags;
    mod vocabularies;
}

/// A compiler for single bytes.
pub(crate) fn bytes() -> Compiler {
    Compiler::new(Arc::new(ByteTokenizer::new()))
}

/// Whether the constraint allows exactly this text.
pub(crate) fn accepts(compiler: &Compiler, constraint: &Constraint, text: &str) -> bool {
    let mut state = compiler.compile(constraint).unwrap_or_else(|error| panic!("{error}")).state().unwrap();
    for byte in text.bytes() {
        if !is_allowed(&mut state, byte.into()) {
            return false;
        }
        state.accept(byte.into()).unwrap();
    }
    state.is_complete().unwrap()
}

/// Whether `token` may follow.
pub(crate) fn is_allowed(state: &mut ConstraintState, token: u32) -> bool {
    match state.allowed() {
        Ok(Allowed::All) => true,
        Ok(Allowed::Mask(mask)) => mask[token as usize / 64] >> (token % 64) & 1 == 1,
        Ok(Allowed::Forced(forced)) => forced == token,
        Ok(other) => panic!("{other:?}"),
        Err(ConstraintError::NoToken) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn regular_expressions_match_whole_texts() {
    let compiler = bytes();
    let number = Constraint::regex(r"^-?[0-9]{1,3}$");
    assert!(accepts(&compiler, &number, "-12"));
    assert!(accepts(&compiler, &number, "123"));
    assert!(!accepts(&compiler, &number, "1234"));
    assert!(!accepts(&compiler, &number, "-"));
    let unicode = Constraint::regex("[äöü]+/x");
    assert!(accepts(&compiler, &unicode, "äü/x"));
    assert!(!accepts(&compiler, &unicode, "ae/x"));
}

#[test]
fn choices_may_begin_alike() {
    let compiler = bytes();
    let choice = Constraint::choice(["a", "ab", "abc", "\"quoted\"\n\\"]);
    for text in ["a", "ab", "abc", "\"quoted\"\n\\"] {
        assert!(accepts(&compiler, &choice, text), "{text}");
    }
    assert!(!accepts(&compiler, &choice, "abcd"));
    assert!(!accepts(&compiler, &choice, ""));
}

#[test]
fn lark_grammars_are_context_free() {
    let compiler = bytes();
    let balanced = Constraint::lark("start: \"(\" start? \")\"");
    assert!(accepts(&compiler, &balanced, "((()))"));
    assert!(!accepts(&compiler, &balanced, "(()"));
    let error = compiler.compile(&Constraint::lark("start: missing")).unwrap_err();
    assert!(matches!(error, ConstraintError::Invalid { grammar: "Lark grammar", .. }), "{error}");
    let stop = Constraint::lark("start: text \"!\"\ntext[stop=\"!\"]: /.*/");
    assert!(matches!(compiler.compile(&stop), Err(ConstraintError::Invalid { .. })));
}

#[test]
fn a_state_rolls_back() {
    let compiler = bytes();
    let compiled = compiler
        .compile(&Constraint::json_schema(
            r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"}},"required":["a","b"]}"#,
        ))
        .unwrap();
    let text = br#"{"a": -17, "b": false}"#;
    let mut state = compiled.state().unwrap();
    let mut allowed = Vec::new();
    for byte in text {
        allowed.push(format!("{:?}", state.allowed().unwrap()));
        state.accept((*byte).into()).unwrap();
    }
    for back in 1..=text.len() {
        state.rollback(back).unwrap();
        for (i, byte) in text.iter().enumerate().skip(text.len() - back) {
            assert_eq!(format!("{:?}", state.allowed().unwrap()), allowed[i], "{back} back, token {i}");
            state.accept((*byte).into()).unwrap();
        }
        assert!(state.is_complete().unwrap());
    }
}
