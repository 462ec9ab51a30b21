//! The engine is never idle while a request could run.

use super::bare::{Bare, Random, capabilities};
use exsa_core::schedule::SchedulerOptions;
use exsa_core::{Mode, Priority};

#[test]
fn no_step_is_idle_while_a_request_is_here() {
    let (mut steps, mut preemptions, mut cached) = (0, 0, 0);
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let kv = random.within(48, 400);
        let options = SchedulerOptions {
            batch_tokens_max: random.within(1, 64),
            running_max: random.within(1, 8),
            mode: [Mode::Latency, Mode::Throughput, Mode::Balanced][random.within(0, 2)],
            kv_bytes_per_token: 4,
            saved_bytes_max: random.within(0, 1000) as u64,
            ..SchedulerOptions::default()
        };
        let mut capabilities =
            capabilities(kv, random.within(1, 6), options.running_max + random.within(0, 3));
        (capabilities.fork, capabilities.truncate) = (random.chance(70), random.chance(70));
        let mut bare = Bare::new(&capabilities, options);
        let stem: Vec<u32> = (1000..1030).collect();
        for _ in 0..random.within(10, 120) {
            for _ in 0..random.within(0, 2) {
                let prompt = random.within(1, 35);
                let mut tokens = stem[..random.within(0, prompt.min(30))].to_vec();
                tokens.extend((tokens.len()..prompt).map(|_| random.within(0, 99) as u32));
                let priority = Priority::ALL[random.within(0, 2)];
                bare.submit_tokens(random.within(0, 3) as u64, priority, tokens, random.within(1, 5));
            }
            let ran = bare.step() || bare.live.is_empty();
            assert!(
                ran,
                "seed {seed}: idle with {} requests: {:?}",
                bare.live.len(),
                bare.scheduler.last_plan()
            );
            steps += 1;
        }
        for _ in 0..100_000 {
            if bare.live.is_empty() {
                break;
            }
            assert!(
                bare.step(),
                "seed {seed}: idle with {} requests: {:?}",
                bare.live.len(),
                bare.scheduler.last_plan()
            );
            steps += 1;
        }
        assert!(bare.live.is_empty(), "seed {seed}: {} requests do not end", bare.live.len());
        preemptions += bare.scheduler.stats().preemptions;
        cached += bare.scheduler.stats().cached_tokens;
    }
    println!("{steps} steps, none idle; {preemptions} preemptions, {cached} tokens cached");
    assert!(preemptions > 100 && cached > 1000);
}
