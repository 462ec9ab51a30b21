//! Prompts and answers that exceed the context: refused, with dropped messages, or with a context shift.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drafts;
mod reference;

use drafts::{Answers, Kind, Oracle};
use exsa_core::backend::SessionOptions;
use exsa_core::chat::ToolCall;
use exsa_core::clock::ManualClock;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::Speculation;
use exsa_core::stream::Completion;
use exsa_core::{
    EngineLoop, EngineOptions, FinishReason, Message, Mode, Overflow, PrefixCacheOptions, Request, Resume,
    SamplingParams, SeqId, SubmitError, TokenId,
};
use reference::{Expected, Reference, ids};
use std::sync::Arc;

fn engine(model: &ScriptedModel, options: EngineOptions) -> EngineLoop {
    let clock = ManualClock::new();
    EngineLoop::new(model.clone().shared(), options, Box::new(Fcfs::new()), Arc::new(clock)).unwrap()
}

/// Runs requests together until all have ended.
fn run(engine: &mut EngineLoop, requests: impl IntoIterator<Item = Request>) -> Vec<Completion> {
    let streams: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    for _ in 0..100_000 {
        engine.step();
        engine.scheduler().check().unwrap();
        if engine.is_empty() {
            return streams.into_iter().map(|stream| stream.complete().unwrap()).collect();
        }
    }
    panic!("the answers do not end");
}

fn alone(model: &ScriptedModel, request: Request) -> Completion {
    run(&mut engine(model, EngineOptions::default()), [request]).remove(0)
}

struct Case {
    prompt: Vec<TokenId>,
    params: SamplingParams,
    max: usize,
    keep: usize,
}

const CONTEXT: usize = 48;

impl Case {
    fn request(&self) -> Request {
        Request::tokens(self.prompt.clone())
            .sampling(self.params.clone())
            .ignore_eos(true)
            .max_tokens(self.max)
            .overflow(Overflow::Shift { keep: self.keep })
    }

    fn expected(&self, model: &ScriptedModel) -> Expected {
        let params = self.params.clone().logit_bias([(ByteTokenizer::EOS, f32::NEG_INFINITY)]);
        let bos = self.prompt.first() == Some(&ByteTokenizer::BOS);
        let keep = self.keep.min(self.prompt.len()).max(usize::from(bos));
        let reference = Reference::new(model, &self.prompt, &params);
        Reference { tokens_max: Some(self.max), window: CONTEXT, keep: Some(keep), ..reference }.answer()
    }
}

fn cases() -> Vec<Case> {
    let drawn = |seed| SamplingParams::default().temperature(1.0).seed(seed);
    let mut penalties = drawn(3);
    penalties.repetition_penalty = 1.3;
    penalties.frequency_penalty = 0.2;
    penalties.penalty_window = None;
    let case = |prompt: &str, params, max, keep| Case { prompt: ids(prompt), params, max, keep };
    let mut cases = vec![
        case("short", drawn(1), 200, 0),
        case("a prompt of some length", SamplingParams::greedy(), 150, 7),
        case("a prompt that is kept", penalties, 200, usize::MAX),
        case("a prompt that nearly fills the whole context..", drawn(4), 100, 3),
        case("an answer that fits", drawn(5), 20, 3),
    ];
    cases[0].prompt = [&[ByteTokenizer::BOS], &ids("text")[..]].concat();
    cases
}

fn model() -> ScriptedModel {
    // With all tokens behind a logit, an error anywhere shows.
    ScriptedModel::ngram(17).order(usize::MAX).context(CONTEXT)
}

fn tokens(answer: &Completion) -> Vec<TokenId> {
    answer.tokens.iter().filter_map(|token| token.id).collect()
}

#[track_caller]
fn assert_is(answer: &Completion, expected: &Expected, what: &str) {
    assert_eq!(tokens(answer), expected.tokens, "{what}");
    assert_eq!(Some(&answer.reason), expected.reason.as_ref(), "{what}");
    let usage = &answer.usage;
    assert_eq!(
        (usage.completion_tokens, usage.shifted_tokens),
        (expected.tokens.len(), expected.shifted),
        "{what}"
    );
}

