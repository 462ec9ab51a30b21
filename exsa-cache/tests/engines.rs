//! Engines with a cache in a folder: answers equal those without it, and a conversation continues after a
//! restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_cache::{CacheKey, CacheOptions, PromptCache};
use exsa_core::backend::{Model, SessionOptions};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions, PromptCacheOptions, Request, SamplingParams, Shutdown, TokenId};
use std::sync::Arc;
use std::time::Duration;
use support::{Folder, tokens};

fn options(cache: &Arc<PromptCache>) -> EngineOptions {
    EngineOptions::default().prompt_cache(PromptCacheOptions::new(cache.clone()).tokens_min(32))
}

fn open(folder: &Folder) -> Arc<PromptCache> {
    let options = CacheOptions::new(folder.path()).key(CacheKey::new([5; 32]));
    Arc::new(PromptCache::open(options).unwrap())
}

/// Requests of three tenants, greedy and seeded, with common prefixes of prompts.
fn requests(prompt: impl Fn(u64) -> Request) -> Vec<Request> {
    (0..12)
        .map(|seed| {
            let sampling = match seed % 2 {
                0 => SamplingParams::greedy(),
                _ => SamplingParams::default().seed(seed),
            };
            let request = prompt(seed).max_tokens(24).ignore_eos(true).sampling(sampling);
            match seed % 3 {
                0 => request,
                tenant => request.cache_salt(format!("tenant {tenant}")),
            }
        })
        .collect()
}

struct Answer {
    tokens: Vec<TokenId>,
    cached: usize,
}

/// All requests at once on a new engine.
fn answers(model: &Arc<dyn Model>, options: EngineOptions, requests: &[Request]) -> Vec<Answer> {
    let engine = Engine::start(model.clone(), options).unwrap();
    let streams: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    let answer = |stream: exsa_core::TokenStream| {
        let answer = stream.complete().unwrap();
        let tokens = answer.tokens.iter().filter_map(|token| token.id).collect();
        Answer { tokens, cached: answer.usage.cached_tokens }
    };
    let answers = streams.into_iter().map(answer).collect();
    engine.shut_down(Shutdown::Drain);
    answers
}

fn answers_are_equal(name: &str, model: &Arc<dyn Model>, session: &SessionOptions, requests: &[Request]) {
    let without = answers(model, EngineOptions::default().session(session.clone()), requests);
    let folder = Folder::new(name);
    for round in 0..3 {
        // Each round is a restart: of the engine, and of the cache.
        let cache = open(&folder);
        let with = answers(model, options(&cache).session(session.clone()), requests);
        for (i, (with, without)) in with.iter().zip(&without).enumerate() {
            assert_eq!(with.tokens, without.tokens, "{name}, round {round}, request {i}");
            assert!(round == 0 || with.cached > 0, "{name}, round {round}, request {i}: nothing was cached");
        }
        let stats = cache.stats();
        assert!(round == 0 || stats.reads > 0, "{name}, round {round}: {stats:?}");
        assert_eq!((stats.read_failures, stats.write_failures, stats.damaged), (0, 0, 0));
    }
}

#[test]
fn answers_of_scripted_models_are_those_without_a_cache() {
    // An error anywhere in a sequence changes the output.
    let model = ScriptedModel::ngram(9).order(usize::MAX);
    let requests = requests(|seed| Request::tokens([tokens(1, 300), tokens(seed, 40)].concat()));
    for (name, model) in [("forks", model.clone()), ("moves", model.without_fork())] {
        answers_are_equal(name, &model.shared(), &SessionOptions::new(), &requests);
    }
}

/// A conversation in a session that can only continue whole entries.
#[test]
fn recurrent_sessions_continue_whole_conversations() {
    let model = ScriptedModel::ngram(9).order(usize::MAX).without_fork().without_truncate().shared();
    let folder = Folder::new("whole");
    let greedy =
        |prompt| Request::tokens(prompt).max_tokens(20).ignore_eos(true).sampling(SamplingParams::greedy());
    let mut prompt = tokens(1, 200);
    for turn in 0..4 {
        let alone = answers(&model, EngineOptions::default(), &[greedy(prompt.clone())]);
        let cache = open(&folder);
        let with = answers(&model, options(&cache), &[greedy(prompt.clone())]);
        assert_eq!(with[0].tokens, alone[0].tokens);
        // All but the last token of the previous answer had been computed.
        let known = if turn == 0 { 0 } else { prompt.len() - 101 };
        assert_eq!(with[0].cached, known, "turn {turn}");
        prompt.extend(&with[0].tokens);
        prompt.extend(tokens(turn + 5, 100));
    }
}

/// Conversations with a common system prompt, in a session that can only continue whole entries.
#[test]
fn recurrent_sessions_start_from_the_end_of_a_common_system_prompt() {
    let model = ScriptedModel::ngram(9).order(usize::MAX).without_fork().without_truncate().shared();
    let folder = Folder::new("common");
    // The first saves multiples of the stride. The second starts there, and saves the position up to which it
    // equals the first, in whole lookup blocks.
    for (user, cached) in [(0, 0), (1, 512), (2, 640), (3, 640)] {
        let prompt = [tokens(1, 700), tokens(user + 5, 100)].concat();
        let greedy =
            Request::tokens(prompt).max_tokens(20).ignore_eos(true).sampling(SamplingParams::greedy());
        let requests = [greedy];
        let alone = answers(&model, EngineOptions::default(), &requests);
        let with = answers(&model, options(&open(&folder)), &requests);
        assert_eq!((&with[0].tokens, with[0].cached), (&alone[0].tokens, cached), "user {user}");
    }
}

#[test]
fn models_share_a_folder_without_confusion() {
    let folder = Folder::new("models");
    let cache = open(&folder);
    let prompt = tokens(1, 300);
    let request =
        Request::tokens(prompt.clone()).max_tokens(20).ignore_eos(true).sampling(SamplingParams::greedy());
    for seed in [1, 2, 1, 2] {
        let model = ScriptedModel::ngram(seed).order(usize::MAX).shared();
        let alone = answers(&model, EngineOptions::default(), std::slice::from_ref(&request));
        let with = answers(&model, options(&cache), std::slice::from_ref(&request));
        assert_eq!(with[0].tokens, alone[0].tokens);
        // Only written entries can be found.
        assert!(cache.flush(Duration::from_secs(60)));
    }
    assert_eq!(cache.stats().reads, 2);
}
