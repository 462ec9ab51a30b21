//! Random operations, job results and requests. The simulation checks the invariants after every event:
//! memory within the budget, each waiter answered once, the active model ready or none.

use super::sim::{Job, Sim};
use exsa_core::registry::lifecycle::{InstanceId, Lifecycle, ModelSettings, WaiterId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::time::Duration;

const MODELS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    Load(usize),
    Unload(usize, Option<u64>),
    Reload(usize, Option<u64>),
    Sleep(usize),
    Wake(usize),
    Cancel(usize),
    Activate(usize),
    Pin(usize, bool),
    Bytes(usize, u64),
    Submit(Option<usize>),
    /// Routes a request whose submission lasts until an `Accept`.
    Route(usize),
    Accept(usize),
    End(usize),
    Finish(usize),
    Fail(usize),
    Die(usize),
    Advance(u64),
    /// Commits the memory of an adapter of an instance that loads or is ready.
    CommitAdapter(usize, u64),
    HoldAdapter(usize),
    ReleaseAdapter(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let model = 0..MODELS.len();
    let grace = prop::option::of(0..20u64);
    prop_oneof![
        4 => model.clone().prop_map(Step::Load),
        2 => (model.clone(), grace.clone()).prop_map(|(m, g)| Step::Unload(m, g)),
        2 => (model.clone(), grace).prop_map(|(m, g)| Step::Reload(m, g)),
        1 => model.clone().prop_map(Step::Sleep),
        1 => model.clone().prop_map(Step::Wake),
        1 => model.clone().prop_map(Step::Cancel),
        1 => model.clone().prop_map(Step::Activate),
        1 => (model.clone(), any::<bool>()).prop_map(|(m, p)| Step::Pin(m, p)),
        1 => (model.clone(), 1..14u64).prop_map(|(m, b)| Step::Bytes(m, b)),
        4 => prop::option::of(model.clone()).prop_map(Step::Submit),
        2 => model.clone().prop_map(Step::Route),
        3 => (0..8usize).prop_map(Step::Accept),
        5 => (0..8usize).prop_map(Step::End),
        12 => (0..8usize).prop_map(Step::Finish),
        1 => (0..8usize).prop_map(Step::Fail),
        1 => (0..8usize).prop_map(Step::Die),
        3 => (0..10u64).prop_map(Step::Advance),
        2 => (0..8usize, 0..6u64).prop_map(|(i, b)| Step::CommitAdapter(i, b)),
        3 => (0..8usize).prop_map(Step::HoldAdapter),
        1 => (0..8usize).prop_map(Step::ReleaseAdapter),
    ]
}

/// The run of one case.
struct Run {
    sim: Sim,
    waiters: BTreeSet<WaiterId>,
    /// Requests in flight.
    requests: Vec<InstanceId>,
    /// Requests that are being submitted.
    submitting: Vec<InstanceId>,
    /// Adapters whose memory is committed, and those whose memory is held.
    committed: Vec<(InstanceId, u64)>,
    held: Vec<(InstanceId, u64)>,
    accepted: usize,
    ended: usize,
}

fn pick<T: Copy>(from: &[T], index: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[index % from.len()])
}

impl Run {
    fn new(budget: Option<u64>, load_on_request: bool) -> Self {
        let mut sim = Sim::new(budget, load_on_request);
        for (i, model) in MODELS.into_iter().enumerate() {
            let idle_timeout = (i == 3).then(|| Duration::from_secs(15));
            sim.add(model, 4 + i as u64, ModelSettings { idle_timeout, ..ModelSettings::default() });
        }
        let (waiters, requests, submitting) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (committed, held) = (Vec::new(), Vec::new());
        Self { sim, waiters, requests, submitting, committed, held, accepted: 0, ended: 0 }
    }

    fn operate<E>(
        &mut self,
        operation: impl FnOnce(&mut Lifecycle<InstanceId>, Duration) -> Result<WaiterId, E>,
    ) {
        if let Ok(waiter) = self.sim.call(operation) {
            assert!(self.waiters.insert(waiter), "{waiter:?} is new");
        }
    }

