//! Failed loads, and engines that end on their own.

use super::sim::{Job, Sim};
use exsa_core::SubmitError;
use exsa_core::registry::{ModelState, RegistryError};

#[test]
fn a_failed_model_says_why_until_it_is_loaded_again() {
    for (phase, load_on_request) in [(Job::Estimate, true), (Job::Load, false)] {
        let mut sim = Sim::new(10, load_on_request).with(&[("a", 10)]);
        let waiter = sim.call(|l, now| l.load("a", now)).unwrap();
        if phase == Job::Load {
            sim.finish_job(Job::Estimate);
        }
        let (id, _) = sim.jobs()[0];
        sim.fail(id);
        assert!(matches!(sim.answers[&waiter], Err(RegistryError::Load { .. })));
        assert!(matches!(sim.state("a"), ModelState::Failed { reason } if reason.contains("it is broken")));
        let refused = sim.submit("a").unwrap_err();
        assert!(
            matches!(&refused, SubmitError::ModelFailed { reason, .. } if reason.contains("it is broken"))
        );
        assert!(sim.jobs().is_empty(), "requests do not load a failed model again");
        assert_eq!(sim.lifecycle.held_bytes(), 0);
        assert!(matches!(sim.call(|l, now| l.wake("a", now)), Err(RegistryError::State { .. })));
        sim.load("a").unwrap();
        assert_eq!(sim.name("a"), "ready");
    }
}

#[test]
fn an_engine_that_ends_by_itself() {
    let mut sim = Sim::new(10, true).with(&[("a", 10), ("b", 10)]);
    sim.load("a").unwrap();
    let id = sim.submit("a").unwrap();
    sim.call(|l, now| l.engine_ended(id, now));
    assert!(matches!(sim.state("a"), ModelState::Failed { .. }));
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelFailed { .. })));
    sim.run();
    // A late report about an instance that is gone changes nothing.
    sim.call(|l, now| l.engine_ended(id, now));
    sim.load("b").unwrap();
    assert_eq!((sim.name("a"), sim.name("b")), ("failed", "ready"));
}

#[test]
fn an_unload_forgets_a_failure() {
    let mut sim = Sim::new(None, false).with(&[("a", 10)]);
    sim.call(|l, now| l.load("a", now)).unwrap();
    let (id, _) = sim.jobs()[0];
    sim.fail(id);
    let waiter = sim.call(|l, now| l.unload("a", None, now)).unwrap();
    assert!(sim.answers[&waiter].is_ok());
    assert_eq!(sim.name("a"), "unloaded");
}
