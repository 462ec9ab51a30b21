//! The memory budget: eviction of the least recently used idle model, refusals, and waiting for memory.

use super::sim::{Job, Sim, seconds};
use exsa_core::SubmitError;
use exsa_core::registry::RegistryError;
use exsa_core::registry::lifecycle::ModelSettings;

#[test]
fn the_least_recently_used_idle_model_goes() {
    let mut sim = Sim::new(30, false).with(&[("a", 10), ("b", 10), ("c", 10), ("d", 10)]);
    for model in ["a", "b", "c"] {
        sim.load(model).unwrap();
        sim.advance(seconds(1));
    }
    let id = sim.submit("a").unwrap();
    sim.end(id);
    sim.load("d").unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|model| sim.name(model)), ["ready", "unloaded", "ready", "ready"]);
}

#[test]
fn busy_and_pinned_models_stay() {
    let mut sim = Sim::new(30, false).with(&[("busy", 10), ("idle", 10), ("large", 20)]);
    sim.add("pinned", 10, ModelSettings { pinned: true, ..ModelSettings::default() });
    for model in ["busy", "pinned", "idle"] {
        sim.load(model).unwrap();
    }
    let request = sim.submit("busy").unwrap();
    let refused = sim.load("large").unwrap_err();
    assert!(
        matches!(refused, RegistryError::Memory { needed: 20, held: 20, budget: 30, .. }),
        "the numbers are named: {refused}"
    );
    assert!(["needs 20", "budget is 30", "hold 20"].iter().all(|part| refused.to_string().contains(part)));
    let states = ["busy", "pinned", "idle", "large"].map(|model| sim.name(model));
    assert_eq!(states, ["ready", "ready", "ready", "unloaded"], "a refused load evicts nothing");
    sim.end(request);
    sim.load("large").unwrap();
    let states = ["busy", "pinned", "idle", "large"].map(|model| sim.name(model));
    assert_eq!(states, ["unloaded", "ready", "unloaded", "ready"]);
}

#[test]
fn a_load_waits_for_memory_that_is_being_given_back() {
    let mut sim = Sim::new(10, false).with(&[("a", 10), ("b", 10)]);
    sim.load("a").unwrap();
    let request = sim.submit("a").unwrap();
    sim.call(|l, now| l.unload("a", None, now)).unwrap();
    let waiter = sim.call(|l, now| l.load("b", now)).unwrap();
    sim.run();
    assert_eq!((sim.name("a"), sim.name("b")), ("draining", "loading"));
    assert!(!sim.answers.contains_key(&waiter));
    sim.end(request);
    sim.run();
    assert!(sim.answers[&waiter].is_ok());
    assert_eq!((sim.name("a"), sim.name("b")), ("unloaded", "ready"));
}

#[test]
fn a_waiting_load_counts_and_can_be_cancelled() {
    let mut sim = Sim::new(10, false).with(&[("a", 10), ("b", 10), ("c", 10)]);
    sim.load("a").unwrap();
    let request = sim.submit("a").unwrap();
    sim.call(|l, now| l.unload("a", None, now)).unwrap();
    let waiter = sim.call(|l, now| l.load("b", now)).unwrap();
    sim.run();
    let refused = sim.load("c").unwrap_err();
    assert!(matches!(refused, RegistryError::Memory { held: 10, .. }), "{refused}");
    assert!(sim.call(|l, now| l.cancel_load("b", now)).unwrap());
    assert!(matches!(sim.answers[&waiter], Err(RegistryError::Cancelled { .. })));
    assert_eq!(sim.name("b"), "unloaded");
    sim.end(request);
    sim.run();
    sim.load("c").unwrap();
}

#[test]
fn a_model_larger_than_the_budget_is_refused() {
    let mut sim = Sim::new(10, true).with(&[("a", 11)]);
    assert!(matches!(sim.load("a"), Err(RegistryError::Memory { needed: 11, held: 0, budget: 10, .. })));
    assert_eq!(sim.name("a"), "unloaded");
    // Requests learn the reason instead of starting one load each.
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelFailed { reason, .. }) if reason.contains("11")));
    assert!(sim.jobs().is_empty());
    sim.advance(seconds(6));
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelLoading { .. })), "another try");
    assert_eq!(sim.jobs()[0].1, Job::Estimate);
}
