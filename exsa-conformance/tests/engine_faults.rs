//! The engine on a failing backend: errors of a sequence, errors of a pass, NaN, wrong rows, stalls and
//! panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_conformance::faulty::{Effect, Faults, FaultyBackend, FaultyModel, Operation, When};
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::{
    Engine, EngineOptions, Event, FinishReason, Prompt, Request, RequestError, SeqId, Shutdown, SubmitError,
    TokenId,
};
use std::time::{Duration, Instant};

fn faulty(model: ScriptedModel, faults: &Faults) -> Engine {
    let model = FaultyModel::new(model.shared(), faults.clone()).shared();
    Engine::start(model, EngineOptions::default()).unwrap()
}

fn request(prompt: &str) -> Request {
    Request::text(prompt).sampling(SamplingParams::greedy()).ignore_eos(true).max_tokens(30)
}

fn answer(engine: &Engine) -> Vec<TokenId> {
    engine
        .submit(request("x"))
        .unwrap()
        .complete()
        .unwrap()
        .tokens
        .iter()
        .filter_map(|token| token.id)
        .collect()
}

fn model() -> ScriptedModel {
    ScriptedModel::echo("abcdefghijklmnopqrstuvwxyz0123456789")
}

/// A prompt's bytes are its tokens, and greedy answers of this model never contain `!`.
const BAD: TokenId = b'!' as TokenId;

/// Runs twenty requests, one of which contains `!`; the others must be as without the fault.
fn only_the_bad_one_fails(model: ScriptedModel, faults: Faults) -> RequestError {
    let sound = Engine::start(model.clone().shared(), EngineOptions::default()).unwrap();
    let engine = faulty(model, &faults);
    let prompts: Vec<_> = (0..20).map(|i| if i == 7 { "bad!".into() } else { format!("good {i}") }).collect();
    let streams: Vec<_> = prompts.iter().map(|prompt| engine.submit(request(prompt)).unwrap()).collect();
    let mut error = None;
    for (prompt, stream) in prompts.iter().zip(streams) {
        match stream.complete() {
            Ok(answer) => {
                let expected = sound.submit(request(prompt)).unwrap().complete().unwrap();
                assert_eq!(answer.tokens, expected.tokens, "{prompt}");
            }
            Err(e) => {
                assert_eq!(prompt, "bad!", "{e}");
                error = Some(e);
            }
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.finished), (1, 20));
    assert!(faults.fired() > 0);
    assert_eq!(answer(&engine).len(), 30);
    error.expect("the bad one fails")
}

#[test]
fn a_failing_sequence_leaves_the_others_running() {
    for effect in [Effect::Fail, Effect::FailLate] {
        let error = only_the_bad_one_fails(model(), Faults::new().with(When::Token(BAD), effect));
        assert!(error.to_string().contains("on purpose"), "{error}");
    }
}

#[test]
fn the_same_where_the_session_cannot_truncate() {
    for effect in [Effect::Fail, Effect::FailLate] {
        only_the_bad_one_fails(model().without_truncate(), Faults::new().with(When::Token(BAD), effect));
    }
}

#[test]
fn the_same_where_truncating_fails_too() {
    let faults = Faults::new().with(When::Token(BAD), Effect::FailLate);
    faults.add(When::Always(Operation::Truncate), Effect::Fail);
    only_the_bad_one_fails(model(), faults);
}

#[test]
fn nan_logits_fail_their_sequence_alone() {
    let error = only_the_bad_one_fails(model(), Faults::new().with(When::Token(BAD), Effect::NotANumber));
    assert!(matches!(error, RequestError::Sample(_)), "{error}");
    assert!(error.to_string().contains("not a number"), "{error}");
}

#[test]
fn a_sequence_that_always_fails_ends_whoever_holds_it() {
    let faults = Faults::new().with(When::Sequence(SeqId(0)), Effect::Fail);
    let engine = faulty(model(), &faults);
    let streams: Vec<_> = (0..4).map(|_| engine.submit(request("x")).unwrap()).collect();
    let ended: Vec<_> = streams.into_iter().map(|stream| stream.complete().is_ok()).collect();
    assert!(ended.contains(&false), "sequence 0 is in use: {ended:?}");
    faults.clear();
    assert_eq!(answer(&engine).len(), 30);
}

#[test]
fn a_failed_answer_leaves_the_others_to_its_prompt_running() {
    for effect in [Effect::Fail, Effect::FailLate, Effect::NotANumber] {
        for model in [model(), model().without_truncate(), model().without_fork()] {
            let expected = answer(&Engine::start(model.clone().shared(), EngineOptions::default()).unwrap());
            let faults = Faults::new().with(When::Sequence(SeqId(1)), effect);
            let engine = faulty(model, &faults);
            let (mut tokens, mut ends) = (vec![Vec::new(); 4], vec![None; 4]);
            for event in engine.submit(request("x").n(4)).unwrap() {
                match event {
                    Event::Token(token) => tokens[token.index].extend(token.id),
                    Event::AnswerFinished(end) => ends[end.index] = Some(end.reason),
                    Event::Finished(end) => ends[end.index] = Some(end.reason),
                    other => panic!("{other:?}"),
                }
            }
            let failed = |end: &Option<FinishReason>| matches!(end, Some(FinishReason::Failed(_)));
            assert_eq!(ends.iter().filter(|end| failed(end)).count(), 1, "{effect:?}: {ends:?}");
            for (tokens, end) in tokens.iter().zip(&ends).filter(|(_, end)| !failed(end)) {
                assert_eq!((tokens, end), (&expected, &Some(FinishReason::MaxTokens)), "{effect:?}");
            }
            let stats = engine.stats();
            assert_eq!((stats.submitted, stats.finished, stats.failed), (1, 1, 0), "one answer is not all");
            assert_eq!(stats.scheduler.kv_tokens_used, 0);
        }
    }
}

