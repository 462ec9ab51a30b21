//! Loads are cancelled in each of their phases.

use super::sim::{Job, Sim};
use exsa_core::registry::RegistryError;

#[test]
fn in_every_phase() {
    for phase in [Job::Estimate, Job::Load] {
        let mut sim = Sim::new(10, false).with(&[("a", 10)]);
        let waiter = sim.call(|l, now| l.load("a", now)).unwrap();
        if phase == Job::Load {
            sim.finish_job(Job::Estimate);
        }
        assert!(sim.call(|l, now| l.cancel_load("a", now)).unwrap());
        assert!(matches!(sim.answers[&waiter], Err(RegistryError::Cancelled { .. })), "at once");
        assert_eq!(sim.name("a"), "unloaded");
        // The next load is another one, and waits until the memory of the first is free.
        let again = sim.call(|l, now| l.load("a", now)).unwrap();
        let jobs = sim.jobs();
        sim.finish(jobs.last().unwrap().0);
        sim.run();
        assert!(sim.answers[&again].is_ok());
        assert_eq!(sim.name("a"), "ready");
    }
}

#[test]
fn a_load_that_succeeds_in_spite_of_its_cancel_is_undone() {
    let mut sim = Sim::new(10, false).with(&[("a", 10)]);
    sim.call(|l, now| l.load("a", now)).unwrap();
    sim.finish_job(Job::Estimate);
    sim.call(|l, now| l.cancel_load("a", now)).unwrap();
    sim.finish_job(Job::Load);
    assert_eq!(sim.jobs()[0].1, Job::Abort, "the engine is shut down");
    assert_eq!(sim.lifecycle.held_bytes(), 10);
    sim.run();
    assert_eq!((sim.name("a"), sim.lifecycle.held_bytes()), ("unloaded", 0));
}

#[test]
fn an_unload_cancels_and_waits_for_the_memory() {
    let mut sim = Sim::new(10, false).with(&[("a", 10)]);
    let load = sim.call(|l, now| l.load("a", now)).unwrap();
    sim.finish_job(Job::Estimate);
    let unload = sim.call(|l, now| l.unload("a", None, now)).unwrap();
    assert!(matches!(sim.answers[&load], Err(RegistryError::Cancelled { .. })));
    assert!(!sim.answers.contains_key(&unload));
    sim.run();
    assert!(sim.answers[&unload].is_ok());
}

#[test]
fn nothing_to_cancel() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    assert!(!sim.call(|l, now| l.cancel_load("a", now)).unwrap());
    sim.load("a").unwrap();
    assert!(!sim.call(|l, now| l.cancel_load("a", now)).unwrap());
    assert_eq!(sim.name("a"), "ready");
}
