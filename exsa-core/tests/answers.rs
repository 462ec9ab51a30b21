//! Several answers to one prompt, the best of several, and log-probabilities of the prompt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::queue::{FairOptions, FairQueue};
use exsa_core::request::ANSWERS_MAX;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::stream::{Finished, PromptToken, Token};
use exsa_core::{
    EngineLoop, EngineOptions, Event, FinishReason, Mode, PrefixCacheOptions, Priority, Request, Resume,
    SubmitError, TokenId, TokenStream,
};
use std::sync::Arc;
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Engine {
    engine: EngineLoop,
    clock: ManualClock,
}

/// One answer, as its events gave it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    tokens: Vec<Token>,
    text: String,
    reason: Option<FinishReason>,
    seed: Option<u64>,
    logprob: Option<(f64, usize)>,
}

impl Answer {
    /// Tokens generated, the token that ended the answer included, which is not sent.
    fn len(&self) -> usize {
        let ended = matches!(self.reason, Some(FinishReason::StopToken(_) | FinishReason::EndOfGeneration));
        self.tokens.len() + usize::from(ended)
    }
}

#[derive(Debug, Default)]
struct Got {
    answers: Vec<Answer>,
    prompt: Vec<PromptToken>,
    finished: Option<Finished>,
}

impl Got {
    fn answer(&mut self, index: usize) -> &mut Answer {
        if self.answers.len() <= index {
            self.answers.resize(index + 1, Answer::default());
        }
        &mut self.answers[index]
    }

