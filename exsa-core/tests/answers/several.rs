//! Several answers to one prompt.

use crate::harness::*;
use exsa_core::backend::SessionOptions;
use exsa_core::request::ANSWERS_MAX;
use exsa_core::{FinishReason, Mode, PrefixCacheOptions, Priority, Request, Resume, SubmitError};

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
        (drawn(3).n(0), "n: 0 answers, but 1 to 128 are allowed"),
        (drawn(3).n(ANSWERS_MAX + 1), "n: 129 answers, but 1 to 128"),
        (drawn(3).n(usize::MAX), "but 1 to 128"),
        (drawn(3).n(3).best_of(2), "best_of: 2, but 3 (the value of n) to 128 are allowed"),
        (drawn(3).best_of(0), "best_of: 0, but 1"),
        (drawn(3).best_of(usize::MAX), "but 1 (the value of n) to 128"),
        (drawn(3).prompt_logprobs(21), "prompt_logprobs: 21, but 0 to 20 are allowed"),
        (drawn(3).n(2).resume(Resume::new([1])), "n: 2 answers, but a resumed request"),
        (drawn(3).best_of(2).resume(Resume::new([])), "best_of: 2 answers, but a resumed request"),
    ] {
        let error = refused(request.clone()).unwrap_or_else(|| panic!("{request:?} is accepted"));
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(refused(drawn(3).n(ANSWERS_MAX).best_of(ANSWERS_MAX)), None);
}

#[test]
fn each_answer_takes_a_place_in_the_queue() {
    let engine = Engine::new(&model(), options().queue_max(10).user_queue_max(6)).engine;
    let refused = |user: &str, n| match engine.submit(drawn(3).user_id(user).n(n)) {
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
    let many = engine.engine.submit(drawn(10).user_id("a").n(20)).unwrap();
    engine.step();
    let few = engine.engine.submit(drawn(10).user_id("b").n(2)).unwrap();
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
