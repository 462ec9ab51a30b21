//! Structural tags, triggers, and reasoning before a constraint.

use crate::{bytes, is_allowed};
use exsa_core::constraint::{
    Constraint, ConstraintError, ConstraintState, Grammar, GrammarStart, StructuralTag, StructuralTags,
    Trigger,
};
use exsa_core::scripted::ByteTokenizer;

const EOS: u32 = ByteTokenizer::EOS;

fn start(constraint: &Constraint) -> ConstraintState {
    bytes().compile(constraint).unwrap_or_else(|error| panic!("{error}")).state().unwrap()
}

/// Whether all of the text is allowed; it is accepted up to the first byte that is not.
fn takes(state: &mut ConstraintState, text: &str) -> bool {
    text.bytes().all(|byte| is_allowed(state, byte.into()) && state.accept(byte.into()).is_ok())
}

fn tags() -> StructuralTags {
    let tag = |name: &str, schema: &str| {
        StructuralTag::new(format!("<f={name}>"), Grammar::JsonSchema(schema.into()), "</f>")
    };
    StructuralTags::new(["<f="])
        .tag(tag("one", r#"{"type":"integer"}"#))
        .tag(tag("two", r#"{"type":"boolean"}"#))
}

#[test]
fn tags_in_free_text() {
    let mut state = start(&Constraint::structural_tags(tags()));
    assert!(takes(&mut state, "free <f text <f=one>12</f> and <f=two>true</f>"));
    assert!(is_allowed(&mut state, EOS));
    assert!(takes(&mut state, "<f="));
    assert!(!is_allowed(&mut state, EOS));
    assert!(!is_allowed(&mut state, b'x'.into()));
    assert!(takes(&mut state, "two>"));
    assert!(!is_allowed(&mut state, b'1'.into()));
}

#[test]
fn at_least_one_and_stop_after_first() {
    let mut state = start(&Constraint::structural_tags(tags().at_least_one(true)));
    assert!(!is_allowed(&mut state, b'a'.into()));
    assert!(takes(&mut state, "<f=one>3</f>free"));
    let mut state = start(&Constraint::structural_tags(tags().stop_after_first(true)));
    assert!(takes(&mut state, "free <f=one>3</f>"));
    assert!(is_allowed(&mut state, EOS));
    assert!(!is_allowed(&mut state, b' '.into()));
}

#[test]
fn tags_of_control_tokens() {
    let tag = StructuralTag::new("<|bos|>", Grammar::Choice(vec!["x".into()]), "<|bos|>");
    let mut state = start(&Constraint::structural_tags(StructuralTags::new(["<|bos|>"]).tag(tag)));
    // Plain text that reads like the token is no trigger.
    assert!(takes(&mut state, "a <|bos|>b"));
    state.accept(ByteTokenizer::BOS).unwrap();
    assert!(takes(&mut state, "x"));
    assert!(is_allowed(&mut state, ByteTokenizer::BOS));
    state.accept(ByteTokenizer::BOS).unwrap();
    assert!(takes(&mut state, "free"));
}

#[test]
fn a_trigger_starts_a_grammar() {
    let call = Constraint::regex("CALL\\([0-9]\\)");
    let mut state = start(&call.clone().trigger(Trigger::text("CALL")));
    assert!(is_allowed(&mut state, EOS));
    assert!(takes(&mut state, "I do CAL a CALL(7)"));
    assert!(is_allowed(&mut state, EOS));
    assert!(!is_allowed(&mut state, b'x'.into()));

    let digits = Constraint::regex("[0-9]+").grammar_start(GrammarStart::TriggerEnd);
    let mut state = start(&digits.clone().trigger(Trigger::Text(vec!["A: ".into(), "B: ".into()])));
    assert!(takes(&mut state, "so B: 12"));
    assert!(!is_allowed(&mut state, b' '.into()));
    let mut state = start(&digits.trigger(Trigger::token(b'!'.into())));
    assert!(takes(&mut state, "so!12"));
    assert!(!is_allowed(&mut state, b'!'.into()));

    let error = bytes().compile(&call.trigger(Trigger::text("CALX"))).unwrap_err();
    assert!(matches!(error, ConstraintError::Invalid { .. }), "{error}");
}

#[test]
fn reasoning_comes_before_the_grammar() {
    let mut state = start(&Constraint::choice(["yes", "no"]).after_reasoning("</think>"));
    assert!(takes(&mut state, "yes or no? </thin"));
    assert!(!is_allowed(&mut state, EOS), "the answer must come");
    assert!(takes(&mut state, "k>no"));
    assert!(is_allowed(&mut state, EOS));
    // Back into the reasoning and out of it again.
    state.rollback(5).unwrap();
    assert!(takes(&mut state, "nk>yes"));

    let lazy = Constraint::regex("<c>[0-9]").trigger(Trigger::text("<c>")).after_reasoning("</think>");
    let mut state = start(&lazy);
    assert!(takes(&mut state, "maybe <c>x</think> then <c>1"));
}