    /// Takes in an event, and checks that it may come here.
    fn push(&mut self, event: Event) {
        assert!(self.finished.is_none(), "an event after the last");
        match event {
            Event::Token(mut token) => {
                let answer = self.answer(std::mem::take(&mut token.index));
                assert_eq!(answer.reason, None, "a token after the end of its answer");
                answer.text.push_str(&token.text);
                answer.tokens.push(token);
            }
            Event::AnswerFinished(end) => {
                let answer = self.answer(end.index);
                assert_eq!(answer.reason, None, "an answer ends twice");
                answer.text.push_str(&end.text);
                (answer.reason, answer.seed) = (Some(end.reason), end.seed);
                answer.logprob = end.logprob.map(|logprob| (logprob.sum, logprob.tokens));
            }
            Event::Finished(finished) => {
                let answer = self.answer(finished.index);
                assert_eq!(answer.reason, None, "an answer ends twice");
                answer.text.push_str(&finished.text);
                (answer.reason, answer.seed) = (Some(finished.reason.clone()), finished.seed);
                answer.logprob = finished.logprob.map(|logprob| (logprob.sum, logprob.tokens));
                self.finished = Some(finished);
            }
            Event::Prompt(part) => {
                assert_eq!(part.start, self.prompt.len(), "parts of the prompt come in order");
                assert!(self.answers.is_empty(), "the prompt comes before the first token");
                self.prompt.extend(part.tokens);
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, stream: &mut TokenStream) {
        while let Some(event) = stream.try_next() {
            self.push(event);
        }
    }
}

fn options() -> EngineOptions {
    EngineOptions::default().session(SessionOptions::new().sequences(8).batch_tokens(64))
}

impl Engine {
    fn new(model: &ScriptedModel, options: EngineOptions) -> Self {
        let clock = ManualClock::new();
        let model = model.clone().cost(clock.clone(), ms(5), ms(1));
        let queue = Box::new(FairQueue::new(FairOptions::default()));
        let engine = EngineLoop::new(model.shared(), options, queue, Arc::new(clock.clone())).unwrap();
        Self { engine, clock }
    }

    fn step(&mut self) -> bool {
        let more = self.engine.step();
        self.engine.scheduler().check().unwrap();
        more
    }

    /// Runs all requests at once to their ends.
    fn run_all(&mut self, requests: Vec<Request>) -> Vec<Got> {
        let mut streams: Vec<_> =
            requests.into_iter().map(|request| self.engine.submit(request).unwrap()).collect();
        let mut got: Vec<_> = streams.iter().map(|_| Got::default()).collect();
        let mut idle = 0;
        while !self.engine.is_empty() {
            idle = if self.step() { 0 } else { idle + 1 };
            assert!(idle < 5, "nothing goes on");
            got.iter_mut().zip(&mut streams).for_each(|(got, stream)| got.read(stream));
            if idle > 0 {
                self.clock.advance(self.engine.until_wakeup().unwrap_or_default());
            }
        }
        got.iter_mut().zip(&mut streams).for_each(|(got, stream)| got.read(stream));
        assert!(got.iter().all(|got| got.finished.is_some()), "every request ends");
        got
    }

    fn run(&mut self, request: Request) -> Got {
        self.run_all(vec![request]).remove(0)
    }
}

fn prompt(len: usize) -> Vec<TokenId> {
    (0..len).map(|i| 32 + (i * i * 7 + i * 3) as TokenId % 90).collect()
}

/// A request that draws, of which every mistake in the history shows in all that follows.
fn drawn(len: usize) -> Request {
    let sampling = SamplingParams::default().temperature(1.1).seed(7).repetition_penalty(1.2);
    Request::tokens(prompt(len)).sampling(sampling).ignore_eos(true).max_tokens(20)
}

fn model() -> ScriptedModel {
    ScriptedModel::ngram(5).order(usize::MAX).kv(2048, 8).context(256)
}

/// The answers of `n` requests for one answer each, one after the other, by the rule for seeds.
fn singly(model: &ScriptedModel, request: &Request, n: u64) -> Vec<Answer> {
    let seed = request.sampling.seed.unwrap();
    let single = |index| {
        let request = request.clone().n(1).seed(seed.wrapping_add(index));
        let got = Engine::new(model, options()).run(request);
        assert_eq!(got.answers.len(), 1);
        got.answers[0].clone()
    };
    (0..n).map(single).collect()
}

#[test]
fn answers_are_those_of_single_requests_with_the_next_seeds() {
    let stops = |request: Request| request.stop("a").stop("u").stop_token(b'i'.into());
    let requests = [
        ("drawn", drawn(37)),
        ("one token of prompt", drawn(1)),
        ("stops", stops(drawn(20).ignore_eos(false).max_tokens(None))),
        ("one token", drawn(20).max_tokens(1)),
        ("seeds that wrap", drawn(20).seed(u64::MAX - 1)),
        ("log-probabilities", {
            let mut request = drawn(20);
            (request.sampling.logprobs, request.sampling.top_logprobs) = (true, 3);
            request
        }),
    ];
    for (name, request) in requests {
        let expected = singly(&model(), &request, 5);
        assert!(expected.iter().any(|answer| answer.tokens != expected[0].tokens), "{name}: all are alike");
        let no_cache = PrefixCacheOptions::disabled();
        for (setup, model, options) in [
            ("as is", model(), options()),
            ("without forks", model().without_fork(), options()),
            ("without a prefix cache", model(), options().prefix_cache(no_cache)),
            ("two sequences", model(), options().session(SessionOptions::new().sequences(2))),
            ("small batches", model(), options().session(SessionOptions::new().sequences(6).batch_tokens(9))),
            ("little room in the stream", model(), options().stream_events_max(2)),
        ] {
            let what = format!("{name}, {setup}");
            let mut engine = Engine::new(&model, options);
            let got = engine.run(request.clone().n(5));
            assert_eq!(got.answers, expected, "{what}");
            let usage = got.finished.unwrap().usage;
            let tokens: usize = expected.iter().map(Answer::len).sum();
            assert_eq!(
                (usage.prompt_tokens, usage.completion_tokens),
                (request_len(&request), tokens),
                "{what}"
            );
            // Alone it starts from an empty cache; later from what it left there.
            assert_eq!(usage.cached_tokens, 0, "{what}");
            let again = engine.run(request.clone().n(5));
            assert_eq!(again.answers, expected, "{what}, again");
            let stats = engine.engine.stats();
            assert_eq!((stats.submitted, stats.finished, stats.failed), (2, 2, 0), "{what}");
            assert_eq!(stats.scheduler.kv_tokens_used, 0, "{what}");
        }
    }
}

fn request_len(request: &Request) -> usize {
    match &request.prompt {
        exsa_core::Prompt::Tokens(tokens) => tokens.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_in_a_batch_and_after_preemption_are_the_same() {
    let long = |len| drawn(len).max_tokens(50);
    let requests = [long(30).n(4), long(50).seed(100).n(3), long(11).seed(200)];
    let expected: Vec<_> =
        requests.iter().map(|request| singly(&model(), request, request.n as u64)).collect();
    for kv in [2048, 104] {
        for model in [model().kv(kv, 8), model().kv(kv, 8).without_save(), model().kv(kv, 8).without_fork()] {
            let mut engine = Engine::new(&model, options().mode(Mode::Throughput));
            let got = engine.run_all(requests.to_vec());
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!(&got.answers, expected, "{kv} tokens of KV");
            }
            let preemptions = engine.engine.stats().scheduler.preemptions;
            assert_eq!(preemptions > 0, kv < 2048, "{kv} tokens of KV: {preemptions}");
        }
    }
}

#[test]
fn the_prompt_is_computed_once() {
    let (len, n, block) = (100, 8, 8);
    // The last block of a prompt is computed again by each answer, and each token of an answer but its last.
    let most = |cached: usize| (len - cached + (n - 1) * (len % block) + n * 19) as u64;
    for batch in [16, 64, 512] {
        for sequences in [3, 8] {
            let session = SessionOptions::new().sequences(sequences).batch_tokens(batch);
            let mut engine = Engine::new(&model(), options().session(session));
            engine.run(drawn(len).n(n));
            let first = engine.engine.stats().tokens_computed;
            assert!(first <= most(0), "{first} of {} tokens computed", most(0));
            engine.run(drawn(len).n(n));
            let again = engine.engine.stats().tokens_computed - first;
            assert!(again <= most(96), "{again} of {} tokens computed with a cached prompt", most(96));
        }
    }
    // Shorter than what other requests save by waiting for each other, but a block is shared.
    let mut engine = Engine::new(&model(), options());
    engine.run(drawn(9).n(n));
    assert_eq!(engine.engine.stats().tokens_computed, (9 + (n - 1) + n * 19) as u64);
}

#[test]
fn answers_share_the_blocks_of_the_prompt() {
    let mut engine = Engine::new(&model(), options());
    let stream = engine.engine.submit(drawn(80).n(8)).unwrap();
    while engine.engine.stats().tokens_generated < 8 {
        engine.step();
    }
    let used = engine.engine.stats().scheduler.kv_tokens_used;
    assert!(used <= 80 + 8 * 16, "{used} tokens of KV for eight answers to 80 tokens");
    drop(stream);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    let engine = Engine::new(&model(), options()).engine;
    let refused = |request: Request| engine.submit(request).err().map(|error| error.to_string());
    for (request, words) in [
        (drawn(3).n(0), "n: 0 answers, but 1 to 128 are possible"),
        (drawn(3).n(ANSWERS_MAX + 1), "n: 129 answers, but 1 to 128"),
        (drawn(3).n(usize::MAX), "but 1 to 128"),
        (drawn(3).n(3).best_of(2), "best_of: 2, but 3 (the value of n) to 128 are possible"),
        (drawn(3).best_of(0), "best_of: 0, but 1"),
        (drawn(3).best_of(usize::MAX), "but 1 (the value of n) to 128"),
        (drawn(3).prompt_logprobs(21), "prompt_logprobs: 21, but 0 to 20 are possible"),
        (drawn(3).n(2).resume(Resume::new(1)), "n: 2 answers, but a resumed request"),
        (drawn(3).best_of(2).resume(Resume::new(0)), "best_of: 2 answers, but a resumed request"),
    ] {
        let error = refused(request.clone()).unwrap_or_else(|| panic!("{request:?} is accepted"));
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(refused(drawn(3).n(ANSWERS_MAX).best_of(ANSWERS_MAX)), None);
}

#[test]
fn each_answer_takes_a_place_in_the_queue() {
    let engine = Engine::new(&model(), options().queue_max(10).user_queue_max(6)).engine;
    let refused = |user: &str, n| match engine.submit(drawn(3).user(user).n(n)) {
        // A dropped stream would free its places.
        Ok(stream) => {
            std::mem::forget(stream);
            None
        }
        Err(SubmitError::QueueFull { waiting, limit, .. }) => Some((waiting, limit)),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(refused("a", 4), None);
    assert_eq!(refused("a", 3), Some((4, 6)));
    assert_eq!(refused("a", 2), None);
    assert_eq!(refused("a", 1), Some((6, 6)));
    assert_eq!(refused("b", 5), Some((6, 10)));
    assert_eq!(refused("b", 4), None);
    assert_eq!(refused("c", 1), Some((10, 10)));
    // An empty queue takes any number, since waiting would not help.
    let mut engine = Engine::new(&model(), options().queue_max(4).user_queue_max(2));
    let stream = engine.engine.submit(drawn(3).n(20)).unwrap();
    assert!(matches!(engine.engine.submit(drawn(3)), Err(SubmitError::QueueFull { waiting: 20, .. })));
    while !engine.engine.is_empty() {
        engine.step();
    }
    assert_eq!(stream.complete_all().unwrap().len(), 20);
    assert!(engine.engine.submit(drawn(3)).is_ok(), "all places are free again");
}

#[test]
fn the_end_of_a_request_ends_all_its_answers() {
    let endless = || drawn(20).max_tokens(None).n(5);
    let ends = |got: &Got| {
        assert_eq!(got.answers.len(), 5);
        got.answers.iter().map(|answer| answer.reason.clone().unwrap()).collect::<Vec<_>>()
    };
    for sequences in [2, 8] {
        let session = SessionOptions::new().sequences(sequences);
        let mut engine = Engine::new(&model(), options().session(session.clone()));
        let mut stream = engine.engine.submit(endless()).unwrap();
        for _ in 0..6 {
            engine.step();
        }
        stream.cancel();
        engine.step();
        assert!(engine.engine.is_empty());
        let mut got = Got::default();
        got.read(&mut stream);
        assert_eq!(ends(&got), vec![FinishReason::Cancelled; 5]);
        assert_eq!(engine.engine.stats().scheduler.kv_tokens_used, 0);
        for answer in &got.answers {
            // Bytes that were held back come with the end of each answer.
            let bytes: Vec<_> = answer.tokens.iter().map(|token| token.id.unwrap() as u8).collect();
            assert_eq!(answer.text, String::from_utf8_lossy(&bytes));
        }

        let mut engine = Engine::new(&model(), options().session(session.clone()));
        let got = engine.run(endless().timeout(ms(100)));
        assert_eq!(ends(&got), vec![FinishReason::Deadline; 5]);
        assert!(got.answers[0].tokens.len() > 3);

        let mut engine = Engine::new(&model(), options().session(session));
        let got = engine.run(endless().first_token_timeout(ms(4)));
        assert_eq!(ends(&got), vec![FinishReason::FirstTokenTimeout; 5]);
        // The limit is for the first token of all, even of answers that wait for a sequence.
        let mut engine = Engine::new(&model(), options().session(SessionOptions::new().sequences(2)));
        let got = engine.run(drawn(20).n(5).first_token_timeout(ms(60)));
        assert_eq!(ends(&got), vec![FinishReason::MaxTokens; 5]);
    }
}

#[test]
fn a_stream_that_is_not_read_pauses_all_its_answers() {
    for sequences in [2, 8] {
        let session = SessionOptions::new().sequences(sequences);
        let mut engine = Engine::new(&model(), options().session(session).stream_events_max(6));
        let mut stream = engine.engine.submit(drawn(20).max_tokens(50).n(5)).unwrap();
        let (mut steps, mut idle) = (0, 0);
        while idle < 3 {
            steps += 1;
            assert!(steps < 200, "it goes on without a reader");
            idle = if engine.step() { 0 } else { idle + 1 };
            engine.clock.advance(ms(300));
        }
        let generated = engine.engine.stats().tokens_generated;
        assert!((6..6 + 5).contains(&generated), "{generated} tokens");
        // Others go on meanwhile, in the sequences that the answers gave up.
        let other = engine.engine.submit(drawn(10).seed(50).max_tokens(5)).unwrap();
        (0..40).for_each(|_| {
            engine.step();
            engine.clock.advance(ms(300));
        });
        assert_eq!(other.complete().unwrap().tokens.len(), 5);
        let mut got = Got::default();
        while !engine.engine.is_empty() {
            engine.step();
            got.read(&mut stream);
        }
        got.read(&mut stream);
        assert_eq!(got.answers, singly(&model(), &drawn(20).max_tokens(50), 5));
    }
}

#[test]
fn ends_of_answers_fill_a_stream_too() {
    let mut engine = Engine::new(&model(), options().stream_events_max(1));
    let got = engine.run(drawn(20).max_tokens(1).n(8));
    assert!(got.answers.iter().all(|answer| answer.reason == Some(FinishReason::MaxTokens)));
}

#[test]
fn the_users_of_an_engine_share_it_by_answers() {
    let mut engine = Engine::new(&model(), options().session(SessionOptions::new().sequences(2)));
    let many = engine.engine.submit(drawn(10).user("a").n(20)).unwrap();
    engine.step();
    let few = engine.engine.submit(drawn(10).user("b").n(2)).unwrap();
    let mut few_ended = None;
    let (mut many, mut few) = ((Got::default(), many), (Got::default(), few));
    while !engine.engine.is_empty() {
        engine.step();
        many.0.read(&mut many.1);
        few.0.read(&mut few.1);
        if few.0.finished.is_some() {
            few_ended.get_or_insert(many.0.answers.iter().filter(|answer| answer.reason.is_some()).count());
        }
    }
    let ended = few_ended.unwrap();
    assert!((2..8).contains(&ended), "{ended} of 20 answers ended before the 2 of another user");
    // A class of its own goes first.
    let mut engine = Engine::new(&model(), options().session(SessionOptions::new().sequences(2)));
    let requests = vec![drawn(10).n(10), drawn(10).seed(90).n(2).priority(Priority::Interactive)];
    let got = engine.run_all(requests);
    assert!(
        got[1].finished.as_ref().unwrap().usage.total_time
            < got[0].finished.as_ref().unwrap().usage.total_time / 2
    );
}

fn means(answers: &[Answer]) -> Vec<f64> {
    answers.iter().map(|answer| answer.logprob.map(|(sum, tokens)| sum / tokens as f64).unwrap()).collect()
}

#[test]
fn the_best_answers_have_the_highest_mean_log_probability() {
    let request = drawn(20).ignore_eos(false).stop_token(b'a'.into()).stop_token(b'e'.into()).max_tokens(40);
    let mut with_logprobs = request.clone();
    with_logprobs.sampling.logprobs = true;
    let mut all = singly(&model(), &with_logprobs, 9);
    for answer in &all {
        let (sum, tokens) = answer.logprob.unwrap();
        let seen: f64 = answer.tokens.iter().map(|token| f64::from(token.logprob.unwrap())).sum();
        let ended_by_token = answer.len() > answer.tokens.len();
        assert_eq!(tokens, answer.len());
        assert!(if ended_by_token { sum < seen } else { (sum - seen).abs() < 1e-9 }, "{sum}, {seen}");
    }
    let lens: Vec<_> = all.iter().map(|answer| answer.tokens.len()).collect();
    assert!(lens.iter().any(|len| *len != lens[0]), "lengths that differ: {lens:?}");
    all.sort_by(|a, b| means(std::slice::from_ref(b))[0].total_cmp(&means(std::slice::from_ref(a))[0]));
    for (n, model) in [(3, model()), (1, model()), (9, model()), (2, model().without_fork())] {
        let mut engine = Engine::new(&model, options());
        let got = engine.run(with_logprobs.clone().n(n).best_of(9));
        if n == 9 {
            // Nothing is to be chosen, so the answers keep their order.
            assert_eq!(got.answers, singly(&model, &with_logprobs, 9));
        } else {
            assert_eq!(got.answers, all[..n]);
            assert!(means(&got.answers).is_sorted_by(|a, b| a >= b));
        }
        let usage = got.finished.unwrap().usage;
        let tokens: usize = all.iter().map(|answer| answer.logprob.unwrap().1).sum();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (20, tokens), "all count");
        // Those of the tokens are sent only where they were asked for.
        let got = engine.run(request.clone().n(n).best_of(9));
        assert!(got.answers.iter().flat_map(|answer| &answer.tokens).all(|token| token.logprob.is_none()));
        if n < 9 {
            assert_eq!(means(&got.answers), means(&all[..n]));
        }
    }
}

#[test]
fn the_best_are_sent_when_all_have_ended() {
    // A stream as small as this would stop the answers if their tokens were sent.
    let mut engine = Engine::new(&model(), options().stream_events_max(2));
    let mut stream = engine.engine.submit(drawn(20).n(2).best_of(6)).unwrap();
    while engine.engine.stats().tokens_generated < 6 * 20 {
        assert_eq!(stream.try_next(), None);
        engine.step();
    }
    let mut got = Got::default();
    got.read(&mut stream);
    assert_eq!(got.answers.len(), 2);
    assert!(got.finished.is_some());
    // Cut off, it gives the best of what is there.
    let mut engine = Engine::new(&model(), options());
    let got = engine.run(drawn(20).max_tokens(None).n(2).best_of(6).timeout(ms(100)));
    let reasons: Vec<_> = got.answers.iter().map(|answer| answer.reason.clone()).collect();
    assert_eq!(reasons, vec![Some(FinishReason::Deadline); 2]);
    assert!(got.answers.iter().all(|answer| !answer.tokens.is_empty()));
    // Ended by themselves they go before longer ones that were cut off.
    let mut request = drawn(20).max_tokens(None).best_of(6);
    request.stop_tokens.extend((b'a'..=b'p').map(TokenId::from));
    request.sampling.logprobs = true;
    let all = singly(&model(), &request.clone().best_of(None), 6);
    let got = Engine::new(&model(), options()).run(request.timeout(ms(250)));
    let ended = all.iter().filter(|answer| answer.tokens.len() < 10).count();
    assert!((1..6).contains(&ended), "{ended} short answers");
    assert!(matches!(got.answers[0].reason, Some(FinishReason::StopToken(_))), "{got:?}");
}

/// What the model says about `tokens`, computed without an engine.
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
        let mut request = drawn(30).prompt_logprobs(1).resume(Resume::new(cut));
        let generated = whole.tokens[..cut].iter().map(|token| token.id.unwrap());
        request.prompt = exsa_core::Prompt::Tokens(prompt(30).into_iter().chain(generated).collect());
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
