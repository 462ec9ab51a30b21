//! The prompt store: prompts that were answered before a restart are not recomputed, and a slow or faulty
//! store costs at most time.

use super::driver::{Driver, costly, greedy, tokens};
use super::stores::{Kind, MemoryStore};
use exsa_core::clock::ManualClock;
use exsa_core::engine::Shutdown;
use exsa_core::finish::FinishReason;
use exsa_core::prompt_cache::PromptMemory;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineOptions, Mode, PromptCacheOptions, Request, TokenId};
use std::sync::Arc;
use std::time::Duration;

const COLD: Duration = Duration::from_secs(20);

fn options(store: &MemoryStore) -> EngineOptions {
    EngineOptions::default().prompt_cache(PromptCacheOptions::new(Arc::new(store.clone())))
}

/// An engine after a restart, with the store that is left.
fn start(model: &ScriptedModel, store: &MemoryStore, clock: &ManualClock) -> Driver {
    Driver::new(costly(model.clone(), clock), clock.clone(), options(store))
}

/// Runs `request` on a new engine and ends it, so that its prompt is saved.
fn answer_and_end(model: &ScriptedModel, store: &MemoryStore, clock: &ManualClock, request: Request) {
    let mut driver = start(model, store, clock);
    driver.run(request);
    driver.engine.end_all(&FinishReason::Cancelled);
}

fn conversation(seed: u64, answer: &[TokenId], more: usize) -> Vec<TokenId> {
    [tokens(seed, 400), answer.to_vec(), tokens(seed + 1, more)].concat()
}

#[test]
fn a_conversation_goes_on_after_a_restart_without_computing_its_prompt() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    for (what, model) in [
        ("forks", model.clone()),
        ("moves", model.clone().without_fork()),
        ("cannot truncate", model.clone().without_fork().without_truncate()),
    ] {
        let clock = ManualClock::new();
        let store = MemoryStore::new(Kind::Fast, &clock);
        let mut driver = start(&model, &store, &clock);
        let first = driver.run(greedy(tokens(7, 400), 50));
        driver.engine.end_all(&FinishReason::Cancelled);
        let checkpoints: &[usize] = if what == "cannot truncate" { &[256] } else { &[] };
        assert_eq!(store.lengths(), [checkpoints, &[449]].concat(), "{what}");

        let prompt = conversation(7, &first.tokens, 30);
        let alone = Driver::new(costly(model.clone(), &clock), clock.clone(), EngineOptions::default())
            .run(greedy(prompt.clone(), 50));
        let mut driver = start(&model, &store, &clock);
        let again = driver.run(greedy(prompt, 50));
        assert_eq!(again.tokens, alone.tokens, "{what}");
        let cached = if what == "forks" { 448 } else { 449 };
        assert_eq!(again.usage.cached_tokens, cached, "{what}");
        let stats = driver.stats();
        assert_eq!((stats.prompt_cache.restored, stats.prompt_cache.restored_tokens), (1, 449), "{what}");
        assert_eq!(stats.scheduler.prompt_reads_awaited, 1);
        assert!(stats.tokens_computed < 90, "{what}: {}", stats.tokens_computed);
    }
}

#[test]
fn an_entry_is_used_in_part_or_from_a_checkpoint() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    for (what, model, cached) in [
        ("forks", model.clone(), 304),
        ("moves", model.clone().without_fork(), 304),
        ("cannot truncate", model.clone().without_fork().without_truncate(), 256),
    ] {
        let clock = ManualClock::new();
        let store = MemoryStore::new(Kind::Fast, &clock);
        answer_and_end(&model, &store, &clock, greedy(tokens(7, 900), 10));
        // A third of the entry.
        let prompt = [&tokens(7, 900)[..304], &tokens(8, 50)].concat();
        let alone = Driver::new(costly(model.clone(), &clock), clock.clone(), EngineOptions::default())
            .run(greedy(prompt.clone(), 20));
        let answer = start(&model, &store, &clock).run(greedy(prompt, 20));
        assert_eq!(answer.tokens, alone.tokens, "{what}");
        assert_eq!(answer.usage.cached_tokens, cached, "{what}");
    }
}

