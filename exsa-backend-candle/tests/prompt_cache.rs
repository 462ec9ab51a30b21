//! Engines on the built-in model with a prompt cache in a folder: answers are those without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_cache::{CacheKey, CacheOptions, PromptCache};
use exsa_core::backend::{KvType, Model, SessionOptions};
use exsa_core::prompt_cache::{PromptKey, PromptStore};
use exsa_core::{Engine, EngineOptions, PromptCacheOptions, Request, SamplingParams, Shutdown, TokenId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play in the garden with her dog. \
One day, Lily and her dog found a big red box behind the old tree. The box was closed, and there was a small key on it. \
Lily took the key and looked at her dog. \"What is in the box?\" she asked. The dog barked and ran around the tree. ";

fn model() -> Arc<dyn Model> {
    support::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")))
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("exsa-candle-cache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Path) -> Arc<PromptCache> {
    Arc::new(PromptCache::open(CacheOptions::new(folder).key(CacheKey::new([5; 32]))).unwrap())
}

fn options(cache: &Arc<PromptCache>) -> EngineOptions {
    EngineOptions::default().prompt_cache(PromptCacheOptions::new(cache.clone()).tokens_min(32))
}

/// Requests of three tenants, greedy and seeded, whose prompts begin alike.
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
        let cache = open(&folder.0);
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
fn answers_of_candle_are_those_without_a_cache() {
    let model = model();
    let requests = requests(|seed| Request::text(format!("{STORY}{STORY}The dog found {seed}")));
    for (name, session) in
        [("f16", SessionOptions::new()), ("q8_0", SessionOptions::new().kv_types(KvType::Q8_0, KvType::Q8_0))]
    {
        answers_are_equal(name, &model, &session, &requests);
    }
}

#[test]
fn a_system_prompt_is_pinned_by_a_host() {
    let folder = Folder::new("pin");
    let cache = open(&folder.0);
    let engine = Engine::start(model(), options(&cache)).unwrap();
    let system = Request::text(format!("{STORY}{STORY}")).max_tokens(1).cache_salt("documents");
    engine.submit(system.clone()).unwrap().complete().unwrap();
    assert_eq!(engine.save_prompts(Duration::from_secs(60)), Some(1));
    assert!(cache.flush(Duration::from_secs(60)));
    let tokens = engine.prompt_tokens(&system).unwrap();
    let key = PromptKey::new(engine.info().fingerprint, &tokens).salt("documents");
    let found = cache.find(&key, false).unwrap();
    assert!(found.tokens + 64 > tokens.len(), "{found:?} of {} tokens", tokens.len());
    cache.pin(found.entry, true).unwrap();
    assert!(cache.list()[0].pinned);
}
