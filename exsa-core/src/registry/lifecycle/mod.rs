//! Lifecycle of models as a state machine without threads, clocks or backends.
//!
//! [`Lifecycle`] receives the operations of callers, the results of jobs and the time, and returns
//! [`Action`]s. Every load of a model has its own [`InstanceId`]: during a reload, a model has two instances:
//!
//! ```text
//! estimating ─► waiting for memory ─► loading ─► ready ─► leaving ─► gone
//!      └──────────────┴──────────────────┴── cancelled ──────┘
//! ```
//!
//! `H` stands for a running engine; simulations use a number.

mod adapters;
mod check;
mod instance;
mod jobs;
mod memory;
mod names;
mod operations;
mod requests;
mod view;

use super::error::RegistryError;
use super::event::RegistryEvent;
use super::state::{LoadingState, ModelCounters, ModelState, ReloadOrder};
use crate::backend::MemoryEstimate;
use crate::engine::Shutdown;
use instance::Instance;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Identifies one load of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

/// Identifies a caller of an operation, who gets exactly one [`Action::Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// An action for the driver.
#[derive(Clone, Debug)]
pub enum Action<H> {
    /// Estimate the memory of the model, then call [`Lifecycle::estimated`].
    Estimate(InstanceId, Arc<str>),
    /// Load the model and start an engine, then call [`Lifecycle::loaded`] or [`Lifecycle::load_failed`].
    Load(InstanceId),
    /// End the load soon; its result is still expected.
    CancelLoad(InstanceId),
    /// Shut the engine down and drop it, then call [`Lifecycle::gone`].
    Unload(InstanceId, H, Shutdown),
    /// Abort the engine that is shutting down.
    Abort(InstanceId),
    /// The end of an operation. A reload that succeeded has an order.
    Answer(WaiterId, Result<Option<ReloadOrder>, RegistryError>),
    /// A change for observers.
    Emit(RegistryEvent),
}

/// Options of a model that concern its lifecycle.
#[derive(Clone, Debug, Default)]
pub struct ModelSettings {
    /// Further names.
    pub aliases: Vec<Arc<str>>,
    /// Whether the model is pinned: neither evicted nor put to sleep when idle.
    pub pinned: bool,
    /// Idle time to live.
    pub idle_timeout: Option<Duration>,
}

/// State of a model without an instance.
#[derive(Clone, Debug)]
enum Rest {
    Unloaded,
    Sleeping,
    Failed(String),
}

/// A model.
#[derive(Debug)]
struct Entry {
    settings: ModelSettings,
    /// The ready instance.
    current: Option<InstanceId>,
    /// The instance that is becoming ready.
    pending: Option<InstanceId>,
    rest: Rest,
    /// Reason of the last refusal for lack of memory, and the time before which requests do not start another
    /// load.
    refused: Option<(String, Duration)>,
    unload_waiters: Vec<WaiterId>,
    counters: ModelCounters,
    /// The state last reported to observers.
    shown: ModelState,
}

impl Entry {
    /// Time without requests after which `instance` is put to sleep; `None` means never.
    fn keep_alive<H>(&self, instance: &Instance<H>) -> Option<Duration> {
        instance.keep_alive.unwrap_or(self.settings.idle_timeout).filter(|_| !self.settings.pinned)
    }
}

/// A model as [`Lifecycle::status`] describes it.
#[derive(Clone, Debug)]
pub struct Status<H> {
    /// Name.
    pub name: Arc<str>,
    /// Settings.
    pub settings: ModelSettings,
    /// State.
    pub state: ModelState,
    /// Whether it is the active model.
    pub active: bool,
    /// Whether a reload is running.
    pub reloading: bool,
    /// Order of the running reload, once decided.
    pub reload_order: Option<ReloadOrder>,
    /// Progress of the pending instance.
    pub loading: Option<LoadingState>,
    /// Estimated memory of the ready or pending instance.
    pub memory: Option<MemoryEstimate>,
    /// Bytes of the adapters of the ready or pending instance.
    pub adapter_bytes: u64,
    /// Requests in flight of all instances.
    pub requests: usize,
    /// Time without requests of a ready instance.
    pub idle: Option<Duration>,
    /// Time without requests after which the ready instance is put to sleep.
    pub keep_alive: Option<Duration>,
    /// Loads and evictions so far.
    pub counters: ModelCounters,
    /// The ready engine.
    pub handle: Option<H>,
}