/// A model whose sequences can only be continued, and its answer to a system prompt of 600 tokens and a
/// user's message, alone.
fn recurrent(clock: &ManualClock) -> (ScriptedModel, impl Fn(u64) -> (Request, Vec<TokenId>)) {
    let model = ScriptedModel::ngram(3).order(usize::MAX).kv(8192, 16).without_fork().without_truncate();
    let (alone, clock) = (model.clone(), clock.clone());
    let ask = move |user: u64| {
        let request = greedy([tokens(7, 600), tokens(user, 100)].concat(), 20);
        let mut driver = Driver::new(costly(alone.clone(), &clock), clock.clone(), EngineOptions::default());
        let expected = driver.run(request.clone()).tokens.clone();
        (request, expected)
    };
    (model, ask)
}

#[test]
fn conversations_of_a_recurrent_model_start_from_the_end_of_their_system_prompt() {
    let clock = ManualClock::new();
    let (model, ask) = recurrent(&clock);
    let store = MemoryStore::new(Kind::Fast, &clock);
    let mut driver = start(&model, &store, &clock);
    for (user, cached, lengths) in [
        // Multiples of the stride.
        (11, 0, &[256, 512][..]),
        // The place where it departs from the first.
        (12, 512, &[256, 512, 600]),
        (13, 600, &[256, 512, 600]),
    ] {
        let (request, expected) = ask(user);
        let answer = driver.run(request);
        assert_eq!((&answer.tokens, answer.usage.cached_tokens), (&expected, cached), "user {user}");
        assert_eq!(store.lengths(), lengths, "user {user}");
    }
    // After a restart too.
    let (request, expected) = ask(14);
    let answer = start(&model, &store, &clock).run(request);
    assert_eq!((&answer.tokens, answer.usage.cached_tokens), (&expected, 600));
}

#[test]
fn checkpoints_are_kept_in_memory() {
    let clock = ManualClock::new();
    let (model, ask) = recurrent(&clock);
    let store = Arc::new(PromptMemory::new(1 << 20));
    let cache = PromptCacheOptions::new(store.clone());
    let options = EngineOptions::default().prompt_cache(cache);
    let mut driver = Driver::new(costly(model, &clock), clock.clone(), options);
    for (user, cached) in [(11, 0), (12, 512), (13, 600), (14, 600)] {
        let (request, expected) = ask(user);
        let answer = driver.run(request);
        assert_eq!((&answer.tokens, answer.usage.cached_tokens), (&expected, cached), "user {user}");
    }
    assert_eq!(store.len(), 3);
}

#[test]
fn each_of_several_conversations_at_once_starts_from_a_checkpoint() {
    let clock = ManualClock::new();
    let (model, ask) = recurrent(&clock);
    let store = MemoryStore::new(Kind::Fast, &clock);
    let mut driver = start(&model, &store, &clock);
    driver.run(ask(11).0);
    let asked: Vec<_> = (12..15).map(&ask).collect();
    let numbers: Vec<_> = asked.iter().map(|(request, _)| driver.submit(request.clone())).collect();
    driver.finish();
    for (number, (_, expected)) in numbers.into_iter().zip(&asked) {
        let answer = &driver.answers[number];
        assert_eq!((&answer.tokens, answer.usage.cached_tokens), (expected, 512));
    }
    assert_eq!(driver.stats().prompt_cache.restored, 3);
}

#[test]
fn checkpoints_are_few_and_do_not_pause_streams() {
    let clock = ManualClock::new();
    let (model, _) = recurrent(&clock);
    for (distance, lengths) in [(256, &[1024, 2048, 3000][..]), (usize::MAX, &[3000])] {
        let store = MemoryStore::new(Kind::Fast, &clock);
        let cache = PromptCacheOptions::new(Arc::new(store.clone())).checkpoint_tokens(distance);
        let mut driver = Driver::new(
            costly(model.clone(), &clock),
            clock.clone(),
            EngineOptions::default().prompt_cache(cache),
        );
        driver.run(greedy(tokens(1, 3000), 1));
        driver.engine.end_all(&FinishReason::Cancelled);
        assert_eq!(store.lengths(), lengths, "{distance}");
    }
    // As in the test of cold prefixes, 256 tokens take a microsecond.
    for (target, saved) in [(Duration::from_micros(1), 0), (Duration::from_micros(3), 1)] {
        let store = MemoryStore::new(Kind::Fast, &clock);
        let options = options(&store).inter_token_target(target).mode(Mode::Balanced);
        let mut driver = Driver::new(costly(model.clone(), &clock), clock.clone(), options);
        driver.submit(greedy(tokens(2, 20), 2000));
        driver.step();
        let long = driver.submit(greedy(tokens(1, 300), 1));
        while driver.answers[long].reason.is_none() {
            driver.step();
        }
        assert_eq!(store.len(), saved, "{target:?}");
    }
}

