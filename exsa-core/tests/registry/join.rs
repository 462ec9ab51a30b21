//! Concurrent loads of one model join.

use super::sim::{Job, Sim};

#[test]
fn concurrent_loads_are_one() {
    let mut sim = Sim::new(None, false).with(&[("a", 10)]);
    let mut waiters = Vec::new();
    for _ in 0..3 {
        waiters.push(sim.call(|l, now| l.load("a", now)).unwrap());
    }
    sim.finish_job(Job::Estimate);
    waiters.push(sim.call(|l, now| l.load("a", now)).unwrap());
    assert!(sim.answers.is_empty());
    assert_eq!(sim.name("a"), "loading");
    sim.finish_job(Job::Load);
    assert!(waiters.iter().all(|waiter| sim.answers[waiter].is_ok()));
    assert_eq!(sim.instances.len(), 1, "one load for all");
    // A load of a ready model ends at once.
    let waiter = sim.call(|l, now| l.load("a", now)).unwrap();
    assert!(sim.answers[&waiter].is_ok());
    assert_eq!((sim.instances.len(), sim.seen("a")), (1, vec!["loading", "ready"]));
}

#[test]
fn a_failure_reaches_all_that_joined() {
    let mut sim = Sim::new(None, false).with(&[("a", 10)]);
    let waiters = [0; 3].map(|_| sim.call(|l, now| l.load("a", now)).unwrap());
    sim.finish_job(Job::Estimate);
    let (id, _) = sim.jobs()[0];
    sim.fail(id);
    for waiter in waiters {
        assert!(sim.answers[&waiter].as_ref().unwrap_err().to_string().contains("it is broken"));
    }
}
