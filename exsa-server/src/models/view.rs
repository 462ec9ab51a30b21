//! JSON form of models in lifecycle routes and events.

use exsa_core::model_info::ModelInfo;
use exsa_core::registry::{LoadingState, MemberState, MembersByModel, ModelState, ModelStatus, ReloadOrder};
use exsa_core::stats::EngineStats;
use exsa_core::{Mode, Priority};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// All models: `GET /v1/models/list`.
#[derive(Debug, Serialize)]
pub(super) struct List {
    pub(super) object: &'static str,
    /// Name of the active model.
    pub(super) active: Option<String>,
    pub(super) memory: Memory,
    pub(super) data: Vec<Model>,
}

/// Estimated memory of all models.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) used_bytes: u64,
    /// Bytes of adapters in `used_bytes`.
    pub(super) adapter_bytes: u64,
    pub(super) budget_bytes: Option<u64>,
}

/// One model.
#[derive(Debug, Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    aliases: Vec<String>,
    /// unloaded, loading, ready, draining, sleeping or failed.
    state: &'static str,
    /// Reason for the failure of a failed model.
    reason: Option<String>,
    /// Progress of a running load or reload.
    progress: Option<Progress>,
    active: bool,
    pinned: bool,
    /// A running reload.
    reload: Option<Reload>,
    /// Estimated memory of the ready or loading instance.
    memory: Option<ModelMemory>,
    adapters: Adapters,
    requests: Requests,
    idle_seconds: Option<f64>,
    /// Time without requests after which the model is put to sleep.
    keep_alive_seconds: Option<f64>,
    settings: Option<Settings>,
    counters: Counters,
    /// Worker processes or remote engines that serve the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<Member>,
    info: Option<Info>,
}

#[derive(Debug, Serialize)]
struct Member {
    name: String,
    state: String,
    ready: bool,
    in_flight: usize,
    /// Requests that were lost on it; most of them continued elsewhere.
    lost: u64,
    restarts: u64,
}

