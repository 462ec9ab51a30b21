//! The engine's scheduler on the real thing: the built-in model answers the same with and without cached
//! prefixes, and after it was preempted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_core::backend::{Model, SessionOptions};
use exsa_core::speculate::SpeculationMode;
use exsa_core::stats::EngineStats;
use exsa_core::stream::Completion;
use exsa_core::{
    Engine, EngineOptions, Overflow, PrefixCacheOptions, Priority, Request, SamplingParams, TokenId,
};
use std::path::PathBuf;
use std::sync::Arc;

fn model() -> Arc<dyn Model> {
    support::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")))
}

const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play in the garden with her dog. \
One day, Lily and her dog found a big red box behind the old tree. The box was closed, and there was a small key on it. \
Lily took the key and looked at her dog. \"What is in the box?\" she asked. The dog barked and ran around the tree. ";

fn requests() -> Vec<Request> {
    let ends = [
        "Lily opened",
        "The dog",
        "Then her mother",
        "A bird",
        "Lily was afraid",
        "The key was",
        "Inside",
        "But",
    ];
    ends.iter()
        .zip(1..)
        .map(|(end, seed)| {
            let sampling = match seed % 2 {
                0 => SamplingParams::greedy(),
                _ => SamplingParams::default().seed(seed),
            };
            Request::text(format!("{STORY}{end}")).max_tokens(40).ignore_eos(true).sampling(sampling)
        })
        .collect()
}

fn answers(model: &Arc<dyn Model>, options: EngineOptions) -> (Vec<Completion>, EngineStats) {
    let engine = Engine::start(model.clone(), options).unwrap();
    let streams: Vec<_> = requests().into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let answers = streams.into_iter().map(|stream| stream.complete().unwrap()).collect();
    (answers, engine.stats())
}

fn ids(answer: &Completion) -> Vec<TokenId> {
    answer.tokens.iter().filter_map(|token| token.id).collect()
}

/// For counts of computed tokens, which drafts are part of.
fn without_drafts() -> EngineOptions {
    EngineOptions::default().speculation(SpeculationMode::Off)
}

fn without_cache() -> EngineOptions {
    EngineOptions::default().prefix_cache(PrefixCacheOptions::disabled())
}

#[test]
fn cached_prefixes_change_no_token() {
    let model = model();
    let (cold, stats) = answers(&model, without_cache());
    assert_eq!(stats.scheduler.cached_tokens, 0);
    let (warm, stats) = answers(&model, without_drafts());
    for (cold, warm) in cold.iter().zip(&warm) {
        assert_eq!(ids(cold), ids(warm));
    }
    let prompts: usize = warm.iter().map(|answer| answer.usage.prompt_tokens).sum();
    let cached: usize = warm.iter().map(|answer| answer.usage.cached_tokens).sum();
    let generated: usize = warm.iter().map(|answer| answer.usage.completion_tokens - 1).sum();
    println!("{cached} of {prompts} prompt tokens cached");
    assert!(cached * 2 > prompts, "{cached} of {prompts}");
    assert_eq!(stats.tokens_computed, (prompts - cached + generated) as u64);
}

#[test]
fn the_next_turn_starts_from_the_last_answer() {
    let model = model();
    let engine = Engine::start(model.clone(), EngineOptions::default()).unwrap();
    let cold = Engine::start(model.clone(), without_cache()).unwrap();
    let turn = |engine: &Engine, tokens: &[TokenId]| {
        let request =
            Request::tokens(tokens).max_tokens(50).ignore_eos(true).sampling(SamplingParams::greedy());
        engine.submit(request).unwrap().complete().unwrap()
    };
    let mut tokens: Vec<TokenId> = (0..60).map(|i| 300 + i * 7 % 400).collect();
    for i in 0..3 {
        let (warm, fresh) = (turn(&engine, &tokens), turn(&cold, &tokens));
        assert_eq!(ids(&warm), ids(&fresh), "turn {i}");
        // All but the last token of the turn before was computed, in whole blocks of 32.
        let expected = if i == 0 { 0 } else { (tokens.len() - 11) / 32 * 32 };
        assert_eq!(warm.usage.cached_tokens, expected, "turn {i} of {} tokens", tokens.len());
        tokens.extend(ids(&warm));
        tokens.extend(500..510);
    }
}