#[test]
fn salts_keep_entries_apart() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    answer_and_end(&model, &store, &clock, greedy(tokens(7, 400), 10).cache_salt("ann"));
    for (salt, cached) in [("bob", 0), ("", 0), ("ann", 384)] {
        let answer = start(&model, &store, &clock).run(greedy(tokens(7, 400), 10).cache_salt(salt));
        assert_eq!(answer.usage.cached_tokens, cached, "'{salt}'");
    }
    let answer = start(&model, &store, &clock).run(greedy(tokens(7, 400), 10));
    assert_eq!(answer.usage.cached_tokens, 0);
}

#[test]
fn prefixes_are_saved_when_they_are_cold_and_before_they_are_evicted() {
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    let model = ScriptedModel::ngram(3).kv(1024, 16);
    let mut driver = start(&model, &store, &clock);
    driver.run(greedy(tokens(1, 300), 10));
    driver.step();
    assert_eq!(store.len(), 0, "it may be wanted again soon");
    assert_eq!(driver.engine.until_wakeup(), Some(COLD));
    clock.advance(COLD);
    assert!(driver.step());
    assert_eq!(store.lengths(), [309]);
    assert_eq!(driver.engine.until_wakeup(), None, "once is enough");
    // Two prompts that need the room of a third, which was not written yet.
    driver.run(greedy(tokens(2, 400), 10));
    driver.run(greedy(tokens(3, 400), 10));
    driver.run(greedy(tokens(4, 400), 10));
    assert_eq!(store.lengths(), [309, 409]);
    // The store has it, so its room is given away without another save.
    driver.run(greedy(tokens(1, 300), 10));
    clock.advance(COLD);
    while driver.step() {}
    assert_eq!(store.lengths().iter().filter(|len| **len == 309).count(), 1);
}

#[test]
fn saving_does_not_pause_streams_beyond_half_of_the_target() {
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    let model = ScriptedModel::ngram(3).kv(8192, 16);
    // A gigabyte a second is assumed, so that the four bytes of each of 309 tokens take 1.2 us.
    for (target, saved) in [(Duration::from_micros(2), 0), (Duration::from_micros(3), 1)] {
        let options = options(&store).inter_token_target(target).mode(Mode::Balanced);
        let mut driver = Driver::new(costly(model.clone(), &clock), clock.clone(), options);
        driver.run(greedy(tokens(1, 300), 10));
        let before = store.len();
        driver.submit(greedy(tokens(2, 20), 3000));
        for _ in 0..2000 {
            driver.step();
            clock.advance(Duration::from_millis(20));
        }
        assert_eq!(store.len() - before, saved, "{target:?}");
    }
}

#[test]
fn a_read_lets_other_requests_go_on() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    answer_and_end(&model, &store, &clock, greedy(tokens(7, 400), 10));
    let slow = store.behaving(Kind::Slow);
    let mut driver = start(&model, &slow, &clock);
    // A first measurement: a token costs about 1 ms, so that the wait is 400 ms at most.
    driver.run(greedy(tokens(9, 200), 2));
    let waits = [driver.submit(greedy(tokens(7, 400), 5)), driver.submit(greedy(tokens(7, 400), 5))];
    let other = driver.submit(greedy(tokens(8, 100), 5));
    while driver.answers[other].reason.is_none() {
        driver.step();
    }
    assert!(waits.iter().all(|i| driver.answers[*i].tokens.is_empty()), "they wait");
    clock.advance(Duration::from_millis(200));
    slow.tick();
    driver.finish();
    for i in waits {
        assert_eq!((driver.answers[i].tokens.len(), driver.answers[i].usage.cached_tokens), (5, 384));
    }
    let stats = driver.stats();
    assert_eq!(stats.prompt_cache.restored, 1, "one read serves both");
    assert_eq!((stats.scheduler.prompt_reads_awaited, stats.scheduler.prompt_reads_late), (2, 0));
}

