//! Names and aliases, adding and removing.

use super::sim::{Sim, seconds};
use exsa_core::SubmitError;
use exsa_core::registry::RegistryError;
use exsa_core::registry::lifecycle::ModelSettings;

fn aliased(aliases: &[&str]) -> ModelSettings {
    ModelSettings {
        aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
        ..ModelSettings::default()
    }
}

#[test]
fn aliases_are_names_for_everything() {
    let mut sim = Sim::new(None, false);
    sim.add("org/model", 1, aliased(&["m", "default"]));
    sim.load("m").unwrap();
    sim.submit("default").unwrap();
    sim.call(|l, now| l.set_active("m", now)).unwrap();
    assert_eq!(sim.lifecycle.active().map(|name| &**name), Some("org/model"));
    let unknown = sim.submit("nothing").unwrap_err();
    assert!(matches!(unknown, SubmitError::UnknownModel { available, .. } if available == ["org/model"]));
}

#[test]
fn every_name_belongs_to_one_model() {
    let mut sim = Sim::new(None, false);
    sim.add("a", 1, aliased(&["x"]));
    for (name, aliases) in [
        ("", &[][..]),
        ("a", &[]),
        ("x", &[]),
        ("b", &["a"]),
        ("b", &["x"]),
        ("b", &["b"]),
        ("b", &["y", "y"]),
        ("b", &[""]),
    ] {
        let refused = sim.lifecycle.add(name.into(), aliased(aliases));
        assert!(matches!(refused, Err(RegistryError::Name { .. })), "{name} {aliases:?}");
    }
    sim.add("b", 1, aliased(&["y"]));
    // A model keeps its own aliases when it is configured again.
    sim.call(|l, _| l.configure("a", aliased(&["x", "z"]))).unwrap();
    assert!(matches!(sim.call(|l, _| l.configure("a", aliased(&["y"]))), Err(RegistryError::Name { .. })));
    assert_eq!(sim.lifecycle.resolve("z").unwrap().as_ref(), "a");
    sim.call(|l, _| l.configure("a", aliased(&[]))).unwrap();
    sim.call(|l, _| l.configure("b", aliased(&["z"]))).unwrap();
    assert_eq!(sim.lifecycle.resolve("z").unwrap().as_ref(), "b");
}

#[test]
fn only_models_out_of_memory_are_removed() {
    let mut sim = Sim::new(None, false);
    sim.add("a", 1, aliased(&["x"]));
    sim.call(|l, now| l.load("a", now)).unwrap();
    assert!(matches!(sim.call(|l, _| l.remove("a")), Err(RegistryError::State { state: "loading", .. })));
    sim.run();
    assert!(matches!(sim.call(|l, _| l.remove("x")), Err(RegistryError::State { state: "ready", .. })));
    sim.call(|l, now| l.unload("a", Some(seconds(0)), now)).unwrap();
    assert!(sim.call(|l, _| l.remove("a")).is_err(), "its memory is not free");
    sim.run();
    sim.call(|l, _| l.remove("x")).unwrap();
    assert!(sim.lifecycle.names().is_empty() && sim.lifecycle.resolve("x").is_err());
    assert!(matches!(sim.call(|l, now| l.load("a", now)), Err(RegistryError::UnknownModel { .. })));
    sim.add("x", 1, aliased(&["a"]));
}