/// KV for three of the eight answers, so that they take it from each other.
#[test]
fn preempted_streams_go_on_as_undisturbed_ones() {
    let model = model();
    let (undisturbed, _) = answers(&model, without_cache());
    let session = SessionOptions::new().kv_tokens(512);
    for (saved_kv_bytes_max, prefix_cache) in [
        (64 << 20, PrefixCacheOptions::default()),
        (0, PrefixCacheOptions::default()),
        (64 << 20, PrefixCacheOptions::disabled()),
        (0, PrefixCacheOptions::disabled()),
    ] {
        let options = EngineOptions::default()
            .session(session.clone())
            .mode(exsa_core::Mode::Throughput)
            .saved_kv_bytes_max(saved_kv_bytes_max)
            .prefix_cache(prefix_cache);
        let engine = Engine::start(model.clone(), options).unwrap();
        let streams: Vec<_> = requests().into_iter().map(|request| engine.submit(request).unwrap()).collect();
        for (stream, expected) in streams.into_iter().zip(&undisturbed) {
            assert_eq!(ids(&stream.complete().unwrap()), ids(expected));
        }
        let stats = engine.stats();
        println!(
            "{} preemptions, {} of them saved",
            stats.scheduler.preemptions, stats.scheduler.preemptions_saved
        );
        assert_eq!(stats.scheduler.kv_tokens_used, 0);
    }
}

/// One sequence, taken from a batch request in the middle of its answer and given back.
#[test]
fn a_more_urgent_request_takes_the_sequence_and_gives_it_back() {
    let model = model();
    for prefix_cache in [PrefixCacheOptions::default(), PrefixCacheOptions::disabled()] {
        let session = SessionOptions::new().sequences(1);
        let options = EngineOptions::default().session(session).prefix_cache(prefix_cache);
        let request =
            || Request::text(STORY).max_tokens(150).ignore_eos(true).sampling(SamplingParams::greedy());
        let (undisturbed, engine) = (
            Engine::start(model.clone(), without_cache()).unwrap(),
            Engine::start(model.clone(), options).unwrap(),
        );
        let expected = undisturbed.submit(request()).unwrap().complete().unwrap();
        let mut slow = engine.submit(request().priority(Priority::Batch)).unwrap();
        let first = slow.next();
        let urgent = Request::text("The cat").max_tokens(3).priority(Priority::Interactive);
        engine.submit(urgent).unwrap().complete().unwrap();
        assert_eq!(engine.stats().finished, 1, "the batch request still runs");
        let rest = slow.complete().unwrap();
        let Some(exsa_core::Event::Token(first)) = first else { panic!("no first token") };
        let all: Vec<_> = first.id.into_iter().chain(ids(&rest)).collect();
        assert_eq!(all, ids(&expected));
        assert_eq!(engine.stats().scheduler.preemptions, 1);
    }
}

#[test]
fn several_answers_are_those_of_single_requests() {
    let model = model();
    let sampling = SamplingParams::default().temperature(1.0);
    let request = Request::text(STORY).max_tokens(24).ignore_eos(true).sampling(sampling);
    let cold = Engine::start(model.clone(), without_cache()).unwrap();
    let single = |seed| cold.submit(request.clone().seed(seed)).unwrap().complete().unwrap();
    let expected: Vec<_> = (3..9).map(single).collect();
    assert_ne!(ids(&expected[0]), ids(&expected[1]));
    let engine = Engine::start(model, without_drafts()).unwrap();
    let prompt = expected[0].usage.prompt_tokens;
    for cached in [0, (prompt - 1) / 32 * 32] {
        let before = engine.stats().tokens_computed;
        let answers = engine.submit(request.clone().seed(3).n(6)).unwrap().complete_all().unwrap();
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(ids(answer), ids(expected), "answer {}", answer.index);
        }
        // Each answer computes the last block of the prompt, which is not shared.
        let computed = engine.stats().tokens_computed - before;
        let expected = prompt - cached + 5 * (prompt - (prompt - 1) / 32 * 32) + 6 * 23;
        assert_eq!(computed, expected as u64, "with {cached} of {prompt} tokens cached");
    }
}

