//! Cached prefixes are not recomputed, are reported correctly, and do not change answers.

use super::bare::capabilities;
use super::driver::{Driver, greedy, tokens};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::schedule::kv::{KvManager, KvOptions};
use exsa_core::schedule::prefix::Namespace;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineOptions, Mode, PrefixCacheOptions, TokenId};

fn driver(model: ScriptedModel, prefix_cache: PrefixCacheOptions) -> Driver {
    // Throughput: batches do not depend on what steps cost.
    let options = EngineOptions::default().prefix_cache(prefix_cache).mode(Mode::Throughput);
    Driver::new(model, ManualClock::new(), options)
}

fn cached(model: ScriptedModel) -> Driver {
    driver(model, PrefixCacheOptions::default())
}

fn prompt(parts: &[(u64, usize)]) -> Vec<TokenId> {
    parts.iter().flat_map(|(seed, n)| tokens(*seed, *n)).collect()
}

/// 16 requests that share 512 tokens, with 128 of their own: the shared ones are computed once.
#[test]
fn requests_that_wait_for_one_prefix_compute_it_once() {
    let mut with = cached(ScriptedModel::ngram(7));
    let mut without = driver(ScriptedModel::ngram(7), PrefixCacheOptions::disabled());
    for i in 0..16 {
        with.submit(greedy(prompt(&[(99, 512), (i, 128)]), 64));
        without.submit(greedy(prompt(&[(99, 512), (i, 128)]), 64));
    }
    with.finish();
    without.finish();
    for (a, b) in with.answers.iter().zip(&without.answers) {
        assert_eq!(a.tokens, b.tokens);
        assert_eq!(b.usage.cached_tokens, 0);
    }
    let cached: Vec<_> = with.answers.iter().map(|answer| answer.usage.cached_tokens).collect();
    assert_eq!(cached.iter().filter(|n| **n == 512).count(), 15, "{cached:?}");
    let generated = 16 * 63;
    assert_eq!(with.stats().tokens_computed, 512 + 16 * 128 + generated);
    assert_eq!(without.stats().tokens_computed, 16 * 640 + generated);
    println!(
        "16 requests of 512 shared and 128 own tokens, 64 generated: {} tokens computed in {} steps; without the cache {} in {}",
        with.stats().tokens_computed,
        with.stats().steps,
        without.stats().tokens_computed,
        without.stats().steps
    );
}

#[test]
fn the_next_turn_of_a_conversation_starts_from_the_last_answer() {
    let mut driver = cached(ScriptedModel::ngram(1).kv(4096, 16));
    let first = driver.run(greedy(tokens(1, 100), 60));
    let mut second = tokens(1, 100);
    second.extend(&first.tokens);
    second.extend(tokens(2, 20));
    let answer = driver.run(greedy(second, 10));
    // 159 tokens were computed, of which 9 blocks are whole.
    assert_eq!((answer.usage.prompt_tokens, answer.usage.cached_tokens), (180, 144));
    let stats = driver.stats();
    assert_eq!((stats.scheduler.prompt_tokens, stats.scheduler.cached_tokens), (280, 144));
    assert_eq!(stats.scheduler.kv_tokens_used, 0);
    assert!(stats.scheduler.kv_tokens_cached >= 180);
}

#[test]
fn the_same_prompt_again_computes_its_last_block_only() {
    let mut driver = cached(ScriptedModel::ngram(1));
    let cold = driver.run(greedy(tokens(5, 128), 5));
    let warm = driver.run(greedy(tokens(5, 128), 5));
    assert_eq!((cold.usage.cached_tokens, warm.usage.cached_tokens), (0, 112));
    assert_eq!(cold.tokens, warm.tokens);
}

#[test]
fn salts_keep_prompts_apart() {
    let mut driver = cached(ScriptedModel::ngram(1));
    let mut run = |salt: Option<&str>| {
        let request = greedy(tokens(5, 100), 1);
        let request = if let Some(salt) = salt { request.cache_salt(salt) } else { request };
        driver.run(request).usage.cached_tokens
    };
    assert_eq!([run(None), run(Some("a")), run(Some("b"))], [0, 0, 0]);
    assert_eq!([run(None), run(Some("a")), run(Some("b"))], [96, 96, 96]);
}

/// A KV cache of 40 blocks, and prompts of 12 blocks: the most recently used prefixes are kept.
#[test]
fn the_least_recently_used_goes_first() {
    let mut driver = cached(ScriptedModel::ngram(1).kv(640, 16));
    let mut hit = |seed| driver.run(greedy(tokens(seed, 192), 1)).usage.cached_tokens;
    assert_eq!([hit(1), hit(2), hit(3)], [0, 0, 0]);
    assert_eq!(hit(1), 176);
    // No room for a fourth: 2 was used least recently.
    assert_eq!(hit(4), 0);
    assert_eq!([hit(1), hit(3), hit(4)], [176, 176, 176]);
    assert!(hit(2) < 176);
}

#[test]
fn a_shared_beginning_outlives_what_grew_from_it() {
    let mut driver = cached(ScriptedModel::ngram(1).kv(640, 16));
    for i in 0..20 {
        let answer = driver.run(greedy(prompt(&[(77, 160), (i, 160)]), 1));
        assert_eq!(answer.usage.cached_tokens, if i == 0 { 0 } else { 160 }, "request {i}");
    }
}