impl From<MemberState> for Member {
    fn from(member: MemberState) -> Self {
        let MemberState { name, state, ready, in_flight, lost, restarts, .. } = member;
        Self { name, state, ready, in_flight, lost, restarts }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Progress {
    done_bytes: u64,
    total_bytes: u64,
    /// 0 to 1; null before the backend has reported the total.
    fraction: Option<f64>,
    remaining_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Reload {
    /// load_first or unload_first; null before the memory budget has decided it.
    order: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ModelMemory {
    weights_bytes: u64,
    kv_bytes: u64,
    scratch_bytes: u64,
    total_bytes: u64,
}

/// Adapters of the ready or loading instance, whose bytes are not in its `memory`.
#[derive(Debug, Serialize)]
struct Adapters {
    loaded: Vec<String>,
    /// Bytes, including unloaded adapters still used by requests.
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Requests {
    in_flight: usize,
    running: usize,
    waiting: usize,
    waiting_by_class: BTreeMap<&'static str, usize>,
}

/// Settings of the next load; mode and ageing also apply to the running engine.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    mode: Mode,
    ageing_seconds: f64,
    sequences: usize,
    context: Option<usize>,
    idle_timeout_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Counters {
    loads: u64,
    loads_failed: u64,
    load_seconds: f64,
    evictions: u64,
}

#[derive(Debug, Serialize)]
struct Info {
    architecture: String,
    quantization: String,
    n_params: u64,
    weights_bytes: u64,
    n_ctx_train: usize,
    n_vocab: usize,
    n_embd: usize,
    n_layer: usize,
}

impl Model {
    pub(super) fn new(status: ModelStatus, stats: &EngineStats, settings: Option<Settings>) -> Self {
        let scheduler = &stats.scheduler;
        let waiting = Priority::ALL.map(|class| (class.name(), scheduler.waiting_by_class[class.index()]));
        let counters = status.counters;
        Self {
            id: status.name,
            object: "model",
            aliases: status.aliases,
            state: status.state.name(),
            reason: reason(&status.state),
            progress: status.loading.map(Progress::from),
            active: status.active,
            pinned: status.pinned,
            reload: status.reloading.then(|| Reload { order: status.reload_order.map(order) }),
            memory: status.memory.map(|memory| ModelMemory {
                weights_bytes: memory.weights,
                kv_bytes: memory.kv,
                scratch_bytes: memory.scratch,
                total_bytes: memory.total(),
            }),
            adapters: Adapters {
                loaded: status.adapters.iter().map(|adapter| adapter.name.to_string()).collect(),
                bytes: status.adapter_bytes,
            },
            requests: Requests {
                in_flight: status.requests,
                running: scheduler.running,
                waiting: scheduler.waiting,
                waiting_by_class: waiting.into(),
            },
            idle_seconds: status.idle.map(|time| time.as_secs_f64()),
            keep_alive_seconds: status.keep_alive.map(|time| time.as_secs_f64()),
            settings,
            counters: Counters {
                loads: counters.loads,
                loads_failed: counters.loads_failed,
                load_seconds: counters.load_time.as_secs_f64(),
                evictions: counters.evictions,
            },
            members: Vec::new(),
            info: status.info.as_deref().map(Info::from),
        }
    }

    /// Adds the members.
    pub(super) fn members(mut self, members: &MembersByModel) -> Self {
        let own = members.iter().filter(|(model, _)| **model == *self.id);
        self.members = own.flat_map(|(_, members)| members.iter().cloned().map(Member::from)).collect();
        self
    }

    /// A model of a server without a registry, which is always ready.
    pub(super) fn fixed(info: &ModelInfo, stats: &EngineStats, active: bool) -> Self {
        let scheduler = &stats.scheduler;
        let waiting = Priority::ALL.map(|class| (class.name(), scheduler.waiting_by_class[class.index()]));
        Self {
            id: info.name.clone(),
            object: "model",
            aliases: Vec::new(),
            state: ModelState::Ready.name(),
            reason: None,
            progress: None,
            active,
            pinned: true,
            reload: None,
            memory: None,
            adapters: Adapters { loaded: Vec::new(), bytes: 0 },
            requests: Requests {
                in_flight: scheduler.running + scheduler.waiting,
                running: scheduler.running,
                waiting: scheduler.waiting,
                waiting_by_class: waiting.into(),
            },
            idle_seconds: None,
            keep_alive_seconds: None,
            settings: None,
            counters: Counters { loads: 1, loads_failed: 0, load_seconds: 0.0, evictions: 0 },
            members: Vec::new(),
            info: Some(Info::from(info)),
        }
    }
}

impl Settings {
    pub(super) fn new(config: &exsa_core::registry::ModelConfig) -> Self {
        let engine = &config.engine;
        Self {
            mode: engine.mode,
            ageing_seconds: engine.fair.ageing.as_secs_f64(),
            sequences: engine.session.sequences_max,
            context: engine.session.context_tokens_max,
            idle_timeout_seconds: config.idle_timeout.map(|time: Duration| time.as_secs_f64()),
        }
    }
}

impl From<LoadingState> for Progress {
    fn from(state: LoadingState) -> Self {
        Self {
            done_bytes: state.done,
            total_bytes: state.total,
            fraction: state.fraction(),
            remaining_seconds: state.remaining.map(|time| time.as_secs_f64()),
        }
    }
}

impl From<&ModelInfo> for Info {
    fn from(info: &ModelInfo) -> Self {
        Self {
            architecture: info.architecture.clone(),
            quantization: info.quantization.clone(),
            n_params: info.parameters,
            weights_bytes: info.weights_bytes,
            n_ctx_train: info.n_ctx,
            n_vocab: info.n_vocab,
            n_embd: info.n_embd,
            n_layer: info.n_layer,
        }
    }
}

/// Name of a reload's order.
pub(super) fn order(order: ReloadOrder) -> &'static str {
    match order {
        ReloadOrder::UnloadFirst => "unload_first",
        _ => "load_first",
    }
}

/// Returns the reason for the failure of a failed model.
pub(super) fn reason(state: &ModelState) -> Option<String> {
    match state {
        ModelState::Failed { reason } => Some(reason.clone()),
        _ => None,
    }
}
