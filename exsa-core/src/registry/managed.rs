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

/// A generator for one model that can be shut down: an [`Engine`], or a pool of worker processes.
///
/// # Contract
///
/// - Dropping the generator frees its memory.
/// - `shut_down` returns when all requests have ended; dropping aborts them.
pub trait Managed: Generator + fmt::Debug {
    /// Begins a shutdown and returns at once. No further request is accepted.
    fn begin_shutdown(&self, how: Shutdown);

    /// Begins a shutdown, and waits for its end.
    fn shut_down(&self, how: Shutdown);

    /// Whether the generator has ended: after a shutdown, or after an unrecoverable failure.
    fn is_shut_down(&self) -> bool;

    /// Number of waiting answers, by user. The default implementation returns none.
    fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        Vec::new()
    }

    /// Members of the generator, such as worker processes or remote engines. The default implementation
    /// returns none.
    fn members(&self) -> Vec<MemberState> {
        Vec::new()
    }

    /// Changes the mode from the next step on. The default implementation ignores it.
    fn set_mode(&self, mode: Mode) {
        let _ = mode;
    }

    /// Changes the options of the fair queue. The default implementation ignores them.
    fn set_fair(&self, options: FairOptions) {
        let _ = options;
    }

    /// The engine, if the generator is an in-process engine.
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

/// State of a member of a [`Managed`] generator that can fail independently, such as a worker process or a
/// remote engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MemberState {
    /// Name, unique within the generator.
    pub name: String,
    /// Short human-readable state: `ready`, `starting (40 %)`.
    pub state: String,
    /// Whether the member accepts requests.
    pub ready: bool,
    /// Number of answers that the member computes or that wait there.
    pub in_flight: usize,
    /// Number of requests lost with the member; most of them were continued elsewhere.
    pub lost: u64,
    /// Number of restarts or reconnections.
    pub restarts: u64,
}

impl MemberState {
    /// A member that does not accept requests.
    pub fn new(name: impl Into<String>, state: impl Into<String>) -> Self {
        Self { name: name.into(), state: state.into(), ..Self::default() }
    }
}

/// Loads models for a [`Registry`](super::Registry): turns a model source into a generator.
///
/// [`EngineLoader`] is the loader for any [`InferenceBackend`].
pub trait Loader: Send + Sync {
    /// Human-readable name of the backend.
    fn name(&self) -> &str;

    /// Metadata of the model in `source`, read without its weights.
    ///
    /// # Errors
    ///
    /// The reason why the source cannot be read.
    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError>;

    /// Memory of the model and everything needed to serve it.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unsupported`] if there is no estimate; otherwise the errors of [`load`](Self::load).
    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
    ) -> Result<MemoryEstimate, LoadError>;

    /// Loads a model and starts the generator that serves it.
    ///
    /// # Errors
    ///
    /// The reason why the model cannot be loaded; [`LoadError::Cancelled`] if `progress` cancels loading.
    fn load(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        engine: &EngineOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Box<dyn Managed>, LoadError>;
}

/// Loads models into in-process engines.
#[derive(Clone)]
pub struct EngineLoader {
    backend: Arc<dyn InferenceBackend>,
    draft: Option<DraftModelSource>,
}

impl EngineLoader {
    /// A loader that uses `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn InferenceBackend>) -> Self {
        Self { backend, draft: None }
    }

    /// Loads a draft model with each model. Estimates include its memory.
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
