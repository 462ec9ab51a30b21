//! Requests to models that are not ready, and the estimated time until they are.

use super::sim::{Job, Sim, seconds};
use exsa_core::SubmitError;
use std::time::Duration;

fn retry_after(sim: &mut Sim) -> Option<Duration> {
    match sim.submit("a") {
        Err(SubmitError::ModelLoading { retry_after, .. }) => retry_after,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_starts_the_load_only_by_option() {
    let mut sim = Sim::new(None, false).with(&[("a", 1)]);
    assert!(matches!(sim.submit("a"), Err(SubmitError::ModelUnloaded { .. })));
    assert!(sim.jobs().is_empty());
    let mut sim = Sim::new(None, true).with(&[("a", 1)]);
    for _ in 0..3 {
        assert_eq!(retry_after(&mut sim), None);
    }
    assert_eq!(sim.jobs().len(), 1, "one load for all requests");
    sim.run();
    sim.submit("a").unwrap();
}

#[test]
fn the_wait_is_estimated_from_the_progress() {
    let mut sim = Sim::new(None, true).with(&[("a", 1000)]);
    sim.submit("a").unwrap_err();
    sim.finish_job(Job::Estimate);
    let (id, _) = sim.jobs()[0];
    sim.advance(seconds(2));
    sim.call(|l, now| l.progress(id, 200, 1000, now));
    assert_eq!(retry_after(&mut sim), Some(seconds(8)));
    sim.advance(seconds(3));
    sim.call(|l, now| l.progress(id, 500, 1000, now));
    assert_eq!(retry_after(&mut sim), Some(seconds(5)));
    sim.advance(seconds(5));
    sim.finish_job(Job::Load);
    // The next load goes by the speed of the last, 100 bytes a second, before it has made progress.
    sim.call(|l, now| l.unload("a", None, now)).unwrap();
    sim.run();
    sim.submit("a").unwrap_err();
    sim.finish_job(Job::Estimate);
    assert_eq!(retry_after(&mut sim), Some(seconds(10)));
}
