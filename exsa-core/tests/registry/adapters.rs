//! Adapters in the memory budget: like loads, they evict idle models, wait for memory, and are refused with
//! figures.

use super::sim::{Sim, seconds};
use exsa_core::adapter::AdapterError;
use exsa_core::registry::lifecycle::{InstanceId, ModelSettings};

fn ready(sim: &Sim, model: &str) -> InstanceId {
    sim.lifecycle.status(model, sim.now).unwrap().handle.unwrap()
}

fn commit(sim: &mut Sim, id: InstanceId, bytes: u64) -> Result<(), AdapterError> {
    sim.call(|lifecycle, now| lifecycle.commit_adapter(id, "alice", bytes, now))
}

#[test]
fn an_adapter_evicts_the_least_recently_used_idle_model() {
    let mut sim = Sim::new(30, false).with(&[("a", 10), ("b", 10), ("c", 10)]);
    for model in ["a", "b", "c"] {
        sim.load(model).unwrap();
        sim.advance(seconds(1));
    }
    let id = ready(&sim, "c");
    commit(&mut sim, id, 4).unwrap();
    assert!(!sim.hold_adapter(id, 4).unwrap(), "the evicted model has not left yet");
    sim.run();
    assert!(sim.hold_adapter(id, 4).unwrap());
    assert_eq!(["a", "b", "c"].map(|model| sim.name(model)), ["unloaded", "ready", "ready"]);
    assert_eq!((sim.lifecycle.held_bytes(), sim.lifecycle.adapter_bytes()), (24, 4));
    assert_eq!(sim.lifecycle.status("c", sim.now).unwrap().adapter_bytes, 4);
    // There is room for six more bytes, and not for a model of ten.
    commit(&mut sim, id, 6).unwrap();
    assert!(sim.hold_adapter(id, 6).unwrap());
    sim.release_adapter(id, 6);
    sim.release_adapter(id, 4);
    assert_eq!(sim.lifecycle.held_bytes(), 20);
    sim.load("a").unwrap();
    assert_eq!(sim.name("b"), "ready", "the memory of the adapters is free again");
}

#[test]
fn a_refusal_has_the_figures_and_evicts_nothing() {
    let mut sim = Sim::new(30, false).with(&[("busy", 10), ("idle", 5)]);
    sim.add("pinned", 10, ModelSettings { pinned: true, ..ModelSettings::default() });
    for model in ["busy", "idle", "pinned"] {
        sim.load(model).unwrap();
    }
    let request = sim.submit("busy").unwrap();
    let id = ready(&sim, "busy");
    let refused = commit(&mut sim, id, 11).unwrap_err();
    assert!(matches!(refused, AdapterError::Budget { needed: 11, held: 20, budget: 30, .. }), "{refused}");
    let words = refused.to_string();
    assert!(
        ["'alice' needs 11", "budget is 30", "hold 20"].iter().all(|part| words.contains(part)),
        "{words}"
    );
    assert_eq!(sim.name("idle"), "ready");
    commit(&mut sim, id, 10).unwrap();
    sim.run();
    assert!(sim.hold_adapter(id, 10).unwrap());
    assert_eq!(sim.name("idle"), "unloaded");
    sim.end(request);
}

#[test]
fn adapters_go_with_their_model() {
    let mut sim = Sim::new(30, false).with(&[("a", 10), ("b", 20)]);
    sim.load("a").unwrap();
    let id = ready(&sim, "a");
    commit(&mut sim, id, 5).unwrap();
    assert!(sim.hold_adapter(id, 5).unwrap());
    commit(&mut sim, id, 3).unwrap();
    // The model with its adapters makes room for another.
    let waiter = sim.call(|l, now| l.load("b", now)).unwrap();
    let (estimate, _) = sim.jobs()[0];
    sim.finish(estimate);
    assert!(sim.hold_adapter(id, 3).is_err(), "its model leaves");
    assert!(commit(&mut sim, id, 1).is_err());
    assert_eq!(sim.lifecycle.held_bytes(), 15);
    sim.run();
    assert!(sim.answers[&waiter].is_ok());
    assert_eq!((sim.lifecycle.held_bytes(), sim.name("a")), (20, "unloaded"));
    sim.call(|l, now| l.release_adapter(id, 5, now));
    assert_eq!(sim.lifecycle.held_bytes(), 20, "a release that comes late");
}
