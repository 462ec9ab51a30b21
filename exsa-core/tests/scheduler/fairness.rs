//! Eight users, four with prompts of 4,000 tokens and four with 200, all at the rate at which the queue
//! accepts them.

use super::bare::{Bare, capabilities, jain};
use exsa_core::priority::UserId;
use exsa_core::queue::{FairOptions, FairQueue, Fcfs, QueueOrder};
use exsa_core::schedule::SchedulerOptions;
use exsa_core::{Mode, Priority};
use std::time::Duration;

fn service(queue: Box<dyn QueueOrder>, mode: Mode) -> Vec<f64> {
    let options = SchedulerOptions { running_max: 16, mode, ..SchedulerOptions::default() };
    let mut bare = Bare::with_queue(&capabilities(1 << 16, 16, 24), options, queue);
    while bare.now < Duration::from_secs(300) {
        for user in 0..8 {
            while bare.waiting(user) < 4 {
                let (prompt, answer) = if user < 4 { (4000, 50) } else { (200, 50) };
                bare.submit(user, Priority::Normal, prompt, answer);
            }
        }
        bare.step();
    }
    (0..8).map(|user| bare.served.get(&UserId(user)).copied().unwrap_or(0.0)).collect()
}

#[test]
fn users_of_long_and_of_short_requests_are_served_alike() {
    let fcfs = jain(&service(Box::new(Fcfs::new()), Mode::Balanced));
    println!("first come first served: Jain index {fcfs:.3}");
    for mode in [Mode::Latency, Mode::Balanced, Mode::Throughput] {
        let service = service(Box::new(FairQueue::new(FairOptions::default())), mode);
        let index = jain(&service);
        println!("{mode:?}: Jain index {index:.4}, service {service:.0?}");
        assert!(index >= 0.95, "{mode:?}: {index}");
        assert!(index > fcfs);
    }
}

#[test]
fn weights_share_in_their_proportion() {
    use exsa_core::schedule::SchedRequest;
    let options = SchedulerOptions { running_max: 8, mode: Mode::Latency, ..SchedulerOptions::default() };
    let mut scheduler = exsa_core::schedule::Scheduler::new(
        &capabilities(1 << 14, 16, 8),
        options,
        Box::new(FairQueue::new(FairOptions::default())),
    );
    let mut served = [0usize; 3];
    for id in 0..1200 {
        let mut request = SchedRequest::new(id, vec![id as u32 + 1; 20], 30);
        (request.user, request.weight) = (UserId(id % 3), [1.0, 2.0, 4.0][id as usize % 3]);
        scheduler.enqueue(request, Duration::ZERO);
    }
    // Until the heaviest has nothing left to wait.
    while served[2] < 390 {
        scheduler.plan(Duration::ZERO);
        let work = scheduler.last_plan().work.clone();
        for admitted in &scheduler.last_plan().admitted {
            served[admitted.id.0 as usize % 3] += 1;
        }
        for item in work {
            scheduler.commit(&item, &[1][..item.rows]);
            if item.start + item.len >= 29 {
                scheduler.finish(item.id);
            }
        }
    }
    println!("requests served by weights of 1, 2, 4: {served:?}");
    let share = |a: usize, b: usize| served[a] as f64 / served[b] as f64;
    assert!((share(1, 0) - 2.0).abs() < 0.2 && (share(2, 0) - 4.0).abs() < 0.4);
}