#[test]
fn a_shifted_answer_is_that_of_the_reference() {
    let mut shifts = 0;
    for (i, case) in cases().iter().enumerate() {
        for model in
            [model(), model().without_truncate(), model().without_fork(), model().context(400).kv(CONTEXT, 8)]
        {
            let expected = case.expected(&model);
            let mut engine = engine(&model, EngineOptions::default());
            let answer = run(&mut engine, [case.request()]).remove(0);
            assert_is(&answer, &expected, &format!("case {i}"));
            assert_eq!(answer.usage.prompt_tokens, case.prompt.len());
            let stats = engine.stats().scheduler;
            assert_eq!(stats.context_shifts > 0, expected.shifted > 0);
            shifts += stats.context_shifts;
        }
    }
    assert!(shifts > 60, "{shifts}");
}

#[test]
fn shifted_answers_are_the_same_beside_others_with_drafts_and_after_preemption() {
    let cases = cases();
    for kv in [1024, 128] {
        for kind in [None, Some(Kind::Right), Some(Kind::Mixed)] {
            for cache in [true, false] {
                let what = format!("{kv} tokens of KV, drafts {kind:?}, prefix cache {cache}");
                let options = EngineOptions::default()
                    .session(SessionOptions::new().sequences(8).batch_tokens(20))
                    .prefill_chunk_max(8)
                    .mode(Mode::Throughput)
                    .prefix_cache(PrefixCacheOptions::default().enabled(cache));
                let model = model().kv(kv, 16);
                let mut engine = engine(&model, options);
                if let Some(kind) = kind {
                    let answers = Answers::default();
                    for case in &cases {
                        answers.add([case.prompt.as_slice(), &case.expected(&model).tokens].concat());
                    }
                    engine.speculate(Some(Speculation::new(Oracle::new(kind, 1, &answers)).drafts_max(4)));
                }
                // Twice, so that the second finds prefixes of the first.
                let answers = run(&mut engine, cases.iter().chain(&cases).map(Case::request));
                for (i, (answer, case)) in answers.iter().zip(cases.iter().chain(&cases)).enumerate() {
                    assert_is(answer, &case.expected(&model), &format!("case {i}, {what}"));
                }
                assert!(kv > 128 || engine.stats().scheduler.preemptions > 0, "{what}");
            }
        }
    }
}

#[test]
fn a_shifted_answer_resumes_after_any_token() {
    for (i, case) in cases().iter().enumerate() {
        let model = model();
        let expected = case.expected(&model);
        for cut in 0..=expected.tokens.len() {
            let request = case.request().resume(Resume::new(&expected.tokens[..cut]));
            let rest = alone(&model, request);
            let what = format!("case {i}, cut after {cut} tokens");
            assert_eq!(tokens(&rest), expected.tokens[cut..], "{what}");
            assert_eq!(rest.usage.completion_tokens, expected.tokens.len(), "{what}");
            assert_eq!(rest.usage.shifted_tokens, expected.shifted, "{what}");
        }
    }
}

#[test]
fn an_answer_without_the_option_ends_in_a_full_context() {
    let request = Request::text("short").sampling(SamplingParams::greedy()).ignore_eos(true);
    let answer = alone(&model(), request.clone());
    assert_eq!((answer.reason, answer.usage.completion_tokens), (FinishReason::ContextFull, CONTEXT - 5));
    let dropping = alone(&model(), request.overflow(Overflow::DropMessages));
    assert_eq!(dropping.reason, FinishReason::ContextFull);
}

