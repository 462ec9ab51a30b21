//! Drives a [`Lifecycle`] with fake time, jobs that end when the test says so, and requests without an
//! engine. It tracks instances and their memory itself, to check the budget independently.

use exsa_core::adapter::AdapterError;
use exsa_core::backend::MemoryEstimate;
use exsa_core::error::LoadError;
use exsa_core::registry::lifecycle::{Action, InstanceId, Lifecycle, ModelSettings, WaiterId};
use exsa_core::registry::{ModelState, RegistryError, RegistryEvent, ReloadOrder};
use exsa_core::{Shutdown, SubmitError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub type Answer = Result<Option<ReloadOrder>, RegistryError>;

/// A job that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Estimate,
    Load,
    Drain,
    Abort,
}

/// An instance, as far as its actions tell.
#[derive(Debug)]
pub struct Known {
    pub model: Arc<str>,
    pub job: Option<Job>,
    pub bytes: u64,
    /// Bytes of its adapters.
    pub adapters: u64,
    /// Its load was started, and its memory is not free.
    pub holds_memory: bool,
    pub cancelled: bool,
    /// Requests in flight.
    pub requests: usize,
}

pub struct Sim {
    pub lifecycle: Lifecycle<InstanceId>,
    pub now: Duration,
    pub budget: Option<u64>,
    /// Bytes of each model.
    pub bytes: BTreeMap<Arc<str>, u64>,
    pub instances: BTreeMap<InstanceId, Known>,
    pub answers: BTreeMap<WaiterId, Answer>,
    pub events: Vec<RegistryEvent>,
    /// Requests that ended by an abort.
    pub aborted: usize,
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Sim {
    pub fn new(budget: impl Into<Option<u64>>, load_on_request: bool) -> Self {
        let budget = budget.into();
        Self {
            lifecycle: Lifecycle::new(budget, load_on_request),
            now: seconds(1),
            budget,
            bytes: BTreeMap::new(),
            instances: BTreeMap::new(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            aborted: 0,
        }
    }

    /// Adds models of these bytes.
    pub fn with(mut self, models: &[(&str, u64)]) -> Self {
        models.iter().for_each(|(name, bytes)| self.add(name, *bytes, ModelSettings::default()));
        self
    }

    pub fn add(&mut self, name: &str, bytes: u64, settings: ModelSettings) {
        self.lifecycle.add(name.into(), settings).unwrap();
        self.bytes.insert(name.into(), bytes);
        self.drain();
    }

    /// Calls an operation or reports an event, then takes the actions and checks all invariants.
    pub fn call<R>(&mut self, call: impl FnOnce(&mut Lifecycle<InstanceId>, Duration) -> R) -> R {
        let result = call(&mut self.lifecycle, self.now);
        self.drain();
        result
    }

    fn drain(&mut self) {
        for action in self.lifecycle.take_actions() {
            match action {
                Action::Estimate(id, model) => {
                    let known = Known {
                        model,
                        job: Some(Job::Estimate),
                        bytes: 0,
                        adapters: 0,
                        holds_memory: false,
                        cancelled: false,
                        requests: 0,
                    };
                    assert!(self.instances.insert(id, known).is_none(), "{id:?} is new");
                }
                Action::Load(id) => {
                    let known = self.known(id);
                    assert_eq!(known.job, None, "{id:?} has one job at a time");
                    (known.job, known.holds_memory) = (Some(Job::Load), true);
                }
                Action::CancelLoad(id) => {
                    let known = self.known(id);
                    assert_eq!(known.job, Some(Job::Load));
                    known.cancelled = true;
                }
                Action::Unload(id, handle, how) => {
                    assert_eq!(handle, id);
                    let known = self.known(id);
                    assert_eq!(known.job, None);
                    known.job = Some(if how == Shutdown::Drain { Job::Drain } else { Job::Abort });
                }
                Action::Abort(id) => {
                    let known = self.known(id);
                    assert_eq!(known.job, Some(Job::Drain));
                    known.job = Some(Job::Abort);
                }
                Action::Answer(waiter, answer) => {
                    assert!(self.answers.insert(waiter, answer).is_none(), "{waiter:?} is answered once");
                }
                Action::Emit(event) => self.events.push(event),
            }
            if let Some(budget) = self.budget {
                let holding = self.instances.values().filter(|known| known.holds_memory);
                let held: u64 = holding.map(|known| known.bytes + known.adapters).sum();
                assert!(held <= budget, "{held} bytes are held");
            }
        }
        self.lifecycle.check().unwrap();
        let active = self.lifecycle.active().map(|name| self.state(name));
        assert!(active.is_none_or(|state| state == ModelState::Ready), "the active model is ready");
    }

    fn known(&mut self, id: InstanceId) -> &mut Known {
        self.instances.get_mut(&id).unwrap()
    }

    /// Ends a job successfully. A drain ends only without requests.
    pub fn finish(&mut self, id: InstanceId) {
        let model = self.known(id).model.clone();
        let bytes = self.bytes[&model];
        let known = self.known(id);
        match known.job.take().unwrap() {
            Job::Estimate => {
                known.bytes = bytes;
                self.call(|lifecycle, now| {
                    lifecycle.estimated(id, Ok(Some(MemoryEstimate::new(bytes, 0, 0))), now);
                });
            }
            Job::Load => {
                self.call(|lifecycle, now| lifecycle.loaded(id, id, now));
            }
            how @ (Job::Drain | Job::Abort) => {
                let requests = std::mem::take(&mut known.requests);
                assert!(how == Job::Abort || requests == 0, "a drain ends without requests");
                known.holds_memory = false;
                self.aborted += requests;
                for _ in 0..requests {
                    self.call(|lifecycle, now| lifecycle.released(id, now));
                }
                self.call(|lifecycle, now| lifecycle.gone(id, now));
            }
        }
    }

    /// Requests the memory of a committed adapter. Returns whether it is granted.
    pub fn hold_adapter(&mut self, id: InstanceId, bytes: u64) -> Result<bool, AdapterError> {
        let held = self.call(|lifecycle, _| lifecycle.hold_adapter(id, bytes))?;
        self.known(id).adapters += if held { bytes } else { 0 };
        self.call(|_, _| ());
        Ok(held)
    }

    /// Returns the memory of an adapter.
    pub fn release_adapter(&mut self, id: InstanceId, bytes: u64) {
        self.known(id).adapters -= bytes;
        self.call(|lifecycle, now| lifecycle.release_adapter(id, bytes, now));
    }

    /// Fails an estimate or a load.
    pub fn fail(&mut self, id: InstanceId) {
        let known = self.known(id);
        let model = known.model.to_string();
        let job = known.job.take();
        let error = if known.cancelled {
            RegistryError::Cancelled { model }
        } else {
            RegistryError::Load { model, source: Arc::new(LoadError::Backend("it is broken".into())) }
        };
        known.holds_memory = false;
        match job {
            Some(Job::Estimate) => self.call(|lifecycle, now| lifecycle.estimated(id, Err(error), now)),
            Some(Job::Load) => self.call(|lifecycle, now| lifecycle.load_failed(id, error, now)),
            other => panic!("{other:?} does not fail"),
        }
    }

    /// Jobs that could end now, the oldest instance first.
    pub fn jobs(&self) -> Vec<(InstanceId, Job)> {
        let ends = |job: Job, known: &Known| job != Job::Drain || known.requests == 0;
        let jobs = self.instances.iter().filter_map(|(id, known)| Some((*id, known.job?, known)));
        jobs.filter(|(_, job, known)| ends(*job, known)).map(|(id, job, _)| (id, job)).collect()
    }

    /// Ends jobs until none can end; cancelled loads fail.
    pub fn run(&mut self) {
        while let Some((id, job)) = self.jobs().first().copied() {
            if job == Job::Load && self.instances[&id].cancelled { self.fail(id) } else { self.finish(id) }
        }
    }

    /// Ends the only job of this kind.
    pub fn finish_job(&mut self, job: Job) {
        let of_kind: Vec<_> = self.jobs().into_iter().filter(|(_, kind)| *kind == job).collect();
        assert_eq!(of_kind.len(), 1, "{:?}", self.jobs());
        self.finish(of_kind[0].0);
    }

    /// Loads a model to its end.
    pub fn load(&mut self, model: &str) -> Answer {
        let waiter = self.call(|lifecycle, now| lifecycle.load(model, now)).unwrap();
        self.run();
        self.answers[&waiter].clone()
    }

    /// Submits a request; its instance.
    pub fn submit<'a>(&mut self, model: impl Into<Option<&'a str>>) -> Result<InstanceId, SubmitError> {
        let model = model.into();
        let (id, handle) = self.call(|lifecycle, now| lifecycle.route(model, now))?;
        assert_eq!(id, handle);
        let known = self.known(id);
        assert!(known.job.is_none() && known.holds_memory, "{id:?} serves: {known:?}");
        known.requests += 1;
        self.call(|lifecycle, now| lifecycle.submitted(id, now));
        Ok(id)
    }

    /// Ends a request of an instance.
    pub fn end(&mut self, id: InstanceId) {
        self.known(id).requests -= 1;
        self.call(|lifecycle, now| lifecycle.released(id, now));
    }

    /// Advances the time, with a tick at each time that the lifecycle asks for.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.lifecycle.next_tick().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.call(Lifecycle::tick);
            assert!(self.lifecycle.next_tick().is_none_or(|next| next > self.now), "the tick did its work");
        }
        self.now = until;
        self.call(Lifecycle::tick);
    }

    pub fn state(&self, model: &str) -> ModelState {
        self.lifecycle.status(model, self.now).unwrap().state
    }

    pub fn name(&self, model: &str) -> &'static str {
        self.state(model).name()
    }

    /// The states of a model that observers saw.
    pub fn seen(&self, model: &str) -> Vec<&'static str> {
        let states = self.events.iter().filter_map(|event| match event {
            RegistryEvent::State { model: of, state } if **of == *model => Some(state.name()),
            _ => None,
        });
        states.collect()
    }
}