#[test]
fn a_stalled_read_ends_the_wait_after_the_time_of_computing() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    answer_and_end(&model, &store, &clock, greedy(tokens(7, 400), 10));
    let slow = store.behaving(Kind::Slow);
    let mut driver = start(&model, &slow, &clock);
    driver.run(greedy(tokens(9, 200), 2));
    let begun = exsa_core::clock::Clock::now(&clock);
    // The reply is never sent, since nothing ticks the store.
    let answer = driver.run(greedy(tokens(7, 400), 5));
    let first = answer.times[0] - begun;
    // 400 ms to wait for and as much to compute.
    assert!(first > Duration::from_millis(600) && first < Duration::from_millis(1100), "{first:?}");
    assert_eq!(driver.stats().scheduler.prompt_reads_late, 1);
    // A later arrival is not restored, and harms nothing.
    clock.advance(Duration::from_secs(1));
    slow.tick();
    driver.step();
    assert_eq!(driver.stats().prompt_cache.unused, 1);
}

#[test]
fn reading_must_be_cheaper_than_computing() {
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    for seed in 0..4 {
        answer_and_end(&model, &store, &clock, greedy(tokens(seed, 400), 10));
    }
    // Tokens cost nothing: after the first measurement, no read can be cheaper.
    let mut driver = Driver::new(model, clock.clone(), options(&store));
    driver.run(greedy(tokens(20, 200), 2));
    let answer = driver.run(greedy(tokens(1, 400), 5));
    assert_eq!((answer.usage.cached_tokens, driver.stats().scheduler.prompt_reads_awaited), (0, 0));
}

#[test]
fn a_request_that_ends_while_it_waits_leaves_nothing_behind() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    answer_and_end(&model, &store, &clock, greedy(tokens(7, 400), 10));
    let slow = store.behaving(Kind::Slow);
    let mut driver = start(&model, &slow, &clock);
    let request = greedy(tokens(7, 400), 5).timeout(Duration::from_millis(10));
    let waits = driver.submit(request);
    driver.step();
    assert_eq!(driver.stats().scheduler.waiting, 1);
    clock.advance(Duration::from_millis(10));
    driver.step();
    assert_eq!(driver.answers[waits].reason, Some(FinishReason::Deadline));
    assert_eq!(driver.stats().scheduler.waiting, 0);
    clock.advance(Duration::from_secs(1));
    slow.tick();
    while driver.step() {}
    assert_eq!(driver.stats().prompt_cache.unused, 1);
    assert!(driver.engine.is_empty());
}

#[test]
fn an_engine_with_a_thread_saves_at_shutdown_and_on_demand() {
    let model = ScriptedModel::ngram(3).kv(4096, 16);
    let clock = ManualClock::new();
    let store = MemoryStore::new(Kind::Fast, &clock);
    let engine = exsa_core::Engine::start(model.clone().shared(), options(&store)).unwrap();
    engine.submit(greedy(tokens(7, 400), 10)).unwrap().complete().unwrap();
    assert_eq!(engine.save_prompts(Duration::from_secs(20)), Some(1));
    assert_eq!(engine.save_prompts(Duration::from_secs(20)), Some(0));
    engine.submit(greedy(tokens(8, 400), 10)).unwrap().complete().unwrap();
    engine.shut_down(Shutdown::Drain);
    assert_eq!(store.lengths(), [409, 409]);
    assert_eq!(engine.save_prompts(Duration::from_secs(20)), None, "it has ended");

    let engine = exsa_core::Engine::start(model.shared(), options(&store)).unwrap();
    let answer = engine.submit(greedy(tokens(8, 400), 10)).unwrap().complete().unwrap();
    assert_eq!(answer.usage.cached_tokens, 384);
}