    /// Models with a ready instance that is pinned, or has a request in flight.
    fn protected(&self) -> Vec<(&'static str, InstanceId)> {
        let ready = MODELS.into_iter().filter_map(|model| {
            let status = self.sim.lifecycle.status(model, self.sim.now)?;
            let id = status.handle?;
            (status.settings.pinned || self.sim.instances[&id].requests > 0).then_some((model, id))
        });
        ready.collect()
    }

    /// Takes one step. Returns the model that the caller asked to leave memory, if any.
    fn take(&mut self, step: &Step) -> Option<&'static str> {
        let seconds = |grace: Option<u64>| grace.map(Duration::from_secs);
        match *step {
            Step::Load(m) => self.operate(|l, now| l.load(MODELS[m], now)),
            Step::Unload(m, grace) => {
                self.operate(|l, now| l.unload(MODELS[m], seconds(grace), now));
                return Some(MODELS[m]);
            }
            Step::Reload(m, grace) => self.operate(|l, now| l.reload(MODELS[m], seconds(grace), now)),
            Step::Sleep(m) => {
                self.operate(|l, now| l.sleep(MODELS[m], None, now));
                return Some(MODELS[m]);
            }
            Step::Wake(m) => self.operate(|l, now| l.wake(MODELS[m], now)),
            Step::Cancel(m) => {
                let _ = self.sim.call(|l, now| l.cancel_load(MODELS[m], now));
            }
            Step::Activate(m) => {
                let is_ready = self.sim.name(MODELS[m]) == "ready";
                assert_eq!(self.sim.call(|l, now| l.set_active(MODELS[m], now)).is_ok(), is_ready);
            }
            Step::Pin(m, pinned) => {
                self.sim.call(|l, _| l.change(MODELS[m], |settings| settings.pinned = pinned)).unwrap();
            }
            Step::Bytes(m, bytes) => {
                self.sim.bytes.insert(MODELS[m].into(), bytes);
            }
            Step::Submit(m) => {
                let model = m.map(|m| MODELS[m]);
                let is_ready =
                    model.map_or(self.sim.lifecycle.active().is_some(), |m| self.sim.name(m) == "ready");
                let submitted = self.sim.submit(model);
                assert_eq!(submitted.is_ok(), is_ready, "{submitted:?}");
                self.accepted += usize::from(is_ready);
                self.requests.extend(submitted);
            }
            Step::Route(m) => {
                if let Ok((id, _)) = self.sim.call(|l, now| l.route(Some(MODELS[m]), now)) {
                    self.submitting.push(id);
                }
            }
            Step::Accept(i) => {
                if !self.submitting.is_empty() {
                    let id = self.submitting.swap_remove(i % self.submitting.len());
                    let known = self.sim.instances.get_mut(&id).unwrap();
                    // An engine that was aborted meanwhile refuses.
                    let accepts = known.holds_memory && known.job.is_none();
                    known.requests += usize::from(accepts);
                    self.accepted += usize::from(accepts);
                    self.sim.call(|l, now| l.submitted(id, now));
                    if accepts {
                        self.requests.push(id);
                    } else {
                        self.sim.call(|l, now| l.released(id, now));
                    }
                }
            }
            Step::End(i) => {
                if !self.requests.is_empty() {
                    let id = self.requests.swap_remove(i % self.requests.len());
                    self.sim.end(id);
                    self.ended += 1;
                }
            }
            Step::Finish(i) => {
                if let Some((id, _)) = pick(&self.sim.jobs(), i) {
                    let model = self.finish(id);
                    return model;
                }
            }
            Step::Fail(i) => {
                let can_fail = |(_, job): &(InstanceId, Job)| matches!(job, Job::Estimate | Job::Load);
                let jobs: Vec<_> = self.sim.jobs().into_iter().filter(can_fail).collect();
                if let Some((id, _)) = pick(&jobs, i) {
                    self.sim.fail(id);
                }
            }
            Step::Die(i) => {
                let ready: Vec<_> = self.sim.lifecycle.ready().map(|(id, _)| id).collect();
                if let Some(id) = pick(&ready, i) {
                    self.sim.call(|l, now| l.engine_ended(id, now));
                    let model = &self.sim.instances[&id].model;
                    return MODELS.into_iter().find(|name| **name == **model);
                }
            }
            Step::Advance(by) => self.sim.advance(Duration::from_secs(by)),
            Step::CommitAdapter(i, bytes) => {
                let instances = self.sim.instances.iter();
                let usable = instances.filter(|(_, known)| known.holds_memory && !known.cancelled);
                let usable: Vec<_> = usable.map(|(id, _)| *id).collect();
                if let Some(id) = pick(&usable, i)
                    && self.sim.call(|l, now| l.commit_adapter(id, "adapter", bytes, now)).is_ok()
                {
                    self.committed.push((id, bytes));
                }
            }
            Step::HoldAdapter(i) => {
                if let Some((id, bytes)) = pick(&self.committed, i) {
                    let held = self.sim.hold_adapter(id, bytes);
                    if !matches!(held, Ok(false)) {
                        self.committed.remove(i % self.committed.len());
                    }
                    if matches!(held, Ok(true)) {
                        self.held.push((id, bytes));
                    }
                }
            }
            Step::ReleaseAdapter(i) => {
                if let Some((id, bytes)) = pick(&self.held, i) {
                    self.held.remove(i % self.held.len());
                    self.sim.release_adapter(id, bytes);
                }
            }
        }
        None
    }

    /// Ends a job. An estimate or load of a reload may replace the old instance of its own model.
    fn finish(&mut self, id: InstanceId) -> Option<&'static str> {
        let job = self.sim.instances[&id].job;
        let model = self.sim.instances[&id].model.clone();
        self.sim.finish(id);
        if matches!(job, Some(Job::Drain | Job::Abort)) {
            let before = self.requests.len();
            self.requests.retain(|request| *request != id);
            self.ended += before - self.requests.len();
        }
        MODELS.into_iter().find(|name| **name == *model)
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            let before = self.protected();
            let leaves = self.take(step);
            for (model, id) in before {
                let stays = self.sim.lifecycle.ready().any(|(ready, _)| ready == id);
                assert!(stays || leaves == Some(model), "{model} was evicted by {step:?}");
            }
        }
        self.settle();
    }

    /// Ends everything: all waiters have been answered, all requests have ended, no memory is held.
    fn settle(&mut self) {
        while !self.submitting.is_empty() {
            self.take(&Step::Accept(0));
        }
        while !self.requests.is_empty() {
            self.take(&Step::End(0));
        }
        while let Some((id, _)) = self.sim.jobs().first().copied() {
            self.finish(id);
        }
        // All that was to leave has left, so that what was committed is there.
        for (id, bytes) in std::mem::take(&mut self.committed) {
            let ready = self.sim.lifecycle.ready().any(|(ready, _)| ready == id);
            match self.sim.hold_adapter(id, bytes) {
                Ok(held) => assert!(held && ready),
                Err(_) => assert!(!ready),
            }
        }
        let answered: BTreeSet<_> = self.sim.answers.keys().copied().collect();
        assert_eq!(answered, self.waiters, "each waiter is answered, without an unload");
        self.sim.call(|l, now| l.close(Some(Duration::ZERO), now));
        while let Some((id, _)) = self.sim.jobs().first().copied() {
            self.finish(id);
        }
        assert_eq!(self.sim.lifecycle.held_bytes(), 0);
        assert!(self.sim.instances.values().all(|known| known.job.is_none() && !known.holds_memory));
        assert_eq!(self.accepted, self.ended);
    }
}

#[test]
fn random_operations_keep_all_invariants() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let case = (prop::option::of(8..24u64), any::<bool>(), prop::collection::vec(step(), 1..120));
    runner
        .run(&case, |(budget, load_on_request, steps)| {
            Run::new(budget, load_on_request).run(&steps);
            Ok(())
        })
        .unwrap();
}
