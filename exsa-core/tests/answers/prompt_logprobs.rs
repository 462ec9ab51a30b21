//! Log-probabilities of the prompt.

use crate::harness::*;
use exsa_core::backend::SessionOptions;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::stream::PromptToken;
use exsa_core::{EngineOptions, Priority, Resume, TokenId};

/// Log-probabilities of `tokens`, computed without an engine.
fn prompt_logprobs(model: &ScriptedModel, tokens: &[TokenId], top: usize) -> Vec<PromptToken> {
    let mut row = vec![0.0f32; ByteTokenizer::N_VOCAB];
    let mut expected = vec![PromptToken::new(tokens[0], None)];
    for i in 1..tokens.len() {
        model.logits(&tokens[..i], &mut row);
        let total = row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        let logprob = |id: usize| (f64::from(row[id]) - total) as f32;
        let mut ids: Vec<_> = (0..row.len()).collect();
        ids.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        let best = ids[..top].iter().map(|id| (*id as TokenId, logprob(*id)));
        expected.push(PromptToken::new(tokens[i], logprob(tokens[i] as usize)).top_logprobs(best));
    }
    expected
}

fn assert_close(found: &[PromptToken], expected: &[PromptToken], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let close = |a: f32, b: f32| (a - b).abs() <= 1e-5 * a.abs().max(1.0);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.id, expected.id, "{what}: token {i}");
        let logprobs = found.logprob.zip(expected.logprob);
        assert_eq!(
            (found.logprob.is_some(), expected.logprob.is_some()),
            (i > 0, i > 0),
            "{what}: token {i}"
        );
        assert!(logprobs.is_none_or(|(a, b)| close(a, b)), "{what}: token {i}: {logprobs:?}");
        assert_eq!(found.top_logprobs.len(), expected.top_logprobs.len(), "{what}: token {i}");
        for (found, expected) in found.top_logprobs.iter().zip(&expected.top_logprobs) {
            assert_eq!(found.id, expected.id, "{what}: token {i}");
            assert!(close(found.logprob, expected.logprob), "{what}: token {i}");
        }
    }
}

#[test]
fn log_probabilities_of_the_prompt_come_before_the_first_token() {
    for len in [1, 2, 8, 9, 63, 64, 65, 66, 150] {
        for (batch, top, n, capacity) in [(64, 0, 1, 64), (7, 3, 1, 2), (512, 20, 4, 1), (512, 1, 1, 64)] {
            let what = format!("{len} tokens, batches of {batch}, top {top}, {n} answers");
            let session = SessionOptions::new().sequences(8).batch_tokens(batch);
            let mut engine = Engine::new(&model(), options().session(session).stream_events_max(capacity));
            let expected = prompt_logprobs(&model(), &prompt(len), top);
            let answers = singly(&model(), &drawn(len), n as u64);
            // The second time the prompt is in the cache, and the third time an answer is, too.
            for _ in 0..2 {
                let got = engine.run(drawn(len).n(n).prompt_logprobs(top as u32));
                assert_close(&got.prompt, &expected, &what);
                assert_eq!(got.answers, answers, "{what}");
                assert_eq!(got.finished.unwrap().usage.cached_tokens, 0, "{what}");
                let got = engine.run(drawn(len).n(n));
                assert_eq!((got.answers, got.prompt.len()), (answers.clone(), 0), "{what}");
            }
        }
    }
}

#[test]
fn log_probabilities_of_the_prompt_survive_preemption_once() {
    let expected = prompt_logprobs(&model(), &prompt(100), 2);
    let answers = singly(&model(), &drawn(100), 2);
    let mut preempted = 0;
    for model in [model(), model().without_save(), model().without_truncate(), model().without_fork()] {
        for after in 1..8 {
            let model = model.clone().kv(128, 8);
            let session = SessionOptions::new().sequences(4).batch_tokens(24);
            let mut engine = Engine::new(&model, options().session(session));
            let request = drawn(100).n(2).prompt_logprobs(2).priority(Priority::Batch);
            let mut stream = engine.engine.submit(request).unwrap();
            let mut got = Got::default();
            for _ in 0..after {
                engine.step();
            }
            let urgent = drawn(90).seed(70).priority(Priority::Interactive);
            let urgent = engine.engine.submit(urgent).unwrap();
            while !engine.engine.is_empty() {
                engine.step();
                got.read(&mut stream);
            }
            assert_eq!(urgent.complete().unwrap().tokens.len(), 20);
            assert_close(&got.prompt, &expected, "preempted");
            assert_eq!(got.answers, answers);
            preempted += engine.engine.stats().scheduler.preemptions;
        }
    }
    assert!(preempted > 20, "{preempted} preemptions");
}

#[test]
fn rows_of_prompts_are_bounded() {
    let session = SessionOptions::new().sequences(8).batch_tokens(512);
    let mut engine = Engine::new(&model(), options().session(session));
    let requests: Vec<_> = (0..4).map(|i| drawn(200).seed(i * 10).prompt_logprobs(0)).collect();
    let streams: Vec<_> =
        requests.into_iter().map(|request| engine.engine.submit(request).unwrap()).collect();
    let (mut rows, mut passes) = (0, 0);
    while !engine.engine.is_empty() {
        engine.step();
        let planned = engine.engine.scheduler().last_plan().prompt_rows();
        assert!(planned <= 64, "{planned} rows");
        rows += planned;
        passes += usize::from(planned > 0);
    }
    assert_eq!(rows, 4 * 199);
    assert!(passes <= 4 * 199 / 64 + 2, "{passes} passes");
    for stream in streams {
        let answer = stream.complete().unwrap();
        assert_eq!((answer.prompt.len(), answer.tokens.len()), (200, 20));
    }
}

#[test]
fn a_resumed_answer_sends_no_prompt_again() {
    let whole = singly(&model(), &drawn(30), 1).remove(0);
    let mut engine = Engine::new(&model(), options());
    for cut in [0, 1, 5] {
        let generated: Vec<_> = whole.tokens[..cut].iter().map(|token| token.id.unwrap()).collect();
        let request = drawn(30).prompt_logprobs(1).resume(Resume::new(generated));
        let got = engine.run(request);
        assert_eq!(got.answers[0].tokens, whole.tokens[cut..]);
        assert_eq!(got.prompt.len(), if cut == 0 { 30 } else { 0 });
    }
}

#[test]
fn completions_have_prompt_and_log_probabilities() {
    let engine = exsa_core::Engine::start(model().shared(), EngineOptions::default()).unwrap();
    let mut request = drawn(30).n(3).prompt_logprobs(1);
    request.sampling.logprobs = true;
    let answers = engine.submit(request).unwrap().complete_all().unwrap();
    assert_eq!(answers.len(), 3);
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!((answer.index, answer.seed), (index, Some(7 + index as u64)));
        assert_close(&answer.prompt, &prompt_logprobs(&model(), &prompt(30), 1), "a completion");
        let logprob = answer.logprob.unwrap();
        assert_eq!(logprob.tokens, 20);
        assert!(logprob.sum < 0.0 && logprob.mean() == logprob.sum / 20.0);
    }
    let plain = engine.submit(drawn(30)).unwrap().complete().unwrap();
    assert_eq!((plain.logprob, plain.prompt.len()), (None, 0));
}
