//! Reloads: the new instance is loaded first if the budget allows both, otherwise the old one is unloaded
//! first.

use super::sim::{Job, Sim, seconds};
use exsa_core::SubmitError;
use exsa_core::registry::{RegistryError, RegistryEvent, ReloadOrder};

#[test]
fn the_new_instance_comes_first_where_both_fit() {
    let mut sim = Sim::new(20, false).with(&[("a", 10)]);
    sim.load("a").unwrap();
    let old = sim.submit("a").unwrap();
    let waiter = sim.call(|l, now| l.reload("a", None, now)).unwrap();
    sim.finish_job(Job::Estimate);
    assert_eq!(sim.submit("a").unwrap(), old, "the old instance serves while the new one loads");
    assert!(sim.lifecycle.status("a", sim.now).unwrap().reloading);
    sim.finish_job(Job::Load);
    assert!(
        matches!(sim.answers[&waiter], Ok(Some(ReloadOrder::LoadFirst))),
        "told before the old one is gone"
    );
    let new = sim.submit("a").unwrap();
    assert_ne!(old, new);
    sim.end(old);
    sim.end(old);
    sim.run();
    assert_eq!((sim.aborted, sim.lifecycle.held_bytes()), (0, 10));
    assert_eq!(sim.seen("a"), ["loading", "ready"], "it never was anything but ready");
}

#[test]
fn the_old_instance_goes_first_where_only_one_fits() {
    let mut sim = Sim::new(15, false).with(&[("a", 10)]);
    sim.load("a").unwrap();
    let old = sim.submit("a").unwrap();
    let waiter = sim.call(|l, now| l.reload("a", Some(seconds(30)), now)).unwrap();
    sim.finish_job(Job::Estimate);
    let order = RegistryEvent::Reload { model: "a".into(), order: ReloadOrder::UnloadFirst };
    assert!(sim.events.contains(&order), "told before it begins");
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelLoading { .. })));
    sim.run();
    assert!(!sim.answers.contains_key(&waiter), "the request in flight keeps the old instance");
    sim.end(old);
    sim.run();
    assert!(matches!(sim.answers[&waiter], Ok(Some(ReloadOrder::UnloadFirst))));
    assert_eq!((sim.name("a"), sim.aborted), ("ready", 0));
}

#[test]
fn a_reload_evicts_no_model_to_spare_itself_the_interruption() {
    let mut sim = Sim::new(20, false).with(&[("a", 10), ("b", 10)]);
    sim.load("a").unwrap();
    sim.load("b").unwrap();
    let waiter = sim.call(|l, now| l.reload("a", None, now)).unwrap();
    sim.run();
    assert!(matches!(sim.answers[&waiter], Ok(Some(ReloadOrder::UnloadFirst))));
    assert_eq!((sim.name("a"), sim.name("b")), ("ready", "ready"));
}

#[test]
fn a_failed_reload_leaves_the_old_instance_serving() {
    for phase in [Job::Estimate, Job::Load] {
        let mut sim = Sim::new(20, false).with(&[("a", 10)]);
        sim.load("a").unwrap();
        let old = sim.submit("a").unwrap();
        let waiter = sim.call(|l, now| l.reload("a", None, now)).unwrap();
        if phase == Job::Load {
            sim.finish_job(Job::Estimate);
        }
        let (id, _) = sim.jobs()[0];
        sim.fail(id);
        assert!(matches!(sim.answers[&waiter], Err(RegistryError::Load { .. })));
        assert_eq!(sim.submit("a").unwrap(), old);
        assert!(sim.events.iter().any(|e| matches!(e, RegistryEvent::Reloaded { error: Some(_), .. })));
        assert_eq!(sim.lifecycle.held_bytes(), 10);
    }
}

#[test]
fn a_file_that_has_outgrown_the_budget_leaves_the_old_instance_serving() {
    let mut sim = Sim::new(15, false).with(&[("a", 10)]);
    sim.load("a").unwrap();
    let old = sim.submit("a").unwrap();
    sim.bytes.insert("a".into(), 16);
    let waiter = sim.call(|l, now| l.reload("a", None, now)).unwrap();
    sim.run();
    assert!(matches!(
        sim.answers[&waiter],
        Err(RegistryError::Memory { needed: 16, held: 0, budget: 15, .. })
    ));
    assert_eq!(sim.submit("a").unwrap(), old);
}

#[test]
fn reloads_join_and_are_cancelled_by_an_unload() {
    let mut sim = Sim::new(None, false).with(&[("a", 10)]);
    assert!(matches!(
        sim.call(|l, now| l.reload("a", None, now)),
        Err(RegistryError::State { state: "unloaded", .. })
    ));
    sim.load("a").unwrap();
    let waiters = [0; 2].map(|_| sim.call(|l, now| l.reload("a", None, now)).unwrap());
    sim.run();
    assert_eq!(sim.instances.len(), 2);
    assert!(waiters.iter().all(|waiter| sim.answers[waiter].is_ok()));
    let reload = sim.call(|l, now| l.reload("a", None, now)).unwrap();
    sim.finish_job(Job::Estimate);
    let unload = sim.call(|l, now| l.unload("a", None, now)).unwrap();
    assert!(matches!(sim.answers[&reload], Err(RegistryError::Cancelled { .. })));
    sim.run();
    assert!(sim.answers[&unload].is_ok());
    assert_eq!((sim.name("a"), sim.lifecycle.held_bytes()), ("unloaded", 0));
}

#[test]
fn a_reload_can_be_cancelled() {
    let mut sim = Sim::new(None, false).with(&[("a", 10)]);
    sim.load("a").unwrap();
    let reload = sim.call(|l, now| l.reload("a", None, now)).unwrap();
    sim.finish_job(Job::Estimate);
    assert!(sim.call(|l, now| l.cancel_load("a", now)).unwrap());
    assert!(matches!(sim.answers[&reload], Err(RegistryError::Cancelled { .. })));
    sim.submit("a").unwrap();
    sim.run();
    assert_eq!((sim.name("a"), sim.lifecycle.held_bytes()), ("ready", 10));
}
