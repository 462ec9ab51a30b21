//! Answers under constraints, which do not depend on preemption, resumption or drafts.

use exsa_core::clock::ManualClock;
use exsa_core::constraint::{Constraint, ConstraintError, Trigger};
use exsa_core::queue::Fcfs;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::{PromptLookup, Proposer, Speculation};
use exsa_core::{
    Engine, EngineLoop, EngineOptions, Event, FinishReason, Request, RequestError, RequestId, Resume,
    SubmitError, TokenId, TokenStream,
};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "identifier": {"type": "string", "maxLength": 5},
        "kind": {"enum": ["first", "second", "a \"third\" kind"]},
        "count": {"type": "integer", "minimum": -9, "maximum": 99},
        "items": {"type": "array", "items": {"enum": ["x", "yy"]}, "maxItems": 3},
        "child": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"leaf": {"type": "boolean"}},
            "required": ["leaf"], "additionalProperties": false}]}
    },
    "required": ["identifier", "kind", "count", "items", "child"],
    "additionalProperties": false
}"#;

/// Whether the text is an instance of the schema.
fn check_instance(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let fields = value.as_object().unwrap();
    let names: Vec<&String> = fields.keys().collect();
    assert_eq!(names.len(), 5, "{text}");
    assert!(value["identifier"].as_str().unwrap().chars().count() <= 5, "{text}");
    assert!(["first", "second", "a \"third\" kind"].contains(&value["kind"].as_str().unwrap()), "{text}");
    assert!((-9..=99).contains(&value["count"].as_i64().unwrap()), "{text}");
    let items = value["items"].as_array().unwrap();
    assert!(items.len() <= 3 && items.iter().all(|item| item == "x" || item == "yy"), "{text}");
    let child = &value["child"];
    assert!(child.is_null() || child["leaf"].is_boolean() && child.as_object().unwrap().len() == 1, "{text}");
}

fn request(i: u64) -> Request {
    let prompt: Vec<TokenId> = format!("prompt {i}: ").bytes().map(TokenId::from).collect();
    Request::tokens(prompt)
        .constraint(Constraint::json_schema(SCHEMA))
        .max_tokens(220)
        .seed(i)
        .temperature(if i.is_multiple_of(3) { 0.0 } else { 1.0 })
        .cache_salt(i.to_string())
}

fn model() -> ScriptedModel {
    ScriptedModel::ngram(11).order(usize::MAX)
}

fn engine(model: ScriptedModel) -> EngineLoop {
    let options = EngineOptions::default();
    EngineLoop::new(model.shared(), options, Box::new(Fcfs::default()), Arc::new(ManualClock::default()))
        .unwrap()
}

#[derive(Clone, Debug, PartialEq)]
struct Answer {
    /// The tokens, including the one that ended the answer.
    ids: Vec<TokenId>,
    text: String,
    reason: FinishReason,
}

/// The answer of a stream that has ended.
fn answer(stream: &mut TokenStream) -> Answer {
    let mut answer = Answer { ids: Vec::new(), text: String::new(), reason: FinishReason::Cancelled };
    while let Some(event) = stream.try_next() {
        match event {
            Event::Token(token) => {
                answer.ids.extend(token.id);
                answer.text += &token.text;
            }
            Event::Finished(finished) => {
                answer.text += &finished.text;
                if finished.reason == FinishReason::EndOfGeneration {
                    answer.ids.push(ByteTokenizer::EOS);
                }
                answer.reason = finished.reason;
            }
            _ => {}
        }
    }
    answer
}

fn run(engine: &mut EngineLoop, requests: impl IntoIterator<Item = Request>) -> Vec<Answer> {
    let mut streams: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut answers: Vec<Option<Answer>> = vec![None; streams.len()];
    for _ in 0..100_000 {
        if !engine.step() && engine.is_empty() {
            break;
        }
    }
    for (stream, slot) in streams.iter_mut().zip(&mut answers) {
        *slot = Some(answer(stream));
    }
    answers.into_iter().flatten().collect()
}

fn alone(n: u64) -> Vec<Answer> {
    (0..n).map(|i| run(&mut engine(model()), [request(i)]).remove(0)).collect()
}

#[test]
fn answers_are_instances_and_forced_tokens_need_no_pass() {
    for i in 0..12 {
        let mut engine = engine(model());
        let answer = run(&mut engine, [request(i)]).remove(0);
        assert_eq!(answer.reason, FinishReason::EndOfGeneration, "{}", answer.text);
        check_instance(&answer.text);
        let (steps, tokens) = (engine.stats().steps, answer.ids.len() as u64);
        assert!(steps * 2 < tokens, "{steps} passes for {tokens} tokens: {}", answer.text);
    }
}

#[test]
fn a_batch_of_16_changes_nothing() {
    assert_eq!(run(&mut engine(model()), (0..16).map(request)), alone(16));
}

#[test]
fn preemption_changes_nothing() {
    let mut engine = engine(model().kv(256, 16).without_save());
    let answers = run(&mut engine, (0..16).map(request));
    assert!(engine.stats().scheduler.preemptions > 0);
    assert_eq!(answers, alone(16));
}

/// Proposes the known continuation, with every eighth token wrong.
#[derive(Debug)]
struct Known(HashMap<Vec<TokenId>, Vec<TokenId>>);

impl Proposer for Known {
    fn propose(&mut self, _id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        for (prompt, answer) in &self.0 {
            if let Some(said) = tokens.strip_prefix(prompt.as_slice()) {
                let rest = answer.iter().enumerate().skip(said.len()).take(max);
                drafts.extend(rest.map(|(i, token)| if i % 8 == 7 { token ^ 1 } else { *token }));
            }
        }
    }
}

