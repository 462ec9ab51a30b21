//! Unloading: requests in flight keep their model until they end, or until the grace time is over.

use super::sim::{Job, Sim, seconds};
use exsa_core::SubmitError;

#[test]
fn requests_in_flight_end_first() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    sim.load("a").unwrap();
    let request = sim.submit("a").unwrap();
    let unload = sim.call(|l, now| l.unload("a", None, now)).unwrap();
    assert_eq!(sim.name("a"), "draining");
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelUnloaded { .. })));
    sim.advance(seconds(1000));
    sim.run();
    assert!(!sim.answers.contains_key(&unload), "a drain without grace waits");
    sim.end(request);
    sim.run();
    assert!(sim.answers[&unload].is_ok());
    assert_eq!((sim.aborted, sim.seen("a")), (0, vec!["loading", "ready", "draining", "unloaded"]));
}

#[test]
fn the_grace_time_ends_in_an_abort() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    sim.load("a").unwrap();
    sim.submit("a").unwrap();
    let unload = sim.call(|l, now| l.unload("a", Some(seconds(10)), now)).unwrap();
    sim.advance(seconds(9));
    sim.run();
    assert!(!sim.answers.contains_key(&unload));
    sim.advance(seconds(1));
    sim.run();
    assert!(sim.answers[&unload].is_ok());
    assert_eq!(sim.aborted, 1);
}

#[test]
fn a_second_unload_shortens_the_grace() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    sim.load("a").unwrap();
    sim.submit("a").unwrap();
    let first = sim.call(|l, now| l.unload("a", None, now)).unwrap();
    let longer = sim.call(|l, now| l.unload("a", Some(seconds(60)), now)).unwrap();
    sim.advance(seconds(5));
    let at_once = sim.call(|l, now| l.unload("a", Some(seconds(0)), now)).unwrap();
    sim.run();
    assert!([first, longer, at_once].iter().all(|waiter| sim.answers[waiter].is_ok()));
    assert_eq!(sim.aborted, 1);
}

#[test]
fn a_request_that_is_being_submitted_is_not_refused() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    sim.load("a").unwrap();
    // The request has its engine, but its prompt is still being tokenized.
    let (id, _) = sim.call(|l, now| l.route(Some("a"), now)).unwrap();
    sim.call(|l, now| l.unload("a", Some(seconds(10)), now)).unwrap();
    assert!(sim.jobs().is_empty(), "the engine still takes requests");
    sim.instances.get_mut(&id).unwrap().requests += 1;
    sim.call(|l, now| l.submitted(id, now));
    assert_eq!(sim.instances[&id].job, Some(Job::Drain));
    sim.end(id);
    sim.run();
    assert_eq!(sim.name("a"), "unloaded");
    // The grace time holds for submissions too.
    sim.load("a").unwrap();
    let (id, _) = sim.call(|l, now| l.route(Some("a"), now)).unwrap();
    sim.call(|l, now| l.unload("a", Some(seconds(10)), now)).unwrap();
    sim.advance(seconds(10));
    assert_eq!(sim.instances[&id].job, Some(Job::Abort));
}

#[test]
fn a_load_during_a_drain_is_another_instance() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    sim.load("a").unwrap();
    let old = sim.submit("a").unwrap();
    let unload = sim.call(|l, now| l.unload("a", None, now)).unwrap();
    sim.load("a").unwrap();
    let new = sim.submit("a").unwrap();
    assert_ne!(old, new);
    assert_eq!(sim.name("a"), "ready");
    sim.end(old);
    sim.run();
    assert!(sim.answers[&unload].is_ok());
    assert_eq!(sim.name("a"), "ready");
    sim.end(new);
}

#[test]
fn closing_takes_everything_down() {
    let mut sim = Sim::new(None, false).with(&[("a", 1), ("b", 1), ("c", 1)]);
    sim.load("a").unwrap();
    sim.submit("a").unwrap();
    let load = sim.call(|l, now| l.load("b", now)).unwrap();
    sim.call(|l, now| l.close(Some(seconds(3)), now));
    assert!(sim.answers[&load].is_err());
    assert!(matches!(sim.submit("a"), Err(SubmitError::ShuttingDown)));
    assert!(sim.call(|l, now| l.load("c", now)).is_err());
    sim.run();
    assert_eq!(sim.name("a"), "draining");
    sim.advance(seconds(3));
    sim.run();
    assert_eq!((sim.aborted, sim.lifecycle.held_bytes()), (1, 0));
}
