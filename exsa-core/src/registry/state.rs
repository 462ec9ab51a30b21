//! Public state of models.

use super::managed::MemberState;
use crate::adapter::AdapterStatus;
use crate::backend::MemoryEstimate;
use crate::model_info::ModelInfo;
use std::sync::Arc;
use std::time::Duration;

/// State of a model in the registry.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ModelState {
    /// No weights are in memory.
    Unloaded,
    /// The model is being loaded, or waits until other models have released their memory.
    Loading(LoadingState),
    /// The model accepts requests. During a reload, it stays ready as long as the old instance serves
    /// requests.
    Ready,
    /// The model accepts no more requests; requests in flight are completed.
    Draining,
    /// No weights are in memory; the next request wakes the model.
    Sleeping,
    /// The last load failed, or the engine ended because the backend panicked.
    Failed {
        /// The reason.
        reason: String,
    },
}

impl ModelState {
    /// Name of the state in lower case: `ready`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading(_) => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Sleeping => "sleeping",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether the model accepts requests.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

/// Progress of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadingState {
    /// Bytes loaded, as the backend reports them.
    pub done: u64,
    /// Bytes to load; 0 before the backend has reported them.
    pub total: u64,
    /// Estimated remaining time; `None` without an estimate.
    pub remaining: Option<Duration>,
}

impl LoadingState {
    /// Loaded fraction, 0 to 1; `None` before the backend has reported the total.
    pub fn fraction(&self) -> Option<f64> {
        (self.total > 0).then(|| (self.done as f64 / self.total as f64).min(1.0))
    }
}

/// The order of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReloadOrder {
    /// The new instance is loaded while the old one still serves, then replaces it at once: no request is
    /// refused, and a failed load changes nothing.
    LoadFirst,
    /// The memory budget does not allow both instances: the old instance drains first, then the new one is
    /// loaded. Requests in between are refused with
    /// [`SubmitError::ModelLoading`](crate::SubmitError::ModelLoading).
    UnloadFirst,
}

/// Loads and evictions of a model since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelCounters {
    /// Successful loads, including reloads.
    pub loads: u64,
    /// Loads that failed or did not fit into the memory budget; cancelled loads are not counted.
    pub loads_failed: u64,
    /// Total time of successful loads, without estimates and waiting for memory.
    pub load_time: Duration,
    /// Evictions in favour of other models.
    pub evictions: u64,
}

/// A model of the registry: [`Registry::list`](super::Registry::list).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelStatus {
    /// Name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// State.
    pub state: ModelState,
    /// Whether requests that name no model go to this model. Only a ready model is active.
    pub active: bool,
    /// Whether the model is pinned: it is neither evicted nor put to sleep when idle.
    pub pinned: bool,
    /// Whether a reload is running.
    pub reloading: bool,
    /// Order of the running reload; `None` before it is decided.
    pub reload_order: Option<ReloadOrder>,
    /// Progress of the running load or reload.
    pub loading: Option<LoadingState>,
    /// Estimated memory of the ready or loading instance; `None` without such an instance or without an
    /// estimate.
    pub memory: Option<MemoryEstimate>,
    /// Loaded adapters of the ready instance.
    pub adapters: Vec<AdapterStatus>,
    /// Bytes of the adapters of the ready or loading instance, in addition to `memory`. An adapter is counted
    /// from before it is loaded until the last request that uses it has ended.
    pub adapter_bytes: u64,
    /// Requests in flight.
    pub requests: usize,
    /// Time since the last request ended; `None` unless the model is ready and has no requests in flight.
    pub idle: Option<Duration>,
    /// Time without requests after which the ready model is put to sleep; `None` means never.
    pub keep_alive: Option<Duration>,
    /// Loads and evictions.
    pub counters: ModelCounters,
    /// Metadata of the model, under its name in the registry; `None` unless it is ready.
    pub info: Option<Arc<ModelInfo>>,
}

/// Memory of all models: [`Registry::memory`](super::Registry::memory).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Estimated bytes of all instances that are loading, ready or draining, with their adapters.
    pub used: u64,
    /// Bytes of adapters in `used`.
    pub adapters: u64,
    /// Budget in bytes; `None` means unlimited.
    pub budget: Option<u64>,
}

/// Members of each model: [`Registry::members`](super::Registry::members).
pub type MembersByModel = Vec<(Arc<str>, Vec<MemberState>)>;

/// Number of waiting requests by model and user:
/// [`Registry::waiting_by_user`](super::Registry::waiting_by_user).
pub type WaitingByUser = Vec<(Arc<str>, Vec<(Arc<str>, usize)>)>;
