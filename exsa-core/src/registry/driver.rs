//! The threads of a registry: a supervisor that executes the actions of [`Lifecycle`], and a thread for each
//! estimate, load and unload.

use super::config::ModelConfig;
use super::error::RegistryError;
use super::event::Observers;
use super::lifecycle::{Action, InstanceId, Lifecycle, WaiterId};
use super::load_job::{self, LoadControl};
use super::operation::OperationSender;
use super::options::{LoadPacing, RegistryOptions};
use super::served::Served;
use super::state::{MembersByModel, ReloadOrder, WaitingByUser};
use crate::clock::{Clock, SystemClock};
use crate::engine::Shutdown;
use crate::error::LoadError;
use crate::stats::EngineStats;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Maximum interval between checks of a state that a caller waits for.
const POLL: Duration = Duration::from_millis(20);

/// A caller that waits for an operation.
pub(super) enum Waiter {
    Plain(OperationSender<()>),
    Reload(OperationSender<ReloadOrder>),
}

impl Waiter {
    fn answer(self, result: Result<Option<ReloadOrder>, RegistryError>) {
        match self {
            Self::Plain(sender) => sender.send(result.map(|_| ())),
            // A successful reload always has an order.
            Self::Reload(sender) => {
                sender.send(result.map(|order| order.unwrap_or(ReloadOrder::LoadFirst)));
            }
        }
    }
}

/// A load on its thread.
struct Job {
    config: Arc<ModelConfig>,
    control: Arc<LoadControl>,
}

/// State of a registry.
pub(super) struct Shared {
    pub lifecycle: Lifecycle<Arc<Served>>,
    pub configs: BTreeMap<Arc<str>, Arc<ModelConfig>>,
    pub waiters: BTreeMap<WaiterId, Waiter>,
    /// Running loads, from the start of their estimate.
    jobs: BTreeMap<InstanceId, Job>,
    /// Engines that are shutting down.
    leaving: BTreeMap<InstanceId, Weak<Served>>,
    /// Counters of engines that have ended, by model.
    retired: BTreeMap<Arc<str>, EngineStats>,
    /// Number of running threads besides the supervisor.
    threads: usize,
    /// Whether the supervisor has ended.
    ended: bool,
}

