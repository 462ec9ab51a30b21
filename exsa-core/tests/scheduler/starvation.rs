//! A batch request is served despite an endless stream of interactive requests that alone would fill the
//! engine.

use super::bare::{Bare, capabilities};
use exsa_core::Priority;
use exsa_core::queue::{FairOptions, FairQueue};
use exsa_core::schedule::SchedulerOptions;
use std::time::Duration;

/// When the batch request ended, and how many interactive ones did until then; `None` where it did not within
/// ten minutes.
fn run(ageing: Duration, batch: usize) -> (Option<Duration>, usize) {
    let options = SchedulerOptions { running_max: 4, ..SchedulerOptions::default() };
    let queue = Box::new(FairQueue::new(FairOptions::default().ageing(ageing)));
    let mut bare = Bare::with_queue(&capabilities(1 << 14, 16, 8), options, queue);
    for _ in 0..batch {
        bare.submit(9, Priority::Batch, 300, 20);
    }
    while bare.now < Duration::from_secs(600) {
        while bare.waiting(1) < 8 {
            bare.submit(1, Priority::Interactive, 100, 20);
        }
        bare.step();
        let ended = bare.finished.iter().filter(|(_, priority, _)| *priority == Priority::Batch).count();
        if ended == batch {
            return (Some(bare.now), bare.finished.len() - batch);
        }
    }
    (None, bare.finished.len())
}

#[test]
fn a_batch_request_gets_through_a_stream_of_interactive_ones() {
    for ageing in [1, 5, 20] {
        let (ended, others) = run(Duration::from_secs(ageing), 1);
        let ended = ended.expect("the batch request ends");
        println!(
            "ageing of {ageing} s: ended after {:.1} s, {others} interactive ones before it",
            ended.as_secs_f64()
        );
        assert!(ended < Duration::from_secs(ageing + 3));
    }
    let (ended, others) = run(Duration::from_secs(2), 20);
    println!(
        "20 of them with ageing of 2 s: ended after {:.1?}, {others} interactive ones before",
        ended.unwrap()
    );
    assert!(ended.unwrap() < Duration::from_secs(20 * 3));
    let (ended, others) = run(Duration::MAX, 1);
    println!("without ageing: not within 600 s, {others} interactive ones");
    assert_eq!(ended, None);
}