#[test]
fn limits_in_tokens_and_bytes_hold() {
    // The scripted model counts 4 bytes of KV for a token.
    for options in [
        PrefixCacheOptions::default().tokens_max(Some(320)),
        PrefixCacheOptions::default().bytes_max(Some(4 * 320)),
    ] {
        let mut driver = driver(ScriptedModel::ngram(1), options);
        for seed in 0..10 {
            driver.run(greedy(tokens(seed, 200), 8));
            assert!(driver.stats().scheduler.kv_tokens_cached <= 320);
        }
        assert!(driver.stats().scheduler.kv_tokens_cached > 200);
    }
}

#[test]
fn without_fork_an_idle_sequence_moves_to_its_next_turn() {
    for (model, second) in [
        (ScriptedModel::ngram(1).without_fork(), 159),
        // Without truncate as well, it has to be a beginning as a whole.
        (ScriptedModel::ngram(1).without_fork().without_truncate(), 159),
    ] {
        let mut driver = cached(model.clone());
        let first = driver.run(greedy(tokens(1, 100), 60));
        let mut next = tokens(1, 100);
        next.extend(&first.tokens);
        next.extend(tokens(2, 20));
        let answer = driver.run(greedy(next.clone(), 10));
        assert_eq!(answer.usage.cached_tokens, second);
        let mut fresh = self::driver(model, PrefixCacheOptions::disabled());
        assert_eq!(fresh.run(greedy(next, 10)).tokens, answer.tokens);
    }
    let mut driver = cached(ScriptedModel::ngram(1).without_fork());
    driver.run(greedy(tokens(1, 100), 60));
    let branch = prompt(&[(1, 100), (9, 50)]);
    assert_eq!(driver.run(greedy(branch, 5)).usage.cached_tokens, 100, "cut where it branches");
    let mut driver = cached(ScriptedModel::ngram(1).without_fork().without_truncate());
    driver.run(greedy(tokens(1, 100), 60));
    let branch = prompt(&[(1, 100), (9, 50)]);
    assert_eq!(driver.run(greedy(branch, 5)).usage.cached_tokens, 0, "it cannot be cut");
}

#[test]
fn a_session_without_sequences_to_spare_still_caches() {
    let session = SessionOptions::new().sequences(1);
    let prefix_cache = PrefixCacheOptions::default().sequences_max(0);
    let options = EngineOptions::default().session(session).prefix_cache(prefix_cache);
    let mut driver = Driver::new(ScriptedModel::ngram(1), ManualClock::new(), options);
    for (seed, expected) in [(1, 0), (1, 96), (2, 0), (1, 0)] {
        assert_eq!(driver.run(greedy(tokens(seed, 100), 4)).usage.cached_tokens, expected);
    }
}

/// Usage, counters and the tokens actually computed by the session agree over many requests with common
/// prefixes.
#[test]
fn cached_tokens_are_those_that_were_not_computed() {
    let mut driver = cached(ScriptedModel::ngram(3).kv(1 << 15, 16));
    for i in 0..200u64 {
        let shared = (i % 7 * 37) as usize;
        driver.submit(greedy(prompt(&[(i % 5, shared), (1000 + i, 20)]), 1 + i as usize % 9));
        if i % 3 == 0 {
            driver.step();
        }
    }
    driver.finish();
    assert_eq!(driver.stats().scheduler.preemptions, 0);
    let sum = |of: fn(&exsa_core::finish::Usage) -> usize| {
        driver.answers.iter().map(|answer| of(&answer.usage) as u64).sum::<u64>()
    };
    let (prompts, cached) = (sum(|usage| usage.prompt_tokens), sum(|usage| usage.cached_tokens));
    let generated = sum(|usage| usage.completion_tokens - 1);
    assert_eq!(driver.stats().tokens_computed, prompts - cached + generated);
    assert_eq!(
        (driver.stats().scheduler.prompt_tokens, driver.stats().scheduler.cached_tokens),
        (prompts, cached)
    );
    println!("{cached} of {prompts} prompt tokens cached");
    assert!(cached * 2 > prompts);
}

#[test]
fn blocks_that_a_release_leaves_to_idle_sequences_count_against_the_limit() {
    let prefix = PrefixCacheOptions::default().tokens_max(8);
    let mut kv = KvManager::new(&capabilities(64, 4, 4), &KvOptions { prefix, bytes_per_token: 1 });
    let (namespace, shared) = (Namespace::default(), tokens(1, 8));
    let (first, _) = kv.admit(None).unwrap();
    assert!(kv.grow(first, 8));
    kv.cache(first, &namespace, &shared);
    // The second request uses the cached blocks, so that there is room for others in the cache.
    let longer = [shared.clone(), tokens(2, 4)].concat();
    let (second, held) = kv.admit(kv.find(&namespace, &longer)).unwrap();
    assert!(held == 8 && kv.grow(second, 12));
    let (third, _) = kv.admit(None).unwrap();
    assert!(kv.grow(third, 8));
    kv.cache(third, &namespace, &tokens(3, 8));
    assert_eq!(kv.blocks().blocks_cached(), 2);
    kv.release(second);
    kv.check().unwrap();
    assert_eq!(kv.blocks().blocks_cached(), 2, "four, if nothing were evicted");
}