impl Shared {
    /// Whether the supervisor has ended; operations are then no longer answered.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// The part of a registry that its threads share.
pub(super) struct Inner {
    shared: Mutex<Shared>,
    /// Wakes the supervisor and threads that wait for its end.
    changed: Condvar,
    clock: SystemClock,
    pub observers: Observers,
    pub pacing: LoadPacing,
}

impl Inner {
    pub(super) fn new(options: &RegistryOptions) -> Self {
        Self {
            shared: Mutex::new(Shared {
                lifecycle: Lifecycle::new(options.memory_bytes_max, options.load_on_request),
                configs: BTreeMap::new(),
                waiters: BTreeMap::new(),
                jobs: BTreeMap::new(),
                leaving: BTreeMap::new(),
                retired: BTreeMap::new(),
                threads: 0,
                ended: false,
            }),
            changed: Condvar::new(),
            clock: SystemClock::new(),
            observers: Observers::default(),
            pacing: options.load_pacing,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Calls `work` with the locked state. `work` must not drop an engine, since engines report to this
    /// state.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Shared, Duration) -> R) -> R {
        let mut shared = self.shared.lock();
        let before = shared.lifecycle.next_tick();
        let result = work(&mut shared, self.clock.now());
        let earlier = |at: Duration| before.is_none_or(|before| at < before);
        let wake = shared.lifecycle.has_actions()
            || shared.lifecycle.is_closed()
            || shared.lifecycle.next_tick().is_some_and(earlier);
        drop(shared);
        if wake {
            self.changed.notify_all();
        }
        result
    }

    /// Passes an event to the lifecycle.
    pub(super) fn event<R>(&self, event: impl FnOnce(&mut Lifecycle<Arc<Served>>, Duration) -> R) -> R {
        self.with(|shared, now| event(&mut shared.lifecycle, now))
    }

    /// Calls `ready` after every change until it returns a value.
    pub(super) fn wait_until<R>(&self, mut ready: impl FnMut(&mut Lifecycle<Arc<Served>>) -> Option<R>) -> R {
        let mut shared = self.shared.lock();
        loop {
            if let Some(result) = ready(&mut shared.lifecycle) {
                return result;
            }
            // Not every change triggers an action that would wake this thread.
            self.changed.wait_for(&mut shared, POLL);
        }
    }

    /// Counters of all engines by model, including engines that have ended.
    pub(super) fn stats(&self) -> BTreeMap<Arc<str>, EngineStats> {
        let (mut stats, engines) = self.with(|shared, _| {
            let leaving = shared.leaving.values().filter_map(Weak::upgrade);
            let engines: Vec<_> = shared.lifecycle.handles().cloned().chain(leaving).collect();
            (shared.retired.clone(), engines)
        });
        for served in &engines {
            let model = stats.entry(served.info.name.as_str().into()).or_default();
            model.merge(&served.engine.stats());
        }
        stats
    }

    /// Waiting answers of each ready model by user.
    pub(super) fn waiting_by_user(&self) -> WaitingByUser {
        let ready: Vec<_> =
            self.with(|shared, _| shared.lifecycle.ready().map(|(_, served)| served.clone()).collect());
        let of = |served: &Arc<Served>| (served.info.name.as_str().into(), served.engine.waiting_by_user());
        ready.iter().map(of).collect()
    }

    /// The ready instances.
    pub(super) fn ready(&self) -> Vec<Arc<Served>> {
        self.with(|shared, _| shared.lifecycle.ready().map(|(_, served)| served.clone()).collect())
    }

    /// Members of each ready model.
    pub(super) fn members(&self) -> MembersByModel {
        let ready = self.ready();
        let of = |served: &Arc<Served>| (served.info.name.as_str().into(), served.engine.members());
        ready.iter().map(of).collect()
    }

    /// Detects engines that ended on their own.
    pub(super) fn find_ended(&self) {
        self.with(|shared, now| {
            let lifecycle = &mut shared.lifecycle;
            let ended = lifecycle.ready().filter(|(_, served)| served.engine.is_shut_down());
            let ended: Vec<_> = ended.map(|(id, _)| id).collect();
            ended.into_iter().for_each(|id| lifecycle.engine_ended(id, now));
        });
    }

    /// Waits at most `timeout` until the supervisor has ended. Returns whether it has.
    pub(super) fn wait_for_end(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.map(|timeout| self.clock.now().saturating_add(timeout));
        let mut shared = self.shared.lock();
        while !shared.ended {
            match until {
                None => self.changed.wait(&mut shared),
                Some(until) => match until.checked_sub(self.clock.now()).filter(|left| !left.is_zero()) {
                    Some(left) => {
                        self.changed.wait_for(&mut shared, left);
                    }
                    None => return false,
                },
            }
        }
        true
    }

    /// The supervisor: executes actions until the registry is closed and all threads have ended.
    pub(super) fn supervise(self: &Arc<Self>) {
        let mut shared = self.shared.lock();
        loop {
            let now = self.clock.now();
            let Shared { lifecycle, jobs, .. } = &mut *shared;
            lifecycle.tick(now);
            // A load that was cancelled before it started has no thread to remove it.
            jobs.retain(|id, _| lifecycle.exists(*id));
            let actions = shared.lifecycle.take_actions();
            if actions.is_empty() {
                if shared.lifecycle.is_closed() && shared.threads == 0 {
                    break;
                }
                match shared.lifecycle.next_tick() {
                    Some(at) => {
                        self.changed.wait_for(&mut shared, at.saturating_sub(now));
                    }
                    None => self.changed.wait(&mut shared),
                }
                continue;
            }
            for action in &actions {
                // Done before the lock is released, so that no engine is missing from the statistics.
                if let Action::Unload(id, served, _) = action {
                    shared.leaving.insert(*id, Arc::downgrade(served));
                }
            }
            MutexGuard::unlocked(&mut shared, || {
                for action in actions {
                    // Wakers are code of the host: the registry must survive their panics.
                    let _ = catch_unwind(AssertUnwindSafe(|| self.execute(action)));
                }
            });
        }
        let waiters = std::mem::take(&mut shared.waiters);
        shared.ended = true;
        drop(shared);
        // Dropping the senders answers operations that can no longer complete.
        drop(waiters);
        self.observers.close();
        self.changed.notify_all();
    }

    fn execute(self: &Arc<Self>, action: Action<Arc<Served>>) {
        match action {
            Action::Estimate(id, model) => self.estimate(id, &model),
            Action::Load(id) => self.load(id),
            Action::CancelLoad(id) => {
                if let Some(control) = self.with(|shared, _| Some(shared.jobs.get(&id)?.control.clone())) {
                    control.cancel();
                }
            }
            Action::Unload(id, served, how) => self.unload(id, served, how),
            Action::Abort(id) => self.abort(id),
            Action::Answer(waiter, result) => {
                if let Some(waiter) = self.with(|shared, _| shared.waiters.remove(&waiter)) {
                    waiter.answer(result);
                }
            }
            Action::Emit(event) => self.observers.send(&event),
        }
    }

    fn estimate(self: &Arc<Self>, id: InstanceId, model: &Arc<str>) {
        let config = self.with(|shared, _| {
            let config = shared.configs.get(model)?.clone();
            let control = Arc::new(LoadControl::default());
            shared.jobs.insert(id, Job { config: config.clone(), control });
            Some(config)
        });
        let Some(config) = config else { return };
        let inner = self.clone();
        let has_budget = self.with(|shared, _| shared.lifecycle.budget().is_some());
        let started = self.spawn("exsa-estimate", move || {
            let result = load_job::estimate(&config, has_budget);
            inner.with(|shared, now| {
                shared.lifecycle.estimated(id, result, now);
            });
        });
        self.fail_unless(started, id);
    }

    fn load(self: &Arc<Self>, id: InstanceId) {
        let job =
            self.with(|shared, _| shared.jobs.get(&id).map(|job| (job.config.clone(), job.control.clone())));
        let Some((config, control)) = job else { return };
        let inner = self.clone();
        let started = self.spawn("exsa-load", move || {
            let result = load_job::load(&inner, &config, &control, id);
            inner.with(|shared, now| {
                shared.jobs.remove(&id);
                match result {
                    Ok(served) => shared.lifecycle.loaded(id, served, now),
                    Err(error) => shared.lifecycle.load_failed(id, error, now),
                }
            });
        });
        self.fail_unless(started, id);
    }

    fn unload(self: &Arc<Self>, id: InstanceId, served: Arc<Served>, how: Shutdown) {
        let inner = self.clone();
        // If the thread cannot be started, the engine is dropped here, which aborts it.
        let _ = self.spawn("exsa-unload", move || {
            served.engine.shut_down(how);
            let stats = served.engine.stats().without_gauges();
            inner.with(|shared, _| {
                if shared.leaving.remove(&id).is_some() {
                    shared.retired.entry(served.info.name.as_str().into()).or_default().merge(&stats);
                }
            });
            // Reports that the instance is gone, unless an [`EngineHandle`](super::EngineHandle) still holds
            // the engine.
            drop(served);
        });
    }

    fn abort(self: &Arc<Self>, id: InstanceId) {
        if let Some(served) = self.with(|shared, _| shared.leaving.get(&id).and_then(Weak::upgrade)) {
            // Does not wait for the engine to end.
            served.engine.begin_shutdown(Shutdown::Abort);
            // On a separate thread, since dropping the last owner waits for the engine.
            let _ = self.spawn("exsa-unload", move || drop(served));
        }
    }

    /// Fails a load whose thread could not be started.
    fn fail_unless(&self, started: std::io::Result<()>, id: InstanceId) {
        let Err(error) = started else { return };
        self.with(|shared, now| {
            let Some(job) = shared.jobs.remove(&id) else { return };
            let source = Arc::new(LoadError::Backend(format!("cannot start the loading thread: {error}")));
            let error = RegistryError::Load { model: job.config.name.clone(), source };
            shared.lifecycle.load_failed(id, error, now);
        });
    }

    /// Starts a thread; the supervisor does not end before it.
    fn spawn(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        struct Running(Arc<Inner>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.with(|shared, _| shared.threads -= 1);
            }
        }
        self.with(|shared, _| shared.threads += 1);
        let running = Running(self.clone());
        let thread = std::thread::Builder::new().name(name.into());
        thread
            .spawn(move || {
                let _running = running;
                work();
            })
            .map(drop)
    }
}