#[test]
fn a_shift_keeps_no_more_than_it_can() {
    let engine = engine(&model(), EngineOptions::default());
    let request = |prompt: usize, keep| Request::tokens(vec![1; prompt]).overflow(Overflow::Shift { keep });
    let error = engine.submit(request(47, 37)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "n_keep: 37 tokens of the prompt, but at most 36 are allowed, three quarters of the context of 48"
    );
    assert!(engine.submit(request(47, 36)).is_ok() && engine.submit(request(20, usize::MAX)).is_ok());
    let error = engine.submit(request(48, 0)).err().unwrap();
    assert!(matches!(error, SubmitError::PromptTooLong { tokens: 48, limit: 47, .. }), "{error}");
}

/// A conversation of eight turns of 20 tokens each, after 20 tokens of instructions.
fn conversation() -> Vec<Message> {
    let mut messages = vec![Message::system("0123456789012345")];
    for turn in 0..8 {
        messages.extend([Message::user(format!("question{turn}")), Message::assistant("answer.")]);
    }
    messages.pop();
    messages
}

/// A model with a context of `context` tokens.
fn chat_model(context: usize) -> ScriptedModel {
    let template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.tool_calls %}call{% endif %}; \
                    {% endfor %}";
    ScriptedModel::echo("fine").context(context).chat_template(template)
}

/// The prompt in the engine, and the number of dropped messages.
fn prompt(context: usize, messages: &[Message], max: Option<usize>) -> Result<(String, usize), SubmitError> {
    let mut engine = engine(&chat_model(context), EngineOptions::default());
    let request = Request::chat(messages).overflow(Overflow::DropMessages).sampling(SamplingParams::greedy());
    let stream = engine.submit(request.max_tokens(max))?;
    engine.step();
    let tokens = engine.scheduler().tokens(SeqId(0)).to_vec();
    while engine.step() {}
    let usage = stream.complete().unwrap().usage;
    Ok((reference::text(&tokens[..usage.prompt_tokens]), usage.dropped_messages))
}

#[test]
fn the_oldest_turns_are_left_out() {
    let messages = conversation();
    let whole: usize = messages.iter().map(|m| m.text().unwrap().len() + 4).sum();
    let (text, dropped) = prompt(whole + 10, &messages, Some(10)).unwrap();
    assert_eq!((text.len(), dropped), (whole, 0));
    // A token less drops a turn: a question and its answer.
    let (text, dropped) = prompt(whole + 9, &messages, Some(10)).unwrap();
    assert_eq!(dropped, 2);
    assert!(text.starts_with("s:0123456789012345; u:question1; a:answer.; u:question2;"), "{text}");
    assert!(text.ends_with("u:question7; "), "{text}");
    // Without a limit of its own, an answer gets a quarter.
    let (text, dropped) = prompt(100, &messages, None).unwrap();
    assert_eq!(text, "s:0123456789012345; u:question6; a:answer.; u:question7; ");
    assert_eq!(dropped, 12);
    // It gets no more than half, however much it asks for.
    assert_eq!(prompt(100, &messages, Some(90)).unwrap().0, "s:0123456789012345; u:question7; ");
    // The rest is too long.
    let error = prompt(30, &messages, Some(10)).err().unwrap();
    assert!(matches!(error, SubmitError::PromptTooLong { tokens: 33, limit: 29, .. }), "{error}");
}

#[test]
fn a_tool_call_keeps_its_result() {
    let call = |id: &str| Message::assistant("").tool_call(ToolCall::new("f", "{}").id(id));
    let mut messages = conversation();
    messages.extend([call("a"), Message::tool("a", "result1"), call("b"), Message::tool("b", "result2")]);
    let (text, dropped) = prompt(110, &messages, Some(30)).unwrap();
    assert_eq!(text, "s:0123456789012345; u:question7; a:call; t:result1; a:call; t:result2; ");
    assert_eq!(dropped, 14);
    let (text, dropped) = prompt(90, &messages, Some(30)).unwrap();
    assert_eq!(text, "s:0123456789012345; u:question7; a:call; t:result2; ");
    assert_eq!(dropped, 16);
}
