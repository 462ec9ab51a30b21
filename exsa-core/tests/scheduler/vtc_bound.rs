//! Two backlogged users receive the same service, up to a constant: theorem 4.4 of Sheng et al., OSDI 2024.
//!
//! The bound is twice the larger of the longest prompt's cost and the cost of as many generated tokens as the
//! KV cache holds, and twice the quantum where cached prefixes may go first within one.

use super::bare::{Bare, Random, capabilities};
use exsa_core::Mode;
use exsa_core::Priority;
use exsa_core::priority::UserId;
use exsa_core::queue::Service;
use exsa_core::schedule::SchedulerOptions;
use std::time::Duration;

/// The largest difference of the two users' service within one interval in which both wait, as a share of the
/// bound.
fn worst(seed: u64, mode: Mode) -> f64 {
    let mut random = Random(seed);
    let prompt_max = random.within(4, 120);
    let answer_max = random.within(2, 60);
    let kv = (prompt_max + answer_max) * random.within(1, 5) + 16;
    let options = SchedulerOptions {
        batch_tokens_max: random.within(8, 128),
        running_max: random.within(1, 12),
        mode,
        saved_bytes_max: if random.chance(50) { 0 } else { 1 << 20 },
        kv_bytes_per_token: 4,
        ..SchedulerOptions::default()
    };
    let quantum = mode.preset(options.running_max).quantum;
    let capabilities = capabilities(kv, random.within(1, 4), options.running_max + 4);
    let mut bare = Bare::new(&capabilities, options);
    let submit = |bare: &mut Bare, random: &mut Random, user: u64| {
        // The first user asks for much, the second for little, the others for anything.
        let prompt = match user {
            0 => prompt_max,
            1 => random.within(1, prompt_max.div_ceil(4)),
            _ => random.within(1, prompt_max),
        };
        bare.submit(user, Priority::Normal, prompt, random.within(1, answer_max));
    };
    for _ in 0..random.within(3, 12) {
        submit(&mut bare, &mut random, 0);
        submit(&mut bare, &mut random, 1);
    }
    let input = prompt_max as f64 * Service::INPUT_COST;
    let bound = 2.0 * (input.max(kv as f64 * Service::OUTPUT_COST) + quantum);
    let (mut low, mut high, mut worst) = (f64::MAX, f64::MIN, 0.0f64);
    for _ in 0..random.within(50, 250) {
        if random.chance(20) {
            let user = random.within(0, 4) as u64;
            submit(&mut bare, &mut random, user);
        }
        if random.chance(2) {
            bare.now += Duration::from_secs(1);
        }
        bare.step();
        if bare.waiting(0) == 0 || bare.waiting(1) == 0 {
            (low, high) = (f64::MAX, f64::MIN);
            continue;
        }
        let served = |user| bare.served.get(&UserId(user)).copied().unwrap_or(0.0);
        let difference = served(0) - served(1);
        (low, high) = (low.min(difference), high.max(difference));
        worst = worst.max((high - low) / bound);
    }
    worst
}

#[test]
fn the_bound_on_the_difference_of_two_backlogged_users_holds() {
    // Latency: strict counters. Balanced: equals within a quantum.
    for (mode, workloads) in [(Mode::Latency, 10_000), (Mode::Balanced, 2_000)] {
        let worst = (0..workloads).map(|seed| (worst(seed, mode), seed)).max_by(|a, b| a.0.total_cmp(&b.0));
        let (share, seed) = worst.unwrap();
        println!("{mode:?}: at most {share:.2} of the bound in {workloads} workloads (seed {seed})");
        assert!(share <= 1.0, "{mode:?}: {share} of the bound, seed {seed}");
        assert!(share > 0.01, "{mode:?}: nothing was measured");
    }
}