/// Lifecycle of all models.
#[derive(Debug)]
pub struct Lifecycle<H> {
    models: BTreeMap<Arc<str>, Entry>,
    /// Aliases and their models.
    aliases: BTreeMap<Arc<str>, Arc<str>>,
    instances: BTreeMap<InstanceId, Instance<H>>,
    /// The model chosen for requests without a name, ready or not.
    chosen: Option<Arc<str>>,
    /// The active model last reported to observers.
    shown_active: Option<Arc<str>>,
    memory_bytes_max: Option<u64>,
    load_on_request: bool,
    /// Bytes per second of the last load.
    load_rate: Option<f64>,
    actions: Vec<Action<H>>,
    instances_made: u64,
    waiters_made: u64,
    closed: bool,
}

impl<H: Clone> Lifecycle<H> {
    /// No models.
    pub fn new(memory_bytes_max: Option<u64>, load_on_request: bool) -> Self {
        Self {
            models: BTreeMap::new(),
            aliases: BTreeMap::new(),
            instances: BTreeMap::new(),
            chosen: None,
            shown_active: None,
            memory_bytes_max,
            load_on_request,
            load_rate: None,
            actions: Vec::new(),
            instances_made: 0,
            waiters_made: 0,
            closed: false,
        }
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the actions to execute, in order.
    pub fn take_actions(&mut self) -> Vec<Action<H>> {
        std::mem::take(&mut self.actions)
    }

    /// Whether there are pending actions.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Performs due transitions: idle models are put to sleep, and drains past their grace are aborted.
    pub fn tick(&mut self, now: Duration) {
        let idle: Vec<_> = self.idle_limits().filter(|(_, at)| *at <= now).map(|(name, _)| name).collect();
        for name in idle {
            self.leave_current(&name, Rest::Sleeping, None, now);
        }
        let leaving: Vec<_> =
            self.instances.iter().filter(|(_, i)| i.is_leaving()).map(|(id, _)| *id).collect();
        leaving.into_iter().for_each(|id| self.settle(id, now));
        self.start_waiting(now);
        self.show(now);
    }

    /// Time of the next transition by [`tick`](Self::tick), without further events.
    pub fn next_tick(&self) -> Option<Duration> {
        let aborts = self.instances.values().filter_map(Instance::abort_at);
        self.idle_limits().map(|(_, at)| at).chain(aborts).min()
    }

    /// The memory budget in bytes.
    pub fn budget(&self) -> Option<u64> {
        self.memory_bytes_max
    }

    /// Instances of a model that are leaving.
    fn leaving<'a>(&'a self, name: &'a str) -> impl Iterator<Item = InstanceId> + 'a {
        let own = self.instances.iter().filter(move |(_, i)| &*i.model == name && i.is_leaving());
        own.map(|(id, _)| *id)
    }

    /// Models without requests and when they are put to sleep.
    fn idle_limits(&self) -> impl Iterator<Item = (Arc<str>, Duration)> {
        self.models.iter().filter_map(|(name, entry)| {
            let instance = self.instances.get(&entry.current?)?;
            let timeout = entry.keep_alive(instance)?;
            let is_idle = instance.in_flight == 0 && entry.pending.is_none();
            is_idle.then(|| (name.clone(), instance.last_used.saturating_add(timeout)))
        })
    }

    fn waiter(&mut self) -> WaiterId {
        self.waiters_made += 1;
        WaiterId(self.waiters_made)
    }

    fn answer(&mut self, waiter: WaiterId, result: Result<Option<ReloadOrder>, RegistryError>) {
        self.actions.push(Action::Answer(waiter, result));
    }

    fn emit(&mut self, event: RegistryEvent) {
        self.actions.push(Action::Emit(event));
    }

    fn check_open(&self) -> Result<(), RegistryError> {
        if self.closed { Err(RegistryError::ShuttingDown) } else { Ok(()) }
    }
}
