//! Sleep, wake, and the idle timeout.

use super::sim::{Sim, seconds};
use exsa_core::SubmitError;
use exsa_core::registry::RegistryError;
use exsa_core::registry::lifecycle::ModelSettings;

fn with_timeout(pinned: bool) -> ModelSettings {
    ModelSettings { idle_timeout: Some(seconds(60)), pinned, ..ModelSettings::default() }
}

#[test]
fn an_idle_model_sleeps_and_the_next_request_wakes_it() {
    let mut sim = Sim::new(None, false);
    sim.add("a", 1, with_timeout(false));
    sim.load("a").unwrap();
    let request = sim.submit("a").unwrap();
    sim.advance(seconds(1000));
    assert_eq!(sim.name("a"), "ready", "a busy model does not sleep");
    sim.end(request);
    sim.advance(seconds(59));
    assert_eq!(sim.name("a"), "ready");
    sim.advance(seconds(1));
    sim.run();
    assert_eq!((sim.name("a"), sim.lifecycle.held_bytes()), ("sleeping", 0));
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelLoading { .. })), "though not load_on_request");
    sim.run();
    sim.submit("a").unwrap();
    assert_eq!(sim.seen("a"), ["loading", "ready", "draining", "sleeping", "loading", "ready"]);
}

#[test]
fn a_pinned_model_stays() {
    let mut sim = Sim::new(None, false);
    sim.add("a", 1, with_timeout(true));
    sim.load("a").unwrap();
    sim.advance(seconds(1000));
    assert_eq!((sim.name("a"), sim.lifecycle.next_tick()), ("ready", None));
    sim.call(|l, _| l.change("a", |settings| settings.pinned = false)).unwrap();
    sim.advance(seconds(0));
    sim.run();
    assert_eq!(sim.name("a"), "sleeping");
}

#[test]
fn a_request_during_the_drain_wakes_the_model() {
    let mut sim = Sim::new(10, false).with(&[("a", 10)]);
    sim.load("a").unwrap();
    let request = sim.submit("a").unwrap();
    let asleep = sim.call(|l, now| l.sleep("a", None, now)).unwrap();
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelLoading { .. })));
    sim.run();
    assert_eq!(sim.name("a"), "loading", "it waits for the memory of its old instance");
    sim.end(request);
    sim.run();
    assert!(sim.answers[&asleep].is_ok());
    assert_eq!(sim.name("a"), "ready");
}

#[test]
fn which_states_sleep_and_wake() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    assert!(matches!(sim.call(|l, now| l.sleep("a", None, now)), Err(RegistryError::State { .. })));
    assert!(matches!(sim.call(|l, now| l.wake("a", now)), Err(RegistryError::State { .. })));
    sim.load("a").unwrap();
    for _ in 0..2 {
        let waiter = sim.call(|l, now| l.sleep("a", None, now)).unwrap();
        sim.run();
        assert!(sim.answers[&waiter].is_ok());
    }
    assert_eq!(sim.name("a"), "sleeping");
    for _ in 0..2 {
        let waiter = sim.call(|l, now| l.wake("a", now)).unwrap();
        sim.run();
        assert!(sim.answers[&waiter].is_ok());
    }
    assert_eq!(sim.name("a"), "ready");
    sim.call(|l, now| l.sleep("a", None, now)).unwrap();
    sim.run();
    sim.call(|l, now| l.unload("a", None, now)).unwrap();
    assert_eq!(sim.name("a"), "unloaded");
}

#[test]
fn an_instance_is_kept_alive_as_its_last_request_says() {
    let mut sim = Sim::new(None, false);
    sim.add("a", 1, with_timeout(false));
    assert!(!sim.call(|l, _| l.keep_alive("a", None)).unwrap(), "nothing is ready");
    sim.load("a").unwrap();
    assert!(sim.call(|l, _| l.keep_alive("a", None)).unwrap());
    sim.advance(seconds(1000));
    assert_eq!(sim.name("a"), "ready", "no limit in place of the model's");
    let request = sim.submit("a").unwrap();
    assert!(sim.call(|l, _| l.keep_alive("a", Some(seconds(0)))).unwrap());
    sim.advance(seconds(5));
    assert_eq!(sim.name("a"), "ready", "a busy model does not sleep");
    sim.end(request);
    sim.run();
    sim.advance(seconds(0));
    sim.run();
    assert_eq!(sim.name("a"), "sleeping");
    sim.submit("a").unwrap_err();
    sim.run();
    sim.advance(seconds(59));
    assert_eq!(sim.name("a"), "ready", "the next instance has the model's time again");
    sim.advance(seconds(1));
    sim.run();
    assert_eq!(sim.name("a"), "sleeping");
}
