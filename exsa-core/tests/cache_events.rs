//! Events of the prefix cache: their reader knows how much of a prompt is cached.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::cache_events::{BlockHash, CacheEvent, CacheEvents};
use exsa_core::clock::ManualClock;
use exsa_core::engine::EngineLoop;
use exsa_core::queue::FairQueue;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions, PrefixCacheOptions, Request, SamplingParams, Shutdown, TokenId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const BLOCK: usize = 16;
const BYTES_MAX: usize = 1 << 20;

/// A router's view of one engine.
#[derive(Debug, Default)]
struct Router {
    blocks: HashMap<BlockHash, Vec<TokenId>>,
    cleared: usize,
    removed: usize,
}

impl Router {
    fn read(&mut self, events: Vec<CacheEvent>) {
        for event in events {
            match event {
                CacheEvent::Stored(stored) => {
                    assert_eq!((stored.block_tokens, stored.adapter.as_deref()), (BLOCK, None));
                    let parent =
                        stored.parent.map(|parent| self.blocks.get(&parent).expect("a known parent").clone());
                    let mut tokens = parent.unwrap_or_default();
                    for (hash, block) in stored.hashes.iter().zip(stored.tokens.chunks(BLOCK)) {
                        tokens.extend_from_slice(block);
                        assert!(self.blocks.insert(*hash, tokens.clone()).is_none(), "stored twice");
                    }
                }
                CacheEvent::Removed(hashes) => {
                    self.removed += hashes.len();
                    for hash in hashes {
                        assert!(self.blocks.remove(&hash).is_some(), "removed but never stored");
                    }
                }
                CacheEvent::Cleared => {
                    self.cleared += 1;
                    self.blocks.clear();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Tokens of `prompt` in cached blocks, without the last token, whose logits are needed.
    fn cached(&self, prompt: &[TokenId]) -> usize {
        let most = (prompt.len() - 1) / BLOCK;
        let is_known = |n: &usize| self.blocks.values().any(|tokens| *tokens == prompt[..n * BLOCK]);
        (1..=most).take_while(is_known).count() * BLOCK
    }
}

fn engine_loop(model: ScriptedModel, options: EngineOptions) -> EngineLoop {
    let clock = Arc::new(ManualClock::new());
    EngineLoop::new(model.shared(), options, Box::new(FairQueue::default()), clock).unwrap()
}

fn request(prompt: &[TokenId], tokens: usize) -> Request {
    let sampling = SamplingParams::greedy();
    Request::tokens(prompt.to_vec()).max_tokens(tokens).ignore_eos(true).sampling(sampling)
}

fn prompt(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

/// Runs a request to its end and returns how many of its tokens were cached.
fn run(engine: &mut EngineLoop, prompt: &[TokenId]) -> usize {
    let stream = engine.submit(request(prompt, 5)).unwrap();
    while engine.step() {}
    stream.complete().unwrap().usage.cached_tokens
}

fn drain(events: &mut CacheEvents, router: &mut Router) {
    router.read(events.wait(Duration::ZERO).unwrap());
}

/// Prompts of a few families with common prefixes; a simple number generator simulates users.
fn prompts(count: usize, family: usize) -> Vec<Vec<TokenId>> {
    let mut state = 7_u64;
    let mut below = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let text = |family: u64, len: u64| {
        let letters = (0..len).map(move |i| b'a' + ((i * (family + 3) + family) % 26) as u8);
        letters.map(TokenId::from).collect::<Vec<_>>()
    };
    let made = (0..count).map(|_| {
        let mut prompt = text(below(family as u64), 20 + below(100));
        prompt.extend(text(50 + below(4), 1 + below(40)));
        prompt
    });
    made.collect()
}

#[test]
fn a_router_knows_what_the_engine_will_find() {
    for fork in [true, false] {
        let model = ScriptedModel::ngram(3).kv(800, BLOCK);
        let model = if fork { model } else { model.without_fork() };
        let mut options = EngineOptions::default();
        options.session.sequences_max = 4;
        let mut engine = engine_loop(model, options);
        let (mut events, mut router) = (engine.watch_cache(BYTES_MAX), Router::default());
        engine.step();
        let mut found = 0;
        for prompt in prompts(200, 6) {
            drain(&mut events, &mut router);
            let expected = router.cached(&prompt);
            let cached = run(&mut engine, &prompt);
            if fork {
                assert_eq!(cached, expected);
            } else {
                // A sequence moves with its last block, which is not whole, or stays because little of it
                // matches.
                assert!(cached < expected + BLOCK, "{cached} of {expected}");
            }
            found += cached;
        }
        drain(&mut events, &mut router);
        assert!(
            found > 1000 && router.removed > 100,
            "{found} tokens found, {} blocks removed",
            router.removed
        );
        assert_eq!((events.resets(), router.cleared), (0, 1));
        assert_eq!(engine.scheduler().check(), Ok(()));
    }
}

#[test]
fn events_while_requests_run_together_are_consistent() {
    let model = ScriptedModel::ngram(3).kv(640, BLOCK);
    let mut engine = engine_loop(model, EngineOptions::default());
    let (mut events, mut router) = (engine.watch_cache(BYTES_MAX), Router::default());
    for group in prompts(60, 4).chunks(6) {
        let streams: Vec<_> =
            group.iter().map(|prompt| engine.submit(request(prompt, 40)).unwrap()).collect();
        while engine.step() {
            drain(&mut events, &mut router);
            assert_eq!(engine.scheduler().check(), Ok(()));
        }
        for stream in streams {
            stream.complete().unwrap();
        }
    }
    assert!(router.removed > 100 && !router.blocks.is_empty(), "{} removed", router.removed);
}

#[test]
fn a_slow_reader_gets_all_blocks_anew() {
    let mut engine = engine_loop(ScriptedModel::ngram(3).kv(800, BLOCK), EngineOptions::default());
    let (mut events, mut router) = (engine.watch_cache(600), Router::default());
    engine.step();
    drain(&mut events, &mut router);
    for prompt in prompts(40, 6) {
        run(&mut engine, &prompt);
    }
    assert_eq!(events.resets(), 1, "dropped events are not recorded further");
    // The reader asks, the engine answers with its next step.
    router.read(events.wait(Duration::ZERO).unwrap());
    assert_eq!(router.cleared, 1);
    engine.step();
    drain(&mut events, &mut router);
    assert_eq!(router.cleared, 2);
    for prompt in prompts(40, 6).iter().skip(30) {
        let expected = router.cached(prompt);
        assert_eq!(run(&mut engine, prompt), expected);
        drain(&mut events, &mut router);
    }
}

#[test]
fn a_later_reader_takes_over_and_the_end_is_told() {
    let engine = Engine::start(ScriptedModel::echo("abc").shared(), EngineOptions::default()).unwrap();
    let long = prompt(&"all work and no play makes a dull boy ".repeat(3));
    engine.submit(request(&long, 2)).unwrap().complete().unwrap();
    let mut first = engine.watch_cache(BYTES_MAX);
    let mut router = Router::default();
    while router.blocks.is_empty() {
        router.read(first.wait(Duration::from_secs(20)).unwrap());
    }
    assert_eq!(router.cached(&long), (long.len() - 1) / BLOCK * BLOCK);
    let mut second = engine.watch_cache(BYTES_MAX);
    let mut later = Router::default();
    while later.blocks.is_empty() {
        later.read(second.wait(Duration::from_secs(20)).unwrap());
    }
    assert_eq!(later.blocks, router.blocks);
    assert_eq!(first.wait(Duration::from_secs(20)), None);
    engine.shut_down(Shutdown::Drain);
    while let Some(events) = second.wait(Duration::from_secs(20)) {
        later.read(events);
    }
    assert_eq!(engine.watch_cache(BYTES_MAX).wait(Duration::from_secs(20)), None);
}

#[test]
fn salts_are_told_and_tokens_are_not_in_debug_output() {
    let mut engine = engine_loop(ScriptedModel::echo("abc"), EngineOptions::default());
    let mut events = engine.watch_cache(BYTES_MAX);
    let long = prompt("a secret that only these two may see");
    let salted = engine.submit(request(&long, 1).cache_salt("tenant")).unwrap();
    let plain = engine.submit(request(&long, 1)).unwrap();
    while engine.step() {}
    salted.complete().unwrap();
    plain.complete().unwrap();
    let told = events.wait(Duration::ZERO).unwrap();
    assert!(!format!("{told:?}").contains(&format!("{}, {}", long[2], long[3])), "{told:?}");
    let stored = told.into_iter().filter_map(|event| match event {
        CacheEvent::Stored(stored) => Some(stored),
        _ => None,
    });
    let stored: Vec<_> = stored.collect();
    let mut salts: Vec<_> = stored.iter().map(|stored| stored.salt.as_deref()).collect();
    salts.sort_unstable();
    assert_eq!(salts, [None, Some("tenant")]);
    assert_eq!(stored[0].tokens, stored[1].tokens);
    assert_ne!(stored[0].hashes, stored[1].hashes);
}

#[test]
fn nothing_is_recorded_without_a_cache_or_a_reader() {
    let options = EngineOptions::default();
    let mut engine =
        engine_loop(ScriptedModel::echo("abc"), options.clone().prefix_cache(PrefixCacheOptions::disabled()));
    let mut events = engine.watch_cache(BYTES_MAX);
    run(&mut engine, &prompt(&"abc".repeat(30)));
    assert_eq!(events.wait(Duration::ZERO), Some(vec![CacheEvent::Cleared]));
    let mut engine = engine_loop(ScriptedModel::echo("abc"), options);
    drop(engine.watch_cache(BYTES_MAX));
    run(&mut engine, &prompt(&"abc".repeat(30)));
    assert_eq!(engine.scheduler().check(), Ok(()));
}