#[test]
fn the_best_answers_are_those_that_do_not_fail() {
    let faults = Faults::new().with(When::Sequence(SeqId(0)), Effect::Fail);
    let engine = faulty(model(), &faults);
    let answers = engine.submit(request("x").n(2).best_of(4)).unwrap().complete_all().unwrap();
    assert!(answers.iter().all(|answer| answer.tokens.len() == 30));
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(faults.fired(), 1);
    // If all fail, so does the request.
    let engine = faulty(model(), &Faults::new().with(When::Always(Operation::Forward), Effect::Fail));
    assert!(engine.submit(request("x").best_of(4)).unwrap().complete().is_err());
    assert_eq!(engine.stats().failed, 1);
}

#[test]
fn another_answer_goes_on_with_the_log_probabilities_of_the_prompt() {
    let prompt: Vec<TokenId> = (0..200).map(|i| b'a' as TokenId + i % 26).collect();
    let effects =
        [Effect::Fail, Effect::FailLate, Effect::NotANumber, Effect::RowMissing, Effect::NarrowRows];
    for effect in effects {
        for pass in 1..=4 {
            let faults = Faults::new().with(When::Nth(Operation::Forward, pass), effect);
            let engine = faulty(ScriptedModel::ngram(9).context(512), &faults);
            let mut request = request("").n(3).prompt_logprobs(0);
            request.prompt = Prompt::Tokens(prompt.clone());
            let (mut scored, mut failed, mut ended) = (Vec::new(), 0, 0);
            let mut count = |reason| match reason {
                FinishReason::MaxTokens => ended += 1,
                FinishReason::Failed(_) => failed += 1,
                other => panic!("{other:?}"),
            };
            for event in engine.submit(request).unwrap() {
                match event {
                    Event::Prompt(part) => {
                        assert_eq!(part.start, scored.len(), "{effect:?} in pass {pass}");
                        scored.extend(part.tokens.iter().map(|token| token.id));
                    }
                    Event::AnswerFinished(end) => count(end.reason),
                    Event::Finished(end) => count(end.reason),
                    Event::Token(_) => assert_eq!(scored.len(), 200, "tokens follow the prompt"),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((failed, ended), (1, 2), "{effect:?} in pass {pass}");
            assert_eq!((faults.fired(), &scored), (1, &prompt), "{effect:?} in pass {pass}");
        }
    }
}

#[test]
fn a_failed_pass_ends_its_batch_and_the_engine_goes_on() {
    let effects = [
        Effect::Fail,
        Effect::FailLate,
        Effect::NotANumber,
        Effect::NoRows,
        Effect::RowMissing,
        Effect::RowTooMany,
        Effect::NarrowRows,
    ];
    for effect in effects {
        for n in [1, 3] {
            let faults = Faults::new().with(When::Nth(Operation::Forward, n), effect);
            let engine = faulty(model(), &faults);
            let expected = answer(&Engine::start(model().shared(), EngineOptions::default()).unwrap());
            let streams: Vec<_> = (0..4).map(|_| engine.submit(request("x")).unwrap()).collect();
            let mut failed = 0;
            for stream in streams {
                match stream.complete() {
                    Ok(answer) => {
                        let ids: Vec<_> = answer.tokens.iter().filter_map(|token| token.id).collect();
                        assert_eq!(ids, expected, "{effect:?} in pass {n}");
                    }
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        failed += 1;
                    }
                }
            }
            assert!(failed > 0 && faults.fired() == 1, "{effect:?} in pass {n}: {failed} failed");
            assert_eq!(answer(&engine), expected, "{effect:?}");
            assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);
        }
    }
}

#[test]
fn a_panic_ends_the_requests_and_not_the_process() {
    let faults = Faults::new().with(When::Nth(Operation::Forward, 5), Effect::Panic);
    let engine = faulty(model(), &faults);
    // The panic may come before the last one is submitted.
    let mut streams = Vec::new();
    for _ in 0..40 {
        match engine.submit(request("x")) {
            Ok(stream) => streams.push(stream),
            Err(error) => assert!(matches!(error, SubmitError::ShuttingDown), "{error}"),
        }
    }
    assert!(!streams.is_empty());
    for stream in streams {
        let error = stream.complete().unwrap_err();
        assert_eq!(error, RequestError::Panicked("Forward fails on purpose".into()));
    }
    assert!(matches!(engine.submit(request("x")), Err(SubmitError::ShuttingDown)));
    engine.shut_down(Shutdown::Drain);
}