fn prompt_of(i: u64) -> Vec<TokenId> {
    format!("prompt {i}: ").bytes().map(TokenId::from).collect()
}

#[test]
fn drafts_change_nothing() {
    let expected = alone(8);
    let mut engine_with_lookup = engine(model());
    engine_with_lookup.speculate(Some(Speculation::new(PromptLookup::default()).drafts_max(6)));
    assert_eq!(run(&mut engine_with_lookup, (0..8).map(request)), expected);
    let known = (0..8).map(|i| (prompt_of(i), expected[i as usize].ids.clone())).collect();
    let mut engine = engine(model());
    engine.speculate(Some(Speculation::new(Known(known)).drafts_max(7)));
    assert_eq!(run(&mut engine, (0..8).map(request)), expected);
    assert!(engine.stats().scheduler.accepted_drafts > 0);
}

#[test]
fn a_resume_at_every_token_changes_nothing() {
    for i in [0, 1] {
        let whole = alone(2).remove(i as usize);
        for cut in 1..whole.ids.len() {
            let resumed = request(i).resume(Resume::new(&whole.ids[..cut]));
            let answer = run(&mut engine(model()), [resumed]).remove(0);
            assert_eq!(answer.ids, whole.ids[cut..], "cut at {cut}");
            assert_eq!(answer.reason, whole.reason);
        }
    }
}

#[test]
fn a_resumed_answer_must_match_the_grammar() {
    let engine = engine(model());
    let resumed = Request::tokens([b'p'.into()])
        .constraint(Constraint::json_schema(SCHEMA))
        .resume(Resume::new([b'{'.into(), b'x'.into()]));
    let error = engine.submit(resumed).unwrap_err();
    assert!(matches!(error, SubmitError::Constraint(ConstraintError::Replay { index: 1 })), "{error}");
}

#[test]
fn several_answers_have_states_of_their_own() {
    let mut engine = engine(model());
    let mut wanted = request(1);
    wanted.n = 3;
    let answer = engine.submit(wanted).unwrap();
    while engine.step() || !engine.is_empty() {}
    let mut texts = vec![String::new(); 3];
    for event in answer {
        match event {
            Event::Token(token) => texts[token.index] += &token.text,
            Event::AnswerFinished(end) => texts[end.index] += &end.text,
            Event::Finished(end) => texts[end.index] += &end.text,
            _ => {}
        }
    }
    assert!(texts[0] != texts[1]);
    texts.iter().for_each(|text| check_instance(text));
    assert_eq!(texts[0], alone(2)[1].text);
}

#[test]
fn logprobs_are_given_for_forced_tokens_too() {
    let expected = alone(2).remove(1);
    let mut wanted = request(1);
    wanted.sampling.logprobs = true;
    wanted.sampling.top_logprobs = 2;
    let mut engine = engine(model());
    let mut stream = engine.submit(wanted).unwrap();
    while engine.step() || !engine.is_empty() {}
    let mut text = String::new();
    while let Some(event) = stream.try_next() {
        match event {
            Event::Token(token) => {
                assert!(token.logprob.is_some() && token.top_logprobs.len() == 2);
                text += &token.text;
            }
            Event::Finished(finished) => text += &finished.text,
            _ => {}
        }
    }
    assert_eq!(text, expected.text);
}

#[test]
fn limits_and_stops_end_constrained_answers() {
    // In the middle of forced text.
    let answer = run(&mut engine(model()), [request(0).max_tokens(6)]).remove(0);
    assert_eq!((answer.ids.len(), answer.reason), (6, FinishReason::MaxTokens));
    let answer = run(&mut engine(model()), [request(0).stop("tifier")]).remove(0);
    assert_eq!((answer.text.as_str(), answer.reason), ("{\"iden", FinishReason::StopString(0)));
    let mut slow = EngineOptions::default();
    slow.stream_events_max = 1;
    let engine = Engine::start(model().shared(), slow).unwrap();
    let text = engine.submit(request(1)).unwrap().complete().unwrap().text;
    assert_eq!(text, alone(2)[1].text);
}

#[test]
fn a_trigger_leaves_the_rest_free() {
    let model = ScriptedModel::echo("I call <c>{\"x\": nonsense");
    let constraint = Constraint::regex(r#"<c>\{"x": (true|false)\}"#).trigger(Trigger::text("<c>"));
    let wanted = Request::text("go: ").constraint(constraint).temperature(0.0).max_tokens(80);
    let answer = run(&mut engine(model), [wanted]).remove(0);
    assert!(answer.text.starts_with("I call <c>{\"x\": "), "{}", answer.text);
    assert!(answer.text.ends_with("true}") || answer.text.ends_with("false}"), "{}", answer.text);
    assert_eq!(answer.reason, FinishReason::EndOfGeneration);
}

#[test]
fn what_cannot_be_is_refused_or_fails_with_a_type() {
    let engine_loop = engine(model());
    let error = engine_loop.submit(request(0).ignore_eos(true)).unwrap_err();
    assert!(matches!(error, SubmitError::Constraint(ConstraintError::Conflict(_))), "{error}");
    // All bytes that the grammar allows are banned.
    let mut banned = request(0).constraint(Constraint::regex("[ab]c"));
    banned.sampling.logit_bias = vec![(b'a'.into(), f32::NEG_INFINITY), (b'b'.into(), f32::NEG_INFINITY)];
    let answer = run(&mut engine(model()), [banned]).remove(0);
    assert!(matches!(answer.reason, FinishReason::Failed(RequestError::Sample(_))), "{:?}", answer.reason);
    // No token of the vocabulary is the second half of this character alone, but single bytes are.
    let answer =
        run(&mut engine(model()), [request(0).constraint(Constraint::regex("\u{20ac}{2}"))]).remove(0);
    assert_eq!(answer.text, "\u{20ac}\u{20ac}");
}
