//! The active model: an atomic switch, and ready or none.

use super::sim::{Job, Sim, seconds};
use exsa_core::SubmitError;
use exsa_core::registry::{RegistryError, RegistryEvent};
use std::sync::Arc;

fn active(sim: &Sim) -> Option<Arc<str>> {
    sim.lifecycle.active().cloned()
}

#[test]
fn switches_between_two_requests() {
    let mut sim = Sim::new(None, false).with(&[("a", 1), ("b", 1)]);
    assert!(
        matches!(sim.submit(None), Err(SubmitError::NoActiveModel { available }) if available == ["a", "b"])
    );
    let refused = sim.call(|l, now| l.set_active("a", now)).unwrap_err();
    assert!(matches!(refused, RegistryError::State { state: "unloaded", .. }), "{refused}");
    sim.load("a").unwrap();
    assert_eq!(active(&sim).as_deref(), Some("a"), "the first model that is ready is chosen");
    sim.load("b").unwrap();
    assert_eq!(active(&sim).as_deref(), Some("a"));
    let first = sim.submit(None).unwrap();
    sim.call(|l, now| l.set_active("b", now)).unwrap();
    let second = sim.submit(None).unwrap();
    assert_ne!(first, second);
    assert_eq!((&*sim.instances[&first].model, &*sim.instances[&second].model), ("a", "b"));
    let events: Vec<_> = sim
        .events
        .iter()
        .filter_map(|event| match event {
            RegistryEvent::Active { model } => model.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(events, ["a", "b"]);
}

#[test]
fn an_unload_gives_the_choice_up_and_sleep_keeps_it() {
    let mut sim = Sim::new(None, false).with(&[("a", 1), ("b", 1)]);
    sim.load("a").unwrap();
    sim.load("b").unwrap();
    sim.call(|l, now| l.sleep("a", None, now)).unwrap();
    assert_eq!(active(&sim), None);
    sim.run();
    assert!(matches!(sim.submit(None), Err(SubmitError::ModelLoading { model, .. }) if model == "a"));
    assert_eq!(active(&sim), None, "it is loading");
    sim.run();
    assert_eq!(active(&sim).as_deref(), Some("a"));
    sim.call(|l, now| l.unload("a", None, now)).unwrap();
    assert!(matches!(sim.submit(None), Err(SubmitError::NoActiveModel { .. })));
    sim.run();
    sim.advance(seconds(10));
    assert_eq!(active(&sim), None, "another model is chosen only explicitly, or when it becomes ready");
    sim.load("a").unwrap();
    assert_eq!(active(&sim).as_deref(), Some("a"));
}

#[test]
fn a_reload_that_interrupts_the_model_keeps_the_choice() {
    let mut sim = Sim::new(10, false).with(&[("a", 8)]);
    sim.load("a").unwrap();
    sim.call(|l, now| l.reload("a", None, now)).unwrap();
    sim.finish_job(Job::Estimate);
    assert_eq!(active(&sim), None);
    assert!(matches!(sim.submit(None), Err(SubmitError::ModelLoading { .. })));
    sim.run();
    assert_eq!(active(&sim).as_deref(), Some("a"));
}