/// Recovery from an error calls the backend again, which may fail there too.
#[test]
fn a_panic_while_recovering_ends_the_requests_and_not_the_process() {
    for operation in [Operation::Truncate, Operation::Release] {
        let faults = Faults::new().with(When::Token(BAD), Effect::FailLate);
        faults.add(When::Always(operation), Effect::Panic);
        let engine = faulty(model().context(1 << 20), &faults);
        // They run on until the bad one makes the engine put them back.
        let mut streams: Vec<_> =
            (0..4).map(|_| engine.submit(request("x").max_tokens(1 << 15)).unwrap()).collect();
        assert!(streams.iter_mut().all(|stream| stream.next().is_some()));
        streams.push(engine.submit(request("bad!")).unwrap());
        for stream in streams {
            assert!(stream.complete().is_err(), "{operation:?}");
        }
        let refused = engine.submit(request("x"));
        assert!(matches!(refused, Err(SubmitError::ShuttingDown)), "{operation:?}");
        engine.shut_down(Shutdown::Drain);
    }
}

#[test]
fn a_session_that_cannot_be_made_is_an_error_of_starting() {
    let faults = Faults::new().with(When::Nth(Operation::Session, 1), Effect::Fail);
    let model = FaultyModel::new(model().shared(), faults).shared();
    let error = Engine::start(model.clone(), EngineOptions::default()).err().unwrap();
    assert!(matches!(error, LoadError::Backend(_)), "{error}");
    assert_eq!(answer(&Engine::start(model, EngineOptions::default()).unwrap()).len(), 30);
}

#[test]
fn a_panic_while_a_session_is_made_is_an_error_of_starting() {
    let faults = Faults::new().with(When::Always(Operation::Session), Effect::Panic);
    let started =
        Engine::start(FaultyModel::new(model().shared(), faults).shared(), EngineOptions::default());
    let Err(LoadError::Backend(words)) = started.map(|_| ()) else { panic!("it starts") };
    assert!(words.contains("on purpose"), "{words}");
}

#[test]
fn loading_fails_as_it_is_told() {
    let faults = Faults::new().with(When::Nth(Operation::Load, 1), Effect::Fail);
    faults.add(When::Nth(Operation::Inspect, 2), Effect::FailLate);
    let backend = FaultyBackend::new(ScriptedBackend::new(model()), faults.clone());
    let source = ModelSource::Embedded(b"");
    let load = || backend.load(&source, &LoadOptions::default(), &mut LoadProgress::none());
    assert!(load().is_err());
    assert!(load().is_ok());
    assert!(backend.inspect(&source).is_ok());
    assert!(backend.inspect(&source).is_err());
    assert_eq!((faults.calls(Operation::Load), faults.calls(Operation::Inspect), faults.fired()), (2, 2, 2));
}

#[test]
fn an_abort_ends_a_backend_that_hangs_until_it_is_interrupted() {
    let faults = Faults::new().with(When::Nth(Operation::Forward, 2), Effect::Hang(Duration::from_secs(60)));
    let engine = faulty(model(), &faults);
    let streams: Vec<_> = (0..3).map(|_| engine.submit(request("x")).unwrap()).collect();
    while faults.fired() == 0 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    engine.shut_down(Shutdown::Abort);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for stream in streams {
        assert_eq!(stream.complete().unwrap().reason, FinishReason::Cancelled);
    }
}

#[test]
fn cancelling_reaches_into_a_pass_that_computes_for_nobody_else() {
    let faults = Faults::new().with(When::Nth(Operation::Forward, 2), Effect::Hang(Duration::from_secs(60)));
    let engine = faulty(model(), &faults);
    let stream = engine.submit(request("x")).unwrap();
    while faults.fired() == 0 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    stream.cancel();
    assert_eq!(stream.complete().unwrap().reason, FinishReason::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(answer(&engine).len(), 30);
}

#[test]
fn a_stall_ends_deadlines_late_but_ends_them() {
    let faults =
        Faults::new().with(When::Nth(Operation::Forward, 1), Effect::Stall(Duration::from_millis(120)));
    let engine = faulty(model(), &faults);
    let late = engine.submit(request("x").timeout(Duration::from_millis(30))).unwrap();
    let patient = engine.submit(request("x")).unwrap();
    assert_eq!(late.complete().unwrap().reason, FinishReason::Deadline);
    assert_eq!(patient.complete().unwrap().tokens.len(), 30);
}

#[test]
fn an_interrupted_pass_loses_nothing() {
    let engine = Engine::start(ScriptedModel::ngram(4).shared(), EngineOptions::default()).unwrap();
    let expected = engine.submit(request("x").max_tokens(500)).unwrap().complete().unwrap();
    let stream = engine.submit(request("x").max_tokens(500)).unwrap();
    for _ in 0..200 {
        engine.interrupt();
        std::thread::yield_now();
    }
    let answer = stream.complete().unwrap();
    assert_eq!((answer.tokens, answer.reason), (expected.tokens, FinishReason::MaxTokens));
}
