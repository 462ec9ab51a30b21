//! Generators that a registry loads and unloads, and their loaders.

use crate::backend::{InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, ModelSource};
use crate::engine::{Engine, Shutdown};
use crate::error::LoadError;
use crate::generator::Generator;
use crate::model_info::ModelInfo;
use crate::options::EngineOptions;
use crate::schedule::queue::FairOptions;
use crate::schedule::scheduler::Mode;
use crate::speculate::DraftModelSource;
use std::fmt;
use std::sync::Arc;

/// A generator of one model that can be ended: an [`Engine`], or a pool of worker processes.
///
/// # Contract
///
/// - Its memory is free once it is dropped.
/// - `shut_down` returns when all requests have ended; a drop aborts.
pub trait Managed: Generator + fmt::Debug {
    /// Begins a shutdown and returns at once. No request is accepted from then on.
    fn begin_shutdown(&self, how: Shutdown);

    /// Begins a shutdown, and waits for its end.
    fn shut_down(&self, how: Shutdown);

    /// Whether it has ended: after a shutdown, or by a failure that it does not recover from.
    fn is_shut_down(&self) -> bool;

    /// Number of answers that wait, by user. The default knows none.
    fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        Vec::new()
    }

    /// Its parts, where it has any: worker processes, remote engines. The default has none.
    fn members(&self) -> Vec<MemberState> {
        Vec::new()
    }

    /// Changes the mode from the next step on. The default ignores it.
    fn set_mode(&self, mode: Mode) {
        let _ = mode;
    }

    /// Changes the settings of fairness. The default ignores them.
    fn set_fair(&self, options: FairOptions) {
        let _ = options;
    }

    /// The engine, if it is one in this process.
    fn as_engine(&self) -> Option<&Engine> {
        None
    }
}

impl Managed for Engine {
    fn begin_shutdown(&self, how: Shutdown) {
        Engine::begin_shutdown(self, how);
    }

    fn shut_down(&self, how: Shutdown) {
        Engine::shut_down(self, how);
    }

    fn is_shut_down(&self) -> bool {
        Engine::is_shut_down(self)
    }

    fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        Engine::waiting_by_user(self)
    }

    fn set_mode(&self, mode: Mode) {
        Engine::set_mode(self, mode);
    }

    fn set_fair(&self, options: FairOptions) {
        Engine::set_fair(self, options);
    }

    fn as_engine(&self) -> Option<&Engine> {
        Some(self)
    }
}

/// A part of a [`Managed`] generator that can fail by itself: a worker process, a remote engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MemberState {
    /// Its name, unique in its generator.
    pub name: String,
    /// State in a word or two, for people: `ready`, `starting (40 %)`.
    pub state: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// Answers that it computes, or that wait there.
    pub in_flight: usize,
    /// Requests that were lost with it, of which most went on elsewhere.
    pub lost: u64,
    /// Times that it was started or connected anew.
    pub restarts: u64,
}

impl MemberState {
    /// A member that takes no requests.
    pub fn new(name: impl Into<String>, state: impl Into<String>) -> Self {
        Self { name: name.into(), state: state.into(), ..Self::default() }
    }
}

/// Loads models for a [`Registry`](super::Registry): the way from a source to a generator.
///
/// Every [`InferenceBackend`] is a loader of engines ([`EngineLoader`]).
pub trait Loader: Send + Sync {
    /// Name of the backend, for people.
    fn name(&self) -> &str;

    /// Facts about the model of a source, read without its weights.
    ///
    /// # Errors
    ///
    /// The reason why the source cannot be read.
    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError>;

    /// Memory that the model takes, with all that serves it.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unsupported`] where nothing is known; else the errors of [`load`](Self::load).
    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
    ) -> Result<MemoryEstimate, LoadError>;

    /// Loads a model and starts what serves it.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be loaded; [`LoadError::Cancelled`] if `progress` says so.
    fn load(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Box<dyn Managed>, LoadError>;
}

/// Loads engines in this process.
#[derive(Clone)]
pub struct EngineLoader {
    backend: Arc<dyn InferenceBackend>,
    draft: Option<DraftModelSource>,
}

impl EngineLoader {
    /// Engines on models of a backend.
    #[must_use]
    pub fn new(backend: Arc<dyn InferenceBackend>) -> Self {
        Self { backend, draft: None }
    }

    /// Loads a draft model with each model. Its memory counts in the estimates.
    #[must_use]
    pub fn draft_model(mut self, draft: impl Into<Option<DraftModelSource>>) -> Self {
        self.draft = draft.into();
        self
    }
}

impl fmt::Debug for EngineLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineLoader")
            .field("backend", &self.backend.name())
            .field("draft", &self.draft)
            .finish()
    }
}

impl Loader for EngineLoader {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.backend.inspect(source)
    }

    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        let own = self.backend.estimate(source, load, &engine.session)?;
        let Some(draft) = &self.draft else { return Ok(own) };
        let draft = draft.estimate(load, engine)?;
        let sum = u64::saturating_add;
        Ok(MemoryEstimate::new(
            sum(own.weights, draft.weights),
            sum(own.kv, draft.kv),
            sum(own.scratch, draft.scratch),
        ))
    }

    fn load(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Box<dyn Managed>, LoadError> {
        let model = self.backend.load(source, load, progress)?;
        let engine = engine.clone();
        Ok(Box::new(match &self.draft {
            Some(draft) => draft.start(model, load, engine, progress)?,
            None => Engine::start(model, engine)?,
        }))
    }
}