#[test]
fn rewound_and_shifted_answers_do_not_depend_on_the_batch() {
    let model = model();
    let (plain, _) = answers(&model, without_cache());
    let words = |plain: &Completion| -> Vec<String> {
        let words = plain.text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 3);
        words.step_by(2).map(str::to_lowercase).collect()
    };
    let requests = || {
        requests().into_iter().zip(&plain).enumerate().map(|(i, (request, plain))| {
            let request = request.max_tokens(150).overflow(Overflow::Shift { keep: 9 * i });
            let banned = if i % 2 == 0 { words(plain) } else { Vec::new() };
            banned.into_iter().fold(request, Request::banned_string)
        })
    };
    let options = || EngineOptions::default().session(SessionOptions::new().context_tokens(192));
    let engine = Engine::start(model.clone(), options()).unwrap();
    let streams: Vec<_> = requests().map(|request| engine.submit(request).unwrap()).collect();
    let together: Vec<_> = streams.into_iter().map(|stream| stream.complete().unwrap()).collect();
    for (i, (request, answer)) in requests().zip(&together).enumerate() {
        let text = answer.text.to_lowercase();
        assert!(!request.banned_strings.iter().any(|banned| text.contains(banned)), "answer {i}: {text}");
        assert!(answer.usage.shifted_tokens > 0, "answer {i}");
        let alone = Engine::start(model.clone(), options().prefix_cache(PrefixCacheOptions::disabled()));
        let alone = alone.unwrap().submit(request).unwrap().complete().unwrap();
        assert_eq!((ids(answer), &answer.text), (ids(&alone), &alone.text), "answer {i}");
        assert_eq!(answer.usage.shifted_tokens, alone.usage.shifted_tokens, "answer {i}");
    }
    let stats = engine.stats().scheduler;
    println!("{} tokens taken back, {} context shifts", stats.rewound_tokens, stats.context_shifts);
    assert!(stats.rewound_tokens > 0 && stats.kv_tokens_used == 0, "{stats:?}");
}

/// The tokens of an answer, read again as a prompt, have the log-probabilities that they had when they were
/// drawn.
#[test]
fn log_probabilities_of_a_prompt_are_those_of_the_same_tokens_as_an_answer() {
    let model = model();
    let engine = Engine::start(model.clone(), EngineOptions::default()).unwrap();
    let sampling = SamplingParams::default().seed(5).logprobs(true).top_logprobs(3);
    let prompt: Vec<TokenId> = (0..50).map(|i| 300 + i * 7 % 400).collect();
    let request = Request::tokens(prompt.clone()).max_tokens(90).ignore_eos(true).sampling(sampling);
    let answer = engine.submit(request).unwrap().complete().unwrap();
    let tokens: Vec<_> = prompt.into_iter().chain(ids(&answer)).collect();
    for batch in [11, 64, 512] {
        let session = SessionOptions::new().batch_tokens(batch);
        let engine = Engine::start(model.clone(), EngineOptions::default().session(session)).unwrap();
        let request = Request::tokens(tokens.clone()).max_tokens(1).prompt_logprobs(3);
        let scored = engine.submit(request).unwrap().complete().unwrap().prompt;
        assert_eq!(scored.len(), tokens.len());
        for (scored, drawn) in scored[50..].iter().zip(&answer.tokens) {
            assert_eq!((Some(scored.id), scored.logprob), (drawn.id, drawn.logprob), "batches of {batch}");
            assert_eq!(scored.top_logprobs, drawn.top_logprobs, "batches of {batch}");
        }
    }
}
