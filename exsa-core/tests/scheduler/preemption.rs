//! Preempted streams continue with the same tokens as without preemption.

use super::driver::{Driver, costly, greedy, tokens};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineOptions, Mode, PrefixCacheOptions, Priority, Request};

fn requests() -> Vec<Request> {
    (0..12)
        .map(|seed| {
            let sampling = SamplingParams::default().seed(seed);
            let request = greedy(tokens(seed, 20 + seed as usize * 3), 80);
            if seed % 2 == 0 { request } else { request.sampling(sampling) }
        })
        .collect()
}

fn answers(options: EngineOptions, model: ScriptedModel) -> Driver {
    // Computing takes time and saving takes none, so that it pays.
    let clock = ManualClock::new();
    let mut driver = Driver::new(costly(model, &clock), clock, options);
    requests().into_iter().for_each(|request| {
        driver.submit(request);
    });
    driver.finish();
    driver
}

/// KV for about four of twelve answers.
#[test]
fn kv_pressure_changes_no_token() {
    let undisturbed = answers(EngineOptions::default(), ScriptedModel::ngram(5));
    assert_eq!(undisturbed.stats().scheduler.preemptions, 0);
    let tight = ScriptedModel::ngram(5).kv(448, 8);
    for (what, saved_kv_bytes_max, cache, model) in [
        ("saved", 1 << 20, true, tight.clone()),
        ("computed again", 0, true, tight.clone()),
        ("saved, no cache", 1 << 20, false, tight.clone()),
        ("computed again, no cache", 0, false, tight.clone()),
        (
            "no save, fork or truncate",
            1 << 20,
            true,
            tight.clone().without_save().without_fork().without_truncate(),
        ),
    ] {
        let prefix_cache = if cache { PrefixCacheOptions::default() } else { PrefixCacheOptions::disabled() };
        let options = EngineOptions::default()
            .mode(Mode::Throughput)
            .saved_kv_bytes_max(saved_kv_bytes_max)
            .prefix_cache(prefix_cache);
        let driver = answers(options, model);
        for (a, b) in driver.answers.iter().zip(&undisturbed.answers) {
            assert_eq!(a.tokens, b.tokens, "{what}");
        }
        let stats = driver.stats();
        println!(
            "{what}: {} preemptions, {} saved; {} tokens computed, {} undisturbed",
            stats.scheduler.preemptions,
            stats.scheduler.preemptions_saved,
            stats.tokens_computed,
            undisturbed.stats().tokens_computed
        );
        assert!(stats.scheduler.preemptions > 0, "{what}");
        assert_eq!(stats.scheduler.preemptions_saved > 0, what.starts_with("saved"), "{what}");
        assert!(driver.answers.iter().all(|answer| answer.tokens.len() == 80));
    }
}

#[test]
fn a_more_urgent_request_takes_the_newest_of_the_least_urgent() {
    let session = SessionOptions::new().sequences(3);
    for prefix_cache in [PrefixCacheOptions::default(), PrefixCacheOptions::disabled()] {
        let options = EngineOptions::default().session(session.clone()).prefix_cache(prefix_cache);
        let clock = ManualClock::new();
        let mut driver = Driver::new(costly(ScriptedModel::ngram(5), &clock), clock, options);
        let request = |seed| greedy(tokens(seed, 40), 60);
        let normal = driver.submit(request(1));
        let batch = [2, 3].map(|seed| driver.submit(request(seed).priority(Priority::Batch)));
        for _ in 0..20 {
            driver.step();
        }
        let urgent = driver.submit(greedy(tokens(4, 40), 10).priority(Priority::Interactive));
        for _ in 0..11 {
            driver.step();
        }
        assert_eq!(driver.answers[urgent].tokens.len(), 10, "it did not wait");
        assert!(driver.answers[batch[1]].tokens.len() < driver.answers[batch[0]].tokens.len());
        assert_eq!(driver.stats().scheduler.preemptions, 1);
        driver.finish();
        let mut alone = Driver::new(ScriptedModel::ngram(5), ManualClock::new(), EngineOptions::default());
        for (seed, i) in [(1, normal), (2, batch[0]), (3, batch[1])] {
            assert_eq!(driver.answers[i].tokens, alone.run(request(seed)).tokens);
        }
        // The tokens that it had computed are still there, but for the rest of a block, or are restored.
        assert!(driver.stats().tokens_computed <= 3 * 99 + 49 + 16, "{}", driver.stats().tokens_computed);
    }
}
