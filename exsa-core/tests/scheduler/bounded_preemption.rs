//! No request is preempted more often than the limit, whatever the priorities and however scarce the KV.

use super::bare::{Bare, Random, capabilities};
use exsa_core::schedule::SchedulerOptions;
use exsa_core::{Mode, Priority};

#[test]
fn a_request_is_preempted_at_most_as_often_as_the_limit_says() {
    let mut most = [0; 4];
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let preemptions_max = random.within(1, 3) as u32;
        let options = SchedulerOptions {
            batch_tokens_max: random.within(4, 64),
            running_max: random.within(1, 8),
            mode: Mode::Throughput,
            preemptions_max,
            ..SchedulerOptions::default()
        };
        let capabilities =
            capabilities(random.within(120, 300), random.within(1, 4), options.running_max + 2);
        let mut bare = Bare::new(&capabilities, options);
        for i in 0..60 {
            let priority = Priority::ALL[random.within(0, 2)];
            let (prompt, answer) = (random.within(1, 30), random.within(1, 80));
            bare.submit(i % 3, priority, prompt, answer);
            for _ in 0..random.within(1, 6) {
                bare.step();
                for (id, live) in &bare.live {
                    assert!(
                        live.preemptions <= preemptions_max,
                        "seed {seed}: {id:?} gave way {} times",
                        live.preemptions
                    );
                    let most = &mut most[preemptions_max as usize];
                    *most = live.preemptions.max(*most);
                }
            }
        }
    }
    println!("most preemptions of one request under limits of 1, 2 and 3: {:?}", &most[1..]);
    assert_eq!(most, [0, 1, 2, 3]);
}
